"""The page as a whole, and what of it a notebook holds."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from html import escape
from importlib.resources import files

from fxgrad.records.report import ReportData
from fxgrad.report import across_ranks
from fxgrad.report.html.findings import articles, raised
from fxgrad.report.html.run import about, head
from fxgrad.report.html.tree import VERDICTS, shown_verdicts, tree
from fxgrad.report.table import plural

STYLE = files(__package__).joinpath("style.css").read_text("utf-8")
SCRIPT = files(__package__).joinpath("script.js").read_text("utf-8")

# What a notebook, which keeps its outputs in its file, shows of a report.
_ROWS = 200  # of more parameters, no rows for what simply trains
_FINDINGS = 50


def render(report: ReportData, *, verbose: bool = False) -> str:
    """The whole page. Notes are folded unless `verbose`."""
    counts = Counter(shown_verdicts(report).values())
    parts = [
        *header(report),
        bar({verdict: (verdict, counts[verdict]) for verdict in VERDICTS}),
        "<main>",
        *sections(report, "", verbose=verbose),
        "</main>",
        f"<footer><h2>This report</h2>{said}</footer>" if (said := about(report)) else "",
        f"<script>{SCRIPT}</script>",
    ]
    return whole(f"fxgrad: {report.model}", parts)


def output(report: ReportData) -> str:
    """The same without what runs, for a notebook. Its outputs are one page: anchors begin with what tells
    this report from another."""
    known = repr((report.findings, report.notes, dict(report.verdicts)))
    prefix = f"fxgrad-{hashlib.sha256(known.encode('utf-8', 'replace')).hexdigest()[:8]}-"
    said = about(report)
    left = max(len(report.findings) - _FINDINGS, 0)
    shown = replace(report, findings=report.findings[:_FINDINGS], notes=report.notes[:_FINDINGS])
    parts = [
        f"<style>{STYLE}</style><div class=fxgrad>",
        *header(report),
        "<main>",
        *sections(shown, prefix, flowing=len(report.verdicts) <= _ROWS),
        "</main>",
        f'<p class=muted>{plural(left, "more finding")}: <code>report.render("html")</code></p>'
        if left
        else "",
        f"<footer><details><summary>this report</summary>{said}</details></footer>" if said else "",
        "</div>",
    ]
    return "\n".join(filter(None, parts))


def whole(title: str, parts: Iterable[str], kind: str = "") -> str:
    """A page that needs nothing else; `kind`: a class of its body."""
    head = (
        "<!doctype html><html lang=en><head><meta charset=utf-8>\n"
        '<meta name=viewport content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f'<body class="{f"fxgrad {kind}".strip()}">'
    )
    return "\n".join([head, *filter(None, parts), "</body></html>"])


def header(report: ReportData) -> Iterator[str]:
    """What it is of, what was found, and what that rests on."""
    errors = sum(f.severity == "error" for f in report.findings)
    starved = sum(v != "flows" for v in shown_verdicts(report).values())
    yield f"<header><h1>{escape(report.model + across_ranks.title(report))}</h1>"
    yield (
        f"<p class=headline>{plural(len(report.verdicts), 'parameter')}, {starved} without a full gradient, "
        f"{plural(errors, 'error')}</p>"
    )
    yield from head(report)
    yield "</header>"


def bar(counts: Mapping[str, tuple[str, int]]) -> str:
    """What stays in sight: the filter, and a button for each kind of row that occurs; by kind its colour and
    how many there are."""
    chips = "".join(
        f'<button type=button class="v {colour}" data-chip="{kind}" aria-pressed=false>'
        f"{kind} {count}</button>"
        for kind, (colour, count) in counts.items()
        if count
    )
    return (
        '<nav><input id=filter type=search placeholder="filter: words of a name, verdict, code ( / )" '
        f'aria-label="filter parameters and findings"><span class=chips>{chips}</span>'
        "<small>n, p: next, previous finding<label hidden>; places open in "
        "<select id=editor></select></label></small>"
        "</nav>"
    )


def sections(
    report: ReportData, prefix: str, *, verbose: bool = False, flowing: bool = True
) -> Iterator[str]:
    """What is wrong, and the parameters. `prefix` begins each anchor, for a page that holds several reports;
    `flowing`: see `tree`."""
    listed, error = [*report.findings, *report.notes], f"{prefix}error"
    anchors = [f"{prefix}finding-{number}" for number in range(len(listed))]
    shown = articles(report, listed, anchors)
    count = len(report.findings)
    yield "<section aria-label=findings><h2>Findings</h2>"
    if report.error is not None:
        blamed = [(f.code, to) for f, to in zip(listed, anchors, strict=True) if f.severity == "error"]
        yield raised(report.error, error, blamed)
    yield from shown[:count]
    if not listed and report.error is None:
        yield "<p class=fine>No findings: every parameter that should train gets a gradient.</p>"
    if report.notes:
        opened = " open" if verbose else ""
        yield f"<details class=notes{opened}><summary>{plural(len(report.notes), 'note')}</summary>"
        yield from shown[count:]
        yield "</details>"
    causes: dict[str, tuple[str, str]] = {}
    for finding, anchor in zip(listed, anchors, strict=True):
        for name in finding.parameters:
            causes.setdefault(name, (finding.code, anchor))
    if report.error is not None:
        for name, verdict in report.verdicts.items():
            if verdict == "blocked":
                causes.setdefault(name, (report.error.type, error))
    yield f'</section><section aria-label=parameters><h2>Parameters</h2><div id="{prefix}tree">'
    yield f"{tree(report, causes, flowing=flowing)}</div></section>"
