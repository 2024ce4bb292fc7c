"""One judge, of an analysis and of a watch: every rule speaks of the same evidence, and one cause is one
finding. What the user has silenced is set apart by `fxgrad.report.intent`.

 1. `RULES` speak of the facts. Of parameters whose verdict is unknown nothing is said; where a backward met a
    freed graph, what the step had yet to reach is unknown too.
 2. Of the error that ended a watched script `LOOK_UPS` give causes, which stand for what was found before of
    the same parameters. Where a gradient that is None has a cause that was found, the finding of the cause
    says so at its end.
 3. An error that nothing explains is told in its own words.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from fxgrad.diagnosis import asked
from fxgrad.passes import LOOK_UPS, RULES
from fxgrad.passes.analyses.death.absent import Asked, symptom
from fxgrad.passes.analyses.death.no_gradient import blamed
from fxgrad.passes.analyses.death.record import Death
from fxgrad.passes.context import Context, Rule
from fxgrad.passes.findings import line_of, of_cause
from fxgrad.passes.rules import fxg102_frozen_parameter, fxg201_overwritten_saved_tensor
from fxgrad.passes.rules.fxg002_program_raises import unexplained
from fxgrad.records import Facts, Finding
from fxgrad.torch_api.errors import says


def judge(facts: Facts, context: Context, rules: Sequence[Rule] = RULES) -> tuple[Finding, ...]:
    """What there is to say."""
    found = [finding for rule in rules for finding in rule.check(facts, context)]
    found = [finding for finding in found if _stands(finding, context)]
    if not _is_error(found):
        frozen = list(fxg102_frozen_parameter.still_frozen(facts, context))
        told_at = {(finding.code, finding.site) for finding in frozen}
        found = [*(f for f in found if (f.code, f.site) not in told_at), *frozen]
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
    return True


def _of_the_end(facts: Facts, context: Context, found: Sequence[Finding]) -> Iterator[Finding]:
    """Definition 2."""
    if context.ended is None:
        return
    death = Death(facts, context, context.ended, found)
    for rule, kind, look_up in LOOK_UPS:
        if says(death.message, kind):
            yield from (of_cause((rule.CODE, rule.NAME), cause) for cause in look_up(death))
    missing = symptom(death)
    if isinstance(missing, Asked):
        yield from asked.findings(death, missing)
    yield from asked.of_a_later_loss(death)
    blame = blamed(death)
    if blame is not None:
        name, cause = blame
        yield replace(
            cause, message=f"{cause.message}; so `{name}.grad`{line_of(death.site, cause.site)} is None"
        )


def _answers(one: Finding, other: Finding) -> bool:
    """Whether an error is of the same cause as one whose cause the exception told."""
    return (
        other.severity == "error" and bool(other.parameters) and set(other.parameters) <= set(one.parameters)
    )
