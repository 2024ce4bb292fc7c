"""The report on all ranks, from those of each.

1. A name stands for one parameter wherever it is found. A rank that has none of that name, or does not train
   it and gives it no gradient (it belongs to another pipeline stage), has no say in it if another has.
2. A sharded parameter gets the best of what its parts got. Of a replicated one, zeros on some ranks are a
   matter of their data; no gradient on some is a *difference*, and the verdict is `none`.
3. A finding is one wherever code, place, message and parameters agree, and holds on the ranks that made it.
   Where a parameter flows it is not accused of the zeros that one rank saw: they are its part's, or its
   data's (a loss times 0 keeps a rank without samples in step).
4. For a difference FXG501 is said in place of what each rank said of those parameters alone.

Not handled: different parameters of one name and shape on different ranks, as stages built by hand may have
them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from fxgrad.passes.rules import fxg501_ddp_unused_parameter as unused
from fxgrad.records import Decision, Finding, ParameterFact, Site
from fxgrad.records.ranks import Difference, Ending, Ranks, on_ranks
from fxgrad.report import Report
from fxgrad.watching.ranks.share import Share

_BEST = ("flows", "branch", "zero", "none", "blocked")
_STATE = {"flows": "some", "branch": "some", "zero": "zero", "none": "none", "blocked": "unknown"}


def merged(shares: Sequence[Share], size: int) -> Report | None:
    """The report on all ranks; None where no rank has one."""
    reports = _reports(shares)
    if not reports:
        return None
    first = next(iter(reports.values()))
    by_name = _by_name(reports)
    facts = _facts(reports.values())
    sharded = {name for name, fact in facts.items() if fact.sharded}
    verdicts = {name: _verdict(found.values(), name in sharded) for name, found in by_name.items()}
    ended = tuple(endings(shares, size))
    differing = tuple(_differences(by_name, reports))
    said = {rank: [*report.findings, *report.notes] for rank, report in reports.items()}
    findings = _findings(said, by_name, verdicts)
    if differing:
        findings = [*_told(findings, differing, ended, size), *_kept(findings, differing)]
    notes = _notes(findings, reports.values())
    suppressed = {rank: report.suppressed for rank, report in reports.items()}
    return replace(
        first,
        verdicts=verdicts,
        findings=tuple(finding for finding in findings if finding not in notes),
        notes=notes,
        parameters=tuple(_parameters(reports.values(), verdicts)),
        assumptions=tuple(_assumptions(reports, size)),
        loss_used=_loss(reports.values()),
        error=next((report.error for report in reports.values() if report.error is not None), None),
        deselected=max(report.deselected for report in reports.values()),
        suppressed=tuple(_findings(suppressed, by_name, verdicts)),
        ranks=Ranks(size, by_name, differing, ended),
    )


def _reports(shares: Iterable[Share]) -> dict[int, Report]:
    """By rank, in order."""
    found = {share.rank: share.report for share in shares if share.report is not None}
    return dict(sorted(found.items()))


def _facts(reports: Iterable[Report]) -> dict[str, ParameterFact]:
    return {name: fact for report in reports for fact in report.parameters for name in fact.names}


def _notes(findings: Iterable[Finding], reports: Iterable[Report]) -> tuple[Finding, ...]:
    """What is a note, and was one on a rank."""
    noted = {(finding.code, finding.site) for report in reports for finding in report.notes}
    return tuple(f for f in findings if f.severity == "note" and (f.code, f.site) in noted)


# ------------------------------------------------------------------ verdicts


def _by_name(reports: Mapping[int, Report]) -> dict[str, dict[int, str]]:
    """The verdicts of the ranks that have a say in a parameter; of all where none has."""
    found: dict[str, dict[int, str]] = {}
    for rank, report in reports.items():
        for name, verdict in report.verdicts.items():
            found.setdefault(name, {})[rank] = verdict
    idle = {
        (rank, name)
        for rank, report in reports.items()
        for fact in report.parameters
        for name in fact.names
        if _is_idle(fact)
    }
    for name, verdicts in found.items():
        found[name] = {
            rank: verdict for rank, verdict in verdicts.items() if (rank, name) not in idle
        } or verdicts
    return found


def _is_idle(fact: ParameterFact) -> bool:
    """Not meant to train here; or FSDP1 keeps nothing of it here."""
    return (
        fact.requires_grad
        and fact.gradient == "none"
        and (not fact.expected or (fact.sharded and 0 in fact.shape))
    )


def _verdict(found: Iterable[str], sharded: bool) -> str:
    said = set(found)
    if not sharded and "none" in said:
        return "none"
    return min(said, key=_BEST.index)


def _parameters(reports: Iterable[Report], verdicts: Mapping[str, str]) -> Iterable[ParameterFact]:
    told: set[str] = set()
    for report in reports:
        for fact in report.parameters:
            if fact.name not in told:
                told.update(fact.names)
                yield replace(fact, gradient=_STATE[verdicts[fact.name]])  # type: ignore[arg-type]


def _loss(reports: Iterable[Report]) -> str:
    """Of a pipeline only the last stage calls backward."""
    return next(
        (report.loss_used for report in reports if report.loss_used != "no backward ran"), "no backward ran"
    )


def _assumptions(reports: Mapping[int, Report], size: int) -> Iterable[str]:
    said: dict[str, list[int]] = {}
    for rank, report in reports.items():
        for assumption in report.assumptions:
            said.setdefault(assumption, []).append(rank)
    for assumption, ranks in said.items():
        yield assumption if len(ranks) == len(reports) else f"{assumption} (on {on_ranks(ranks, size)})"


# ------------------------------------------------------------------ how ranks ended


def endings(shares: Sequence[Share], size: int) -> Iterable[Ending]:
    """Every rank that did not simply train, those that gave no share last."""
    yield from sorted(
        (share.ending for share in shares if share.ending is not None), key=lambda ending: ending.rank
    )
    heard = {share.rank for share in shares}
    for rank in range(size):
        if rank not in heard:
            yield Ending(rank, "silent", "gave nothing in time: it was killed, or is still busy")


# ------------------------------------------------------------------ differences


def _differences(
    by_name: Mapping[str, Mapping[int, str]], reports: Mapping[int, Report]
) -> Iterable[Difference]:
    groups: dict[tuple[tuple[int, ...], tuple[int, ...], Site | None, str], list[str]] = {}
    for name, found in by_name.items():
        on = tuple(rank for rank, verdict in found.items() if verdict in ("flows", "zero", "branch"))
        without = tuple(rank for rank, verdict in found.items() if verdict == "none")
        if not on or not without:
            continue
        site, why = _cause(name, on, without, reports)
        groups.setdefault((on, without, site, why), []).append(name)
    for (on, without, site, why), names in groups.items():
        yield Difference(tuple(names), on, without, site, why)


def _cause(
    name: str, on: Sequence[int], without: Sequence[int], reports: Mapping[int, Report]
) -> tuple[Site | None, str]:
    """A branch on data that went another way; else what the rank without the gradient found."""
    parted = _parted(reports[on[0]].decisions, reports[without[0]].decisions)
    if parted is not None:
        return (
            parted.site,
            f"this branch on data was {parted.outcome} there and {not parted.outcome} on rank {on[0]}",
        )
    for rank in without:
        report = reports[rank]
        about = [
            f
            for f in [*report.findings, *report.notes]
            if name in f.parameters and f.code != unused.CODE and not f.code.startswith("FXG3")
        ]
        for finding in about:
            return finding.site, f"{finding.code} {finding.message}"
    return None, "no line is known"


def _parted(one: Sequence[Decision], other: Sequence[Decision]) -> Decision | None:
    """The first branch that the second took and the first did not."""
    for mine, its in zip(one, other, strict=False):
        if mine.site != its.site:
            return None
        if mine.outcome != its.outcome:
            return its
    return None


# ------------------------------------------------------------------ findings


def _findings(
    by_rank: Mapping[int, Sequence[Finding]],
    by_name: Mapping[str, Mapping[int, str]],
    verdicts: Mapping[str, str],
) -> list[Finding]:
    """Each finding once, with its ranks, without what is true of one part or one rank's data only, or of a
    parameter that lives elsewhere."""
    ranks: dict[Finding, list[int]] = {}
    for rank, findings in by_rank.items():
        for finding in findings:
            left = tuple(
                n
                for n in finding.parameters
                if n not in by_name or _stands(by_name[n].get(rank), verdicts[n])
            )
            if left or not finding.parameters:
                ranks.setdefault(replace(finding, parameters=left), []).append(rank)
    return [replace(finding, ranks=tuple(found)) for finding, found in ranks.items()]


def _stands(here: str | None, verdict: str) -> bool:
    """Whether a finding on one rank holds for a parameter with this verdict there (None: the rank has no say)
    and that one over all."""
    return here is not None and not (verdict == "flows" and here in ("zero", "none"))


def _told(
    findings: Sequence[Finding], differing: Sequence[Difference], ended: Sequence[Ending], size: int
) -> Iterable[Finding]:
    """FXG501 for every difference: an error where a rank has raised or stands still for it, else a
    warning."""
    broken = any(ending.kind == "stood still" for ending in ended)
    for difference in differing:
        raised = [
            f
            for f in findings
            if f.code == unused.CODE
            and f.severity == "error"
            and set(f.parameters) & set(difference.parameters)
        ]
        site = difference.site or next((f.site for f in raised), None)
        yield unused.on_some_ranks(difference, size, site, "error" if broken or raised else "warning")


def _kept(findings: Sequence[Finding], differing: Sequence[Difference]) -> Iterable[Finding]:
    """The findings without those of FXG501 that only speak of differences."""
    told = {name for difference in differing for name in difference.parameters}
    return (f for f in findings if f.code != unused.CODE or not f.parameters or not set(f.parameters) <= told)
