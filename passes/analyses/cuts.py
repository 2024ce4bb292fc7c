"""The frontier: for every parameter without a gradient, the cheapest way its data goes to the loss, and the
cuts on that way.

Definitions:
 1. Data flows source -> target wherever a step read one and made the other (`NodeFact.flows`), differentiable
    or not.
 2. A flow is a *cut* if a gradient would have to come back over it and does not: it is not open (autograd
    recorded nothing), and either its source requires grad, or its own operation would stop a gradient even if
    the source did (it leaves torch, it makes integers of floats, it is a detach, it runs without grad mode).
 3. A path's cost is the sum of its cuts' costs. The cheapest path's cuts are *sufficient* (mending them all
    leaves an open path) and *minimal* (each of them alone still closes that path).
Costs rank what a person would mend first: a detach or a no_grad before an argmax, anything seen before
anything assumed. Computed once for all parameters by Dijkstra's algorithm backwards from the loss: linear in
the graph but for the heap.
"""

from __future__ import annotations

import heapq
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch

from fxgrad.passes.analyses.functions import direct_forward
from fxgrad.passes.analyses.index import once
from fxgrad.passes.analyses.no_grad_regions import inside_call
from fxgrad.passes.analyses.shapes import lends_its_shape
from fxgrad.passes.analyses.stored_parameters import storages, stores
from fxgrad.records import Facts, Flow, NodeFact, ParameterFact, Value
from fxgrad.source import line_text
from fxgrad.torch_api.calls import DERIVATIVE
from fxgrad.torch_api.internals import OPERATORS

DETACHES = frozenset(
    (
        "Tensor.detach",
        "Tensor.detach_",
        "Tensor.data",
        "torch.detach",
        "torch.detach_",
        f"{OPERATORS}aten.detach.default",
        f"{OPERATORS}aten.detach_.default",
    )
)
GRAD = DERIVATIVE  # its results have a history only with create_graph=True
COPIES = frozenset(
    (
        "torch.tensor",
        "torch.as_tensor",
        "torch.asarray",
        "Tensor.new_tensor",
        "torch.scalar_tensor",
        "torch.nested.nested_tensor",
    )
)
CASTS = frozenset(
    [
        "Tensor.to",
        "Tensor.long",
        "Tensor.int",
        "Tensor.short",
        "Tensor.byte",
        "Tensor.char",
        "Tensor.bool",
        "Tensor.type",
        "Tensor.type_as",
        "torch.Tensor.to",
    ]
)
_STEP = 1e-6  # of two ways equally cut, the shorter


@dataclass(frozen=True, slots=True)
class Cut:
    """A flow over which no gradient comes back; `code` is the rule it belongs to.

    `behind`: the step before it that has no derivative either, where the two are one cause.
    """

    node: str
    flow: Flow
    code: str
    behind: str = ""


# by value: the flow to take towards the loss, and its rule if it is a cut
Following = Mapping[int, tuple[NodeFact, Flow, "str | None"]]


@dataclass(frozen=True, slots=True, eq=False)
class Way:
    """How a parameter's data reaches the loss: where it starts, and the cuts on it."""

    start: int
    cuts: tuple[Cut, ...]
    following: Following = field(repr=False)

    @property
    def nodes(self) -> tuple[str, ...]:
        """The names of the nodes from the parameter onwards: only on request, thousands of parameters share a
        long way."""
        return tuple(node.name for node, _, _ in _along(self.start, self.following))


@dataclass(frozen=True, slots=True)
class Frontier:
    """`ways` by parameter name; a parameter whose data never reaches the loss has none."""

    ways: dict[str, Way]


def analyse(
    facts: Facts, starved: Iterable[ParameterFact], *, skip: frozenset[str] = frozenset()
) -> Frontier:
    """The cheapest way to the loss for each parameter of `starved`. `skip`: node names whose flows are not to
    be used."""
    if facts.loss is None:
        return Frontier({})
    starved = tuple(starved)
    ways = _ways(facts, starved, skip)
    lost = [parameter for parameter in starved if parameter.name not in ways]
    if lost and any(drops_out(facts, node, flow) for node in facts.nodes for flow in node.flows):
        found = _ways(facts, lost, skip, through_derivatives=True)
        ways.update({name: way for name, way in found.items() if _is_cut_before_derivative(facts, way)})
    return Frontier(ways)


