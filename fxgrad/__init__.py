"""fxgrad: which parameters get no gradient, which line of your code is to blame, and what repairs it.

A torch.fx compiler pass that traces a model and its loss, follows every parameter to the loss with autograd itself as the oracle, and
names the cut: rule, file, line, column.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fxgrad.api import fix
from fxgrad.diagnosis.analyze import analyze, assert_gradients_flow
from fxgrad.fix_graph.fix import FixResult
from fxgrad.records import Finding, Fix, Inputs, Options, Site, Step
from fxgrad.records.errors import FixError, FxgradError, GuardError, InputError, LoadError, TraceError
from fxgrad.report import Report
from fxgrad.watching.watch import Watch, watch

if TYPE_CHECKING:
    from fxgrad.fix_graph.benchmark import Benchmark, benchmark
    from fxgrad.passes.rewrites.out_of_place import OutOfPlace

__version__ = "0.1.0"

__all__ = [
    "Benchmark",
    "Finding",
    "Fix",
    "FixError",
    "FixResult",
    "FxgradError",
    "GuardError",
    "InputError",
    "Inputs",
    "LoadError",
    "Options",
    "OutOfPlace",
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
    """What measures and what rewrites graphs by hand is loaded when first asked for: the first takes as long to import as the rest."""
    if name in ("Benchmark", "benchmark"):
        from fxgrad.fix_graph import benchmark

        return getattr(benchmark, name)
    if name == "OutOfPlace":
        from fxgrad.passes.rewrites.out_of_place import OutOfPlace

        return OutOfPlace
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
