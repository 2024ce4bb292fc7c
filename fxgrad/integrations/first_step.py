"""The first step of a trainer, watched: the report is made when the gradients of the first step are there and
no weight has changed yet.

The trainer's own forward, loss and backward on its own first batch are what is judged, so losses that a
trainer computes outside the model (label smoothing, several optimizers, hand-written loops) count as they
are. Not handled: optimizer steps that a trainer takes without saying so beforehand.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from fxgrad.records.errors import FxgradError, FxgradWarning
from fxgrad.report import Report
from fxgrad.watching.session import Session


class GradientsMissing(FxgradError):
    """The first training step leaves a parameter without the gradient it should have; `report` says which and
    why."""

    def __init__(self, report: Report) -> None:
        self.report = report
        super().__init__(f"the first training step has errors\n\n{report}\n")


def from_library(module: str, name: str, install: str) -> object:
    """What a trainer's library has under this name.

    Raises:
        ImportError: the library is not installed, in words that say how it is.
    """
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise ImportError(
            f"this callback needs `{module.partition('.')[0]}`: pip install {install}"
        ) from error


def as_optimizer(optimizer: object, parameters: Iterable[torch.Tensor]) -> object:
    """What a watch needs of an optimizer that is not torch's: its name and its parameters."""
    held: Any = type(type(optimizer).__name__, (), {})()
    held.param_groups = [{"params": list(parameters)}]
    return held


class FirstStep:
    """One watch of a trainer. `on_error`: what a report with errors does."""

    def __init__(self, on_error: Literal["raise", "warn"]) -> None:
        if on_error not in ("raise", "warn"):
            raise ValueError(f'on_error is "raise" or "warn", not {on_error!r}')
        self.on_error = on_error
        self.report: Report | None = None
        self._session: Session | None = None
        self._waiting: dict[int, object] = {}
        self._handles: list[RemovableHandle] = []

    def begin(self, model: nn.Module, optimizers: Sequence[Any] = (), *, hooked: bool = False) -> None:
        """Training begins: watch from here. With `optimizers`, until each of them is about to step; `hooked`:
        they are torch's and say so themselves."""
        self.close()
        if hooked:
            self._handles = [
                optimizer.register_step_pre_hook(lambda optimizer, args, kwargs: self.before_step(optimizer))
                for optimizer in optimizers
            ]
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
            self._say()

    def conclude(self) -> None:
        """Say what was seen so far, if that has not been said.

        Raises:
            GradientsMissing: there are errors, and `on_error` is "raise".
        """
        while self._handles:
            self._handles.pop().remove()
        self._say()

    def _say(self) -> None:
        if self._session is None:
            return
        self.report = self._session.finish()
        self.close()
        if self.report is None or self.report.ok:
            return
        if self.on_error == "raise":
            raise GradientsMissing(self.report)
        warnings.warn(str(self.report), FxgradWarning, stacklevel=2)

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


class Reporting:
    """What every callback has: its watch, and the report once the first step has been seen."""

    _first: FirstStep

    @property
    def report(self) -> Report | None:
        """The report; None before there is one."""
        return self._first.report
