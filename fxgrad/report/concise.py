"""The report in one line a finding, `file:line:column: CODE message`: for editors, `grep`, and logs.

Made from a `Report` alone; a finding without a line of its own stands at the model's class. Nothing is
written for a report without findings. Not handled: what a line leaves out; the table has it.
"""

from __future__ import annotations

from fxgrad.records import Finding, Site
from fxgrad.records.report import ReportData
from fxgrad.report.table import raised
from fxgrad.source.excerpt import place


def render(report: ReportData, *, verbose: bool = False) -> str:
    """The findings, and the notes when verbose; then an error that no finding explains."""
    lines = [_line(report, finding) for finding in (*report.findings, *(report.notes if verbose else ()))]
    if report.error is not None and report.ok:
        lines.append(f"{_where(report, report.error.site)}: {report.error.type} {raised(report.error)}")
    return "\n".join(lines)


def _line(report: ReportData, finding: Finding) -> str:
    return f"{_where(report, finding.site)}: {finding.code} {' '.join(finding.message.split())}"


def _where(report: ReportData, site: Site | None) -> str:
    site = site or report.model_site
    return place(site) if site is not None else report.model
