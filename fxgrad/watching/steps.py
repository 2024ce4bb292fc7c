"""What `.grad` really was: after every backward, and as every optimizer step began.

Read off the tensors, never computed. A parameter that some step of the watch gives a gradient trains.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.optim import Optimizer

from fxgrad.passes.analyses.optimizers import held_by
from fxgrad.source.sites import Spot
from fxgrad.trace.gradients import better, state_of
from fxgrad.trace.ledger import Ledger


def note_after(
    ledger: Ledger, gradients: Iterable[tuple[torch.Tensor, torch.Tensor | None]], *, returned: bool
) -> None:
    """A backward has ended and left these gradients on leaves, or has `returned` them."""
    for leaf, gradient in gradients:
        _, slot, _ = ledger.read(leaf)
        part = ledger.part_of(slot)
        if part is not None:
            _, slot, _ = ledger.read(part)
            gradient = gradient if returned else part.grad
        if slot.after != "some":
            slot.after = better(slot.after, state_of(gradient))


def note_begun(ledger: Ledger, optimizer: Optimizer) -> tuple[frozenset[str], frozenset[int], bool]:
    """A step begins: the states of what the optimizer holds and could train, the edges of that, and whether a
    backward reached any."""
    states, leaves, had = set(), set(), False
    for parameter in held_by(optimizer):
        if not parameter.requires_grad:
            continue
        _, slot, _ = ledger.read(parameter)
        state = state_of(parameter.grad)
        states.add(state)
        leaves.add(-slot.leaf)
        had = had or slot.after == "some"
        gone = state != "some" and slot.after == "some" and slot.within != "used"
        slot.cleared = slot.cleared or gone
        slot.begun = better(slot.begun, state)
    return frozenset(states), frozenset(leaves), had


def wrote_gradients(ledger: Ledger, optimizer: Optimizer, since: int) -> tuple[Spot, ...]:
    """Where a call after the note `since` last wrote a gradient of what the optimizer holds; () if none
    did."""
    gradients = [parameter.grad for parameter in held_by(optimizer) if parameter.grad is not None]
    slots = [slot for gradient in gradients if (slot := ledger.tensors.get(gradient)) is not None]
    storages = {slot.storage for slot in slots}
    for note in reversed(ledger.notes):
        if note.number <= since:
            break
        if not storages.isdisjoint(note.writes):
            return note.spots
    return ()
