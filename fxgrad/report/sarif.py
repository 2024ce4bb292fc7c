"""The report as SARIF 2.1.0, for code scanning and editors: rules with their documentation, results with
regions, paths and fixes.

Made from a `Report`, the rules in `fxgrad.passes.RULES` and the source lines as they are now. Specification:
OASIS SARIF 2.1.0 (the section numbers below are its own).

Every result has a physical location, or GitHub refuses the whole log: a finding without a line of its own
stands at the model's class. Where that is not the user's either, it is a notification of the run. Files in
the repository around the current directory are named relative to `%SRCROOT%`, others absolutely.
`partialFingerprints` has what GitHub tracks an alert by (`fxgrad.report.line_hash`) and fxgrad's own name of
the finding. What the user has silenced is a result with `suppressions`, `inSource` by a comment, else
`external`. Not handled: embedded file contents.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from urllib.parse import quote

from fxgrad.records import Edit, Finding, Fix, Raised, Site
from fxgrad.records.report import ReportData
from fxgrad.report import across_ranks, repository
from fxgrad.report.as_json import dumps
from fxgrad.report.fingerprint import fingerprints
from fxgrad.report.globs import shown as names_shown
from fxgrad.report.line_hash import line_hashes
from fxgrad.report.sarif_rules import driver
from fxgrad.report.table import raised
from fxgrad.source import suppressions

_NAMES = 6
_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def render(report: ReportData, *, verbose: bool = False) -> str:
    """A SARIF log with one run; the notes are results in it when verbose."""
    listed = (*report.findings, *(report.notes if verbose else ()))
    findings = (*listed, *report.suppressed)
    tool = driver(findings)
    index = {rule["id"]: position for position, rule in enumerate(tool["rules"])}
    hashes = cache(line_hashes)
    results, notifications = [], []
    for position, (finding, mark) in enumerate(zip(findings, fingerprints(findings), strict=True)):
        site = finding.site or report.model_site
        rule = {"id": finding.code, "index": index[finding.code]}
        if site is None:
            notifications.append(_notification(report, finding, rule))
            continue
        lines = hashes(site.file)
        marks = {"fxgrad/v1": mark}
        if site.line <= len(lines):
            marks["primaryLocationLineHash"] = lines[site.line - 1]
        result = _result(report, finding, rule, site, marks)
        if position >= len(listed):
            result["suppressions"] = [_suppression(finding)]
        results.append(result)
    unexplained = report.error if report.ok else None
    if unexplained is not None:
        notifications.append(_failed(unexplained))
    run: dict[str, object] = {
        "tool": {"driver": tool},
        "originalUriBaseIds": {"%SRCROOT%": {"uri": Path(repository.root()).as_uri().rstrip("/") + "/"}},
        "columnKind": "unicodeCodePoints",
        "results": results,
    }
    if notifications:
        run["invocations"] = [
            {"executionSuccessful": unexplained is None, "toolExecutionNotifications": notifications}
        ]
    return dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]})


def _result(
    report: ReportData, finding: Finding, rule: Mapping[str, object], site: Site, marks: Mapping[str, str]
) -> dict[str, object]:
    result: dict[str, object] = {
        "ruleId": rule["id"],
        "ruleIndex": rule["index"],
        "level": finding.severity,
        "message": {"text": _text(report, finding)},
        "locations": [{"physicalLocation": _physical(site), **_logical(report, finding)}],
        "partialFingerprints": dict(marks),
        "properties": {"parameters": list(finding.parameters)},
    }
    stations = [{"location": _at(step.site, step.label)} for step in finding.path if step.site]
    if stations:
        result["codeFlows"] = [{"threadFlows": [{"locations": stations}]}]
    if finding.fix is not None and finding.fix.edits:
        result["fixes"] = [_fix(finding.fix)]
    return result


def _notification(report: ReportData, finding: Finding, rule: Mapping[str, object]) -> dict[str, object]:
    """A finding that has no line anywhere (section 3.58)."""
    return {
        "associatedRule": dict(rule),
        "level": finding.severity,
        "message": {"text": _text(report, finding)},
        "locations": [_logical(report, finding)],
    }


def _suppression(finding: Finding) -> dict[str, object]:
    return {"kind": "inSource" if _is_commented(finding) else "external", "status": "accepted"}


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


def _logical(report: ReportData, finding: Finding) -> dict[str, object]:
    """The function that the line is in; where the finding has none, its parameters (section 3.33)."""
    if finding.site is not None:
        function = finding.site.function
        logical = [{"fullyQualifiedName": function, "kind": "function"}] if function else []
    elif finding.parameters:
        logical = [{"fullyQualifiedName": name, "kind": "member"} for name in finding.parameters]
    else:
        logical = [{"fullyQualifiedName": report.model, "kind": "module"}]
    return {"logicalLocations": logical} if logical else {}


def _at(site: Site, text: str) -> dict[str, object]:
    return {"physicalLocation": _physical(site), "message": {"text": text}}


def _physical(site: Site) -> dict[str, object]:
    return {"artifactLocation": _artifact(site.file), "region": _region(site)}


def _artifact(file: str) -> dict[str, object]:
    """Relative to the repository where the file is in it (section 3.4); `<stdin>` and its kind as a relative
    name."""
    if file.startswith("<"):
        return {"uri": quote(file)}
    name = repository.relative(file)
    if name is None:
        return {"uri": Path(file).absolute().as_uri()}
    return {"uri": quote(name), "uriBaseId": "%SRCROOT%"}


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


def _fix(fix: Fix) -> dict[str, object]:
    by_file: dict[str, list[Edit]] = {}
    for edit in fix.edits:
        by_file.setdefault(edit.site.file, []).append(edit)
    changes = [
        {"artifactLocation": _artifact(file), "replacements": [_replacement(edit) for edit in edits]}
        for file, edits in by_file.items()
    ]
    return {"description": {"text": f"{fix.advice} ({fix.safety})"}, "artifactChanges": changes}


def _replacement(edit: Edit) -> dict[str, object]:
    return {"deletedRegion": _region(edit.site), "insertedContent": {"text": edit.new}}


def _failed(error: Raised) -> dict[str, object]:
    """An error that no finding explains is a notification of the run, not a result (section 3.20)."""
    notification: dict[str, object] = {"level": "error", "message": {"text": raised(error, verbose=True)}}
    if error.site is not None:
        notification["locations"] = [{"physicalLocation": _physical(error.site)}]
    return notification
