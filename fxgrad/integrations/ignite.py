"""An Ignite handler that reports on the first training step:
`GradientFlow(model, optimizer).attach(trainer)`.

It watches the first iteration up to the step of each optimizer, before any weight changes, and then takes
itself away. The report is kept as `handler.report`.
"""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from fxgrad.integrations.first_step import FirstStep, GradientsMissing, Reporting, from_library

__all__ = ["GradientFlow", "GradientsMissing"]

Events: Any = from_library("ignite.engine", "Events", "pytorch-ignite")


class GradientFlow(Reporting):
    """Raise (or warn) before the first optimizer step if a parameter that should train gets no gradient."""

    def __init__(
        self, model: nn.Module, *optimizers: object, on_error: Literal["raise", "warn"] = "raise"
    ) -> None:
        self._first = FirstStep(on_error)
        self._watched = model, optimizers

    def attach(self, trainer: Any) -> None:
        """Watch the first iteration of this engine; explain a gradient error under its traceback."""
        model, optimizers = self._watched
        trainer.add_event_handler(Events.STARTED, lambda: self._first.begin(model, optimizers, hooked=True))
        trainer.add_event_handler(Events.COMPLETED, self._first.conclude)
        trainer.add_event_handler(Events.EXCEPTION_RAISED, self._raised)

    def _raised(self, error: BaseException) -> None:
        self._first.failed(error)
        raise error
