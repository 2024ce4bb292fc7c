"""Zeros that the structure alone decides: parameters whose every open way to the loss goes through a step with a zero derivative.

For runs on fake tensors, whose gradients have no values. A flow is *dead* if its step's autograd node has a zero derivative everywhere
(`fxgrad.passes.analyses.zeros`), multiplies by the Python number 0 or normalises over one element. What cancels only by its numbers is not seen here.
"""

from __future__ import annotations

from collections.abc import Mapping

from fxgrad.passes.analyses.zeros import is_zero_node, single_element
from fxgrad.records import Facts, NodeFact


def structural_zeros(facts: Facts) -> Mapping[str, str]:
    """Parameters with a live way but none without a dead flow, each with the dead step that is nearest to the loss."""
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
    """Backwards from the loss: values reached without a dead flow, and for the others the dead step behind which they lie."""
    arriving: dict[int, list[tuple[NodeFact, int]]] = {}
    for node in facts.nodes:
        for flow in node.flows:
            if flow.open:
                arriving.setdefault(flow.target, []).append((node, flow.source))
    assert facts.loss is not None
    alive, edge = {facts.loss}, dict[int, str]()
    pending = [facts.loss]
    behind: list[int] = []
    while pending:
        for node, source in arriving.get(pending.pop(), ()):
            if _is_dead(facts, node, source):
                edge.setdefault(source, node.name)
                behind.append(source)
            elif source not in alive:
                alive.add(source)
                pending.append(source)
    while behind:
        value = behind.pop()
        for _, source in arriving.get(value, ()):
            if source not in edge and source not in alive:
                edge[source] = edge[value]
                behind.append(source)
    return alive, edge


def _is_dead(facts: Facts, node: NodeFact, source: int) -> bool:
    if single_element(facts, node, facts.values[source]) is not None:
        return True
    if any(is_zero_node(facts.values[v].function, sometimes=False) for v in node.makes):
        return True
    return "mul" in node.target.rpartition(".")[2] and any(c == 0 for c in node.constants if isinstance(c, int | float))