def _ways(
    facts: Facts,
    starved: Iterable[ParameterFact],
    skip: frozenset[str],
    *,
    through_derivatives: bool = False,
) -> dict[str, Way]:
    distance, following = _distances(facts, skip, through_derivatives=through_derivatives)
    assert facts.loss is not None
    following.pop(facts.loss, None)
    next_cut: dict[int, int | None] = {}
    ways = {}
    for parameter in starved:
        start = min(parameter.values, key=lambda v: distance.get(v, float("inf")), default=None)
        if start is None or start not in distance:
            continue
        ways[parameter.name] = _way(facts, start, following, next_cut)
    return ways


def _is_cut_before_derivative(facts: Facts, way: Way) -> bool:
    """Whether what was differentiated has no history of the parameter either: its numbers may be a factor of
    the derivative, which drops no such thing."""
    for node, flow, code in _along(way.start, way.following):
        if code is not None:
            return True
        if drops_out(facts, node, flow):
            return False
    return False


def _distances(
    facts: Facts, skip: frozenset[str], *, through_derivatives: bool
) -> tuple[dict[int, float], dict[int, tuple[NodeFact, Flow, str | None]]]:
    """By value: what its cheapest way to the loss costs, and the first flow on that way."""
    arriving = _arriving(facts, skip, through_derivatives=through_derivatives)
    assert facts.loss is not None
    owned = storages(facts)
    distance: dict[int, float] = {}
    following: dict[int, tuple[NodeFact, Flow, str | None]] = {}
    heap: list[tuple[float, int]] = [(0.0, facts.loss)]
    best = {facts.loss: 0.0}
    while heap:
        cost, value = heapq.heappop(heap)
        if value in distance:
            continue
        distance[value] = cost
        for node, flow in arriving.get(value, ()):
            if cost + _STEP >= best.get(flow.source, float("inf")):  # whatever it costs
                continue
            price, code = (
                (0.0, None)
                if through_derivatives and drops_out(facts, node, flow)
                else _price(facts, node, flow, owned)
            )
            total = cost + price + _STEP
            if total < best.get(flow.source, float("inf")):
                best[flow.source] = total
                following[flow.source] = (node, flow, code)
                heapq.heappush(heap, (total, flow.source))
    return distance, following


def _arriving(
    facts: Facts, skip: frozenset[str], *, through_derivatives: bool
) -> Mapping[int, list[tuple[NodeFact, Flow]]]:
    """The flows by their target: those by which data of a value, not its shape alone, gets there.
    `through_derivatives`: also where what is differentiated drops out."""
    found: dict[int, list[tuple[NodeFact, Flow]]] = {}
    for node in facts.nodes:
        if node.name in skip:
            continue
        passing = {flow.source for flow in node.flows if flow.open}
        for flow in node.flows:
            alike = not flow.open and flow.source in passing and not _is_past_autograd(facts, node, flow)
            if alike and _independent(node, facts.values[flow.target]):
                continue
            if lends_its_shape(node, flow):
                continue
            if not through_derivatives and drops_out(facts, node, flow):
                continue
            found.setdefault(flow.target, []).append((node, flow))
    return found


def _independent(node: NodeFact, target: Value) -> bool:
    """Of several results, whether this one owes nothing to a source whose gradient comes back from another:
    attention weights know no output projection, of two broadcast tensors each is itself. Not so for integers
    (the indices of `max`) and after a user's own code."""
    if node.kind == "function" or target.is_leaf and target.grad is not None:
        return False
    if target.grad is not None:
        return True
    return node.kind in ("op", "module") and not node.writes and target.dtype.is_floating_point


def drops_out(facts: Facts, node: NodeFact, flow: Flow) -> bool:
    """Whether a derivative that is differentiable itself does not depend on what it was taken of: a constant
    added, or unused. In a transform of `torch.func`: what it took the derivative of does depend on it."""
    if flow.open or not facts.values[flow.source].requires_grad:
        return False
    if node.target == GRAD:
        return node.grad_enabled
    return bool(node.differentiated) and (
        flow.source in node.differentiated
        or any(f.open and f.source == flow.source and f.target in node.differentiated for f in node.flows)
    )


def _along(start: int, following: Following) -> Iterator[tuple[NodeFact, Flow, str | None]]:
    """The flows from a value to the loss."""
    value = start
    while value in following:
        yield following[value]
        value = following[value][1].target


