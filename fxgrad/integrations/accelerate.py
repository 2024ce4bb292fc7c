"""The first step of a loop with Accelerate: `watch_first_step(accelerator, model, optimizer)` after
`prepare`.

It watches until each optimizer is about to step for the first time, all its accumulation steps, before any
weight changes. What it returns keeps the report as `.report`. A loop that is shorter says so with
`.conclude()`.
"""

from __future__ import annotations

from typing import Any, Literal

from fxgrad.integrations.first_step import FirstStep, GradientsMissing

__all__ = ["GradientsMissing", "watch_first_step"]


def watch_first_step(
    accelerator: Any, model: object, *optimizers: object, on_error: Literal["raise", "warn"] = "raise"
) -> FirstStep:
    """Raise (or warn) before the first optimizer step if a parameter that should train gets no gradient.

    Args:
        accelerator: the `Accelerator`. model, optimizers: what its `prepare` gave back.
    """
    first = FirstStep(on_error)
    inner = [getattr(optimizer, "optimizer", optimizer) for optimizer in optimizers]
    first.begin(accelerator.unwrap_model(model), inner, hooked=True)
    return first
