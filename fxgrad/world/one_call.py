"""What is around a whole call of the public API, its runs and all that is done between them.

An interrupt that comes meanwhile ends the call, and is never lost on its way; the modes of torch are those of
the caller again, also where it came between the switching of a mode and the note of it: each run puts the
world back as it was (`fxgrad.world.reach.preserve`), and this what is switched outside of one. Not handled:
other threads than the main one, where Python delivers no interrupts.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

from fxgrad.world.heap import settled_heap
from fxgrad.world.interrupts import held
from fxgrad.world.shown_warnings import once
from fxgrad.world.switches import kept_modes


@contextlib.contextmanager
def one_call() -> Iterator[None]:
    """Around all that a call of ours does.

    Raises:
        KeyboardInterrupt: or what else the user's handler of SIGINT raises; also for an interrupt that was
        lost on its way.
    """
    with held() as ctrl_c, kept_modes(), _warned_once(), ctrl_c.comes(), settled_heap():
        yield


@contextlib.contextmanager
def _warned_once() -> Iterator[None]:
    """What the program warns of is shown once, however many runs of it the block makes."""
    original = warnings.showwarning
    warnings.showwarning = shown = once()
    try:
        yield
    finally:
        if warnings.showwarning is shown:
            warnings.showwarning = original
