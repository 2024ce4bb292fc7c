"""fxgrad inside other people's trainers: `accelerate`, `fastai`, `ignite`, `keras`, `lightning`, `skorch` and
`transformers`; `loggers` hands the report on to TensorBoard and Weights & Biases.

Each is imported by name, for each needs its library. What they share is `fxgrad.integrations.first_step`.
"""

from __future__ import annotations

from fxgrad.integrations.first_step import GradientsMissing

__all__ = ["GradientsMissing"]
