"""Plans: which writes of a graph a rewriting is to convert, and which savings it is to copy instead.

`needed` and `everything` make a plan from the aliases of a graph; `cheaper` improves one by what a first walk
(`Applied`, `Refused`) found each form to cost.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch.fx

from fxgrad.passes.analyses.aliases import Aliases, NodeAliases, Save
from fxgrad.passes.rewrites import registry, twins
from fxgrad.passes.rewrites.forest import Forest, overlap

# functional: the twin's result replaces the tensor. scatter: it is put back into the tensor's base. replaced:
# as these, with the old gradient (a write under no_grad). clone: the write stays in place, on a fresh copy.
# copy back: the twin's result is copied into a tensor of the caller's. view: a metadata write becomes a view.
# snapshot: a copy is saved for backward in the overwritten tensor's place.
Form = Literal["functional", "scatter", "replaced", "clone", "copy back", "view", "snapshot"]


@dataclass(frozen=True, slots=True)
class Applied:
    """One rewritten node: its name and target in the graph as it was, and the form it took. `copied`:
    elements copied for it."""

    node: str
    target: str
    form: Form
    copied: int = 0


@dataclass(frozen=True, slots=True)
class Refused:
    """A node that stays in place although it was to be rewritten."""

    node: str
    target: str
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What a walk is to do, nodes by name.

    `convert`: writes to be made out of place. `copy_back`: writes of the caller's tensors to be made by
    `copy_`. `snapshots`: per node that saves for backward, the arguments it gets a copy of. `fresh`: results
    to be copied because they must not share memory. `single`: parts of a split that are to be views of their
    own, because they are written. `functional`: leave no write in place where a form without one exists.
    `careful`: only forms that keep every stride.
    """

    convert: frozenset[str]
    copy_back: frozenset[str] = frozenset()
    snapshots: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    fresh: frozenset[str] = frozenset()
    single: frozenset[str] = frozenset()
    functional: bool = False
    careful: bool = False


def everything(graph_module: torch.fx.GraphModule, aliases: Aliases, *, allow: bool = False) -> Plan:
    """Every write."""
    hazards = needed(graph_module, aliases, allow=allow)
    # an operator's own memory is not (rrelu's noise)
    placed = {place.storage for note in aliases.nodes.values() for place in note.places}
    written = [
        n
        for n in graph_module.graph.nodes
        if n.name in aliases.nodes and placed.intersection(aliases.nodes[n.name].writes)
    ]
    seen = [n for n in written if all(s in aliases.external for s in aliases.nodes[n.name].writes)]
    backs = {
        n.name for n in seen if not (registry.target_name(n) == "copy_" or n.op == "call_module")
    } | hazards.copy_back
    inner = {n.name for n in written} - {n.name for n in seen}
    return replace(hazards, convert=frozenset(inner), copy_back=frozenset(backs), functional=True)


def needed(graph_module: torch.fx.GraphModule, aliases: Aliases, *, allow: bool) -> Plan:
    """The first write after each save that backward reads; for the caller's tensors, the saving."""
    refused = set(_refused_writes(graph_module, aliases)) if allow else set()
    convert = {n for n in refused if not aliases.external.issuperset(aliases.nodes[n].writes)}
    copy_back: set[str] = set()
    snapshots: dict[str, set[str]] = {}
    by_name = {n.name: n for n in graph_module.graph.nodes}
    for save in _harmful(aliases, by_name, graph_module):
        assert save.overwriter is not None
        if save.storage not in aliases.external:
            convert.add(save.overwriter)
        elif save.storage in aliases.nodes[save.saver].writes:
            copy_back.add(save.saver)
        elif save.arguments:
            snapshots.setdefault(save.saver, set()).update(save.arguments)
    single = frozenset(_parts_written(graph_module, aliases, refused))
    return Plan(
        frozenset(convert),
        frozenset(copy_back),
        {k: tuple(sorted(v)) for k, v in snapshots.items()},
        single=single,
    )


def _parts_written(
    graph_module: torch.fx.GraphModule, aliases: Aliases, refused: Iterable[str]
) -> Iterable[str]:
    """The parts of splits in whose memory autograd refuses a write."""
    written = {s for name in refused for s in aliases.nodes[name].writes}
    for node in graph_module.graph.nodes:
        note = aliases.nodes.get(node.name)
        if note is None or node.target is not operator.getitem or not note.single or not note.several:
            continue
        if note.places[0].storage in written and not aliases.nodes[node.args[0].name].single:
            yield node.name


