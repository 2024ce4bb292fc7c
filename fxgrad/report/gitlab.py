"""The report as a GitLab Code Quality artifact: one issue a finding, on its line in a merge request.

Made from a `Report` alone: https://docs.gitlab.com/ci/testing/code_quality/#code-quality-report-format. Paths
are relative to the repository's root; a finding without a line of its own stands at the model's class, where
that is not known either at the root itself (GitLab takes no issue without a path). The fingerprint is that of
baselines and SARIF. Not handled: what is silenced; GitLab has no word for it.
"""

from __future__ import annotations

from fxgrad.passes.rules.fxg002_program_raises import in_words
from fxgrad.records import Finding, Site
from fxgrad.records.report import ReportData
from fxgrad.report.as_json import dumps
from fxgrad.report.fingerprint import fingerprints
from fxgrad.report.repository import relative
from fxgrad.report.table import raised

_SEVERITY = {"error": "critical", "warning": "minor", "note": "info"}


def render(report: ReportData, *, verbose: bool = False) -> str:
    """A JSON list of the findings, of the notes when verbose, and of an error that no finding explains."""
    findings = [*report.findings, *(report.notes if verbose else ())]
    issues = [_issue(report, f, mark) for f, mark in zip(findings, fingerprints(findings), strict=True)]
    if report.error is not None and report.ok:
        error = in_words(raised(report.error), report.error.site)
        issues.append(_issue(report, error, *fingerprints([error])))
    return dumps(issues)


def _issue(report: ReportData, finding: Finding, mark: str) -> dict[str, object]:
    return {
        "type": "issue",
        "check_name": f"{finding.code} {finding.name}",
        "description": " ".join(f"{finding.code} {finding.message}".split()),
        "categories": ["Bug Risk"],
        "severity": _SEVERITY[finding.severity],
        "fingerprint": mark,
        "location": _location(finding.site or report.model_site),
    }


def _location(site: Site | None) -> dict[str, object]:
    if site is None:
        return {"path": ".", "lines": {"begin": 1}}
    lines = {"begin": site.line, "end": max(site.line, site.end_line)}
    return {"path": relative(site.file) or site.file, "lines": lines}
