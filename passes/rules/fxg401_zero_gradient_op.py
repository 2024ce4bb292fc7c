"""A gradient arrives and is zero whatever the data: round, floor, sign, `x * 0`, a mask of zeros,
contributions that cancel.

What it finds
    Parameters whose gradient is a tensor of zeros and stays so when inputs and weights are drawn again, with
    the step that turns it to zeros: rounding and sign, sampling without reparametrisation (`torch.normal`,
    `torch.bernoulli`), a factor or a loss weight of 0, a mask that is constant and zero, a softmax or a cross
    entropy over a single element, a value overwritten or cut off before the loss, hooks, and contributions
    that cancel (the last bias of a critic). Two layers in a row that both start at zero, a weight that
    multiplies a zero state, a table of which only the padding row is read: a warning, for no step changes
    that; so is a ReLU that is off in several steps of a watched script. Zero for now is no finding: a ReLU
    that is off for one batch, a saturated sigmoid; a note where a hook masks rows of a table (other rows may
    pass), and where what starts at zero (LoRA's B, a gate) gets a gradient itself and so lets one through
    after the first step. Where every gradient is zero that is always said: an error
    of a watched script, a note of one analysis whose inputs alone show it. Where no loss was given and the
    sum of the outputs stands in for one, what that sum alone makes zero (a softmax, a centred value) is a
    note. In a watched script also a loss that is NaN, and a warning of one that is infinite: a note where it
    is of half precision, in which a loss that a scaler multiplied may overflow.

Why it matters
    Nothing raises and `.grad` is there, so checks for None pass. The optimizer steps, with weight decay only.

Example
    quantised = torch.round(h * 16) / 16

Instead
    quantised = h + (torch.round(h * 16) / 16 - h).detach()

When the fix is safe
    A straight-through or soft version changes the gradient from nothing to an estimate: whether it is a good
    one is the user's judgement. A zero weight that a schedule raises later needs no fix.

Not handled
    Zeros of a matrix product. On fake tensors only operations with a zero derivative and factors written as 0
    are known. What rests on a buffer, or on a loss weight, is a warning: something may change it between
    steps.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from fxgrad.passes.analyses import zero_causes
from fxgrad.passes.analyses.zero_causes import ZeroCause
from fxgrad.passes.analyses.zeros import CANCELS, OFF
from fxgrad.passes.context import Context
from fxgrad.passes.findings import listed, text_of
from fxgrad.records import Facts, Finding, Fix, Severity, Site, Step
from fxgrad.records.training import Walk

CODE = "FXG401"
NAME = "zero-gradient-op"
SEVERITY = "error"

IDLE = "nothing trains"  # of a note: it is shown all the same
_BY_THE_SUM = "by the sum of the outputs"  # a kind: another loss would train it
_SUMMED = " under the sum of the outputs, which stands in for a loss where none is given"
_GIVE = (
    "give the loss that trains it (`loss=...`, `--loss`): under one that weighs the outputs differently it "
    "gets a gradient"
)
_AND_NAN = " and the loss is NaN"
_OF_NAN = (
    "look for an empty selection (the mean of nothing), 0 / 0, the logarithm or root of what may be "
    "negative, or a learning rate too high"
)

_OF_INFINITY = "look for the logarithm of zero, a division by zero, or an exponential of a large number"
_OF_HALF = (
    "nothing to mend where a GradScaler scaled it: it skips the step; else compute the loss in float32, half "
    "precision ends at 65504"
)


def check(facts: Facts, context: Context) -> Iterator[Finding]:
    """One finding per line that turns gradients to zero, and one of a step that gives nothing but zeros; of a
    watched script also one of a loss that is NaN or infinite."""
    causes = zero_causes.analyse(context)
    found = [_finding(cause, context) for cause in causes if not cause.term]
    found += _for_now(context)
    training = context.training
    losses = training.losses() if training is not None else ()
    undefined = _always_nan(facts, losses)
    nan = bool(losses) and len(undefined) == len(losses)
    idle = zero_causes.idle(facts, context)
    for one in found:
        yield _of_a_step(one, idle.intersection(one.parameters), nan=nan, trained=training is not None)
    told = set(itertools.chain(*(cause.names for cause in causes), *(one.parameters for one in found)))
    told.update(training.emptied if training is not None else ())  # FXG303
    if (nan or idle) and idle.isdisjoint(told):
        yield _of_the_loss(facts, losses, idle, nan=nan)
    elif undefined and not nan:
        yield _of_the_loss(facts, undefined, frozenset(), nan=True, among=True)
    yield from _of_infinity(facts, losses)


def _for_now(context: Context) -> Iterator[Finding]:
    """One note for all that wait for the same parameters to leave zero."""
    waiting: dict[tuple[str, ...], list[str]] = {}
    for name, movers in context.pending.items():
        waiting.setdefault(movers, []).append(name)
    for movers, names in waiting.items():
        one = len(names) == 1
        yield Finding(
            CODE,
            NAME,
            "note",
            f"the gradient of {listed(names)} is zero for now: {listed(movers)} "
            f"start{'s' if len(movers) == 1 else ''} at zero and "
            f"get{'s' if len(movers) == 1 else ''} a gradient, so {'it has' if one else 'they have'} one "
            "after the first step",
            None,
            tuple(names),
            (),
            Fix(
                "nothing to mend: a part that starts at zero is meant to leave the model as it is at "
                "first "
                "(LoRA, ControlNet, ReZero)"
            ),
        )


def _finding(cause: ZeroCause, context: Context) -> Finding:
    names = tuple(cause.names)
    path = (Step("loss"), Step(text_of(cause.site) or "step", cause.site, True), Step(names[0]))
    if context.summed.issuperset(names):
        what = f"{cause.what}: the gradient of {listed(names)} is zero{_SUMMED}"
        return Finding(CODE, NAME, "note", what, cause.site, names, path, Fix(_GIVE), kind=_BY_THE_SUM)
    settled = cause.settled
    stays = ", and no step changes that" if settled and cause.kind != OFF else ""
    how = "always zero" if cause.proven else "zero"
    if cause.seen and cause.proven:
        how = "zero in each step that was watched"
    return Finding(
        CODE,
        NAME,
        _severity(context, names, certain=cause.certain) if cause.proven or settled else "note",
        f"{cause.what}: the gradient of {listed(names)} is {how}{stays}",
        cause.site,
        names,
        path,
        Fix(cause.advice),
        kind=cause.kind,
    )


def _severity(context: Context, names: tuple[str, ...], *, certain: bool) -> Severity:
    if not context.expected.intersection(names):
        return "note"
    return "error" if certain else "warning"


def _of_a_step(one: Finding, idle: Collection[str], *, nan: bool, trained: bool) -> Finding:
    """Zeros are true of healthy models for one parameter or one batch. Of all that should train (`idle`,
    empty where some do) they are never meant by a script that trains; of one step it is said, and no more."""
    if one.kind == _BY_THE_SUM:
        return replace(one, kind=IDLE) if idle else one
    if idle:
        message = f"{one.message}; nothing trains{_AND_NAN if nan else ''}"
        if trained:
            return replace(one, severity="error", message=message)
        return replace(one, message=message, kind=IDLE if one.severity == "note" else one.kind)
    if trained and one.kind == CANCELS:  # true of the last bias of every critic: nothing to mend
        return replace(one, severity="note")
    return one


def _site_of_loss(facts: Facts, losses: Sequence[Walk]) -> Site | None:
    """The line that made the loss, else that of its backward."""
    values: set[int | None] = {value for walk in losses for value in walk.losses} or {facts.loss}
    makers = (node for node in facts.nodes if node.flows and values.intersection(node.makes))
    made = next((node.site for node in makers if node.site is not None), None)
    return made or (losses[0].site if losses else None)


def _of_infinity(facts: Facts, losses: Sequence[Walk]) -> Iterator[Finding]:
    """A loss of which no number is left. Where half precision overflows, a scaler skips the step and scales
    less in the next."""
    infinite = [walk for walk in losses if walk.infinite]
    if not infinite:
        return
    site = _site_of_loss(facts, infinite)
    half = all(walk.infinite == "float16" for walk in infinite)
    yield Finding(
        CODE,
        NAME,
        "note" if half else "warning",
        "the loss is infinite: what reaches the parameters may be infinite or NaN, and a step makes them so",
        site,
        (),
        (Step("loss", site, True),),
        Fix(_OF_HALF if half else _OF_INFINITY),
        kind=IDLE,
    )


def _always_nan(facts: Facts, losses: Sequence[Walk]) -> list[Walk]:
    """The backwards of losses that were NaN whenever their line was: of several one may be, and others
    train."""
    sound = {_loss_line(facts, walk) for walk in losses if not walk.nan}
    return [walk for walk in losses if _loss_line(facts, walk) not in sound]


def _loss_line(facts: Facts, walk: Walk) -> tuple[object, ...]:
    """Where a backward is called and its losses are made: a loop may go over several."""
    makers = (facts.maker_of.get(value) for value in walk.losses)
    return walk.stack, *(maker.site for maker in makers if maker is not None)


def _of_the_loss(
    facts: Facts, losses: Sequence[Walk], names: frozenset[str], *, nan: bool, among: bool = False
) -> Finding:
    """A loss from which nothing is learned; `among`: others are well."""
    site = _site_of_loss(facts, losses)
    loss, its = ("this loss", "its") if among else ("the loss", "the")
    what = (
        f"{loss} is NaN: what reaches {its} parameters is no gradient, and each step makes them NaN as well"
    )
    if names:
        what = f"every gradient is zero{_AND_NAN if nan else ''}: nothing trains"
    advice = (
        _OF_NAN if nan else "look at what the loss is made of: a constant, an empty selection, a weight of 0"
    )
    severity: Severity = "error" if losses else "note"
    path = (Step("loss", site, True),)
    return Finding(CODE, NAME, severity, what, site, tuple(sorted(names)), path, Fix(advice), kind=IDLE)
