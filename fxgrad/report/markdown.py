"""The report as GitHub's Markdown, for a pull request or a job's summary: the headline, the table of
verdicts, every finding with its lines.

Made from a `Report` alone. Other people's words are text here, not markup: names stand in code, and what
Markdown, HTML, a mention (`@name`) or a reference (`#12`) would be read from is written so that it is not.
Words in backticks are code as they stand. Not handled: links to the lines, which need the address of the
repository.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from fxgrad.records import Finding, Fix
from fxgrad.records.report import ReportData
from fxgrad.report import across_ranks
from fxgrad.report.globs import shown
from fxgrad.report.table import HEADERS, closing, head, path, raised, verdict_rows
from fxgrad.source.excerpt import excerpt, place

_NAMES = 6
_EVERYTHING = 10**9
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "@<!-- -->"}


def render(report: ReportData, *, verbose: bool = False) -> str:
    """The whole report; blocks are parted by an empty line."""
    title, *basis = head(report)
    rows = [
        (code(name), count, verdict, prose(why))
        for name, count, verdict, why in verdict_rows(report, verbose)
    ]
    findings = [*report.findings, *(report.notes if verbose else ())]
    blocks = [
        f"### {prose(title)}",
        "<br>\n".join(map(prose, basis)),
        table(HEADERS, rows),
        prose("; ".join(line.strip() for line in across_ranks.differing(report))),
        prose(raised(report.error, verbose=verbose)) if report.error is not None else "",
        *("\n\n".join(_finding(report, finding, verbose)) for finding in findings),
        prose(closing(report, verbose)),
    ]
    return "\n\n".join(block for block in blocks if block)


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are Markdown already; "" without rows."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    rule = "|".join("---" for _ in headers)
    return "\n".join([f"| {' | '.join(headers)} |", f"|{rule}|", *lines]) if lines else ""


def code(text: str) -> str:
    """A text as code within a line, also in a cell of a table."""
    marks = "`" * (1 + max((len(found) for found in re.findall("`+", text)), default=0))
    blank = " " if "`" in text else ""
    return f"{marks}{blank}{_one_line(text)}{blank}{marks}".replace("|", "\\|")


def prose(text: str) -> str:
    """A sentence as Markdown that says the same; what is in backticks is code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # one of them stands alone
        return _escaped(text)
    return "".join(code(part) if at % 2 and part else _escaped(part) for at, part in enumerate(parts))


def _escaped(text: str) -> str:
    text = "".join(_ENTITIES.get(character, character) for character in _one_line(text))
    text = re.sub(r"#(?=\d)", "#<!-- -->", text)
    return re.sub(r"([\\`*_{}\[\]|~])", r"\\\1", text)


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def _finding(report: ReportData, finding: Finding, verbose: bool) -> Iterable[str]:
    where = place(finding.site) if finding.site else report.model
    yield (
        f"**{finding.code} {prose(finding.name)}** ({finding.severity}) "
        f"{code(where)}<br>\n{prose(finding.message)}"
    )
    if finding.site is not None and (lines := excerpt(finding.site)):
        yield fenced("\n".join(lines))
    said = []
    if ranks := across_ranks.where(report, finding):
        said.append(f"on: {prose(ranks)}")
    if finding.path:
        said.append(f"path: {prose(path(finding.path))}")
    if finding.parameters:
        limit = _EVERYTHING if verbose else _NAMES
        said.append(f"parameters: {code(shown(finding.parameters, report.verdicts, limit=limit))}")
    if finding.fix is not None:
        said += _fix(finding.fix)
    if said:
        yield "\n".join(f"- {line}" for line in said)


def _fix(fix: Fix) -> Iterable[str]:
    yield f"help: {prose(fix.advice)}"
    for edit in fix.edits:
        old, new = (code(text) if text.strip() else "nothing" for text in (edit.old, edit.new))
        yield f"fix ({fix.safety}) {code(place(edit.site))}: {old} → {new}"


def fenced(text: str, language: str = "text") -> str:
    """A block of code that nothing in it can end."""
    marks = "`" * max(3, 1 + max((len(found) for found in re.findall("`+", text)), default=0))
    return f"{marks}{language}\n{text}\n{marks}"
