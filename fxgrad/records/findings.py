"""What the user meets: sites, edits, fixes, findings, options and inputs.

Frozen dataclasses with tuples inside. Nothing here runs torch code or prints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from fxgrad.records.cells import cell_name

Severity = Literal["error", "warning", "note"]
Verdict = Literal["flows", "zero", "none", "branch", "blocked"]
Safety = Literal["safe", "unsafe", "shown"]


@dataclass(frozen=True, slots=True)
class Site:
    """A span of user source. Lines and columns count from 1, columns in characters; `end_column` is the
    column after the last character.

    `column`, `end_line` and `end_column` are 0 where the interpreter does not know them.
    """

    file: str
    line: int
    column: int = 0
    end_line: int = 0
    end_column: int = 0
    function: str = ""

    def __str__(self) -> str:
        file = cell_name(self.file) or self.file
        return f"{file}:{self.line}:{self.column}" if self.column else f"{file}:{self.line}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """How to analyse. `values`: which tensors the model runs on (`auto` picks); `max_paths`: branch outcomes
    explored at most."""

    values: Literal["auto", "fake", "real"] = "auto"
    max_paths: int = 64
    rewrite: Literal["needed", "all"] = "needed"
    unsafe: bool = False


@dataclass(frozen=True, slots=True)
class Inputs:
    """Positional and keyword inputs together, where a tuple or a dict alone does not say it."""

    args: tuple[object, ...] = ()
    kwargs: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Edit:
    """A text edit of one file: replace the span of `site` (exactly `old`) by `new`."""

    site: Site
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Fix:
    """What repairs a finding. `advice` is one imperative sentence; `edits` is empty where the fix is only
    shown."""

    advice: str
    safety: Safety = "shown"
    edits: tuple[Edit, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One station of a path from the loss to a parameter: `label` names it (`loss`, `detach`,
    `encoder.weight`)."""

    label: str
    site: Site | None = None
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """One cause. `parameters` are the qualified names it starves; `path` runs from the loss to the parameter,
    the cut marked in it.

    `ranks`: the processes it holds on, where a report was gathered from several; () in a report on one. What
    whoever goes on from a finding may ask instead of reading its words: `kind`, the case within its rule, in
    a word ("" where there is one alone), and `step`, the step of the recorded run that it is about, by name
    ("": none).
    """

    code: str
    name: str
    severity: Severity
    message: str
    site: Site | None = None
    parameters: tuple[str, ...] = ()
    path: tuple[Step, ...] = ()
    fix: Fix | None = None
    ranks: tuple[int, ...] = ()
    kind: str = ""
    step: str = field(default="", compare=False)
