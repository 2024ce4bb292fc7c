"""Parameters that the program itself trains by hand: written in place from other parameters, as a moving average or a copy of them.

A target or momentum network of that kind gets no gradient on purpose. The evidence is a write into the parameter's storage during the run
whose new value comes from parameters and numbers alone, at least one of them another parameter; what was computed from the inputs is no
average. Not handled: averages made after the step, which the run does not see.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fxgrad.records import Facts, NodeFact, ParameterFact

_LONGEST = 64  # steps followed back from one write; an average takes two or three


def analyse(facts: Facts, parameters: Iterable[ParameterFact]) -> frozenset[str]:
    """The names of the parameters, of those given, that are such averages."""
    owners = {facts.values[v].storage: p for p in parameters for v in p.values}
    if not owners or not any(node.writes for node in facts.nodes):
        return frozenset()
    makers = facts.maker_of
    found: set[str] = set()
    for node in facts.nodes:
        if not node.writes or node.phase == "backward":
            continue
        written = {facts.values[v].storage for v in node.reads if facts.values[v].storage in node.writes} | {
            facts.values[v].storage for v in node.reads[:1] if node.target == "Tensor.__set__"
        }
        for storage in written & owners.keys():
            if _from_other_parameters(facts, node, storage, makers):
                found.update(owners[storage].names)
    return frozenset(found)


def _from_other_parameters(facts: Facts, node: NodeFact, storage: int, makers: Mapping[int, NodeFact]) -> bool:
    parameters = {facts.values[v].storage for p in facts.parameters for v in p.values}
    pending, seen, others = list(node.reads), set(node.reads), False
    while pending:
        value = pending.pop()
        maker = makers.get(value)
        own = facts.values[value].storage
        if own == storage:
            continue
        if own in parameters:
            others = True
            continue
        if maker is None or maker.kind in ("input", "module", "entry") or len(seen) > _LONGEST:
            return False
        fresh = [v for v in maker.reads if v not in seen]
        seen.update(fresh)
        pending.extend(fresh)
    return others
