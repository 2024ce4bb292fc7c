"""Watching a training step as it runs: `with fxgrad.watch(model, optimizer) as watch: step()`.

Nothing is described, replaced or run again. The report says what `.grad` of every parameter really was when
the optimizer stepped, over all losses and backwards of the step, and names the lines behind what is missing.
`fxgrad run SCRIPT` does the same for a whole script. Not handled: training in other threads or processes, and
code that `torch.compile` or TorchScript runs outside Python (compiled code runs eagerly while it is watched).
"""

from __future__ import annotations

import sys
from types import TracebackType

from fxgrad.report import Report
from fxgrad.watching.session import Session, flat

__all__ = ["Watch", "watch"]


class Watch:
    """A watch as a context manager. `report` is there when the block has ended, or earlier when enough steps
    have."""

    def __init__(self, given: tuple[object, ...], steps: int) -> None:
        self._given = given
        self._steps = steps
        self._session: Session | None = None
        self._over = False
        self.report: Report | None = None

    def __repr__(self) -> str:
        if self.report is not None:
            return f"Watch({str(self.report).partition(chr(10))[0]})"
        if self._session is None:
            return "Watch(not begun)"
        return "Watch(no training step seen)" if self._over else "Watch(running)"

    def _repr_html_(self) -> str | None:
        return self.report._repr_html_() if self.report is not None else None

    def _repr_markdown_(self) -> str | None:
        return self.report._repr_markdown_() if self.report is not None else None

    def __enter__(self) -> Watch:
        frame = sys._getframe(1)
        above = frame.f_back.f_code if frame.f_back is not None else None
        file = frame.f_code.co_filename
        self._session = Session(self._given, steps=self._steps, boundary=above, files=(file,))
        self._session.names.scan(frame, above)
        self._session.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        session = self._session
        if session is None:
            return
        session.stop_looking()
        session.names.scan(sys._getframe(1), session.observer.ledger.boundary)
        try:
            self.report = session.finish(error)
        finally:
            session.close()
            self._over = True
        if error is not None and self.report is not None:
            error.add_note(f"\n{self.report}")


def watch(*models_and_optimizers: object, steps: int = 1) -> Watch:
    """Watch the training steps in a `with` block.

    Args:
        models_and_optimizers: modules and optimizers to report on, also in lists; none: all that take part,
        by the names of the
            variables that hold them.
        steps: how many steps of every optimizer to watch; what follows in the block runs unwatched.

    Returns:
        A context manager whose `report` is the report (None if no backward ran and no optimizer stepped). If
        the block ends in a gradient error, the report that explains it is added to the exception as a note.

    Raises:
        InputError: an argument is neither a module nor an optimizer.
    """
    return Watch(flat(models_and_optimizers), steps)
