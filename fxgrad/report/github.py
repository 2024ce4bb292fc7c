"""The report as GitHub Actions workflow commands: one annotation on the guilty line for each finding.

Made from a `Report` alone; file names are relative to the root of the checkout, as GitHub looks for them. A
finding without a line of its own stands at the model's class. Nothing is written for a report without
findings. Not handled: GitHub shows ten annotations of a kind per step; the rest stay in the log.
"""

from __future__ import annotations

from collections.abc import Iterable

from fxgrad.records import Finding, Site
from fxgrad.records.report import ReportData
from fxgrad.report import across_ranks
from fxgrad.report.globs import shown
from fxgrad.report.repository import relative
from fxgrad.report.table import path, raised
from fxgrad.source.excerpt import short_path

_COMMANDS = {"error": "error", "warning": "warning", "note": "notice"}
_NAMES = 6


def render(report: ReportData, *, verbose: bool = False) -> str:
    """One line for each finding, and for each note when verbose; one for an error that no finding
    explains."""
    findings = [*report.findings, *(report.notes if verbose else ())]
    lines = [_annotation(report, finding) for finding in findings]
    if report.error is not None and report.ok:
        lines.append(
            _command("error", report.error.site, f"{report.model} raises", raised(report.error, verbose=True))
        )
    return "\n".join(lines)


def _annotation(report: ReportData, finding: Finding) -> str:
    text = "\n".join(_text(report, finding))
    return _command(
        _COMMANDS[finding.severity], finding.site or report.model_site, f"{finding.code} {finding.name}", text
    )


def _text(report: ReportData, finding: Finding) -> Iterable[str]:
    yield finding.message
    if ranks := across_ranks.where(report, finding):
        yield f"on: {ranks}"
    if finding.parameters:
        yield f"parameters: {shown(finding.parameters, report.verdicts, limit=_NAMES)}"
    if finding.path:
        yield f"path: {path(finding.path)}"
    if finding.fix is not None:
        yield f"help: {finding.fix.advice}"


def _command(command: str, site: Site | None, title: str, message: str) -> str:
    properties = {**(_span(site) if site else {}), "title": title}
    joined = ",".join(f"{key}={_property(str(value))}" for key, value in properties.items())
    return f"::{command} {joined}::{_data(message)}"


def _span(site: Site) -> dict[str, str | int]:
    """GitHub takes columns only where the span is on one line."""
    span: dict[str, str | int] = {"file": relative(site.file) or short_path(site.file), "line": site.line}
    if site.end_line >= site.line:
        span["endLine"] = site.end_line
    if site.column and site.end_line in (0, site.line):
        span["col"] = site.column
        if site.end_column > site.column:
            span["endColumn"] = site.end_column
    return span


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
