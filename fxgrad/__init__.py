"""fxgrad: which parameters get no gradient, which line of your code is to blame, and what repairs it.

A torch.fx compiler pass that traces a model and its loss, follows every parameter to the loss with autograd itself as the oracle, and
names the cut: rule, file, line, column.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fxgrad.api import analyze, assert_gradients_flow
from fxgrad.errors import FixError, FxgradError, InputError, LoadError, TraceError
from fxgrad.fix import FixResult
from fxgrad.records import Finding, Fix, Inputs, Options, Site, Step
from fxgrad.repair import fix
from fxgrad.report import Report
from fxgrad.watch import Watch, watch

if TYPE_CHECKING:
    from fxgrad.timing import Benchmark, benchmark

__version__ = "0.1.0"

__all__ = [
    "Benchmark",
    "Finding",
    "Fix",
    "FixError",
    "FixResult",
    "FxgradError",
    "InputError",
    "Inputs",
    "LoadError",
    "Options",
    "Report",
    "Site",
    "Step",
    "TraceError",
    "Watch",
    "analyze",
    "assert_gradients_flow",
    "benchmark",
    "fix",
    "watch",
]


def __getattr__(name: str) -> Any:
    """What measures is loaded when it is first asked for: it takes as long to import as all the rest."""
    if name in ("Benchmark", "benchmark"):
        from fxgrad import timing

        return getattr(timing, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
