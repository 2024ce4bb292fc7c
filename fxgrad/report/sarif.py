"""The report as SARIF 2.1.0, for code scanning and editors: rules with their documentation, results with
regions, paths and fixes.

Made from a `Report`, the rules in `fxgrad.passes.RULES` and the source lines as they are now. Files below the
current directory are named relative to `%SRCROOT%`, others absolutely. Specification: OASIS SARIF 2.1.0 (the
section numbers below are its own). What the user has silenced is a result with `suppressions`, `inSource` by
a comment, else `external`. Not handled: embedded file contents.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fxgrad.passes import RULES
from fxgrad.records import Edit, Finding, Fix, Raised, Site
from fxgrad.records.report import ReportData
from fxgrad.report import across_ranks
from fxgrad.report.as_json import dumps, tool_version
from fxgrad.report.fingerprint import fingerprints
from fxgrad.report.globs import shown as names_shown
from fxgrad.report.table import raised
from fxgrad.source import suppressions

NAME = "sarif"

_NAMES = 6
_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def render(report: ReportData, *, verbose: bool = False) -> str:
    """A SARIF log with one run; the notes are results in it when verbose."""
    shown = (*report.findings, *(report.notes if verbose else ()))
    findings = (*shown, *report.suppressed)
    rules = _rules(findings)
    index = {rule["id"]: position for position, rule in enumerate(rules)}
    marks = fingerprints(findings)
    run: dict[str, Any] = {
        "tool": {"driver": _driver(rules)},
        "originalUriBaseIds": {"%SRCROOT%": {"uri": Path.cwd().as_uri().rstrip("/") + "/"}},
        "columnKind": "unicodeCodePoints",
        "results": [_result(report, f, index[f.code], mark) for f, mark in zip(findings, marks, strict=True)],
    }
    for result, finding in zip(run["results"][len(shown) :], report.suppressed, strict=True):
        result["suppressions"] = [
            {"kind": "inSource" if _is_commented(finding) else "external", "status": "accepted"}
        ]
    if report.error is not None and report.ok:
        run["invocations"] = [_failed(report.error)]
    return dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]})


def _driver(rules: list[dict[str, Any]]) -> dict[str, Any]:
    version = tool_version()
    return {"name": "fxgrad", **({"version": version} if version else {}), "rules": rules}


def _rules(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Every registered rule, then the rules of findings that are not registered (made by hand)."""
    rules = {
        module.CODE: _rule(module.CODE, module.NAME, module.SEVERITY, inspect.getdoc(module) or "")
        for module in RULES
    }
    for finding in findings:
        rules.setdefault(finding.code, _rule(finding.code, finding.name, finding.severity, ""))
    return list(rules.values())


def _rule(code: str, name: str, severity: str, documentation: str) -> dict[str, Any]:
    rule: dict[str, Any] = {
        "id": code,
        "name": "".join(word.capitalize() for word in name.split("-")),
        "shortDescription": {"text": " ".join(documentation.partition("\n\n")[0].split()) or name},
        "defaultConfiguration": {"level": severity},
    }
    if documentation:
        rule["fullDescription"] = {"text": rule["shortDescription"]["text"]}
        rule["help"] = {"text": documentation}
    return rule


def _result(report: ReportData, finding: Finding, index: int, mark: str) -> dict[str, Any]:
    result: dict[str, Any] = {
        "ruleId": finding.code,
        "ruleIndex": index,
        "level": finding.severity,
        "message": {"text": _text(report, finding)},
        "locations": [_location(report, finding)],
        "partialFingerprints": {"fxgrad/v1": mark},
        "properties": {"parameters": list(finding.parameters)},
    }
    stations = [{"location": _at(step.site, step.label)} for step in finding.path if step.site]
    if stations:
        result["codeFlows"] = [{"threadFlows": [{"locations": stations}]}]
    if finding.fix is not None and finding.fix.edits:
        result["fixes"] = [_fix(finding.fix)]
    return result


def _is_commented(finding: Finding) -> bool:
    """Whether a comment on its own lines silences it."""
    site = finding.site
    return site is not None and not suppressions(site.file).keys().isdisjoint(
        range(site.line, max(site.end_line, site.line) + 1)
    )


def _text(report: ReportData, finding: Finding) -> str:
    parts = [finding.message]
    if ranks := across_ranks.where(report, finding):
        parts.append(f"On {ranks}.")
    if finding.parameters:
        parts.append(f"Parameters: {names_shown(finding.parameters, report.verdicts, limit=_NAMES)}.")
    if finding.fix is not None:
        parts.append(f"Help: {finding.fix.advice}.")
    return "\n".join(parts)


def _location(report: ReportData, finding: Finding) -> dict[str, Any]:
    """Where there is no line, the parameters are the logical location (section 3.33)."""
    location = {} if finding.site is None else {"physicalLocation": _physical(finding.site)}
    names = finding.parameters if finding.site is None else ()
    logical = [{"fullyQualifiedName": name, "kind": "member"} for name in names]
    if finding.site is not None and finding.site.function:
        logical = [{"fullyQualifiedName": finding.site.function, "kind": "function"}]
    if not logical and finding.site is None:
        logical = [{"fullyQualifiedName": report.model, "kind": "module"}]
    return {**location, **({"logicalLocations": logical} if logical else {})}


def _at(site: Site, text: str) -> dict[str, Any]:
    return {"physicalLocation": _physical(site), "message": {"text": text}}


def _physical(site: Site) -> dict[str, Any]:
    return {"artifactLocation": _artifact(site.file), "region": _region(site)}


def _artifact(file: str) -> dict[str, Any]:
    """Relative to the current directory where the file is below it (section 3.4); `<stdin>` and its kind as a
    relative name."""
    if file.startswith("<"):
        return {"uri": quote(file)}
    path, root = os.path.abspath(file), os.getcwd()
    if path.startswith(root.rstrip(os.sep) + os.sep):
        return {"uri": quote(os.path.relpath(path, root).replace(os.sep, "/")), "uriBaseId": "%SRCROOT%"}
    return {"uri": Path(path).as_uri()}


def _region(site: Site) -> dict[str, int]:
    """Lines and columns from 1, `endColumn` the one after the last (section 3.30); what is unknown is left
    out."""
    region = {"startLine": site.line}
    if site.column:
        region["startColumn"] = site.column
    if site.end_line >= site.line:
        region["endLine"] = site.end_line
        if site.column and site.end_column:
            region["endColumn"] = site.end_column
    return region


def _fix(fix: Fix) -> dict[str, Any]:
    by_file: dict[str, list[Edit]] = {}
    for edit in fix.edits:
        by_file.setdefault(edit.site.file, []).append(edit)
    changes = [
        {"artifactLocation": _artifact(file), "replacements": [_replacement(edit) for edit in edits]}
        for file, edits in by_file.items()
    ]
    return {"description": {"text": f"{fix.advice} ({fix.safety})"}, "artifactChanges": changes}


def _replacement(edit: Edit) -> dict[str, Any]:
    return {"deletedRegion": _region(edit.site), "insertedContent": {"text": edit.new}}


def _failed(error: Raised) -> dict[str, Any]:
    """An error that no finding explains is a notification of the run, not a result (section 3.20)."""
    notification: dict[str, Any] = {"level": "error", "message": {"text": raised(error, verbose=True)}}
    if error.site is not None:
        notification["locations"] = [{"physicalLocation": _physical(error.site)}]
    return {"executionSuccessful": False, "toolExecutionNotifications": [notification]}
