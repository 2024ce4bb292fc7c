"""The report as JUnit XML, for a CI's page of tests: one test case a parameter, and one a finding that names
none.

A parameter passes where its gradient flows, fails where an error-level finding names it, and is skipped
where neither is so (frozen, not meant to train, depending on a branch, blocked by an error that a finding
tells elsewhere): so the suite fails where `fxgrad report` exits with 1 or 2, and only there. Warnings stand
in `system-out`, with the whole table. Valid for the schema of Ant (windyroad/JUnit-Schema) and for that of
Jenkins (junit-10.xsd), which agree on `failure` and `skipped` alone. Not handled: times; all are 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from xml.sax.saxutils import escape, quoteattr

from fxgrad.records import Finding
from fxgrad.records.report import ReportData
from fxgrad.report import table
from fxgrad.report.globs import shown
from fxgrad.source.excerpt import excerpt, place

_NAMES = 6
# What XML has no way to write, beside control characters, which are escaped before.
_NO_CHARACTERS = {0xFFFE: "\N{REPLACEMENT CHARACTER}", 0xFFFF: "\N{REPLACEMENT CHARACTER}"}


def render(report: ReportData, *, verbose: bool = False) -> str:
    """One suite, named as the model is."""
    cases = list(_cases(report))
    counts = {
        kind: sum(case.startswith(f"<{kind} ") for _, _, case in cases) for kind in ("failure", "skipped")
    }
    suite = {
        "id": "0",
        "package": "fxgrad",
        "name": report.model,
        "timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S"),
        "hostname": "localhost",
        "tests": str(len(cases)),
        "failures": str(counts["failure"]),
        "errors": "0",
        "skipped": str(counts["skipped"]),
        "time": "0",
    }
    lines = [
        '<?xml version="1.0" encoding="utf-8"?>',
        "<testsuites>",
        f"<testsuite{_attributes(suite)}>",
        "<properties/>",
    ]
    for name, classname, outcome in cases:
        start = f"<testcase{_attributes({'name': name, 'classname': classname, 'time': '0'})}"
        lines.append(f"{start}>{outcome}</testcase>" if outcome else f"{start}/>")
    lines += [f"<system-out>{_text(table.render(report, verbose=verbose))}</system-out>", "<system-err/>"]
    return "\n".join([*lines, "</testsuite>", "</testsuites>"])


def _cases(report: ReportData) -> Iterator[tuple[str, str, str]]:
    """Name, class and outcome ("" passed) of each test case."""
    errors = [finding for finding in report.findings if finding.severity == "error"]
    yield from _of_parameters(report, errors)
    yield from _of_findings(report, errors)
    if report.error is not None and report.ok:
        said = _quoted(table.raised(report.error))
        yield "the program runs", report.model, f"<failure message={said} type={_quoted(report.error.type)}/>"


def _of_parameters(report: ReportData, errors: Sequence[Finding]) -> Iterator[tuple[str, str, str]]:
    accused: dict[str, Finding] = {}
    for finding in errors:
        for name in finding.parameters:
            accused.setdefault(name, finding)
    frozen = {name for fact in report.parameters if not fact.requires_grad for name in fact.names}
    for name, verdict in report.verdicts.items():
        why = "requires_grad=False" if name in frozen else f"its gradient: {verdict}"
        outcome = "" if verdict == "flows" else f"<skipped message={_quoted(why)}/>"
        yield name, report.model, _failure(report, accused[name]) if name in accused else outcome


def _of_findings(report: ReportData, errors: Sequence[Finding]) -> Iterator[tuple[str, str, str]]:
    """Those that name no parameter of the report."""
    seen: Counter[str] = Counter()
    for finding in errors:
        if report.verdicts.keys().isdisjoint(finding.parameters):
            # No line number: a CI knows a test case again by its name.
            function = finding.site.function if finding.site is not None else ""
            name = f"{finding.code} {finding.name}{f' in {function}' if function else ''}"
            seen[name] += 1
            yield (
                name if seen[name] == 1 else f"{name} ({seen[name]})",
                report.model,
                _failure(report, finding),
            )


def _failure(report: ReportData, finding: Finding) -> str:
    """What to know in the message, where to look in the text."""
    said = [
        f"{place(finding.site)}: {finding.code} {finding.name}"
        if finding.site
        else f"{finding.code} {finding.name}"
    ]
    said += excerpt(finding.site) if finding.site is not None else ()
    if finding.path:
        said.append(f"path: {table.path(finding.path)}")
    if len(finding.parameters) > 1:
        said.append(f"parameters: {shown(finding.parameters, report.verdicts, limit=_NAMES)}")
    if finding.fix is not None:
        said.append(f"help: {finding.fix.advice}")
    return (
        f"<failure message={_quoted(finding.message)} "
        f"type={_quoted(finding.code)}>{_text(chr(10).join(said))}</failure>"
    )


def _attributes(values: dict[str, str]) -> str:
    return "".join(f" {name}={_quoted(value)}" for name, value in values.items())


def _quoted(text: str) -> str:
    return quoteattr(" ".join(text.translate(_NO_CHARACTERS).split()))


def _text(text: str) -> str:
    return escape(text.translate(_NO_CHARACTERS))
