"""How the report came about: what was assumed, the branches taken, the versions and the command; and what it
leaves out."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from fxgrad.records.report import ReportData
from fxgrad.report import across_ranks
from fxgrad.report.html.markup import place_link, prose
from fxgrad.report.table import plural


def head(report: ReportData) -> Iterator[str]:
    """The lines below the headline: what everything else on the page rests on."""
    loss = f"loss: {prose(report.loss_used)}; " if report.loss_used else ""
    yield f"<p class=muted>{loss}on {escape(report.values)} values, {plural(report.nodes, 'step')}</p>"
    if report.paths_cut_off:
        yield f"<p class=warned>not every outcome was explored: the limit of {report.paths} was reached</p>"
    for assumption in report.assumptions:
        yield f"<p class=muted>assumed: {prose(assumption)}</p>"
    for said in [*across_ranks.endings(report), *across_ranks.differing(report)]:
        yield f"<p class=muted>{prose(said)}</p>"


def about(report: ReportData) -> str:
    """A list of terms."""
    rows = "".join(f"<dt>{term}</dt><dd>{said}</dd>" for term, said in _rows(report))
    return f"<dl>{rows}</dl>" if rows else ""


def _rows(report: ReportData) -> Iterator[tuple[str, str]]:
    if report.command:
        yield "command", f"<code>{escape(report.command)}</code>"
    if report.versions:
        yield "versions", escape(", ".join(f"{name} {said}" for name, said in report.versions.items()))
    if report.paths > 1:
        yield "outcomes", f"{report.paths} of data-dependent branches"
    for decision in report.decisions:
        basis = "the example inputs decide" if decision.known else "explored"
        where = place_link(decision.site) or "an unknown line"
        yield "branch", f"{where}: took {decision.outcome} ({basis})"
    if report.deselected:
        yield "left out", f"{plural(report.deselected, 'finding')} by select and ignore"
    for finding in report.suppressed:
        yield "silenced", f"{finding.code} {place_link(finding.site)} {prose(finding.message)}"
