"""fxgrad inside other people's trainers: `fxgrad.integrations.lightning` and
`fxgrad.integrations.transformers`.

Each is imported by name, for each needs its library. What they share is `fxgrad.integrations.first_step`.
"""

from __future__ import annotations

from fxgrad.integrations.first_step import GradientsMissing

__all__ = ["GradientsMissing"]
