"""Zeros that the structure alone decides: parameters whose every open way to the loss goes through a step
with a zero derivative.

For runs on fake tensors, whose gradients have no values. A flow is *dead* if its step's autograd node has a
zero derivative everywhere (`fxgrad.passes.analyses.zeros`), multiplies by the Python number 0 or normalises
over one element. What cancels only by its numbers is not seen here.
"""

from __future__ import annotations

from collections.abc import Mapping

from fxgrad.passes.analyses.fixed_operands import word
from fxgrad.passes.analyses.zeros import is_zero_node, single_element
from fxgrad.records import Facts, Flow, NodeFact


def structural_zeros(facts: Facts) -> Mapping[str, str]:
    """Parameters with a live way but none without a dead flow, each with the dead step that is nearest to the
    loss."""
    if facts.loss is None or not facts.loss_requires_grad:
        return {}
    alive, edge = _walk(facts)
    found = {}
    for parameter in facts.parameters:
        values = [v for v in parameter.values if v in facts.live]
        if parameter.gradient in ("some", "zero") and values and not any(v in alive for v in values):
            dead = next((edge[v] for v in values if v in edge), "")
            found[parameter.name] = dead
    return found


def _walk(facts: Facts) -> tuple[set[int], dict[int, str]]:
    """Backwards from the loss: values reached without a dead flow, and for the others the dead step behind
    which they lie."""
    arriving: dict[int, list[tuple[NodeFact, Flow]]] = {}
    for node in facts.nodes:
        for flow in node.flows:
            if flow.open:
                arriving.setdefault(flow.target, []).append((node, flow))
    assert facts.loss is not None
    alive, edge = {facts.loss}, dict[int, str]()
    pending = [facts.loss]
    behind: list[int] = []
    while pending:
        for node, flow in arriving.get(pending.pop(), ()):
            source = flow.source
            if _is_dead(facts, node, flow):
                edge.setdefault(source, node.name)
                behind.append(source)
            elif source not in alive:
                alive.add(source)
                pending.append(source)
    _spread(arriving, alive, edge, behind)
    return alive, edge


def _spread(
    arriving: Mapping[int, list[tuple[NodeFact, Flow]]],
    alive: set[int],
    edge: dict[int, str],
    behind: list[int],
) -> None:
    """What lies behind a dead step lies behind it with all that leads there."""
    while behind:
        value = behind.pop()
        for _, flow in arriving.get(value, ()):
            if flow.source not in edge and flow.source not in alive:
                edge[flow.source] = edge[value]
                behind.append(flow.source)


def _is_dead(facts: Facts, node: NodeFact, flow: Flow) -> bool:
    if single_element(facts, node, flow.source) is not None:
        return True
    if is_zero_node(facts.values[flow.target].function, sometimes=False):
        return True
    return word(node) in _PRODUCTS and any(c == 0 for c in node.constants if isinstance(c, int | float))


_PRODUCTS = frozenset(["mul", "rmul", "imul", "multiply"])
