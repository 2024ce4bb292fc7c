"""A Keras callback that reports on the first training step, on the torch backend: `model.fit(...,
callbacks=[GradientFlow()])`.

It watches the first batch through the model's own loss and backward, before any weight changes, and then
takes itself away. The report is kept as `callback.report`.
"""

from __future__ import annotations

from typing import Any, Literal

from fxgrad.integrations.first_step import FirstStep, GradientsMissing, Reporting, as_optimizer, from_library

__all__ = ["GradientFlow", "GradientsMissing"]


class GradientFlow(Reporting, from_library("keras.callbacks", "Callback", "keras")):  # type: ignore[misc]
    """Raise (or warn) before the first optimizer step if a parameter that should train gets no gradient."""

    def __init__(self, on_error: Literal["raise", "warn"] = "raise") -> None:
        super().__init__()
        self._first = FirstStep(on_error)

    def on_train_begin(self, logs: object = None) -> None:
        """Watch from the first batch on, until the optimizer is to apply its gradients."""
        optimizer: Any = self.model.optimizer

        def apply(grads: object, trainable_variables: object = None) -> object:
            del optimizer.apply  # the class's again
            held = as_optimizer(optimizer, (v.value for v in self.model.trainable_variables))
            self._first.before_step(held)
            return optimizer.apply(grads, trainable_variables)

        self._first.begin(self.model)
        optimizer.apply = apply

    def on_train_end(self, logs: object = None) -> None:
        """Say what there is to say of a training that took no step."""
        self._first.conclude()
