"""Ctrl-C waits while the user's world is taken apart or put together again, and arrives as soon as it is whole.

`held()` replaces the handler of SIGINT for a block; its `CtrlC` says when an interrupt is handed on at once (`open`). In other threads than
the main one, where Python delivers no interrupts, and where the user lets the system handle SIGINT, nothing is done.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any


class CtrlC:
    """`open`: an interrupt goes to the user's handler at once; else it is `pending`."""

    def __init__(self) -> None:
        self.open = True
        self.pending: tuple[int, FrameType | None] | None = None
        self.before: Any = None

    def handle(self, number: int, frame: FrameType | None) -> None:
        """What Python calls on SIGINT."""
        if self.open:
            self.before(number, frame)
        else:
            self.pending = (number, frame)

    @contextlib.contextmanager
    def comes(self) -> Iterator[None]:
        """Inside a block in which interrupts wait: here they are handed on at once."""
        self.open = True
        try:
            yield
        finally:
            self.open = False

    @contextlib.contextmanager
    def waits(self) -> Iterator[None]:
        """Interrupts wait for the end of the block, apart from where it lets them come (`comes`)."""
        was, self.open = self.open, False
        try:
            yield
        finally:
            self.open = was
            if was:
                self.deliver()

    def deliver(self) -> None:
        """Hand a pending interrupt on."""
        pending, self.pending = self.pending, None
        if pending is not None:
            self.before(*pending)


@contextlib.contextmanager
def held() -> Iterator[CtrlC]:
    """A `CtrlC` in charge of interrupts until the end of the block. Interrupts wait until `open` is set, and again at the end."""
    ctrl_c = CtrlC()
    main = threading.current_thread() is threading.main_thread()
    ctrl_c.before = signal.getsignal(signal.SIGINT) if main else None
    if not callable(ctrl_c.before):
        yield ctrl_c
        return
    ctrl_c.open = False
    signal.signal(signal.SIGINT, ctrl_c.handle)
    try:
        yield ctrl_c
    finally:
        signal.signal(signal.SIGINT, ctrl_c.before)
        ctrl_c.deliver()
