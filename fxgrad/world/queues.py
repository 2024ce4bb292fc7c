"""A `queue.Queue` as it was before a run, while other threads may go on putting and taking.

Made from the queue itself, which for the time of the run tells who puts and takes. Not handled: `queue.SimpleQueue` and the queues of
processes, which cannot be looked into, and threads that the program starts in the run and does not end.
"""

from __future__ import annotations

import heapq
import queue
import threading
from collections.abc import Callable
from typing import Any


def undo_queue(item: queue.Queue[Any]) -> Callable[[], None] | None:
    """What the program put is taken out again, and what it took comes back. What threads from before the run put and take meanwhile is their
    own: the queue itself is asked who does.
    """
    if "_get" in vars(item):
        return None  # a run inside a run: the outer one looks
    waiting: Any = item.queue  # a list in the queues that sort or end with the last
    held, unfinished = list(waiting), item.unfinished_tasks
    others = set(threading.enumerate()) - {threading.current_thread()}

    def by_others(change: Callable[[Any], None], original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            out = original(*args)
            if others and threading.current_thread() in others:
                change(args[0] if args else out)
            return out

        return call

    def put(value: Any) -> None:
        nonlocal unfinished
        held.append(value)
        unfinished += 1

    def got(value: Any) -> None:
        held[:] = [kept for kept in held if kept is not value]

    def done(_: Any) -> None:
        nonlocal unfinished
        unfinished -= 1

    for name, change in (("_put", put), ("_get", got), ("task_done", done)):
        vars(item)[name] = by_others(change, getattr(item, name))

    def act() -> None:
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
