"""A Transformers callback that reports on the first training step: `Trainer(...,
callbacks=[GradientFlowCallback()])`.

It watches the first batch (all its accumulation steps) through the trainer's own loss and backward, before
any weight changes, and then takes itself away. The report is kept as `callback.report`.
"""

from __future__ import annotations

import importlib
from typing import Any, Literal

from fxgrad.integrations.first_step import FirstStep, GradientsMissing, Reporting

__all__ = ["GradientFlowCallback", "GradientsMissing"]


def _callback() -> object:
    try:
        return importlib.import_module("transformers").TrainerCallback
    except ImportError as error:
        raise ImportError(
            "fxgrad.integrations.transformers needs Transformers: pip install transformers accelerate"
        ) from error


class GradientFlowCallback(Reporting, _callback()):  # type: ignore[misc]
    """Raise (or warn) before the first optimizer step if a parameter that should train gets no gradient."""

    def __init__(self, on_error: Literal["raise", "warn"] = "raise") -> None:
        super().__init__()
        self._first = FirstStep(on_error)

    def on_train_begin(self, args: object, state: object, control: object, **kwargs: Any) -> None:
        """Watch from the first batch on."""
        self._first.begin(kwargs["model"])

    def on_pre_optimizer_step(self, args: object, state: object, control: object, **kwargs: object) -> None:
        """Gradients are there, weights are as before."""
        optimizer = kwargs["optimizer"]
        self._first.before_step(getattr(optimizer, "optimizer", optimizer))  # inside Accelerate's wrapper

    def on_train_end(self, args: object, state: object, control: object, **kwargs: object) -> None:
        """Say what there is to say of a training that took no step."""
        self._first.conclude()
