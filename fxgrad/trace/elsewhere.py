"""What a program computes out of the recorder's sight: in a thread that it starts or hands work to, and where
it switches torch's modes off.

A mode is on for one thread alone. The program's others get a mode of their own, under which they too see the
stand-ins and nothing of the user's, and which notes that they compute with the program's tensors. Such a run
is no record of the program, and says so (`out_of_sight`): what the program does, a plain step tells.
`torch._C.DisableTorchFunction`, under which no mode would be asked, leaves the modes on. A thread from before
the run that takes work from a queue of the program's is noticed (`fxgrad.world.queues`), and what it writes
is private on real values (`fxgrad.world.private.Lent`). Not handled: on fake values, one that is busy while
it is put, or is given work otherwise.
"""

from __future__ import annotations

import _thread
import concurrent.futures
import functools
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from fxgrad.records import Raised
from fxgrad.source.sites import Spot, site_of
from fxgrad.torch_api import tree
from fxgrad.torch_api.calls import QUERIES, SIZES, Args, Function, Kwargs
from fxgrad.torch_api.internals import WITHOUT_TORCH_FUNCTION, DisableTorchFunctionSubclass
from fxgrad.trace.observations import NeedsValue
from fxgrad.trace.recorder import Recorder
from fxgrad.world import queues


class _RunOverError(SystemExit):
    """Ends a thread, or its job, that goes on when its run has ended."""


class Elsewhere(TorchFunctionMode):
    """On in a thread of the program's that is not the recorder's, or in a job of such a thread. `begun`:
    where the program began it."""

    def __init__(self, recorder: Recorder, begun: tuple[Spot, ...]) -> None:
        super().__init__()
        self._begun = begun
        self._recorder = weakref.ref(recorder)  # the thread may outlive the run

    def __torch_function__(
        self, func: Function, types: object, args: Args = (), kwargs: Kwargs | None = None
    ) -> object:
        recorder = self._recorder()
        if recorder is None or not recorder.active:
            raise _RunOverError  # what the thread would write now is the user's
        kwargs = kwargs or {}
        known = any(
            id(t) in recorder.slots or id(t) in recorder.reach.tensors
            for t in tree.tensors_in((args, kwargs))
        )
        args, kwargs = recorder.swap(args), recorder.swap(kwargs)
        try:
            out = func(*args, **kwargs)
        except Exception:
            if recorder.standins.fake is None:
                raise
            # somebody may wait for the thread, and the run is void: any value will do
            out = func(*_zeros(args), **_zeros(kwargs))
        name = getattr(func, "__name__", "")
        if (
            known
            and name not in QUERIES
            and name not in SIZES
            and (name != "__get__" or isinstance(out, torch.Tensor))
        ):
            recorder.note_unseen("a thread of the program computes with its tensors", self._begun)
        return out


def _zeros(item: Any) -> Any:
    if isinstance(item, torch.Tensor):
        return torch.zeros(item.shape, dtype=item.dtype)
    if type(item) in (tuple, list):
        return type(item)(map(_zeros, item))
    return {key: _zeros(value) for key, value in item.items()} if type(item) is dict else item


def interceptions(recorder: Recorder) -> Iterator[tuple[object, str, object]]:
    """(class or module, attribute, replacement): the ways to another thread, and past the modes."""
    threads = {recorder.thread}
    # those that hand a job to a pool now: its workers are the pool's, only the job is the program's
    hiring: set[int] = set()

    def of_the_program() -> bool:
        return recorder.active and threading.get_ident() in threads

    def under_a_mode(function: Callable[..., object]) -> Callable[..., object]:
        begun = recorder.spots()

        @functools.wraps(function)
        def run(*args: object, **kwargs: object) -> object:
            new = threading.get_ident() not in threads
            threads.add(threading.get_ident())
            try:
                with Elsewhere(recorder, begun):
                    return function(*args, **kwargs)
            except _RunOverError:
                return None
            finally:
                if new:
                    threads.discard(threading.get_ident())

        return run

    start, start_new, submit = (
        threading.Thread.start,
        _thread.start_new_thread,
        concurrent.futures.ThreadPoolExecutor.submit,
    )

    def start_thread(thread: threading.Thread) -> None:
        if of_the_program() and threading.get_ident() not in hiring:
            vars(thread)["run"] = under_a_mode(thread.run)
        start(thread)

    def start_new_thread(function: Callable[..., object], *rest: Any) -> int:
        return start_new(under_a_mode(function) if of_the_program() else function, *rest)

    def submit_job(pool: Any, function: Callable[..., object], /, *args: object, **kwargs: object) -> object:
        if not of_the_program():
            return submit(pool, function, *args, **kwargs)
        hiring.add(threading.get_ident())
        try:
            return submit(pool, under_a_mode(function), *args, **kwargs)
        finally:
            hiring.discard(threading.get_ident())

    def hand_over() -> None:
        if of_the_program() and recorder.standins.fake is not None:
            raise NeedsValue("what a thread from before the run may write needs memory", recorder.spots())

    yield queues, "hand_over", hand_over
    yield threading.Thread, "start", start_thread
    yield _thread, "start_new_thread", start_new_thread
    yield concurrent.futures.ThreadPoolExecutor, "submit", submit_job
    yield *WITHOUT_TORCH_FUNCTION, DisableTorchFunctionSubclass


def out_of_sight(recorder: Recorder) -> Raised | None:
    """What to say of a run that is no record of its program; None where it is one."""
    what, spots = recorder.unseen or (
        "a thread from before the run gets tensors or functions of the program",
        queues.hired_at(),
    )
    if recorder.unseen is None and spots is None:
        return None
    stack = tuple(map(site_of, spots or ()))
    return Raised(recorder.phase, "", what, stack[0] if stack else None, stack)
