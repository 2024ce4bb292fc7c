"""Which branch on data keeps a graph from standing for the program: one whose other outcome another call can
take, and that matters.

A recorded graph holds one outcome of every branch. That is no loss where the branch
 1. was decided by constants alone (`torch.ones(n).all()`): a call of the same structure decides it in the
    same way;
 2. records the same graph when it is turned (a warning, a log line);
 3. is a check: turned, the program raises at once. The graph does not check, which its account says.
A loop over what data selects (`for i in mask.nonzero()`) is a branch too: where another selection makes other
calls, it matters. Made from a finished run on real values and further runs with one decision turned, or one
selection widened. Not handled: what the other outcome does to Python objects, which a graph does not leave
anyway; loops over numbers (`range(int(mask.sum()))`), which the graph lists as frozen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest
from types import FunctionType
from typing import Any

import torch
import torch.fx

from fxgrad.trace.experiment import Nudge
from fxgrad.trace.observations import RawDecision, Step
from fxgrad.trace.run import Run
from fxgrad.trace.targets import Closure, GeneratorState

MOST_TURNS = 12  # runs to find out; a program with more such branches on data is a loop over data

_MADE_OF_SHAPES = (
    "ones_like",
    "zeros_like",
    "full_like",
    "empty_like",
    "new_ones",
    "new_zeros",
    "new_full",
    "new_empty",
    "size",
    "numel",
)
_COMPUTED = ("op", "entry", "leaf", "escape")


@dataclass(frozen=True, slots=True, eq=False)
class Decided:
    """`deciding`: the first decision, or the first selection that is looped over, that keeps the graph from
    standing for the program, if one does; `checks`: the decisions that only raise."""

    deciding: RawDecision | Step | None = None
    checks: tuple[RawDecision, ...] = ()


def decided(eager: Run, turned: Callable[[tuple[bool, ...], Nudge | None], Run]) -> Decided:
    """What the decisions of a run mean for its graph. `turned` runs the program with these outcomes for its
    first decisions, and disturbed."""
    decisions = eager.recorder.decisions
    if not decisions and not eager.recorder.selections:
        return Decided()
    changing = values_that_change(eager)
    taken = tuple(d.outcome for d in decisions)
    open_ones = [i for i, d in enumerate(decisions) if not d.reads or not changing.isdisjoint(d.reads)]
    if len(open_ones) > MOST_TURNS:
        return Decided(decisions[open_ones[0]])
    checks = []
    for index in open_ones:
        other = turned((*taken[:index], not taken[index]), None)
        if _raises_at_once(eager, other, decisions[index]):
            checks.append(decisions[index])
        elif not same_graph(eager, other):
            return Decided(decisions[index])
    looping = _looped_over(eager, changing, lambda nudge: turned(taken, nudge))
    return Decided(looping, tuple(checks))


def _looped_over(eager: Run, changing: set[int], widened: Callable[[Nudge], Run]) -> Step | None:
    """The first selection by data without which the program makes other calls; one of each way that leads to
    a line is tried, in each module."""
    ways: set[object] = set()
    expected = _calls(eager)
    for number, step in enumerate(eager.recorder.selections):
        way = step.module, step.spots
        if way in ways or changing.isdisjoint(step.reads):
            continue
        ways.add(way)
        other = widened(Nudge(number, selection=True))
        found = _calls(other)
        # else it stopped at a size that does not fit: what came before is compared
        returned = other.output_structure is not None
        if found != (expected if returned else expected[: len(found)]):
            return step
    return None


def _calls(run: Run) -> list[tuple[str, object]]:
    """What a run calls, in order: a loop of more rounds calls more."""
    return [(node.op, node.target) for node in _forward(run)]


def _raises_at_once(eager: Run, other: Run, decision: RawDecision) -> bool:
    """Whether the program raises by itself, not in an operator, and has recorded nothing that the first run
    has not: or only what a `raise` or `assert` of the deciding function puts into its message."""
    if other.error is None or other.error.phase != "forward" or other.error.node is not None:
        return False
    first, second = _forward(eager), _forward(other)
    same = _Same(eager, first, other, second)
    shared = next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if not same.node(a, b)),
        min(len(first), len(second)),
    )
    told = set(second[shared:])
    if not told:
        return True
    deciding = decision.spots[0][0] if decision.spots else None
    steps = [step for step in other.recorder.steps if step.node in told]
    return other.raised_in is deciding is not None and all(
        step.spots and step.spots[0][0] is deciding for step in steps
    )


def values_that_change(run: Run) -> set[int]:
    """The values that another call may have otherwise: all but those computed from constants and sizes."""
    changing: set[int] = set()
    for step in run.recorder.steps:
        if _is_constant(step, changing):
            continue
        changing.update(step.makes)
    return changing


def _is_constant(step: Step, changing: set[int]) -> bool:
    if step.kind not in _COMPUTED or draws_random_numbers(step.target):
        return False
    if step.target.rpartition(".")[2] in _MADE_OF_SHAPES and not step.writes:
        return True
    return changing.isdisjoint(step.reads) and changing.isdisjoint(step.weak)


def draws_random_numbers(target: str) -> bool:
    """Whether the operator of this name draws, by torch's own tag."""
    packet = getattr(torch.ops.aten, target.rpartition(".")[2].removesuffix("_"), None)
    if packet is None:
        return False
    return any(torch.Tag.nondeterministic_seeded in getattr(packet, name).tags for name in packet.overloads())


