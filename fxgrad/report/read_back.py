"""A report as data again, from what `fxgrad.report.as_json` wrote: for who looks at a report of another day.

What JSON does not hold (the values that a parameter had in the graph, `kind` and `step` of a finding) is as
in a new record. Not handled: other versions of the schema.
"""

from __future__ import annotations

import re
from typing import Any, get_args

from fxgrad.records import Decision, Edit, Finding, Fix, ParameterFact, Raised, Severity, Site, Step, Verdict
from fxgrad.records.errors import InputError
from fxgrad.records.facts import Phase
from fxgrad.records.findings import Safety
from fxgrad.records.ranks import Difference, Ending, Ranks
from fxgrad.records.report import ReportData
from fxgrad.report.as_json import SCHEMA_VERSION

_CODE = re.compile(r"FXG\d{3}")


def read(said: Any) -> ReportData:
    """The report that `to_dict` made this of.

    Raises:
        InputError: it is no report, or one of another schema.
    """
    try:
        if said["schema_version"] == SCHEMA_VERSION:
            return _report(said)
    except (KeyError, TypeError, AttributeError, ValueError):
        pass
    raise InputError(
        f"it is no report of fxgrad's, schema version {SCHEMA_VERSION}",
        hint="write one with `fxgrad report MODEL --format json -o FILE`",
    )


def _report(said: Any) -> ReportData:
    return ReportData(
        verdicts={name: _one_of(get_args(Verdict), verdict) for name, verdict in said["verdicts"].items()},
        findings=tuple(map(_finding, said["findings"])),
        notes=tuple(map(_finding, said["notes"])),
        parameters=tuple(map(_parameter, said["parameters"])),
        loss_used=said["loss"],
        values=_one_of(("fake", "real"), said["values"]),
        assumptions=tuple(said["assumptions"]),
        model=said["model"],
        nodes=int(said["nodes"]),
        paths=int(said["paths"]),
        paths_cut_off=said["paths_cut_off"],
        decisions=tuple(
            Decision(_site(d["site"]), d["node"], d["outcome"], d["known"]) for d in said["decisions"]
        ),
        error=_raised(said["error"]),
        deselected=int(said["deselected"]),
        suppressed=tuple(map(_finding, said["suppressed"])),
        ranks=_ranks(said.get("ranks")),
        versions=said.get("versions", {}),
        command=said.get("command", ""),
        model_site=_site(said.get("model_site")),
    )


def _one_of(allowed: tuple[object, ...], said: object) -> Any:
    if said not in allowed:
        raise ValueError(said)
    return said


def _site(said: object) -> Site | None:
    return None if said is None else _known(said)


def _known(said: Any) -> Site:
    line, column, end_line, end_column = (
        int(said[key]) for key in ("line", "column", "end_line", "end_column")
    )
    return Site(str(said["file"]), line, column, end_line, end_column, str(said["function"]))


def _finding(said: Any) -> Finding:
    fix = said["fix"]
    if not _CODE.fullmatch(said["code"]):
        raise ValueError(said["code"])
    return Finding(
        said["code"],
        said["name"],
        _one_of(get_args(Severity), said["severity"]),
        said["message"],
        _site(said["site"]),
        tuple(said["parameters"]),
        tuple(Step(step["label"], _site(step["site"]), step["cut"]) for step in said["path"]),
        None
        if fix is None
        else Fix(fix["advice"], _one_of(get_args(Safety), fix["safety"]), tuple(map(_edit, fix["edits"]))),
        tuple(said.get("ranks", ())),
    )


def _edit(said: Any) -> Edit:
    return Edit(_known(said["site"]), said["old"], said["new"])


def _parameter(said: Any) -> ParameterFact:
    return ParameterFact(
        said["name"],
        tuple(said["names"]),
        tuple(map(int, said["shape"])),
        said["requires_grad"],
        said["module"],
        said["module_type"],
        said["module_called"],
        (),
        said["gradient"],
    )


def _raised(said: Any) -> Raised | None:
    if said is None:
        return None
    stack = tuple(map(_known, said["stack"]))
    return Raised(
        _one_of(get_args(Phase), said["phase"]), said["type"], said["message"], _site(said["site"]), stack
    )


def _ranks(said: Any) -> Ranks | None:
    if said is None:
        return None
    return Ranks(
        said["size"],
        {name: {int(rank): v for rank, v in found.items()} for name, found in said["verdicts"].items()},
        tuple(
            Difference(
                tuple(d["parameters"]), tuple(d["on"]), tuple(d["without"]), _site(d["site"]), d["why"]
            )
            for d in said["differing"]
        ),
        tuple(
            Ending(e["rank"], e["kind"], e["said"], _site(e["site"]), e["reported"]) for e in said["endings"]
        ),
    )
