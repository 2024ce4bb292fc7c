"""The forms of a model, timed side by side on one device, and what one step of each takes in memory and
kernels.

`Form` is a form and its times, `Clock` what they are of. Not handled: several devices in one model.
"""

from __future__ import annotations

import contextlib
import statistics
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from fxgrad.fix_graph.figures import COMPILED, Row
from fxgrad.program.loss import loss_of
from fxgrad.program.program import Program
from fxgrad.torch_api import registry
from fxgrad.torch_api.calls import Args, Function, Kwargs
from fxgrad.torch_api.errors import ANY_IN_PLACE, OVERWRITTEN, says
from fxgrad.torch_api.internals import TorchDispatchMode, storage_key
from fxgrad.torch_api.tree import tensors_in
from fxgrad.trace.plain import input_tensors, with_inputs
from fxgrad.trace.progress import tell

WARM_UP = 3
Context = Callable[[], contextlib.AbstractContextManager[object]]


@dataclass(slots=True, eq=False)
class Form:
    """`nodes`: of its graph. `failure`: why it does not run. `forward`, `step`: milliseconds of each run."""

    name: str
    call: Callable[..., object] | None
    context: Context
    nodes: int | None
    failure: str = ""
    forward: list[float] = field(default_factory=list)
    step: list[float] = field(default_factory=list)


def _step(form: Form, target: Program, place: torch.device) -> tuple[float, float]:
    """Milliseconds of forward, and of forward, loss and backward."""
    assert form.call is not None
    _forget_gradients(form, target)
    copies = [t.detach().clone().requires_grad_(t.requires_grad) for t in input_tensors(target)]
    args, kwargs = with_inputs(target, copies)
    clock = Clock(place)
    with form.context():
        start = clock.mark()
        out = form.call(*args, **kwargs)
        middle = clock.mark()
        loss_of(target.loss, out).backward()
        end = clock.mark()
    clock.wait()
    return clock.between(start, middle), clock.between(start, end)


def _forget_gradients(form: Form, target: Program) -> None:
    for module in (target.root, form.call):
        for parameter in registry.parameters(module) if isinstance(module, nn.Module) else ():
            parameter.grad = None


class Clock:
    """CUDA events on a GPU; processor time with one thread; else time on the wall."""

    def __init__(self, place: torch.device) -> None:
        self.cuda = place.type == "cuda"
        alone = torch.get_num_threads() == 1
        self.now = time.process_time if alone else time.perf_counter
        self.name = "CUDA events" if self.cuda else "processor time" if alone else "wall time"
        self.wait()

    def wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def mark(self) -> object:
        if not self.cuda:
            return self.now()
        event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch leaves its constructor unannotated
        event.record()
        return event

    def between(self, start: Any, end: object) -> float:
        return float(start.elapsed_time(end)) if self.cuda else (end - start) * 1000.0


def warm_up(rows: Sequence[Form], target: Program, place: torch.device) -> None:
    """Run every form until it is as fast as it will be; what does not run says so."""
    for form in rows:
        tell(f"warming up: {form.name}")
        _try(form, lambda form=form: [_step(form, target, place) for _ in range(WARM_UP)])  # type: ignore[misc]
        form.forward, form.step = [], []


def time_all(rows: Sequence[Form], target: Program, place: torch.device, runs: int, seconds: float) -> int:
    """Time every row `runs` times, in turns, at least five where that would take longer than `seconds`;
    returns how often it was."""
    begin = time.perf_counter()
    for number in range(runs):
        if number >= 5 and time.perf_counter() - begin > seconds:
            return number
        tell(f"run {number + 1} of {runs} of each form")
        for form in rows:
            if form.failure or form.call is None:
                continue
            forward, step = _step(form, target, place)
            form.forward.append(forward)
            form.step.append(step)
    return runs


def _try(form: Form, work: Callable[[], object]) -> None:
    if form.call is None:
        return
    try:
        work()
    except Exception as error:  # a program that does not run is a row that says so
        text = str(error)
        form.failure = (
            f"raises: {OVERWRITTEN.phrases[0]}"
            if says(text, ANY_IN_PLACE)
            else f"raises {type(error).__name__}"
        )


def measured(form: Form, target: Program, place: torch.device) -> Row:
    """The row of a form that was timed; its memory and kernels are taken here."""
    if form.failure or form.call is None or not form.forward:
        return Row(form.name, nodes=form.nodes, failure=form.failure or "not run")
    forward, step = (sorted(times) for times in (form.forward, form.step))
    peak, kernels = _peak(form, target, place), _kernels(form, target, place)
    medians = statistics.median(forward), _quartiles(forward), statistics.median(step), _quartiles(step)
    return Row(form.name, *medians, peak, form.nodes, kernels=kernels)


def _quartiles(times: Sequence[float]) -> tuple[float, float]:
    return times[len(times) // 4], times[(3 * len(times)) // 4]


# -------------------------------------------------------------------------------------------- memory, kernels


def _kernels(form: Form, target: Program, place: torch.device) -> int | None:
    if place.type != "cuda":
        return None
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        _step(form, target, place)
    launched = [e.name for e in profile.events() if e.device_type.name == "CUDA"]
    return sum(not name.startswith(("Memcpy", "Memset")) for name in launched)


def _peak(form: Form, target: Program, place: torch.device) -> int | None:
    if place.type == "cuda":
        _forget_gradients(form, target)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        _step(form, target, place)
        return int(torch.cuda.max_memory_allocated() - before)
    if form.name.endswith(COMPILED):
        return None  # compiled code for a CPU allocates past the dispatcher
    count = StorageCount()
    with count:
        _step(form, target, place)
    return count.peak


class StorageCount(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    """Counts the bytes of the storages that operators return, from when they appear to when they are freed.
    `peak`: the most at a time."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self.now = 0
        self.peak = 0
        self._alive: dict[int, object] = {}

    def __torch_dispatch__(
        self, func: Function, types: object, args: Args = (), kwargs: Kwargs | None = None
    ) -> object:
        given = {storage_key(t) for t in tensors_in((args, kwargs or {}))}
        out = func(*args, **(kwargs or {}))
        for tensor in tensors_in(out):
            key = storage_key(tensor)
            if key is not None and key not in given and key not in self._alive:
                self._count(tensor.untyped_storage(), key)
        return out

    def _count(self, storage: torch.UntypedStorage, key: int) -> None:
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)

        def freed(_: object) -> None:
            self._alive.pop(key, None)
            self.now -= size

        self._alive[key] = weakref.ref(storage, freed)
