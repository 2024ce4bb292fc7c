"""Parameters that the program itself trains by hand: written during the run, from other parameters or from
their own values and data.

They get no gradient on purpose. Three kinds, by what the new value of a written (or replaced) parameter is
computed of:
 1. other parameters and numbers alone: a target or momentum network;
 2. its own old value and data: the moving average of a codebook, the step of an optimizer inside the forward
    pass;
 3. one of these: a codebook normalised by its counts.
Data alone is none: a value stored into a parameter is a cut (FXG111). Not handled: averages made after the
step, which the run does not see.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from fxgrad.passes.analyses.stored_parameters import replaced
from fxgrad.records import Facts, NodeFact, ParameterFact

_LONGEST = 64  # steps followed back from one write; an average takes two or three
_OVERWRITING = frozenset(["copy_", "__set__"])


def analyse(facts: Facts, parameters: Iterable[ParameterFact]) -> frozenset[str]:
    """The names of the parameters, of those given, that are such averages."""
    owners = {facts.values[v].storage: p for p in parameters for v in p.values}
    if not owners:
        return frozenset()
    everyone = {facts.values[v].storage for p in facts.parameters for v in p.values}
    averages: set[int] = set()
    found: set[str] = set()
    for node in facts.nodes:
        if node.phase == "backward":
            continue
        for storage in _written(facts, node, owners):
            origins = _origins(facts, node, storage, everyone, averages)
            mixed = "others" in origins and "data" not in origins
            if mixed or {"own", "data"} <= origins or "average" in origins:
                found.update(owners[storage].names)
                averages.update([storage], (facts.values[v].storage for v in node.makes))
    return frozenset(found)


def _written(facts: Facts, node: NodeFact, owners: Mapping[int, ParameterFact]) -> Iterator[int]:
    """The storages of those parameters that the step writes or takes the place of."""
    if node.kind == "leaf" and node.target == "torch.nn.Parameter":
        names = replaced(facts, node) or ()
        if len(names) == 1:  # of several only the run knows which it is
            yield from (storage for storage, p in owners.items() if names[0] in p.names)
    elif node.target == "Tensor.__set__":
        # `.data = t`; `.grad = t` writes it
        replaced_data = {facts.values[v].storage for v in node.reads[:1]} - set(node.writes)
        yield from owners.keys() & replaced_data
    else:
        yield from owners.keys() & set(node.writes)


def _origins(facts: Facts, node: NodeFact, storage: int, everyone: set[int], averages: set[int]) -> set[str]:
    """What the new value is computed of: `own` (its old value), `others` (parameters), `average`, `data`."""
    made_by = facts.maker_of
    overwrites = node.target.rpartition(".")[2] in _OVERWRITING
    pending = list(node.reads[1:] if overwrites else node.reads)
    seen, found = set(pending), set[str]()
    while pending:
        value = pending.pop()
        maker = made_by.get(value)
        memory = facts.values[value].storage
        if maker is not None and maker.target == "Tensor.grad":
            found.add("data")  # what a backward in the run computed
        elif memory in averages and memory != storage:
            found.add("average")
        elif memory == storage:
            found.add("own")
        elif memory in everyone:
            found.add("others")
        elif maker is None or maker.kind in ("input", "module", "entry") or len(seen) > _LONGEST:
            found.add("data")
        else:
            fresh = [v for v in maker.reads if v not in seen]
            seen.update(fresh)
            pending.extend(fresh)
    return found
