"""The report as JSON, schema version 1; `report.schema.json` beside this file is the same as a JSON Schema.

Made from a `Report` alone. The version is raised when a key changes its meaning or goes away, not when one is
added.

    schema_version  1
    tool            {"name": "fxgrad", "version": the installed version or null}
    model           the model's name
    model_site      where the user wrote its class, or the function; null where all of it is others'
    ok              whether there is no finding at error level
    summary         counts: parameters, and each severity and verdict that occurs
    verdicts        {parameter name: "flows" | "zero" | "none" | "branch" | "blocked"}
    findings        errors, then warnings: code, name, severity, message, site, parameters, path, fix,
                    fingerprint
    notes           findings at note level
    deselected      how many findings and notes `select`, `ignore` and a baseline left out
    suppressed      findings that a comment, the project's settings or a baseline silences
    parameters      per parameter: name, names (ties), shape, requires_grad, module, module_type,
                    module_called, gradient
    loss, values    how the loss was found; "fake" or "real"
    assumptions     what was assumed because it was not given
    nodes, paths, paths_cut_off   steps recorded, branch outcomes explored, whether there were more
    decisions       data-dependent branches taken: site, node, outcome, known
    error           what the program raised (phase, type, message, site, stack), or null
    versions        {"fxgrad", "torch", "python": the versions that it was made with}
    command         the command line that asked for it; "" where Python code did
    ranks           only in a report gathered from several processes: size; verdicts {parameter name: {rank:
                    verdict}}; differing (parameters, on, without, site, why); endings (rank, kind, said,
                    site, reported). A finding then has `ranks` too, those it holds on

A site has `file` (absolute), `line`, `column`, `end_line`, `end_column` and `function`; lines and columns
count from 1, 0 is unknown. A fingerprint stays the same when lines move: see `fxgrad.report.fingerprint`. Not
handled: reading a report back.
"""

from __future__ import annotations

import dataclasses
import json
import platform
from collections import Counter
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fxgrad.records import Decision, Finding, Fix, ParameterFact, Raised, Site
from fxgrad.records.plain_text import is_seen
from fxgrad.records.ranks import Ranks
from fxgrad.records.report import ReportData
from fxgrad.report.fingerprint import fingerprints

SCHEMA_VERSION = 1


def render(report: ReportData, *, verbose: bool = False) -> str:
    """Indented JSON; `verbose` changes nothing, everything is always in it."""
    return dumps(to_dict(report))


def dumps(value: object) -> str:
    """Indented JSON that does nothing to a terminal or a runner of workflows: what is not seen stands as
    JSON's escapes, equal when read."""
    text = json.dumps(value, indent=2, ensure_ascii=False).replace("##[", "#\\u0023[")
    if text.replace("\n", "").isprintable():
        return text
    return "".join(item if item == "\n" or is_seen(item) else json.dumps(item)[1:-1] for item in text)


def to_dict(report: ReportData) -> dict[str, object]:
    """The report as dicts, lists, strings, numbers and None."""
    marks = fingerprints([*report.findings, *report.notes, *report.suppressed])
    count, end = len(report.findings), len(report.findings) + len(report.notes)
    said = {
        "schema_version": SCHEMA_VERSION,
        "tool": {"name": "fxgrad", "version": tool_version()},
        "model": report.model,
        "model_site": _site(report.model_site),
        "ok": report.ok,
        "summary": _summary(report),
        "verdicts": dict(report.verdicts),
        "findings": [
            _finding(f, mark, report.ranks) for f, mark in zip(report.findings, marks[:count], strict=True)
        ],
        "notes": [
            _finding(f, mark, report.ranks) for f, mark in zip(report.notes, marks[count:end], strict=True)
        ],
        "suppressed": [
            _finding(f, mark, report.ranks) for f, mark in zip(report.suppressed, marks[end:], strict=True)
        ],
        "deselected": report.deselected,
        "parameters": [_parameter(fact) for fact in report.parameters],
        "loss": report.loss_used,
        "values": report.values,
        "assumptions": list(report.assumptions),
        "nodes": report.nodes,
        "paths": report.paths,
        "paths_cut_off": report.paths_cut_off,
        "decisions": [_decision(decision) for decision in report.decisions],
        "error": _raised(report.error) if report.error else None,
        "versions": dict(report.versions),
        "command": report.command,
    }
    return said if report.ranks is None else {**said, "ranks": _ranks(report.ranks)}


@lru_cache(maxsize=1)
def tool_version() -> str | None:
    """The version of the installed fxgrad; None where it runs from a checkout that is not installed."""
    try:
        return version("fxgrad")
    except PackageNotFoundError:
        return None


def versions() -> dict[str, str]:
    """What a report made here and now is made with."""
    import torch

    own = tool_version() or "of a checkout"
    return {"fxgrad": own, "torch": str(torch.__version__), "python": platform.python_version()}


def _summary(report: ReportData) -> dict[str, object]:
    severities = Counter(finding.severity for finding in [*report.findings, *report.notes])
    return {
        "parameters": len(report.verdicts),
        "severities": dict(sorted(severities.items())),
        "verdicts": dict(sorted(Counter(report.verdicts.values()).items())),
    }


def _ranks(ranks: Ranks) -> dict[str, object]:
    """JSON keys are text: `{"0": "flows", "1": "none"}`."""
    return {
        "size": ranks.size,
        "verdicts": {
            name: {str(rank): verdict for rank, verdict in found.items()}
            for name, found in ranks.verdicts.items()
        },
        "differing": [
            {
                "parameters": list(d.parameters),
                "on": list(d.on),
                "without": list(d.without),
                "site": _site(d.site),
                "why": d.why,
            }
            for d in ranks.differing
        ],
        "endings": [
            {"rank": e.rank, "kind": e.kind, "said": e.said, "site": _site(e.site), "reported": e.reported}
            for e in ranks.endings
        ],
    }


def _finding(finding: Finding, mark: str, ranks: Ranks | None) -> dict[str, Any]:
    said = {
        "code": finding.code,
        "name": finding.name,
        "severity": finding.severity,
        "message": finding.message,
        "site": _site(finding.site),
        "parameters": list(finding.parameters),
        "path": [{"label": step.label, "site": _site(step.site), "cut": step.cut} for step in finding.path],
        "fix": _fix(finding.fix) if finding.fix else None,
        "fingerprint": mark,
    }
    return said if ranks is None else {**said, "ranks": list(finding.ranks)}


def _fix(fix: Fix) -> dict[str, object]:
    edits = [{"site": _site(edit.site), "old": edit.old, "new": edit.new} for edit in fix.edits]
    return {"advice": fix.advice, "safety": fix.safety, "edits": edits}


def _site(site: Site | None) -> dict[str, object] | None:
    return None if site is None else dataclasses.asdict(site)


def _parameter(fact: ParameterFact) -> dict[str, object]:
    return {
        "name": fact.name,
        "names": list(fact.names),
        "shape": list(fact.shape),
        "requires_grad": fact.requires_grad,
        "module": fact.module,
        "module_type": fact.module_type,
        "module_called": fact.module_called,
        "gradient": fact.gradient,
    }


def _decision(decision: Decision) -> dict[str, object]:
    return {
        "site": _site(decision.site),
        "node": decision.node,
        "outcome": decision.outcome,
        "known": decision.known,
    }


def _raised(error: Raised) -> dict[str, object]:
    return {
        "phase": error.phase,
        "type": error.type,
        "message": error.message,
        "site": _site(error.site),
        "stack": [_site(site) for site in error.stack],
    }
