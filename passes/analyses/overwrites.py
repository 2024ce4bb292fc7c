"""Which writes destroy what backward saved: grouped by the line that writes, with everything that line
destroys.

From facts of a run whose saved tensors were watched. Definitions:
 1. A save is *needed* if its saver lies on a way that a gradient takes back from the loss; where there is no
    loss (the program raised before), every save counts.
 2. An *overwrite* is a step that wrote the storage of a needed save after it was saved, seen by torch's
    version counter.
Not handled: of several writes after one save the first is named, though torch counts them all.
"""

from __future__ import annotations

from dataclasses import dataclass

from fxgrad.records import Facts, NodeFact, Saved, Site


@dataclass(frozen=True, slots=True)
class Save:
    """One tensor that backward needs, and the step that saved it."""

    saver: NodeFact
    saved: Saved


@dataclass(frozen=True, slots=True)
class Overwrite:
    """One writing line. `parameters`: the trainable parameters it wrote; () where it wrote other tensors."""

    writer: NodeFact
    saves: tuple[Save, ...]
    parameters: tuple[str, ...]


def overwrites(hazards: Facts) -> tuple[Overwrite, ...]:
    """Every overwriting line, in running order, what it destroys named once per saving line."""
    owned = _owned(hazards)
    groups: dict[tuple[Site | str, bool], list[tuple[NodeFact, Save]]] = {}
    for saved in hazards.saved:
        saver, writer = hazards.node_named.get(saved.saver), hazards.node_named.get(saved.overwriter)
        if not saved.counted or saver is None or writer is None or not needed(hazards, saver):
            continue
        key = (writer.site or writer.name, any(storage in owned for storage in writer.writes))
        groups.setdefault(key, []).append((writer, Save(saver, saved)))
    found = []
    for (_, owns), pairs in groups.items():
        unique = {(save.saver.site, save.saver.target, save.saved.shape): save for _, save in reversed(pairs)}
        names = dict.fromkeys(name for writer, _ in pairs for s in writer.writes for name in owned.get(s, ()))
        found.append(Overwrite(pairs[0][0], tuple(reversed(unique.values())), tuple(names) if owns else ()))
    order = {node.name: i for i, node in enumerate(hazards.nodes)}
    return tuple(sorted(found, key=lambda o: order[o.writer.name]))


def needed(facts: Facts, saver: NodeFact) -> bool:
    """Definition 1."""
    return not facts.live or any(value in facts.live for value in saver.makes)


def _owned(facts: Facts) -> dict[int, tuple[str, ...]]:
    """Names of trainable parameters by storage; tied and sharing ones together."""
    found: dict[int, tuple[str, ...]] = {}
    for parameter in facts.parameters:
        if parameter.requires_grad:
            for value in parameter.values:
                storage = facts.values[value].storage
                if parameter.name not in found.get(storage, ()):
                    found[storage] = (*found.get(storage, ()), parameter.name)
    return found
