"""What a report that was gathered from several processes says of them, in words. A report on one has nothing
to say here."""

from __future__ import annotations

from collections.abc import Iterable

from fxgrad.records import Finding
from fxgrad.records.ranks import Ending, on_ranks
from fxgrad.records.report import ReportData
from fxgrad.report.globs import shown
from fxgrad.source.excerpt import place

_NAMES = 6  # names shown of one difference


def title(report: ReportData) -> str:
    """` on 4 ranks`, for the head."""
    return f" on {report.ranks.size} ranks" if report.ranks is not None else ""


def where(report: ReportData, finding: Finding) -> str:
    """`rank 1 of 2`, for a finding that does not hold on all; else ""."""
    if report.ranks is None or len(finding.ranks) == report.ranks.size:
        return ""
    return on_ranks(finding.ranks, report.ranks.size)


def left_out(report: ReportData) -> bool:
    """Whether there is a rank of which nothing is in the report."""
    return report.ranks is not None and not all(ending.reported for ending in report.ranks.endings)


def endings(report: ReportData) -> Iterable[str]:
    """A line for every rank that did not simply train."""
    if report.ranks is not None:
        yield from (ended(ending, report.ranks.size) for ending in report.ranks.endings)


def ended(ending: Ending, size: int) -> str:
    """`rank 1 of 2 raised KeyError: 'x' at train.py:12:5: nothing of it is in this report`."""
    at = f" at {place(ending.site)}" if ending.site is not None else ""
    return (
        f"{on_ranks([ending.rank], size)} "
        f"{ending.said}{at}{'' if ending.reported else ': nothing of it is in this report'}"
    )


def differing(report: ReportData) -> Iterable[str]:
    """The section on parameters that get a gradient on some ranks only."""
    if report.ranks is None or not report.ranks.differing:
        return
    size = report.ranks.size
    yield "differs between ranks:"
    for difference in report.ranks.differing:
        names = shown(difference.parameters, report.verdicts, limit=_NAMES)
        yield (
            f"  {names}: a gradient on {on_ranks(difference.on, size)}, none on "
            f"{on_ranks(difference.without, size)}"
        )
        at = f" {place(difference.site)}:" if difference.site is not None else ""
        yield f"    {on_ranks(difference.without, size)}:{at} {difference.why}"
