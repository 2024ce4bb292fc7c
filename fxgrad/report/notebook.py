"""A report as a notebook shows it: the body of the HTML page, and as Markdown where HTML is not shown.

Both hold nothing that runs and nothing from a network. Not handled: filtering; that is for the page.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from fxgrad.records import Finding
from fxgrad.records.report import ReportData
from fxgrad.report import html
from fxgrad.report.globs import shown
from fxgrad.report.table import headline, path, raised
from fxgrad.source.excerpt import place

_NAMES = 6


def as_html(report: ReportData) -> str:
    """Several outputs are one page: anchors begin with what tells this report from another."""
    mark = hashlib.sha256(repr((report.findings, report.notes, dict(report.verdicts))).encode()).hexdigest()
    return html.body(report, f"fxgrad-{mark[:8]}-")


def as_markdown(report: ReportData) -> str:
    """The headline, and a paragraph for each finding."""
    return "\n\n".join(_paragraphs(report))


def _paragraphs(report: ReportData) -> Iterator[str]:
    yield f"**{_text(headline(report))}**"
    yield from (f"assumed: {said}" for said in report.assumptions)
    if report.error is not None:
        yield _text(raised(report.error))
    for finding in report.findings:
        yield "  \n".join(_lines(report, finding))


def _lines(report: ReportData, finding: Finding) -> Iterator[str]:
    where = f"{_text(place(finding.site))}: " if finding.site else ""
    yield f"{where}**{finding.code} {finding.name}** [{finding.severity}] {finding.message}"
    if finding.path:
        yield f"path: {_text(path(finding.path))}"
    if finding.parameters:
        yield f"parameters: `{shown(finding.parameters, report.verdicts, limit=_NAMES)}`"
    if finding.fix is not None:
        yield f"help: {finding.fix.advice}"


def _text(text: str) -> str:
    """What Markdown would read as its own stands for itself."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>#|" else c for c in text)
