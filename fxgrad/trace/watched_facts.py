"""Facts of a watched program: the notes of a ledger as the frozen records that every rule reads.

Several backwards have one virtual loss that all their losses lead to, so "reaches the loss" means any of
them. Where gradients were lost on the way, what every value was given comes from a step that was watched
closely; else from what is known: operations whose derivative is always zero, and custom Functions that
returned None.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

import torch
from torch import nn

from fxgrad.passes.analyses.dead_ends import reaching
from fxgrad.passes.analyses.zeros import is_zero_node
from fxgrad.records import Decision, Facts, Flow, NodeFact, Raised, Saved, Site, Value
from fxgrad.records.facts import Delivered
from fxgrad.source.sites import innermost
from fxgrad.torch_api import registry
from fxgrad.torch_api.errors import element_without_history
from fxgrad.torch_api.internals import version_of
from fxgrad.trace.assumed_flows import with_read, without_idle
from fxgrad.trace.edges import Key
from fxgrad.trace.events import Events
from fxgrad.trace.ledger import Ledger
from fxgrad.trace.notes import RANK, Backward, Note, Taken
from fxgrad.trace.observer import Observer
from fxgrad.trace.parameters import externals, parameters
from fxgrad.trace.shared_facts import calls_of, is_about_its_tensor, node_fact
from fxgrad.trace.slots import Slot

_STATES: dict[int, Delivered] = {rank: state for state, rank in RANK.items()}
_PRODUCTS = frozenset(("mul", "mul_", "multiply", "multiply_", "__mul__", "__rmul__", "__imul__"))
_GONE = torch.float32  # the type of a value that was pruned: nothing refers to it


@dataclass(frozen=True, slots=True)
class Watched:
    """`facts` of everything seen; `delivered`: the same with what each value's edge was given, as far as that
    can be told; None where no gradient was lost on its way.

    `backwards`: those that count. `aims`: by leaf edge which of them were run for the step of the leaf's
    optimizer, where not all were. `cleared`: names of parameters that had a gradient, which was gone as the
    step began.
    `accidental`: names of those whose gradient was zero in the only step seen, for no reason that is known to
    hold in the next.
    """

    facts: Facts
    delivered: Facts | None
    accidental: frozenset[str]
    backwards: Sequence[Backward]
    aims: Mapping[int, range]
    edges: Mapping[str, int]
    cleared: tuple[str, ...]


def observe(
    observer: Observer,
    events: Events,
    root: nn.Module,
    error: Raised | None,
    saved: Iterable[Saved],
    mark: int = 0,
    *,
    unfinished: bool = False,
) -> Watched:
    """The facts up to now. `mark`: the first note of the step in which every autograd node was watched, if
    one was.

    `unfinished`: of a parameter without a gradient nothing is known yet.
    """
    ledger = observer.ledger
    paths = {id(module): name for name, module in registry.named_modules(root)}
    values = _values(ledger)
    backwards = _final(observer.backwards)
    plain = with_read(without_idle(tuple(_node(note, paths) for note in ledger.notes)))
    end = _end(ledger, backwards, plain, values, error)
    facts = Facts(
        values=tuple(values),
        nodes=end.nodes,
        calls=tuple(calls_of(events.calls, paths)),
        parameters=tuple(
            parameters(
                ledger, events, root, values, error, reaching(end.nodes, end.loss), unfinished=unfinished
            )
        ),
        externals=tuple(externals(ledger, events, root, paths)),
        decisions=tuple(Decision(innermost(d.spots), "", d.outcome, True) for d in observer.decisions),
        saved=tuple(saved),
        live=end.live,
        loss=end.loss,
        loss_requires_grad=end.requires_grad,
        error=error,
        returns=_returns(backwards),
        midway=end.midway,
    )
    ranks = _ranks(end.nodes, values, backwards, end.loss, observer.dropped)
    slots = _slots(ledger, root)
    return Watched(
        facts,
        _delivered(facts, observer, ranks, root, mark) if _is_lost(facts) else None,
        accidental=frozenset() if observer.delivered else _accidental(facts, ranks),
        backwards=backwards,
        aims=_aims(backwards, observer.taken),
        edges={name: -slot.leaf for name, slot in slots.items()},
        cleared=tuple(name for name, slot in slots.items() if slot.cleared and slot.begun != "some"),
    )


@dataclass(frozen=True, slots=True)
class _End:
    """What stands for the loss, and the nodes and the values behind it. `midway`: see `Facts`."""

    loss: int | None
    nodes: tuple[NodeFact, ...]
    live: frozenset[int]
    requires_grad: bool
    midway: bool = False


def _end(
    ledger: Ledger,
    backwards: Sequence[Backward],
    plain: tuple[NodeFact, ...],
    values: list[Value],
    error: Raised | None,
) -> _End:
    failed = _failed_midway(ledger, backwards, error)
    if failed is None:
        loss, nodes = _join(backwards, plain, values)
        live = frozenset().union(*(b.live for b in backwards)) | ({loss} if loss is not None else frozenset())
        return _End(loss, nodes, live, any(b.started or b.live for b in backwards))
    # one without a history has nothing behind it, whatever the others have of which that derivative was asked
    walked = backwards if values[failed].requires_grad else backwards[:-1]
    live = frozenset({failed}).union(*(b.live for b in walked))
    return _End(failed, plain, live, values[failed].requires_grad, midway=True)


def _failed_midway(ledger: Ledger, backwards: Sequence[Backward], error: Raised | None) -> int | None:
    """The tensor of which it asked a derivative last, where that raised for how the tensor was computed, on
    the way to a loss: by `autograd.grad`, or while a module ran."""
    last = backwards[-1] if backwards else None
    if last is None or not last.failed or error is None or not is_about_its_tensor(error):
        return None
    note = next((note for note in reversed(ledger.notes) if note.number == last.note), None)
    if not last.partial and (note is None or note.module is None):
        return None
    index = element_without_history(error.message) or 0
    return last.losses[index] if index < len(last.losses) else None


def _is_lost(facts: Facts) -> bool:
    """Whether a parameter got only zeros, or nothing although a backward reached a value of it."""
    return any(
        p.requires_grad
        and (p.gradient == "zero" or (p.gradient == "none" and not facts.live.isdisjoint(p.values)))
        for p in facts.parameters
    )


def _delivered(
    facts: Facts, observer: Observer, ranks: Mapping[int, int], root: nn.Module, mark: int
) -> Facts:
    if observer.delivered:
        given = [_given(value, observer.ledger, observer.delivered) for value in facts.values]
    else:
        given = [_STATES[ranks.get(v.id, 0)] if v.id in facts.live else "none" for v in facts.values]
    values = tuple(v._replace(delivered=state) for v, state in zip(facts.values, given, strict=True))
    nodes = tuple(n for n in facts.nodes if int(n.name[1:]) >= mark)
    return replace(facts, values=values, nodes=(*_buffers(nodes, observer.ledger, root), *nodes))


def _buffers(nodes: Sequence[NodeFact], ledger: Ledger, root: nn.Module) -> Iterator[NodeFact]:
    """The buffers that these steps read as they were before them and are to this day: as what they are, the
    state of a module, and not as what once computed them."""
    made = {value for node in nodes for value in node.makes}
    read = {value for node in nodes for value in node.reads} - made
    for name, buffer in registry.named_buffers(root):
        slot = ledger.tensors.get(buffer)
        if slot is not None and slot.value in read and slot.version == version_of(buffer):
            yield nodes[0]._replace(
                name=f"n{-1 - slot.value}",
                kind="attribute",
                target=name,
                site=None,
                stack=(),
                reads=(),
                makes=(slot.value,),
                flows=(),
                writes=(),
                differentiated=(),
                constants=(),
                operands=(),
                settings=(),
            )


def _values(ledger: Ledger) -> list[Value]:
    """Of one that was pruned the place alone is kept."""
    return [
        value or Value(i, "", (), _GONE, "", -1, False, True, None) for i, value in enumerate(ledger.values)
    ]


def _slots(ledger: Ledger, root: nn.Module) -> dict[str, Slot]:
    """The slots of parameters that were seen, by every name."""
    named = registry.named_parameters(root, remove_duplicate=False)
    found = ((name, ledger.tensors.get(parameter)) for name, parameter in named)
    return {name: slot for name, slot in found if slot is not None}


def _accidental(facts: Facts, ranks: Mapping[int, int]) -> frozenset[str]:
    """The names of parameters with a zero gradient that could be another."""
    zero = (p for p in facts.parameters if p.gradient == "zero")
    return frozenset(name for p in zero if any(ranks.get(v, 0) == 2 for v in p.values) for name in p.names)


def _aims(backwards: Sequence[Backward], taken: Sequence[Taken]) -> dict[int, range]:
    """The backwards between two steps belong to the second; steps that follow each other at once share
    theirs."""
    found: dict[int, range] = {}
    aim = range(0)
    for step in taken:
        reached = bisect_left(backwards, step.note, key=attrgetter("note"))
        if reached > aim.stop:
            aim = range(aim.stop, reached)
        if 0 < len(aim) < len(backwards):
            found.update(dict.fromkeys(step.leaves, aim))
    return found


def aimed(watched: Watched, aim: range) -> Facts:
    """The facts with only those losses."""
    values = list(watched.facts.values)
    loss, nodes = _join(watched.backwards[aim.start : aim.stop], watched.facts.nodes, values)
    return replace(watched.facts, loss=loss, nodes=nodes, values=tuple(values))


def _given(value: Value, ledger: Ledger, delivered: Mapping[Key, Delivered]) -> Delivered:
    """What the edge of a value was given, in the step that was watched closely; "" outside of it."""
    key = ledger.keys[value.id] if value.id < len(ledger.keys) else None
    return delivered.get(key, "") if key is not None else ""


def _final(backwards: Sequence[Backward]) -> list[Backward]:
    """The backwards that count: `autograd.grad` only where nothing else ran."""
    return [b for b in backwards if not b.partial] or list(backwards)


def _join(
    backwards: Sequence[Backward], plain: tuple[NodeFact, ...], values: list[Value]
) -> tuple[int | None, tuple[NodeFact, ...]]:
    """The value that stands for the loss; of several a virtual one, made by the backward calls and put behind
    `values`."""
    losses = list(dict.fromkeys(v for b in backwards for v in b.losses))
    if len(losses) <= 1:
        return (losses[0] if losses else None), plain
    loss = len(values)
    by_note = {f"n{b.note}": b for b in backwards}
    values.append(
        values[losses[0]]._replace(
            id=loss,
            node=f"n{backwards[-1].note}",
            shape=(),
            requires_grad=True,
            is_leaf=False,
            grad=0,
        )
    )
    nodes = list(plain)
    for index, node in enumerate(plain):
        made = by_note.get(node.name)
        if made is not None:
            flows = tuple(Flow(v, loss, values[v].requires_grad) for v in made.losses)
            nodes[index] = node._replace(makes=(loss,), flows=flows, phase="backward")
    return loss, tuple(nodes)


def _node(note: Note, paths: dict[int, str]) -> NodeFact:
    module = paths.get(id(note.module), "") if note.module is not None else ""
    return node_fact(
        note,
        f"n{note.number}",
        module,
        note.flows,
        grad=note.grad,
        operands=note.operands,
        settings=note.settings,
    )


def _returns(backwards: Sequence[Backward]) -> dict[str, Site]:
    """The functions that call backward end, as far as a loss goes, at that call."""
    sites = [innermost(b.spots) for b in backwards]
    return {f"{site.file}:{site.function}": site for site in sites if site is not None}


def _ranks(
    nodes: Sequence[NodeFact],
    values: Sequence[Value],
    backwards: Sequence[Backward],
    loss: int | None,
    dropped: set[tuple[int, int]],
) -> dict[int, int]:
    """By value the best a gradient that comes back to it can be: 2 some, 1 only zeros, 0 none."""
    ranks = {v: 2 for b in backwards for v in b.losses}
    if loss is not None:
        ranks[loss] = 2
    lost = {(f"n{note}", value) for note, value in dropped}
    for node in reversed(nodes):
        zero = _is_zero(node, values)
        for flow in node.flows:
            if not flow.open or (node.name, flow.source) in lost:
                continue
            rank = min(ranks.get(flow.target, 0), 1 if zero else 2)
            if rank > ranks.get(flow.source, 0):
                ranks[flow.source] = rank
    return ranks


def _is_zero(node: NodeFact, values: Sequence[Value]) -> bool:
    if any(is_zero_node(values[v].function) for v in node.makes):
        return True
    return node.target.rpartition(".")[2] in _PRODUCTS and any(
        c == 0 for c in node.constants if isinstance(c, int | float)
    )
