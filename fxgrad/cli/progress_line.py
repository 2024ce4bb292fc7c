"""The line on stderr that shows how far a long analysis is: `path 3: backward, 12,345 nodes (17 s)`.

Only on a terminal, only after two seconds, and gone when the block ends, however it ends. With rich installed
its live line is used, else the line is written over with `\\r`. Not handled: what the user's program prints
meanwhile, which may stand beside the line.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol, TextIO

from fxgrad.cli.output import is_terminal
from fxgrad.trace.progress import heard_by

if TYPE_CHECKING:
    from rich.live import Live

PATIENCE = 2.0  # seconds before anything is shown
PAUSE = 0.2  # seconds between two changes of the line
BEAT = 1.0  # seconds after which it changes although nothing is heard


class Line(Protocol):
    """One line of a terminal that changes."""

    def show(self, text: str) -> None: ...

    def close(self) -> None: ...


class _Plain:
    """Written over from the left margin."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.width = 0

    def show(self, text: str) -> None:
        text = text[: shutil.get_terminal_size().columns - 1]
        self._write("\r" + text.ljust(self.width))
        self.width = len(text)

    def close(self) -> None:
        self._write("\r" + " " * self.width + "\r")

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # a terminal that has gone away is no reason to stop
            self.stream.write(text)
            self.stream.flush()


class _Rich:
    """rich's own, which follows the terminal's width and hides the cursor meanwhile."""

    def __init__(self, live: Live) -> None:
        self.live = live
        live.start()

    def show(self, text: str) -> None:
        self.live.update(text, refresh=True)

    def close(self) -> None:
        self.live.stop()


def _line(stream: TextIO) -> Line:
    try:
        from rich.console import Console
        from rich.live import Live
    except ImportError:
        return _Plain(stream)
    console = Console(file=stream, highlight=False)
    # No thread of its own, and the user's streams stay where they are: an analysis puts both back as it found
    # them.
    return _Rich(
        Live(
            console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
        )
    )


class _Shown:
    """What is on the line, or will be when the analysis has taken long enough. Two threads write: the
    analysis as it gets on, and a clock, for a long backward is one call of torch's in which the analysis
    hears nothing."""

    def __init__(self, stream: TextIO, clock: Callable[[], float], line: Callable[[TextIO], Line]) -> None:
        self.stream, self.clock, self.made = stream, clock, line
        self.begun = clock()
        self.due = self.begun + PATIENCE
        self.said = ""
        self.line: Line | None = None
        self.lock = threading.Lock()
        self.over = threading.Event()

    def listen(self, phase: str, path: int, nodes: int) -> None:
        counted = f", {nodes:,} nodes" if nodes else ""
        self.said = f"{f'path {path}: ' if path and nodes else ''}{phase}{counted}"
        self.draw()

    def draw(self) -> None:
        with self.lock:
            now = self.clock()
            if now < self.due or self.over.is_set() or not self.said:
                return
            self.due = now + PAUSE
            if self.line is None:
                self.line = self.made(self.stream)
            self.line.show(f"{self.said} ({now - self.begun:.0f} s)")

    def beat(self) -> None:
        """Every second the line says how long it has been."""
        while not self.over.wait(BEAT):
            self.draw()

    def close(self) -> None:
        with self.lock:
            self.over.set()
            if self.line is not None:
                self.line.close()


@contextlib.contextmanager
def showing(
    stream: TextIO, clock: Callable[[], float] = time.monotonic, line: Callable[[TextIO], Line] = _line
) -> Iterator[None]:
    """Show the progress of what runs inside the block on `stream`, if that is a terminal."""
    if not is_terminal(stream):
        yield
        return
    shown = _Shown(stream, clock, line)
    try:
        if clock is time.monotonic:
            threading.Thread(target=shown.beat, name="fxgrad-progress", daemon=True).start()
        with heard_by(shown.listen):
            yield
    finally:
        shown.close()
