"""What every part speaks in, frozen: sites, edits, findings, options, facts and errors."""

from __future__ import annotations

from fxgrad.records.errors import (
    FixError,
    FxgradError,
    InputError,
    LoadError,
    TraceError,
)
from fxgrad.records.facts import (
    Call,
    Decision,
    External,
    Facts,
    Flow,
    Frozen,
    NodeFact,
    NodeKind,
    ParameterFact,
    Phase,
    Raised,
    Saved,
    Value,
)
from fxgrad.records.findings import (
    Edit,
    Finding,
    Fix,
    Inputs,
    Options,
    Safety,
    Severity,
    Site,
    Step,
    Verdict,
)

__all__ = [
    "Call",
    "Decision",
    "Edit",
    "External",
    "Facts",
    "Finding",
    "Fix",
    "FixError",
    "Flow",
    "Frozen",
    "FxgradError",
    "InputError",
    "Inputs",
    "LoadError",
    "NodeFact",
    "NodeKind",
    "Options",
    "ParameterFact",
    "Phase",
    "Raised",
    "Safety",
    "Saved",
    "Severity",
    "Site",
    "Step",
    "TraceError",
    "Value",
    "Verdict",
]
