"""A `queue.Queue` as it was before a run, while other threads may go on putting and taking.

Made from the queue itself, which for the time of the run tells who puts and takes. Not handled:
`queue.SimpleQueue` and the queues of processes, which cannot be looked into, and threads that the program
starts in the run and does not end.
"""

from __future__ import annotations

import heapq
import queue
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

import torch

from fxgrad.source.sites import Spot, user_spots

# Threads from before this run that have taken what the program put; where it was put, if it is work on
# tensors.
_HIRED: dict[threading.Thread, tuple[Spot, ...] | None] = {}


def hired_at() -> tuple[Spot, ...] | None:
    """Where the program put what a thread from before the run took, and that may be work on its tensors; None
    if nothing was."""
    return next((spots for spots in _HIRED.values() if spots is not None), None)


def hand_over() -> None:
    """Called where the program puts what may be work on its tensors, and a thread from before the run waits
    for it. A run may put its own in its place."""


def _is_work(item: object, depth: int = 3) -> bool:
    """Whether something to call, or a tensor, is put: by itself, or in a container or an object."""
    if isinstance(item, torch.Tensor) or callable(item):
        return True
    return depth > 0 and any(_is_work(part, depth - 1) for part in _parts(item))


def _parts(item: object) -> Iterable[object]:
    if isinstance(item, list | tuple):
        return item
    held = item if isinstance(item, dict) else getattr(item, "__dict__", {})
    return held.values()


def undo_queue(item: queue.Queue[object]) -> Callable[[], None] | None:
    """What the program put is taken out again, and what it took comes back. What threads from before the run
    put and take meanwhile is their own, until one takes what the program put: from then on it works for the
    program. The queue itself is asked who does what.
    """
    if "_get" in vars(item):
        return None  # a run inside a run: the outer one looks
    waiting: Any = item.queue  # a list in the queues that sort or end with the last
    held, unfinished = list(waiting), item.unfinished_tasks
    others = set(threading.enumerate()) - {threading.current_thread()}

    # what the program put that may be work on its tensors, and where
    jobs: dict[int, tuple[object, tuple[Spot, ...]]] = {}

    def by_others(change: Callable[[object], None], original: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object) -> object:
            own = (
                not others or threading.current_thread() not in others or threading.current_thread() in _HIRED
            )
            if own and others and args and _is_work(args[0]):
                if getattr(item.not_empty, "_waiters", ()):  # the threads that wait for it
                    hand_over()
                jobs[id(args[0])] = args[0], user_spots(sys._getframe(1))
            out = original(*args)
            if not own:
                change(args[0] if args else out)
            return out

        return call

    def put(value: object) -> None:
        nonlocal unfinished
        held.append(value)
        unfinished += 1

    def got(value: object) -> None:
        left = [kept for kept in held if kept is not value]
        if len(left) == len(held):
            _HIRED[threading.current_thread()] = jobs.get(id(value), (None, None))[1]
        held[:] = left

    def done(_: object) -> None:
        nonlocal unfinished
        unfinished -= 1

    for name, change in (("_put", put), ("_get", got), ("task_done", done)):
        vars(item)[name] = by_others(change, getattr(item, name))

    def act() -> None:
        _HIRED.clear()
        with item.mutex:
            for name in ("_put", "_get", "task_done"):
                vars(item).pop(name, None)
            item.unfinished_tasks = max(unfinished, 0)
            if list(map(id, waiting)) == list(map(id, held)):
                return
            waiting.clear()
            waiting.extend(held)
            if isinstance(item, queue.PriorityQueue):
                heapq.heapify(waiting)
            item.not_empty.notify_all()
            item.not_full.notify_all()

    return act
