"""This process as one of several: it votes on when enough is seen, hands in its share, and notices when it
stands still.

1. *Vote*: before it ends the watch a rank asks the others whether a further step is wanted, so that all end
   before the same step.
2. *Share*: what a rank saw is posted once, when it has seen enough, when its script ends or dies, or when it
   stands still. Rank 0 waits for the shares of all, at most `PATIENCE` seconds, shows one report and says so
   on the board; the others stay until then, since a launcher ends every rank as soon as one has failed.
3. *Standing still*: some rank waits for this one, and the main thread has been at one and the same
   instruction for `GRACE` seconds. That is a collective whose partner will not come: it runs outside Python,
   so a thread of ours makes the share from what was seen until then.
4. *SIGTERM*: a launcher sends it when a rank was killed. The same thread learns of it while the main one
   stands still, and shares at once.

Nothing here waits without a bound, and nothing uses the user's process group.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType

from fxgrad.records import Site
from fxgrad.records.ranks import Ending
from fxgrad.report import Report
from fxgrad.source.sites import innermost, is_user_code, site_of, user_spots
from fxgrad.watching.ranks.board import Board
from fxgrad.watching.ranks.merge import endings, merged
from fxgrad.watching.ranks.share import Share
from fxgrad.watching.session import Session

PATIENCE = 60.0  # seconds that one rank waits for the others
GRACE = 5.0  # seconds at one instruction that count as standing still
# seconds more after which a process that stands still is ended, where neither its partner nor the launcher
# ends it
LAST = 30.0
HURRY = 3.0  # seconds for the others' shares once the launcher ends the processes
POLL = 0.05
SAID = 100  # characters of an error that are told in the head of the report


class Member:
    """One rank. `show` is called on rank 0 with the report on all; `leave` ends a process that stands still
    for good.

    `end` is called in the main thread before its next step, where it was slow and its share has been handed
    in for it.
    """

    def __init__(
        self,
        board: Board,
        show: Callable[[Report], None],
        leave: Callable[[], None],
        end: Callable[[], None],
        *,
        go_on: bool,
    ) -> None:
        self.board = board
        self.delivered = False
        self.ended = False  # stood still, and what it raises from now on is that others have ended
        self.silence: tuple[Ending, ...] = ()  # how the ranks ended, where none could report
        self._show = show
        self._leave = leave
        self._end = end
        self._go_on = go_on
        self._session: Session | None = None
        self._main = threading.get_ident()
        self._process = os.getpid()
        self._delivering = threading.RLock()
        self._waits = False  # the main thread waits for others here, not in a collective
        self._votes = 0
        self._hurry = threading.Event()
        self._over = threading.Event()
        self._wake, self._woken = socket.socketpair()

    # ------------------------------------------------------------------ what the main thread does

    @contextlib.contextmanager
    def watching(self, session: Session) -> Iterator[None]:
        """While a session runs: notice standing still and the launcher's signal."""
        self._session = session
        thread = threading.Thread(target=self._look, name="fxgrad ranks", daemon=True)
        with self._terminated():
            thread.start()
            try:
                yield
            finally:
                self._over.set()
                thread.join(PATIENCE)

    def agree(self, wanted: bool) -> bool:
        """Whether this rank or another wants a further step; called as this one has seen enough, before the
        same step on every rank."""
        number = self._votes
        self._votes += 1
        self.board.post(f"vote {number} {self.board.rank}", wanted)
        self.board.post(f"a vote {number}", True)
        with self._waiting():
            self._until(
                lambda: all(self._has_spoken(number, rank) for rank in range(self.board.size)), PATIENCE
            )
        return wanted or any(self.board.read(f"vote {number} {rank}") for rank in range(self.board.size))

    def deliver(self, report: Report | None, ending: Ending | None = None) -> None:
        """Hand in this rank's share, once; on rank 0 show the report on all. Returns when that has been
        shown."""
        with self._waiting(), self._delivering:
            if self.delivered:
                return
            self.delivered = True
            own = Share(self.board.rank, report, ending)
            self.board.post(f"share {own.rank}", own)
            self.board.post("a share", True)
            if self.board.rank == 0:
                self._gather(own)
            else:
                self._until(lambda: self.board.has("shown"), 2 * PATIENCE)

    def _gather(self, own: Share) -> None:
        others = range(1, self.board.size)
        self._until(lambda: all(self.board.has(f"share {rank}") for rank in others), PATIENCE)
        found = [share for rank in others if isinstance(share := self.board.read(f"share {rank}"), Share)]
        report = merged([own, *found], self.board.size)
        try:
            if report is not None:
                self._show(report)
            else:
                self.silence = tuple(e for e in endings([own, *found], self.board.size) if e.kind != "exited")
        finally:
            self.board.post("shown", True)

    def _has_spoken(self, number: int, rank: int) -> bool:
        return self.board.has(f"vote {number} {rank}") or self.board.has(f"share {rank}")

    def _until(self, there: Callable[[], bool], seconds: float) -> None:
        end = time.monotonic() + seconds
        while not there() and time.monotonic() < end:
            if self._hurry.is_set():
                end = min(end, time.monotonic() + HURRY)
                self._hurry.clear()
            time.sleep(POLL)

    @contextlib.contextmanager
    def _waiting(self) -> Iterator[None]:
        before, self._waits = self._waits, True
        try:
            yield
        finally:
            self._waits = before

    # ------------------------------------------------------------------ what the thread beside it does

    def _look(self) -> None:
        at: tuple[int, int] | None = None
        since = time.monotonic()
        while not self._over.wait(4 * POLL) and not self.delivered:
            if self._terminating():
                self._hurry.set()
                self._stand("was ended by the launcher")
                self._leave()
                return
            now = self._instruction()
            if now != at or self._waits or not self._is_waited_for():
                at, since = now, time.monotonic()
            elif time.monotonic() - since > GRACE:
                self._stand("stood still")
                if not self._go_on and self._stays(now):
                    self._leave()
                return

    def _instruction(self) -> tuple[int, int] | None:
        """Where the main thread is."""
        frame = sys._current_frames().get(self._main)
        return (id(frame), frame.f_lasti) if frame is not None else None

    def _stays(self, at: tuple[int, int] | None) -> bool:
        """Whether the main thread is still there a while later, or the launcher ends it; else it was only
        slow, and ends its script itself."""
        end = time.monotonic() + LAST
        while time.monotonic() < end and not self._terminating():
            if self._instruction() != at or self._over.wait(POLL):
                return False
        return True

    def _is_waited_for(self) -> bool:
        return self.board.has("a share") or self.board.has(f"a vote {self._votes}")

    def _stand(self, said: str) -> None:
        """Share what was seen, in place of the main thread."""
        session, frame = self._session, sys._current_frames().get(self._main)
        if session is None or frame is None:
            return
        if not self._go_on:
            self.ended = True
            session.events.when_over = self._end
        spots = user_spots(frame, session.observer.ledger.boundary)
        report = session.interrupted(frame)
        site = innermost(spots)
        self.deliver(report, Ending(self.board.rank, "stood still", said, site, report is not None))

    # ------------------------------------------------------------------ the launcher's signal

    def _terminating(self) -> bool:
        with contextlib.suppress(OSError):
            return signal.SIGTERM in self._wake.recv(64)
        return False

    @contextlib.contextmanager
    def _terminated(self) -> Iterator[None]:
        """Hear of SIGTERM, where the script has no handler of its own and this is the main thread."""
        if (
            threading.current_thread() is not threading.main_thread()
            or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        ):
            yield
            return
        self._wake.setblocking(False)
        self._woken.setblocking(False)
        before = signal.set_wakeup_fd(self._woken.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._on_signal)
        os.register_at_fork(after_in_child=self._in_child)
        try:
            yield
        finally:
            if signal.getsignal(signal.SIGTERM) == self._on_signal:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.set_wakeup_fd(before)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() == self._process and self._waits:
            self._hurry.set()  # the share is on its way
            return
        if os.getpid() == self._process:
            self._over.wait(PATIENCE / 2)  # the other thread shares, and ends the process
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)

    def _in_child(self) -> None:
        if not self._over.is_set() and signal.getsignal(signal.SIGTERM) == self._on_signal:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def ending(error: BaseException | None, rank: int, reported: bool) -> Ending | None:
    """How a script that ended by itself did so; None where it was ended because enough was seen, or trained
    to its end."""
    if isinstance(error, SystemExit):
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
        return Ending(
            rank, "exited", f"ended with exit status {status}", _innermost(error.__traceback__), reported
        )
    if isinstance(error, Exception | KeyboardInterrupt):
        said = textwrap.shorten(traceback.format_exception_only(error)[-1], SAID, placeholder=" ...")
        return Ending(rank, "raised", f"raised {said}", _innermost(error.__traceback__), reported)
    return None if reported else Ending(rank, "exited", "ended before a training step had")


def _innermost(found: TracebackType | None) -> Site | None:
    """The user's innermost line of a traceback."""
    spots = [
        (entry.tb_frame.f_code, entry.tb_lasti)
        for entry in _entries(found)
        if is_user_code(entry.tb_frame.f_code.co_filename)
    ]
    return site_of(spots[-1]) if spots else None


def _entries(found: TracebackType | None) -> Iterator[TracebackType]:
    while found is not None:
        yield found
        found = found.tb_next
