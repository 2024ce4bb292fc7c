"""What a watch has noted around the calls of a script, as the frozen records that rules read."""

from __future__ import annotations

import os
from collections.abc import Iterable

from torch.optim import Optimizer

from fxgrad.records import Facts
from fxgrad.records.training import OptimizerStep, SecondTime, Training, Walk
from fxgrad.source.sites import innermost, sites_of
from fxgrad.torch_api.errors import SECOND_TIME, says
from fxgrad.trace.events import Events
from fxgrad.trace.freed_graphs import met_again, walked_anew
from fxgrad.trace.notes import Backward, Taken
from fxgrad.trace.observer import Observer
from fxgrad.watching.steps import held_by


def training_of(
    facts: Facts, events: Events, emptied: tuple[str, ...], optimizers: Iterable[Optimizer]
) -> Training:
    """The records. `emptied`: the parameters that had a gradient, which was gone as a step began."""
    observer = events.observer
    given = {(os.path.abspath(code.co_filename), code.co_qualname) for code in events.closures}
    return Training(
        walks=tuple(map(_walk, observer.backwards)),
        steps=tuple(map(_step, observer.taken)),
        emptied=emptied,
        closures=frozenset(given),
        second_time=_second_time(facts, observer, optimizers),
    )


def _walk(backward: Backward) -> Walk:
    return Walk(
        backward.note,
        sites_of(backward.spots),
        backward.losses,
        backward.live,
        backward.leaves,
        backward.failed,
        backward.partial,
        backward.nan,
    )


def _step(taken: Taken) -> OptimizerStep:
    site, cleared = innermost(taken.spots), innermost(taken.cleared)
    return OptimizerStep(taken.note, site, taken.states, taken.leaves, cleared, taken.had)


def _second_time(facts: Facts, observer: Observer, optimizers: Iterable[Optimizer]) -> SecondTime | None:
    failed = observer.backwards[-1] if observer.backwards else None
    if failed is None or not failed.failed or not failed.spots:
        return None
    if facts.error is None or not says(facts.error.message, SECOND_TIME):
        return None
    ledger = observer.ledger
    made_anew, leaves = walked_anew(ledger, failed)
    zeroed = ((note, ref()) for note, ref in observer.zeroed)
    return SecondTime(
        met=met_again(ledger, failed),
        made_anew=made_anew,
        leaves=leaves,
        held=tuple(_edges(observer, optimizer) for optimizer in optimizers),
        zeroed=tuple((note, _edges(observer, optimizer)) for note, optimizer in zeroed if optimizer),
        count=ledger.count,
    )


def _edges(observer: Observer, optimizer: Optimizer) -> frozenset[int]:
    """The leaf edges of what an optimizer holds."""
    slots = (observer.ledger.tensors.get(tensor) for tensor in held_by(optimizer))
    return frozenset(-slot.leaf for slot in slots if slot is not None)
