"""The first step of a trainer, watched: the report is made when the gradients of the first step are there and
no weight has changed yet.

The trainer's own forward, loss and backward on its own first batch are what is judged, so losses that a
trainer computes outside the model (label smoothing, several optimizers, hand-written loops) count as they
are. Not handled: optimizer steps that a trainer takes without saying so beforehand.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal

from torch import nn

from fxgrad.records.errors import FxgradError
from fxgrad.report import Report
from fxgrad.watching.session import Session


class GradientsMissing(FxgradError):
    """The first training step leaves a parameter without the gradient it should have; `report` says which and
    why."""

    def __init__(self, report: Report) -> None:
        self.report = report
        super().__init__(f"the first training step has errors\n\n{report}\n")


class FirstStep:
    """One watch of a trainer. `on_error`: what a report with errors does."""

    def __init__(self, on_error: Literal["raise", "warn"]) -> None:
        if on_error not in ("raise", "warn"):
            raise ValueError(f'on_error is "raise" or "warn", not {on_error!r}')
        self.on_error = on_error
        self.report: Report | None = None
        self._session: Session | None = None
        self._waiting: dict[int, Any] = {}

    def begin(self, model: nn.Module, optimizers: Sequence[Any] = ()) -> None:
        """Training begins: watch from here. With `optimizers`, until each of them is about to step."""
        self.close()
        self.report = None
        self._waiting = {id(optimizer): optimizer for optimizer in optimizers}
        self._session = Session((model,), raising=self.failed)
        self._session.start()

    def before_step(self, optimizer: Any) -> None:
        """An optimizer is about to step: its gradients are there."""
        if self._session is None:
            return
        self._session.look(optimizer)
        self._waiting.pop(id(optimizer), None)
        if not self._waiting:
            self.conclude()

    def conclude(self) -> None:
        """Say what was seen so far.

        Raises:
            GradientsMissing: there are errors, and `on_error` is "raise".
        """
        if self._session is None:
            return
        self.report = self._session.finish()
        self.close()
        if self.report is None or self.report.ok:
            return
        if self.on_error == "raise":
            raise GradientsMissing(self.report)
        warnings.warn(str(self.report), stacklevel=2)

    def failed(self, error: BaseException) -> None:
        """The step raised: of a gradient error the report that explains it becomes a note of the
        exception."""
        if self._session is None:
            return
        report = self._session.finish(error)
        self.close()
        if report is not None:
            self.report = report
            error.add_note(f"\n{report}")

    def close(self) -> None:
        """Stop watching."""
        if self._session is not None:
            self._session.close()
            self._session = None
