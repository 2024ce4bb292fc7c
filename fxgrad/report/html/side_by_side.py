"""Two reports on one page, the older on the left, below what has changed from one to the other.

Made from two reports and the changes that `fxgrad.report.comparison` found between them. One filter goes
through all; a change leads to what it names on either side. Not handled: more than two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from html import escape
from typing import Protocol

from fxgrad.records.report import ReportData
from fxgrad.report.html.markup import attribute, badge, prose
from fxgrad.report.html.page import SCRIPT, bar, header, sections, whole
from fxgrad.report.html.run import about
from fxgrad.report.table import plural

# Every kind of change, with the colour of a verdict.
KINDS = {"lost": "none", "gained": "flows", "other cause": "zero", "removed": "frozen", "added": "frozen"}


class Change(Protocol):
    """One parameter: see `fxgrad.report.comparison.Change`."""

    @property
    def kind(self) -> str: ...
    @property
    def parameter(self) -> str: ...
    @property
    def before(self) -> str: ...
    @property
    def after(self) -> str: ...
    @property
    def because(self) -> str: ...


def side_by_side(old: ReportData, new: ReportData, changes: Sequence[Change], titles: tuple[str, str]) -> str:
    """The page. `titles`: what each report is of, as the user said it."""
    counts = Counter(change.kind for change in changes)
    said = ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind])
    parts = [
        f"<header><h1>{escape(titles[0])} → {escape(titles[1])}</h1>",
        f"<p class=headline>{escape(said) if said else 'no gradient was lost or gained'}</p></header>",
        bar({_token(kind): (colour, counts[kind]) for kind, colour in KINDS.items()}),
        *_changes(changes),
        "<main>",
        *_side(old, "old-", titles[0]),
        *_side(new, "new-", titles[1]),
        "</main>",
        f"<script>{SCRIPT}</script>",
    ]
    return whole(f"fxgrad: {titles[0]} → {titles[1]}", parts, "pair")


def _token(kind: str) -> str:
    """A kind in one word."""
    return kind.replace(" ", "-")


def _changes(changes: Sequence[Change]) -> Iterator[str]:
    if not changes:
        return
    yield f"<section aria-label=changes data-chips><h2>{plural(len(changes), 'change')}</h2>"
    for change in changes:
        words = f"{change.parameter} {change.kind} {change.before} {change.after} {change.because}"
        states = " → ".join(
            badge(state, state) if state else "not there" for state in (change.before, change.after)
        )
        because = f" <small>{prose(change.because)}</small>" if change.because else ""
        yield (
            f'<div class=p data-s="{attribute(words.lower())}" data-v={_token(change.kind)}>'
            f"{badge(KINDS[change.kind], change.kind)} {escape(change.parameter)} {states}{because}</div>"
        )
    yield "</section>"


def _side(report: ReportData, prefix: str, title: str) -> Iterator[str]:
    yield f'<section aria-label="{attribute(title)}"><p class=muted>{escape(title)}</p>'
    yield from header(report)
    yield from sections(report, prefix)
    if said := about(report):
        yield f"<footer><h2>This report</h2>{said}</footer>"
    yield "</section>"
