"""Writes that autograd does not know of: what backward saved is changed unseen, or a value changes and the
graph does not.

From facts, and from those of a second run that watched saved tensors. Definitions:
 1. A write is *hidden* if it goes through an alias without a history: `.data` (its own version counter),
    `.detach()` (the same counter, no graph), memory that NumPy shares, `t.data = new`; or if it changes an
    intermediate value under `no_grad`.
 2. It *falsifies* a gradient if a step had saved the memory for backward, torch's version counter did not
    move, and the elements are others now. A fused optimizer's step counts: it moves no counter. So does
    `out=` of an operator that does not count it (`torch.kron`). What a custom Function keeps as an attribute
    of its `ctx`, and its backward reads, counts as saved by it: there torch compares no versions.
 3. It is *missed* by the graph if a gradient comes back, past it, to the value it changed: the gradient is
    that of another function. Overwriting a leaf with something that does not depend on it (a lazy
    initialisation, a projection under `no_grad`) misses nothing, nor does giving it back a copy of its own
    value (weights disturbed for a while, as sharpness-aware steps do).
Not handled: writes from C++ or Triton code that bump no version.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Literal

from fxgrad.passes.analyses.index import once
from fxgrad.passes.analyses.overwrites import needed
from fxgrad.passes.context import Context
from fxgrad.records import Facts, NodeFact, Site
from fxgrad.source.numpy_writes import write_site

How = Literal["data", "detach", "numpy", "no_grad", "fused", "set", "uncounted", "kept"]

_ALIASES: dict[str, How] = {
    "Tensor.data": "data",
    "Tensor.detach": "detach",
    "torch.detach": "detach",
    "Tensor.numpy": "numpy",
    "Tensor.__array__": "numpy",
}
_COPIES = frozenset(
    ["Tensor.clone", "torch.clone", "Tensor.contiguous", "Tensor.detach", "torch.detach", "Tensor.data"]
)
_OVERWRITES = frozenset(
    [
        "copy_",
        "fill_",
        "zero_",
        "normal_",
        "uniform_",
        "trunc_normal_",
        "bernoulli_",
        "random_",
        "log_normal_",
        "exponential_",
    ]
)


@dataclass(frozen=True, slots=True)
class HiddenWrite:
    """`saver`: the step whose saved tensor was falsified (None: the graph only misses the write);
    `parameter`: its name, if it is one."""

    node: NodeFact
    how: How
    saver: NodeFact | None
    parameter: str | None
    kept: str = ""  # the attribute of the saver's `ctx` that was falsified


def has_hidden_writes(facts: Facts) -> bool:
    """Whether watching saved tensors could show something."""
    made_by = facts.maker_of
    if any(node.kind == "function" for node in facts.nodes) and any(node.writes for node in facts.nodes):
        return True
    return any(
        _how(facts, node, made_by) is not None or _hands_out(node) or _has_room(node) for node in facts.nodes
    )


def hidden_writes(facts: Facts, hazards: Facts | None) -> Iterator[HiddenWrite]:
    """Every hidden write that makes a gradient wrong, each line once."""
    facts = hazards if hazards is not None else facts
    seen: set[Site | str] = set()
    for write in itertools.chain(_falsifying(facts), _missed(facts, seen)):
        line = write.node.site or write.node.name
        if line not in seen:
            seen.add(line)
            yield write


def told(facts: Facts, context: Context) -> tuple[tuple[HiddenWrite, Site | None], ...]:
    """Those that are findings of FXG203, each with its line."""
    if told not in facts.memo:
        facts.memo[told] = tuple(_told(facts, context))
    found: tuple[tuple[HiddenWrite, Site | None], ...] = facts.memo[told]
    return found


def _told(facts: Facts, context: Context) -> Iterator[tuple[HiddenWrite, Site | None]]:
    seen: set[int] = set()
    for write in hidden_writes(facts, context.hazards):
        if write.node.target.rstrip("_").endswith("setitem") and not seen.isdisjoint(write.node.reads):
            continue  # `h.data[0] += 1` ends in writing its result back to where it stands
        seen.update(write.node.makes)
        written = write_site(write.node.site) if write.how == "numpy" else None
        site = written or write.node.site
        if context.training is not None and write.saver is None and not _in_a_module(facts, site):
            continue  # in a training loop: an initialisation, or clipping
        yield write, site


def _in_a_module(facts: Facts, site: Site | None) -> bool:
    return any(node.module for node in facts.nodes if node.site == site)


def of_values(facts: Facts, context: Context) -> frozenset[tuple[str, int]]:
    """The lines of those that write no parameter: what is written there has no way back for a gradient
    either, and that is one cause."""
    lines = (site for write, site in told(facts, context) if write.parameter is None)
    return frozenset((site.file, site.line) for site in lines if site is not None)


def _falsifying(facts: Facts) -> Iterator[HiddenWrite]:
    """Definition 2."""
    for saved in facts.saved:
        writer, saver = facts.node_named.get(saved.overwriter), facts.node_named.get(saved.saver)
        if saved.counted or writer is None or saver is None or not needed(facts, saver):
            continue
        how: How = "kept" if saved.kept else _how(facts, writer, facts.maker_of) or "uncounted"
        yield HiddenWrite(writer, how, saver, _parameter(facts, writer), saved.kept)


def _missed(facts: Facts, seen: Collection[Site | str]) -> Iterator[HiddenWrite]:
    """Definition 3, apart from the lines that were seen by then: to ask of one takes a walk."""
    for node in facts.nodes:
        how = _how(facts, node, facts.maker_of)
        if how is not None and (node.site or node.name) not in seen and _is_missed(facts, node, how):
            yield HiddenWrite(node, how, None, _parameter(facts, node))


def _hands_out(node: NodeFact) -> bool:
    return _ALIASES.get(node.target) == "numpy" or node.target == "torch.from_numpy"


def _has_room(node: NodeFact) -> bool:
    """Whether it writes an `out=`: not every operator of torch's moves the version counter then."""
    return any(key == "out" for key, _ in node.operands)


