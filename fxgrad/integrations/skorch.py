"""A skorch callback that reports on the first training step: `NeuralNet(..., callbacks=[GradientFlow()])`.

It watches the first batch through the net's own loss and backward, before any weight changes, and then takes
itself away. The report is kept as `callback.report`.
"""

from __future__ import annotations

from typing import Any, Literal

from fxgrad.integrations.first_step import FirstStep, GradientsMissing, Reporting, from_library

__all__ = ["GradientFlow", "GradientsMissing"]


class GradientFlow(Reporting, from_library("skorch.callbacks", "Callback", "skorch")):  # type: ignore[misc]
    """Raise (or warn) before the first optimizer step if a parameter that should train gets no gradient."""

    def __init__(self, on_error: Literal["raise", "warn"] = "raise") -> None:
        self.on_error = on_error
        self._first = FirstStep(on_error)

    def on_train_begin(self, net: Any, X: object = None, y: object = None, **kwargs: object) -> None:
        """Watch from the first batch on."""
        self._first.begin(net.module_)

    def on_grad_computed(self, net: Any, named_parameters: object, **kwargs: object) -> None:
        """Gradients are there, weights are as before."""
        self._first.before_step(net.optimizer_)

    def on_train_end(self, net: object, X: object = None, y: object = None, **kwargs: object) -> None:
        """Say what there is to say of a training that took no step."""
        self._first.conclude()
