"""Gradients that some parameters of an optimizer had from a backward, and that a `zero_grad()` dropped before
the step, while others of it got theirs after that.

Not handled: what is dropped by hand (`p.grad = None`): for a few parameters that is a way to hold them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch.optim import Optimizer

from fxgrad.passes.analyses.optimizers import held_by
from fxgrad.records.training import Dropped
from fxgrad.source.sites import innermost
from fxgrad.trace.notes import Backward, Taken, Zeroed
from fxgrad.trace.observer import Observer


def dropped(observer: Observer, edges: Mapping[str, int]) -> tuple[Dropped, ...]:
    """By the call that dropped them. `edges`: by name, of the parameters that had a gradient, which was gone
    as each step began."""
    found: dict[Zeroed, tuple[list[str], Backward, Taken]] = {}
    for name, edge in edges.items():
        known = next(_calls(observer, edge), None)
        if known is not None:
            call, walk, step = known
            found.setdefault(call, ([], walk, step))[0].append(name)
    return tuple(
        Dropped(tuple(names), innermost(call.spots), innermost(walk.spots), innermost(step.spots))
        for call, (names, walk, step) in found.items()
    )


def _calls(observer: Observer, edge: int) -> Iterator[tuple[Zeroed, Backward, Taken]]:
    """The calls that dropped the gradient of this leaf for a step that others had gradients for, with the
    backward that left it and the step."""
    for step in observer.taken:
        if edge not in step.leaves or "some" not in step.states:
            continue
        # the last backward before the step that came by the leaf: what is dropped later is dropped for good
        walks = [
            i for i, walk in enumerate(observer.backwards) if _left_on(walk, edge) and walk.note < step.note
        ]
        for call in observer.zeroed if walks else ():
            if call.walks > walks[-1] and call.note < step.note and edge in _edges_held(observer, call):
                yield call, observer.backwards[walks[-1]], step


def _left_on(walk: Backward, edge: int) -> bool:
    return edge in walk.leaves and not (walk.partial or walk.failed)


def _edges_held(observer: Observer, call: Zeroed) -> frozenset[int]:
    optimizer = call.optimizer()
    return edges_of(observer, optimizer) if optimizer is not None else frozenset()


def edges_of(observer: Observer, optimizer: Optimizer) -> frozenset[int]:
    """The leaf edges of what an optimizer holds."""
    slots = (observer.ledger.tensors.get(tensor) for tensor in held_by(optimizer))
    return frozenset(-slot.leaf for slot in slots if slot is not None)