def _way(facts: Facts, start: int, following: Following, next_cut: dict[int, int | None]) -> Way:
    cuts: list[Cut] = []
    value = _next_cut(start, following, next_cut)
    while value is not None:
        node, flow, code = following[value]
        assert code is not None
        if code == "FXG104" and inside_call(facts, node):
            code = "FXG105"  # no region of the user's: `Normal(...).sample()` itself records nothing
        cuts.append(Cut(node.name, flow, code))
        value = _next_cut(flow.target, following, next_cut)
    return Way(
        start,
        tuple(_left_as_numbers(facts, list(_merged(facts, cuts, following)), start, following)),
        following,
    )


def _left_as_numbers(facts: Facts, cuts: list[Cut], start: int, following: Following) -> list[Cut]:
    """Where the loss is made of Python numbers alone, the step that made numbers is the cause, not one before
    it that picked which (a sample, an argmax): mended there, the loss would be a number still."""
    if not any(cut.code == "FXG105" for cut in cuts) or once(facts, _uses_parameters):
        return cuts
    before: set[int] = set()
    for node, flow, _ in _along(start, following):
        drawn = [cut for cut in cuts if cut.code == "FXG105" and id(cut.flow) in before]
        if node.kind == "escape" and drawn:
            kept = [cut for cut in cuts if cut not in drawn and cut.node != node.name]
            at = cuts.index(drawn[0])
            return [*kept[:at], Cut(node.name, flow, "FXG107", drawn[-1].node), *kept[at:]]
        before.add(id(flow))
    return cuts


def _uses_parameters(facts: Facts) -> bool:
    """Whether data of a parameter goes into the loss without leaving torch."""
    found = {facts.loss}
    for node in reversed(facts.nodes):
        if node.kind != "escape":
            found.update(flow.source for flow in node.flows if not flow.weak and flow.target in found)
    return any(not found.isdisjoint(parameter.values) for parameter in facts.parameters)


def _next_cut(start: int, following: Following, known: dict[int, int | None]) -> int | None:
    """The first value from `start` onwards that goes over a cut. `known` keeps every answer: the ways of all
    parameters run together."""
    passed, value = [], start
    while value not in known and value in following and following[value][2] is None:
        passed.append(value)
        value = following[value][1].target
    found = known.get(value, value if value in following else None)
    known.update(dict.fromkeys(passed, found))
    return found


# What leaves the numbers as they are: a detach with only these before the way out of torch belongs to that
# way out.
MOVES = frozenset(
    [
        "cpu",
        "cuda",
        "to",
        "clone",
        "float",
        "double",
        "half",
        "type",
        "contiguous",
        "squeeze",
        "unsqueeze",
        "view",
        "reshape",
        "flatten",
        "permute",
        "transpose",
        "t",
        "unbind",
        "__getitem__",
        "detach",
        "data",
        "numpy",
        "movedim",
        "ravel",
    ]
)


_TAKES_DETACHED = ("FXG107", "FXG108", "FXG111")


def _merged(facts: Facts, cuts: list[Cut], following: Following) -> Iterable[Cut]:
    """The cuts a person would count: a detach on the way out of torch or into a new leaf is part of that cut
    (torch itself asks for it there), and so is the way back in."""
    for last, cut, onwards in zip([None, *cuts], cuts, [*cuts[1:], None], strict=False):
        detached = cut.code == "FXG103" and onwards is not None and onwards.code in _TAKES_DETACHED
        if detached and onwards is not None and _only_moves(cut, onwards, following):
            continue
        if last is None or not _is_part(facts, cut, last, following):
            yield cut


def _is_part(facts: Facts, cut: Cut, last: Cut, following: Following) -> bool:
    """Whether a cut is only the rest of the one before it."""
    if _is_back(facts, cut):
        return True
    # `Variable(torch.tensor(number))` is one way in
    if cut.code == "FXG108" and _is_back(facts, last) and _only_moves(last, cut, following):
        return True
    # one region, left and entered by several values
    return last.code == cut.code and cut.code in ("FXG104", "FXG112")


def _only_moves(cut: Cut, later: Cut, following: Following) -> bool:
    """Whether between two cuts of one way the data is only handed on, in another form."""
    onwards = _along(cut.flow.target, following)
    between = itertools.takewhile(lambda step: step[1] is not later.flow, onwards)
    return all(node.target.rpartition(".")[2] in MOVES for node, _, _ in between)


def _is_back(facts: Facts, cut: Cut) -> bool:
    """Whether a cut is where the data comes back from Python."""
    return cut.flow.weak or facts.values[cut.flow.source].device == "python"


