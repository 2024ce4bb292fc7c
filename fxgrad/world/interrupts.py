"""Ctrl-C waits while the user's world is taken apart or put together again, arrives as soon as it is whole,
and is never lost.

`held()` replaces the handler of SIGINT for a block; its `CtrlC` says when an interrupt is handed on at once
(`open`). What the user's handler then raises can get lost on its way: in a finalizer, in a weak reference's
callback, in C++ that looks for an attribute, in a bare `except` of somebody's. So it is remembered, and
raised again where the block ends. In other threads than the main one, where Python delivers no interrupts,
and where the user lets the system handle SIGINT, nothing is done.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from fxgrad.torch_api.internals import DISPATCHER_ASKS


class CtrlC:
    """`open`: an interrupt goes to the user's handler at once; else it is `pending`. `raised`: what that
    handler raised."""

    def __init__(self) -> None:
        self.open = True
        self.raised: BaseException | None = None
        self.pending: tuple[int, FrameType | None] | None = None
        self.before: Any = None

    def handle(self, number: int, frame: FrameType | None) -> None:
        """What Python calls on SIGINT."""
        if not self.open or _must_wait(frame):
            self.pending = (number, frame)
            return
        try:
            self.before(number, frame)
        except BaseException as error:
            self.raised = error
            raise

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
        """Hand a pending interrupt on, and one that was lost."""
        pending, self.pending = self.pending, None
        if pending is not None:
            self.before(*pending)
        raised, self.raised = self.raised, None
        ending = sys.exc_info()[1]
        if raised is not None and (ending is None or isinstance(ending, Exception)):
            raise raised


_WORLD = os.path.dirname(__file__)


def _must_wait(frame: FrameType | None) -> bool:
    """Whether what is raised here would be lost, or leave something half done: in a finalizer (Python prints
    and forgets it), between the `with` statement and what its context does, where torch's dispatcher asks (it
    aborts the process), and in this room."""
    innermost = "" if frame is None else frame.f_code.co_filename
    if innermost == contextlib.__file__ or os.path.dirname(innermost) == DISPATCHER_ASKS:
        return True
    while frame is not None:
        if frame.f_code.co_name == "__del__" or os.path.dirname(frame.f_code.co_filename) == _WORLD:
            return True
        frame = frame.f_back
    return False


@contextlib.contextmanager
def held() -> Iterator[CtrlC]:
    """A `CtrlC` in charge of interrupts until the end of the block. Interrupts wait until `open` is set, and
    again at the end.

    Raises:
        KeyboardInterrupt: or what else the user's handler raises; also for one that came earlier and was lost
        since.
    """
    ctrl_c = CtrlC()
    main = threading.current_thread() is threading.main_thread()
    ctrl_c.before = signal.getsignal(signal.SIGINT) if main else None
    if not callable(ctrl_c.before):
        yield ctrl_c
        return
    outer = getattr(ctrl_c.before, "__self__", None)
    if isinstance(outer, CtrlC) and outer.open:
        outer.deliver()
    ctrl_c.open = False
    signal.signal(signal.SIGINT, ctrl_c.handle)
    try:
        yield ctrl_c
    finally:
        signal.signal(signal.SIGINT, ctrl_c.before)
        ctrl_c.deliver()
