"""One judge, of an analysis and of a watch: every rule speaks of the same evidence, one cause is one finding, and
what the user has silenced is set apart.

 1. `RULES` speak of the facts. Of parameters whose verdict is unknown nothing is said; where a backward met a
    freed graph, what the step had yet to reach is unknown too.
 2. Of the error that ended a watched script `ENDED` speak, and what they say stands for what was found before
    of the same parameters. Where a gradient that is None has a cause that was found, the finding of the cause
    says so at its end.
 3. An error that nothing explains is told in its own words.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from fxgrad.diagnosis import asked
from fxgrad.passes import ENDED, RULES
from fxgrad.passes.analyses.death.absent import Asked, symptom
from fxgrad.passes.analyses.death.no_gradient import NoGradient, blamed
from fxgrad.passes.analyses.death.record import death_of
from fxgrad.passes.context import Context
from fxgrad.passes.findings import line_of
from fxgrad.passes.rules import (
    fxg102_frozen_parameter,
    fxg201_overwritten_saved_tensor,
    fxg202_inplace_on_leaf,
)
from fxgrad.passes.rules.fxg002_program_raises import unexplained
from fxgrad.records import Facts, Finding
from fxgrad.report.intent import Intent, hear

LISTED_NOTES = ("FXG001", "FXG102", "FXG303")


@dataclass(frozen=True, slots=True)
class Judgement:
    """`notes`: findings of what the user did on purpose, or of a cut that starves nothing wanted; they are
    shown only on request. `suppressed`: what the user has silenced."""

    findings: tuple[Finding, ...]
    notes: tuple[Finding, ...]
    suppressed: tuple[Finding, ...]


def heard(findings: Iterable[Finding], intent: Intent, files: Sequence[str]) -> Judgement:
    """The findings, as the user's comments and settings want them."""
    sorted_out = hear(findings, intent, files)
    listed = [f.severity != "note" or f.code in LISTED_NOTES for f in sorted_out.findings]
    pairs = list(zip(sorted_out.findings, listed, strict=True))
    return Judgement(
        tuple(f for f, is_listed in pairs if is_listed),
        tuple(f for f, is_listed in pairs if not is_listed),
        sorted_out.suppressed,
    )


def judge(facts: Facts, context: Context) -> tuple[Finding, ...]:
    """What there is to say."""
    found = [finding for rule in RULES for finding in rule.check(facts, context)]
    found = [finding for finding in found if _stands(finding, context)]
    if not _is_error(found):
        found += fxg102_frozen_parameter.still_frozen(facts, context)
    told = list(_of_the_end(facts, context, found))
    found = [*(f for f in found if not any(_answers(one, f) for one in told)), *told]
    if not _is_error(found):
        found += unexplained(facts, context)
    return tuple(found)


def _is_error(found: Iterable[Finding]) -> bool:
    return any(finding.severity == "error" for finding in found)


def _stands(finding: Finding, context: Context) -> bool:
    """Definition 1."""
    training, names = context.training, finding.parameters
    if training is None:
        return True
    if training.unfinished and names and all(context.verdicts.get(name) == "blocked" for name in names):
        return False
    if context.meeting is not None and finding.code != fxg201_overwritten_saved_tensor.CODE:
        return finding.severity != "error" or any(context.verdicts.get(name) == "none" for name in names)
    # the write that torch refused there is of its own collating
    return training.sent_away is None or finding.code != fxg202_inplace_on_leaf.CODE


def _of_the_end(facts: Facts, context: Context, found: Sequence[Finding]) -> Iterator[Finding]:
    """Definition 2."""
    for ended in ENDED:
        yield from ended(facts, context, found)
    death, none = death_of(facts, context), symptom(facts, context)
    if death is None:
        return
    if isinstance(none, Asked):
        yield from asked.findings(death, none, found)
    elif isinstance(none, NoGradient) and none.why(death) == "unreached":
        cause = blamed(none.name, found)
        if cause is not None:
            where = line_of(death.site, cause.site)
            yield replace(cause, message=f"{cause.message}; so `{none.name}.grad`{where} is None")


def _answers(one: Finding, other: Finding) -> bool:
    """Whether an error is of the same cause as one whose cause the exception told."""
    return (
        other.severity == "error" and bool(other.parameters) and set(other.parameters) <= set(one.parameters)
    )
