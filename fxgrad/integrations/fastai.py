"""A fastai callback that reports on the first training step: `Learner(..., cbs=[GradientFlow()])`.

It watches the first batch through the learner's own loss and backward, before any weight changes, and then
takes itself away. The report is kept as `callback.report`.
"""

from __future__ import annotations

from typing import Literal

from fxgrad.integrations.first_step import FirstStep, GradientsMissing, Reporting, as_optimizer, from_library

__all__ = ["GradientFlow", "GradientsMissing"]


class GradientFlow(Reporting, from_library("fastai.callback.core", "Callback", "fastai")):  # type: ignore[misc]
    """Raise (or warn) before the first optimizer step if a parameter that should train gets no gradient."""

    def __init__(self, on_error: Literal["raise", "warn"] = "raise") -> None:
        super().__init__()
        self._first = FirstStep(on_error)

    def before_train(self) -> None:
        """Watch the first batch; the learning rate finder's and later epochs' are none."""
        if self.report is None:
            self._first.begin(self.learn.model)

    def before_step(self) -> None:
        """Gradients are there, weights are as before."""
        optimizer = self.learn.opt
        held = as_optimizer(optimizer, (parameter for parameter, *_ in optimizer.all_params()))
        self._first.before_step(held)

    def after_fit(self) -> None:
        """Say what there is to say of a training that took no step."""
        self._first.conclude()
