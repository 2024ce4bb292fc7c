"""Gradients lost on an open way: where backward handed a step a gradient and the step handed none, or only
zeros, to what it read.

From a run in which every autograd node's incoming gradient was noted (`Value.delivered`). For a parameter
that ends with "none" or "zero" although its values are live, the *losing step* is the one nearest to the loss
whose result was given more than it passed on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from fxgrad.records import Facts, Flow, NodeFact, ParameterFact

_RANK = {"none": 0, "zero": 1, "some": 2, "": 2}


@dataclass(frozen=True, slots=True)
class Loss:
    """A step that loses gradient. Without a `flow` nothing on the way loses it: the contributions cancel
    where the ways meet at `node`."""

    node: NodeFact
    flow: Flow | None
    left: str


def analyse(facts: Facts, parameter: ParameterFact) -> Loss | None:
    """The losing step of one parameter; None if its own hook takes the gradient, or nothing was lost."""
    start = [v for v in parameter.values if v in facts.live]
    if not start:
        return None
    found = _nearest_to_loss(facts, start, facts.open_from, _RANK.get(parameter.gradient, 0))
    if found is not None:
        return found
    return _merge(facts, start, facts.open_from, parameter.gradient)


def _nearest_to_loss(
    facts: Facts, start: list[int], ways: Mapping[int, list[tuple[NodeFact, Flow]]], mine: int
) -> Loss | None:
    """Walk from the parameter towards the loss while values are given no more than the parameter; the first
    better one is the loser."""
    seen = set(start)
    queue = deque(start)
    losses: list[Loss] = []
    while queue:
        value = queue.popleft()
        for node, flow in ways.get(value, ()):
            if not _goes_on(facts, flow):
                continue
            given = _RANK[facts.values[flow.target].delivered]
            held = _RANK[facts.values[value].delivered] if value not in start else mine
            if given > held and held <= mine:
                left = facts.values[value].delivered or "zero"
                losses.append(Loss(node, flow, left))
            elif flow.target not in seen:
                seen.add(flow.target)
                queue.append(flow.target)
    return _innermost(losses, start, mine)


def _innermost(losses: list[Loss], start: list[int], mine: int) -> Loss | None:
    inner = [x for x in losses if x.flow is not None and x.flow.source not in start]
    if inner:
        return inner[-1]
    # Lost at the parameter itself: one way is a loss there, several may cancel instead, but not to nothing:
    # of several steps each lost it.
    return losses[0] if len(losses) == 1 or (losses and not mine) else None


def _goes_on(facts: Facts, flow: Flow) -> bool:
    """Whether a flow is a piece of a way to the loss: an optimizer's write, from a parameter to itself, is
    none."""
    return flow.target in facts.live and not facts.values[flow.target].is_leaf


def _merge(
    facts: Facts, start: list[int], ways: Mapping[int, list[tuple[NodeFact, Flow]]], left: str
) -> Loss | None:
    """The first step at which the ways that leave the parameter meet again."""
    firsts = [flow.target for value in start for _, flow in ways.get(value, ()) if _goes_on(facts, flow)]
    if len(firsts) < 2:
        return None
    reached: dict[int, int] = {value: 1 << i for i, value in enumerate(dict.fromkeys(firsts))}
    everything = (1 << len(dict.fromkeys(firsts))) - 1
    for node in facts.nodes:
        for flow in node.flows:
            if flow.open and flow.source in reached:
                reached[flow.target] = reached.get(flow.target, 0) | reached[flow.source]
                if (
                    reached[flow.target] == everything
                    and flow.target in facts.live
                    and everything & (everything - 1)
                ):
                    return Loss(node, None, left)
    return None