def _how(facts: Facts, node: NodeFact, made_by: Mapping[int, NodeFact]) -> How | None:
    """Definition 1."""
    if "._fused_" in node.target:
        return "fused"
    if node.kind in ("escape", "entry"):
        return "numpy" if node.writes else None
    if not node.writes:
        return None
    if node.target == "Tensor.__set__":
        return "set" if _replaces_data(facts, node) else None
    for value in _written(facts, node):
        how = _alias(facts, value, made_by)
        if how is not None:
            return how
        if not node.grad_enabled and facts.values[value].requires_grad and not facts.values[value].is_leaf:
            return "no_grad"
    return None


def _written(facts: Facts, node: NodeFact) -> tuple[int, ...]:
    """The arguments that were written: the first of a method, any that has the memory of a function (`out=`,
    a list)."""
    name = node.target.rpartition(".")[2]
    found = tuple(v for v in node.reads if facts.values[v].storage in node.writes)
    return found[:1] if name.endswith("_") and not name.startswith("_foreach_") else found


def _replaces_data(facts: Facts, node: NodeFact) -> bool:
    """Whether `t.x = ...` put other memory under `t`: `.data`, not `.grad` or `.requires_grad`."""
    return bool(node.reads) and facts.values[node.reads[0]].storage not in node.writes


def _alias(facts: Facts, value: int, made_by: Mapping[int, NodeFact]) -> How | None:
    """How a value without a history came to share memory: back through its views and earlier writes."""
    known = once(facts, _known_aliases)
    passed: dict[int, None] = {}
    found: How | None = None
    while value not in passed and not facts.values[value].requires_grad:
        if value in known:  # a buffer that is filled row by row has a long past
            found = known[value]
            break
        passed[value] = None
        node = made_by.get(value)
        if node is None or node.kind != "op":
            break
        if node.target in _ALIASES:
            found = _ALIASES[node.target]
            break
        same = facts.values[value].storage
        before = [v for v in node.reads if facts.values[v].storage == same and v not in passed]
        value = next((v for v in before if not facts.values[v].requires_grad), value)
    known.update(dict.fromkeys(passed, found))
    return found


def _known_aliases(facts: Facts) -> dict[int, How | None]:
    """What `_alias` has found so far."""
    return {}


def _is_missed(facts: Facts, node: NodeFact, how: How) -> bool:
    """Definition 3."""
    if how == "fused":
        return False
    place, readers = once(facts, _places)[node.name], once(facts, _readers)
    read: int | None = None
    for storage in node.writes:
        later = readers.get(storage, ())
        first = bisect_right(later, place)
        if first < len(later) and (read is None or later[first] < read):
            read = later[first]
    if read is None:
        return False
    parameter = _parameter(facts, node)
    if parameter is None:
        return _is_read_past(facts, node)
    if _starts_anew(facts, node) or _gives_back(facts, node) is not None:
        return False
    return not _is_undone(facts, parameter, place, read)


def _is_undone(facts: Facts, parameter: str, place: int, read: int) -> bool:
    """Whether the write to a parameter at `place` is undone before anything that trains reads it, which the
    call at `read` does: by a write that gives it back a copy taken before."""
    places, restores = once(facts, _places), once(facts, _restores).get(parameter, ())
    for restore, taken in restores[bisect_right(restores, place, key=itemgetter(0)) :]:
        if restore > read:
            return False
        if places.get(taken, place) < place:
            return True
    return False


def _places(facts: Facts) -> Mapping[str, int]:
    """The place of each node, by name."""
    return {node.name: place for place, node in enumerate(facts.nodes)}


