"""What an analysis is doing at this moment, for whoever wants to show it. Nobody listens unless `heard_by`
says so, and nothing is printed.

A listener gets `(phase, path, nodes)`: "forward", "loss", "backward", "rules" or a sentence; how many runs of
the program have begun; how many nodes the present run has recorded. It is called often and must return at
once; it must not raise.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

Listener = Callable[[str, int, int], None]

EVERY = 64  # nodes between two calls


class Progress:
    """One listener and the number of runs so far."""

    __slots__ = ("listener", "runs")

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.runs = 0

    def at(self, phase: str, nodes: int) -> None:
        """Pass on where the present run is."""
        self.listener(phase, self.runs, nodes)


_current: ContextVar[Progress | None] = ContextVar("fxgrad_progress", default=None)


@contextlib.contextmanager
def heard_by(listener: Listener) -> Iterator[None]:
    """Analyses inside the block report to `listener`."""
    token = _current.set(Progress(listener))
    try:
        yield
    finally:
        _current.reset(token)


def begin_run() -> Progress | None:
    """A run of the program begins; who listens to it, if anybody."""
    current = _current.get()
    if current is not None:
        current.runs += 1
    return current


def tell(phase: str) -> None:
    """Something between runs begins."""
    current = _current.get()
    if current is not None:
        current.at(phase, 0)