def _harmful(
    aliases: Aliases, by_name: Mapping[str, torch.fx.Node], owner: torch.fx.GraphModule
) -> Iterable[Save]:
    """The hazards, without writes the version counter missed that touch no saved element."""
    for save in aliases.hazards:
        if save.counted or save.overwriter is None:
            yield save
            continue
        targets = twins.written_targets(by_name[save.overwriter], owner) or ()
        places = [p for t in targets for p in aliases.nodes[t.name].places if p.storage == save.storage]
        if not places or any(overlap(save.geometry, p.geometry) for p in places):
            yield save


def _refused_writes(graph_module: torch.fx.GraphModule, aliases: Aliases) -> Iterable[str]:
    """Writes that autograd does not allow: of one of several views, of what such views used later share, by
    `out=` with a gradient."""
    forest = Forest(graph_module.graph, aliases)
    several: dict[int, int] = {}
    for name, note in aliases.nodes.items():
        if note.several:
            for place in note.places:
                last = forest.last_use[forest.canonical(forest.by_name[name])]
                several[place.storage] = max(last, several.get(place.storage, -1))
    for name, note in aliases.nodes.items():
        by_out = forest.by_name[name].kwargs.get("out") is not None
        refused = note.grad and (by_out or _writes_several(note, aliases) or _writes_stale(note, aliases))
        if (
            note.writes
            and note.needs_grad
            and (refused or any(several.get(s, -1) > note.index for s in note.writes))
        ):
            yield name


def _writes_stale(note: NodeAliases, aliases: Aliases) -> bool:
    """Whether a view is written whose memory was written since it was made: eager may take it for a leaf."""
    return any(
        aliases.nodes[a].views
        and any(
            aliases.nodes[a].index < w.index < note.index and set(w.writes) & set(note.writes)
            for w in aliases.nodes.values()
        )
        for a in note.needs_grad
    )


def _writes_several(note: NodeAliases, aliases: Aliases) -> bool:
    return any(
        aliases.nodes[a].several and set(note.writes) & {p.storage for p in aliases.nodes[a].places}
        for a in note.needs_grad
    )


def cheaper(aliases: Aliases, plan: Plan, applied: Sequence[Applied], refused: Sequence[Refused]) -> Plan:
    """The plan with copies of what is saved in the place of larger copies of what is written, and of writes
    that were refused."""
    cost: dict[str, float] = {a.node: a.copied for a in applied if a.copied and a.form != "snapshot"}
    cost.update({r.node: math.inf for r in refused})
    snapshots = {name: set(arguments) for name, arguments in plan.snapshots.items()}
    convert, fresh = set(plan.convert), set(plan.fresh)
    for name, copied in cost.items():
        for save in _copied_instead(name, copied, aliases) if name in convert else ():
            convert.discard(name)
            if save.arguments:
                snapshots.setdefault(save.saver, set()).update(save.arguments)
            else:
                fresh.add(save.saver)
    if convert == plan.convert:
        return plan
    return replace(
        plan,
        convert=frozenset(convert),
        fresh=frozenset(fresh),
        snapshots={k: tuple(sorted(v)) for k, v in snapshots.items()},
    )


def _copied_instead(name: str, cost: float, aliases: Aliases) -> Sequence[Save]:
    """The savings to be copied so that the write `name` may stay; none where that is not enough, or costs as
    much as converting it."""
    saves = [save for save in aliases.hazards if save.overwriter == name]
    if _must_move(name, aliases) or not all(_copyable(save, aliases) for save in saves):
        return ()
    return saves if _size_of(saves, aliases) < cost else ()


def _size_of(saves: Sequence[Save], aliases: Aliases) -> int:
    """How many elements copies of what is saved have, each saver's argument copied once."""
    arguments = {(save.saver, argument) for save in saves for argument in save.arguments}
    results = {save.saver for save in saves if not save.arguments}
    copied = [*(argument for _, argument in arguments), *results]
    return sum(math.prod(place.geometry.shape) for name in copied for place in aliases.nodes[name].places)


def _copyable(save: Save, aliases: Aliases) -> bool:
    """Whether what is saved can be copied when it is saved: an argument of the saver, or the new tensor it
    returns."""
    saver = aliases.nodes[save.saver]
    if save.storage in saver.writes:
        return False
    return bool(save.arguments) or (saver.single and not saver.same_as and not saver.views)


def _must_move(name: str, aliases: Aliases) -> bool:
    """Whether the write itself cannot stay: autograd refuses it."""
    note = aliases.nodes[name]
    return note.grad and _writes_several(note, aliases)