def same_graph(one: Run, other: Run) -> bool:
    """Whether two runs recorded the same forward: operator by operator, on the same values, with the same
    results."""
    if other.output_structure is None:
        return False
    first, second = _forward(one), _forward(other)
    if not _same_nodes(one, first, other, second) or list(one.rebound) != list(other.rebound):
        return False
    same = _Same(one, first, other, second)
    ends = [(*run.output_nodes, *run.rebound.values()) for run in (one, other)]
    return len(ends[0]) == len(ends[1]) and same.argument(ends[0], ends[1])


def first_difference(one: Run, other: Run) -> torch.fx.Node | None:
    """The first node of a run that another run has not; None where one's nodes begin the other's."""
    first, second = _forward(one), _forward(other)
    same = _Same(one, first, other, second)
    return next(
        (a for a, b in zip_longest(first, second) if a is not None and (b is None or not same.node(a, b))),
        None,
    )


def _forward(run: Run) -> list[torch.fx.Node]:
    """The nodes that compute, up to the model's return; attributes are compared where they are used."""
    nodes = []
    for node in run.recorder.graph.nodes:
        if node not in run.recorder.raised and node.op != "get_attr":
            nodes.append(node)
        if node is run.forward_last:
            break
    return nodes


def _same_nodes(one: Run, first: list[torch.fx.Node], other: Run, second: list[torch.fx.Node]) -> bool:
    same = _Same(one, first, other, second)
    return len(first) == len(second) and all(map(same.node, first, second))


class _Same:
    """Compares nodes of two runs: `first` and `second` are those that stand for each other, in order."""

    def __init__(self, one: Run, first: list[torch.fx.Node], other: Run, second: list[torch.fx.Node]) -> None:
        self.numbers = {n: i for i, n in enumerate(first)}, {n: i for i, n in enumerate(second)}
        self.held = one.recorder.attributes, other.recorder.attributes

    def node(self, a: torch.fx.Node, b: torch.fx.Node) -> bool:
        return a.op == b.op and a.target == b.target and self.argument((a.args, a.kwargs), (b.args, b.kwargs))

    def argument(self, a: object, b: object) -> bool:
        if isinstance(a, torch.fx.Node) and isinstance(b, torch.fx.Node):
            return self.value(a, b)
        if isinstance(a, tuple | list) and isinstance(b, tuple | list):
            return len(a) == len(b) and all(map(self.argument, a, b))
        if isinstance(a, dict) and isinstance(b, dict):
            return list(a) == list(b) and all(map(self.argument, a.values(), b.values()))
        if isinstance(a, slice) and isinstance(b, slice):
            return self.argument((a.start, a.stop, a.step), (b.start, b.stop, b.step))
        return _same_object(a, b)

    def value(self, a: torch.fx.Node, b: torch.fx.Node) -> bool:
        if a.op != "get_attr":
            return self.numbers[0].get(a) == self.numbers[1].get(b)
        return (
            a.op == b.op
            and a.target == b.target
            and _same_object(*(held.get(str(a.target)) for held in self.held))
        )


def _same_object(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor):
        return _is_plain(a) and _is_plain(b) and a.dtype == b.dtype and torch.equal(a, b)
    if type(a) is not type(b):
        return False
    if isinstance(a, Closure):
        return _same_object(a.function, b.function)
    if isinstance(a, GeneratorState):
        return a.device == b.device and torch.equal(a.state, b.state)
    if isinstance(a, FunctionType):  # written in the forward, it is another one in each run
        return a.__code__ is b.__code__
    return type(a) in _COMPARED and bool(a == b)


def _is_plain(tensor: torch.Tensor) -> bool:
    """Whether torch can compare it with another, element by element."""
    return (
        type(tensor) in (torch.Tensor, torch.nn.Parameter)
        and tensor.layout is torch.strided
        and not tensor.is_nested
    )


_COMPARED = (
    int,
    float,
    bool,
    str,
    complex,
    type(None),
    torch.dtype,
    torch.device,
    torch.Size,
    torch.memory_format,
    torch.layout,
)