PRICES = {
    "FXG101": 1.0,
    "FXG102": 1.0,
    "FXG103": 1.0,
    "FXG104": 1.0,
    "FXG105": 2.0,
    "FXG106": 1.6,
    "FXG107": 1.3,
    "FXG108": 1.1,
    "FXG111": 1.1,
    "FXG112": 1.0,
    "FXG113": 1.0,
    "FXG114": 1.0,
}


def _price(facts: Facts, node: NodeFact, flow: Flow, owned: frozenset[int]) -> tuple[float, str | None]:
    """Definition 2: what mending this flow would cost, and whose finding it is."""
    if flow.open:
        return 0.0, None
    if flow.weak:
        return 3.0, "FXG107"
    source, target = facts.values[flow.source], facts.values[flow.target]
    if _freezes(node):
        code = "FXG102"
    elif stores(facts, node, target, owned):
        code = "FXG111"
    else:
        past = _is_past_autograd(facts, node, flow)
        code = "FXG103" if past else classify(node, source, target)
    if not source.requires_grad and not _stops_anyway(node, source, target):
        return 0.0, None
    return PRICES.get(code, 2.0), code


def _is_past_autograd(facts: Facts, node: NodeFact, flow: Flow) -> bool:
    """Whether a write that autograd recorded went through a detached tensor (`out.data[t] = h`): the one over
    the same memory that the program goes on with has its numbers, not its history."""
    target = facts.values[flow.target]
    return target.storage in node.writes and any(
        other.open and other.source == flow.source and facts.values[other.target].storage == target.storage
        for other in node.flows
    )


def _freezes(node: NodeFact) -> bool:
    """`p.requires_grad_(False)` and `p.requires_grad = False` while the model runs; a property set to a
    tensor reads that tensor too."""
    return node.target == "Tensor.requires_grad_" or (
        node.target == "Tensor.__set__" and len(set(node.reads)) == 1
    )


def _stops_anyway(node: NodeFact, source: Value, target: Value) -> bool:
    """Whether the operation would stop a gradient although its source carries none now."""
    if node.kind == "escape":
        return _floating(source)
    if (
        node.target in DETACHES
        or node.kind == "leaf"
        or node.target in COPIES
        or node.target == "Tensor.__set__"
    ):
        return source.dtype.is_floating_point
    return bool(_floating(source) and not _floating(target))


def _floating(value: Value) -> bool:
    return value.dtype.is_floating_point or value.dtype.is_complex


_WAYS_IN = {"entry": "FXG107", "leaf": "FXG108"}
_REGIONS = {"checkpoint": "FXG114", "function": "FXG112"}


def classify(node: NodeFact, source: Value, target: Value) -> str:
    """The rule that a cut belongs to, from what the step is and what autograd made of it."""
    if direct_forward(node) is not None:
        return "FXG112"
    if node.kind == "escape":
        return "FXG108" if constructor(node) else "FXG107"
    if node.kind in _WAYS_IN:
        return _WAYS_IN[node.kind]
    if node.target in DETACHES or node.target == GRAD:
        return "FXG103"
    if not node.grad_enabled or node.inference:
        return "FXG104"
    if node.target in COPIES:
        return "FXG108"
    if node.kind in _REGIONS:
        return _REGIONS[node.kind]
    if _is_custom_op(node.target):
        return "FXG113"
    return "FXG106" if _is_cast(node, source, target) else "FXG105"


def _is_cast(node: NodeFact, source: Value, target: Value) -> bool:
    """Whether a step makes integers of floats; a float written into a tensor of integers is cast by the
    write."""
    if not _floating(source) or target.dtype not in INTEGERS:
        return False
    return node.target in CASTS or target.storage in node.writes


_CONSTRUCTOR = re.compile(r"(?:\w+\s*\.\s*)*(\w*Tensor)\s*\(")


def constructor(node: NodeFact) -> str:
    """The old constructor (`torch.Tensor([...])`, `torch.FloatTensor(...)`) that read the number at an
    escape; "" if it was none."""
    if node.site is None or node.target not in ("Tensor.__float__", "Tensor.__int__", "Tensor.__index__"):
        return ""
    match = _CONSTRUCTOR.match(line_text(node.site.file, node.site.line)[max(node.site.column - 1, 0) :])
    return match.group(1) if match else ""


INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)


def _is_custom_op(target: str) -> bool:
    return target.startswith(OPERATORS) and not target.startswith((f"{OPERATORS}aten", f"{OPERATORS}prims"))
