"""Updates that a tensor shaped and no gradient comes back through: a step of an optimizer between an inner
loss and an outer one (meta-learning, learning to reweight), an update by hand without gradients.

Definition: a tensor *shaped* an update if a backward that leaves gradients reached both it and the leaves
which the update writes, and the update came after. What is computed from these leaves afterwards depends on
the tensor, and the graph does not know. Not handled: an update by what `autograd.grad` returned, which is
FXG103's.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from fxgrad.passes.analyses.step_order import Change, changes_of_steps, changes_of_writes, uses_of
from fxgrad.records import Facts
from fxgrad.records.training import Training, Walk


@dataclass(frozen=True, slots=True)
class Update:
    """The update, and the backward that the gradients which it takes are of."""

    change: Change
    walk: Walk


def shaped_by(
    facts: Facts, training: Training, leaf: int, before: int, live: Collection[int]
) -> Update | None:
    """The last update before the note `before` that the tensor with this leaf edge shaped, where what lies
    behind an output, `live`, was computed after it from what it wrote."""
    inner = [w for w in training.losses() if leaf in w.leaves and w.note < before]
    if not inner:
        return None
    written = frozenset().union(*(walk.leaves for walk in inner)) - {leaf}
    uses = uses_of(facts, written)
    last: dict[int, int] = {}  # by leaf, the last call behind the output that computed something of it
    for value in live:
        for edge, number, _ in uses.get(value, ()):
            last[edge] = max(number, last.get(edge, number))
    found: list[Update] = []
    for change in (*changes_of_steps(training), *changes_of_writes(facts)):
        for walk in inner:
            used = any(last.get(edge, -1) >= change.note for edge in walk.leaves & change.leaves)
            if used and walk.note < change.note <= before and not change.nothing:
                found.append(Update(change, walk))
    # A step is also the write that it makes: it is the first of the two.
    return max(found, key=lambda one: (one.walk.note, one.change.note), default=None)
