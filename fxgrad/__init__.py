"""fxgrad: which parameters get no gradient, which line of your code is to blame, and what repairs it.

A torch.fx compiler pass that traces a model and its loss, follows every parameter to the loss with autograd
itself as the oracle, and names the cut: rule, file, line, column.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fxgrad.api import fix
    from fxgrad.diagnosis.analyze import analyze, assert_gradients_flow
    from fxgrad.fix_graph.benchmark import Benchmark, benchmark
    from fxgrad.fix_graph.fix import FixResult
    from fxgrad.passes.rewrites.out_of_place import OutOfPlace
    from fxgrad.records import Finding, Fix, Inputs, Options, Site, Step
    from fxgrad.records.errors import (
        FixError,
        FxgradError,
        FxgradWarning,
        GuardError,
        InputError,
        LoadError,
        TraceError,
    )
    from fxgrad.report import Report
    from fxgrad.watching.watch import Watch, watch

__version__ = "0.1.0"

__all__ = [
    "Benchmark",
    "Finding",
    "Fix",
    "FixError",
    "FixResult",
    "FxgradError",
    "FxgradWarning",
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


# Where each name comes from. It is loaded, and torch with it, when first asked for: who only looks (a test
# run that uses no fixture of ours, `fxgrad explain`) does not wait for torch.
_HOMES = {
    "fxgrad.api": ("fix",),
    "fxgrad.diagnosis.analyze": ("analyze", "assert_gradients_flow"),
    "fxgrad.fix_graph.benchmark": ("Benchmark", "benchmark"),
    "fxgrad.fix_graph.fix": ("FixResult",),
    "fxgrad.passes.rewrites.out_of_place": ("OutOfPlace",),
    "fxgrad.records": ("Finding", "Fix", "Inputs", "Options", "Site", "Step"),
    "fxgrad.records.errors": (
        "FixError",
        "FxgradError",
        "FxgradWarning",
        "GuardError",
        "InputError",
        "LoadError",
        "TraceError",
    ),
    "fxgrad.report": ("Report",),
    "fxgrad.watching.watch": ("Watch", "watch"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


if not TYPE_CHECKING:  # a type checker has the imports above; this would tell it that any name is there

    def __getattr__(name):
        """A name of `__all__`, from the module that has it; or a room, with all that hangs in it."""
        if name in _HOME:
            found = globals()[name] = getattr(importlib.import_module(_HOME[name]), name)
            return found
        if name.startswith("_") or importlib.util.find_spec(f"{__name__}.{name}") is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        importlib.import_module("fxgrad.api")  # `fxgrad.passes.rewrites.out_of_place` is there then too
        return importlib.import_module(f"{__name__}.{name}")


def load_ipython_extension(shell: object) -> None:
    """What `%load_ext fxgrad` calls: `%%fxgrad` over a cell that trains reports on it."""
    from fxgrad.integrations.notebook import load

    load(shell)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