def _is_read_past(facts: Facts, node: NodeFact) -> bool:
    """Whether a gradient comes back to the memory other than through the alias that was written: where that
    took up a history with the write (`h = h.detach()`, then `h[0] = f(x)`), it is recorded for who goes on
    with it."""
    over = {value for value in node.makes if facts.values[value].storage in node.writes}
    new = {flow.source for flow in node.flows if facts.values[flow.source].storage not in node.writes}
    alias = {flow.target for flow in node.flows if flow.open and flow.source in new and flow.target in over}
    return not alias or not facts.live.isdisjoint(over - alias)


def _readers(facts: Facts) -> Mapping[int, list[int]]:
    """By storage, the places of the nodes that something comes back through to a value over it."""
    found: dict[int, list[int]] = {}
    for place, node in enumerate(facts.nodes):
        if facts.live.isdisjoint(node.makes):
            continue
        read = [facts.values[v] for v in node.reads if v in facts.live]
        for storage in {value.storage for value in read if value.requires_grad}:
            found.setdefault(storage, []).append(place)
    return found


def _restores(facts: Facts) -> Mapping[str, list[tuple[int, str]]]:
    """By parameter, the places of the writes that give it back a copy of itself, each with the step that took
    the copy."""
    found: dict[str, list[tuple[int, str]]] = {}
    for place, node in enumerate(facts.nodes):
        taken = _gives_back(facts, node) if node.writes else None
        parameter = _parameter(facts, node) if taken is not None else None
        if taken is not None and parameter is not None:
            found.setdefault(parameter, []).append((place, taken))
    return found


def _gives_back(facts: Facts, node: NodeFact) -> str | None:
    """Where the whole of a parameter is overwritten with a copy of itself: the step that took it ("":
    itself); None for other writes."""
    if len(node.reads) < 2 or not (
        node.target == "Tensor.__set__" or node.target.rpartition(".")[2] == "copy_"
    ):
        return None
    name = _parameter(facts, node)
    own = once(facts, _storages_of).get(name or "", frozenset())
    written, source = (_original(facts, value) for value in node.reads[:2])
    if (
        written is None
        or source is None
        or not {facts.values[v].storage for v in (written[0], source[0])} <= own
    ):
        return None
    return source[1] if not written[1] else None


def _original(facts: Facts, value: int) -> tuple[int, str] | None:
    """What a value is a copy or an alias of, and the step that copied ("": none did); None for a view of
    another thing."""
    made_by = facts.maker_of
    taken = ""
    while (maker := made_by.get(value)) is not None and maker.target in _COPIES:
        if facts.values[maker.reads[0]].storage != facts.values[value].storage:
            taken = maker.name
        value = maker.reads[0]
    if maker is not None and maker.kind == "op" and not maker.writes:
        return None
    return value, taken


def _starts_anew(facts: Facts, node: NodeFact) -> bool:
    """Whether the whole of a parameter is overwritten with what does not depend on it: its gradient there is
    exact."""
    if node.target == "Tensor.__set__":
        sources = node.reads[1:]
    elif node.target.rpartition(".")[2] in _OVERWRITES:
        sources = tuple(v for v in node.reads[1:] if facts.values[v].storage not in node.writes)
    else:
        return False
    old = {facts.values[v].storage for v in node.reads[:1]} | set(node.writes)
    # Replaced data may lie where the old did: `t.data = t.data[:2]` depends on it, `t.data = other` does not.
    exempt = {*node.makes, *(sources if node.target == "Tensor.__set__" else ())}
    made_by, stack, reached = facts.maker_of, list(sources), set(sources)
    while stack:
        value = stack.pop()
        if facts.values[value].storage in old and value not in exempt:
            return False
        maker = made_by.get(value)
        further = set(maker.reads) - reached if maker is not None else set()
        reached.update(further)
        stack.extend(further)
    return True


def _parameter(facts: Facts, node: NodeFact) -> str | None:
    """The first parameter whose memory a node writes, or is given first."""
    owners = once(facts, _owners)
    storages = {*node.writes, *(facts.values[v].storage for v in node.reads[:1])}
    found = [owners[storage] for storage in storages if storage in owners]
    return facts.parameters[min(found)].name if found else None


def _owners(facts: Facts) -> Mapping[int, int]:
    """By storage the first parameter over it."""
    found: dict[int, int] = {}
    for place, parameter in enumerate(facts.parameters):
        for value in parameter.values if parameter.requires_grad else ():
            found.setdefault(facts.values[value].storage, place)
    return found


def _storages_of(facts: Facts) -> Mapping[str, frozenset[int]]:
    """The memory of each parameter, by name."""
    return {p.name: frozenset(facts.values[v].storage for v in p.values) for p in facts.parameters}
