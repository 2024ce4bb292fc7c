"""A Lightning callback that reports on the first training step: `Trainer(callbacks=[GradientFlow()])`.

It watches the first batch through `training_step` and backward, before any weight changes, and then takes
itself away. With several optimizers it waits until each is about to step. The report is kept as
`callback.report`. Works with `lightning` and `pytorch_lightning`.
"""

from __future__ import annotations

import importlib
from typing import Any, Literal

from fxgrad.integrations.first_step import FirstStep, GradientsMissing, Reporting

__all__ = ["GradientFlow", "GradientsMissing"]

PATIENCE = 8  # batches that an optimizer is waited for


def _callback() -> object:
    for name in ("lightning.pytorch.callbacks", "pytorch_lightning.callbacks"):
        try:
            return importlib.import_module(name).Callback
        except ImportError:
            continue
    raise ImportError("fxgrad.integrations.lightning needs Lightning: pip install lightning")


class GradientFlow(Reporting, _callback()):  # type: ignore[misc]
    """Raise (or warn) before the first optimizer step if a parameter that should train gets no gradient."""

    def __init__(self, on_error: Literal["raise", "warn"] = "raise") -> None:
        super().__init__()
        self._first = FirstStep(on_error)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Watch from the first batch on."""
        self._first.begin(pl_module, trainer.optimizers)

    def on_before_optimizer_step(self, trainer: object, pl_module: object, optimizer: object) -> None:
        """Gradients are there, weights are as before."""
        self._first.before_step(optimizer)

    def on_train_batch_end(
        self, trainer: object, pl_module: object, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """An optimizer that does not step for long is not waited for."""
        if batch_idx >= PATIENCE:
            self._first.conclude()

    def on_exception(self, trainer: object, pl_module: object, exception: BaseException) -> None:
        """Explain a gradient error under its traceback."""
        self._first.failed(exception)

    def on_train_end(self, trainer: object, pl_module: object) -> None:
        """Say what there is to say of a training that was shorter than that."""
        self._first.conclude()

    def teardown(self, trainer: object, pl_module: object, stage: str) -> None:
        """Leave nothing behind."""
        self._first.close()
