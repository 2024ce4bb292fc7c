"""Zero by construction: why a step that loses a gradient loses it for any data, as far as that can be shown.

From the losing step (`lost.analyse`) of a parameter whose gradient stayed zero when parameters and inputs
were drawn again. Definitions:
 1. A step *is zero* if its autograd node's formula is zeros wherever it is defined (`ZERO_NODES`), or it
    multiplies by a Python 0.
 2. A value is *fixed* if it comes from no input and no trained parameter: from constants made in the program
    (certain), or from a buffer or another attribute (which something may change between steps, so a finding
    that rests on one is no error).
 3. A step *selects* if it is linear in what it passes on (a product, `where`, a mask, an index). It loses for
    good what a fixed operand selects away. What a value decides about itself (a ReLU that is off, a saturated
    sigmoid, the loser of a maximum) is no evidence, but a ReLU or clamp that stays off for every draw of the
    weights is worth a warning.
Not handled: zeros of a matrix product (a recurrence starts from a zero state), fake tensors (there only
definition 1 is known).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from fxgrad.passes.analyses.fixed_operands import attributes_behind, named, word
from fxgrad.passes.analyses.lost_gradients import Loss
from fxgrad.passes.context import Context
from fxgrad.records import Facts, Flow, NodeFact

# torch's autograd nodes that hand back zeros: rounding, sampling, and the overwriting of a value. Each was
# run (torch 2.13).
ZERO_NODES = frozenset(
    f"{name}Backward"
    for name in (
        *("Round", "Floor", "Ceil", "Trunc", "Sign", "Sgn", "Angle", "Copysign"),
        *(
            "Normal",
            "Bernoulli",
            "Poisson",
            "Uniform",
            "Random",
            "Exponential",
            "Geometric",
            "Cauchy",
            "LogNormal",
        ),
        *("Fill", "Zero"),
    )
)
# Of these only where it is known that a gradient was lost: the filling value, the magnitude and a complex
# angle do get one.
_SOMETIMES = frozenset(["FillBackward", "CopysignBackward", "AngleBackward"])
# division with a rounding mode; without one these pass gradients on
_MODES = frozenset(["DivBackward2", "DivBackward3"])
_OVERWRITING = frozenset(
    [
        "fill",
        "zero",
        "uniform",
        "random",
        "exponential",
        "geometric",
        "cauchy",
        "log_normal",
        "normal",
        "bernoulli",
        "setitem",
        "copy",
    ]
)
PRODUCTS = frozenset(["mul", "rmul", "imul", "multiply", "addcmul", "prod", "dot", "outer", "inner"])
_SUMS = frozenset(
    [
        "add",
        "sub",
        "rsub",
        "radd",
        "rsub",
        "addmm",
        "addmv",
        "addbmm",
        "baddbmm",
        "subtract",
        "addcdiv",
        "addcmul",
    ]
)
# Operations, and the numbers with which they weigh a value with zero.
_WEIGHTS = (
    (PRODUCTS, frozenset([0]), "multiplies by 0"),
    (frozenset(["div", "truediv", "divide"]), frozenset([math.inf, -math.inf]), "divides by infinity"),
    (frozenset(["pow"]), frozenset([0]), "raises to the power 0"),
    (frozenset(["lerp"]), frozenset([0, 1]), "gives it the weight 0"),
    (_SUMS, frozenset([0]), "adds it with the weight 0"),
)
_SELECTIONS = frozenset(
    [
        *(
            "where",
            "masked_fill",
            "masked_scatter",
            "masked_select",
            "index_fill",
            "index_copy",
            "index_put",
            "setitem",
            "scatter",
        ),
        *("tril", "triu", "getitem", "narrow", "select", "index_select"),
    ]
)
_SATURATING = frozenset(
    ["relu", "relu6", "clamp", "clip", "clamp_min", "clamp_max", "hardtanh", "hardsigmoid", "threshold"]
)
_NORMALISING = frozenset(
    [
        "softmax",
        "softmin",
        "layernorm",
        "batchnorm",
        "batchnorm1d",
        "batchnorm2d",
        "groupnorm",
        "instancenorm",
    ]
)
_JOINS = frozenset(
    ["cat", "concat", "concatenate", "stack", "hstack", "vstack", "dstack", "column_stack", "pad"]
)
_CUTTING = frozenset(
    ["getitem", "narrow", "select", "split", "chunk", "unbind", "slice", "index_select", "unsqueeze"]
)


@dataclass(frozen=True, slots=True)
class Reason:
    """`text` says what `node` does to the gradient; `certain`: nothing between two steps can change it;
    `term`: it weighs a loss term; `kind`: what a watch of a whole script judges otherwise (`CANCELS`,
    `OFF`)."""

    node: NodeFact
    text: str
    advice: str
    certain: bool = True
    term: bool = False
    kind: str = ""


_CLAMPS, _DROPS, _POWER = "clamps to a single value", "drops everything", "raises to the power 0"
CANCELS = "cancels"  # contributions of several ways add up to nothing
OFF = "off"  # nothing of what came lies where it has a slope: other data, or other weights, may
_SOFTEN = (
    "use a differentiable stand-in: straight-through (`x + (x.round() - x).detach()`), a soft version, "
    "a reparametrised sample"
)
_KEEP = "write the new value into another tensor, or take these parameters out of training"
_WEIGH = "give it a weight other than 0, or drop it and its parameters"
_OTHERWISE = {
    _CLAMPS: "give it two bounds that differ, or drop it",
    _DROPS: "give it a probability below 1, or drop it and what it drops",
    _POWER: "give it another exponent than 0",
}
_SELECT = "check the mask or the indices, or take these parameters out of training"
_SINGLE = "use a sigmoid (`BCEWithLogitsLoss`) for a single output, or give it more than one element"
_CANCEL = "drop the parameter (`bias=False`): no data can teach it anything"
_EVEN = "weigh the elements differently (a target, a mask), or leave the normalisation out"
_ALIVE = (
    "a unit that is off for all data gets no gradient that turns it on: look at its start values, at a "
    "learning rate too high and at the sign, or use a function without a flat part (LeakyReLU, GELU)"
)
_RANGE = "check the sign and the bounds: no weights lead out of the flat part"


def by_construction(facts: Facts, loss: Loss, context: Context) -> Reason | None:
    """Why the gradient is zero for any data; None if it is not known to be."""
    node, flow = loss.node, loss.flow
    if flow is None:
        return Reason(node, "lets its contributions cancel", _CANCEL, certain=False, kind=CANCELS)
    source, name = facts.values[flow.source], word(node)
    if math.prod(source.shape) == 0:
        emptied = _emptied(facts, flow.source)
        return Reason(emptied, "is empty", _SELECT, certain=False) if emptied is not None else None
    if is_zero_step(facts, node):
        overwrites = name in _OVERWRITING and bool(node.writes)
        return (
            Reason(node, "overwrites the value", _KEEP)
            if overwrites
            else Reason(node, "has a zero derivative everywhere", _SOFTEN)
        )
    weighed = _number(node, name)
    if weighed is not None:
        return Reason(
            node,
            weighed,
            _OTHERWISE.get(weighed, _WEIGH),
            term=name in PRODUCTS and _is_term(facts, flow.source, flow.target),
        )
    single = single_element(facts, node, flow.source)
    if single is not None:
        return Reason(node, single, _SINGLE)
    if _plain_word(node) in _NORMALISING:
        return Reason(
            node, "has a constant sum, and what follows weighs all of it evenly", _EVEN, certain=False
        )
    if name.lower() in _SATURATING and len(set(node.reads) - set(node.makes)) == 1:
        # An analysis has drawn the weights again; a watch has seen the script's own.
        if context.training is not None:
            return Reason(node, "is saturated in each step that was watched", _ALIVE, certain=False, kind=OFF)
        return Reason(node, "is saturated, whatever the weights are", _RANGE, certain=False)
    return _selected_away(facts, loss)


def _emptied(facts: Facts, value: int) -> NodeFact | None:
    """The step that first made it empty, if it cuts by fixed positions: what a mask selects is another matter
    in every batch."""
    node = emptied_at(facts, value)
    if node is None or word(node) not in _CUTTING:
        return None
    indices = [v for v in node.reads if not facts.values[v].dtype.is_floating_point]
    return node if _attributes(facts, indices) is not None else None


def emptied_at(facts: Facts, value: int) -> NodeFact | None:
    """The step that first made a value empty."""
    made_by = facts.maker_of
    node = made_by.get(value)
    while node is not None:
        before = [v for v in node.reads if v in made_by and is_emptied(facts, v) and v not in node.makes]
        if not before:
            break
        node = made_by[before[0]]
    return node


def is_emptied(facts: Facts, value: int) -> bool:
    """Whether it is empty data; an empty index is what empties."""
    return math.prod(facts.values[value].shape) == 0 and facts.values[value].dtype.is_floating_point


def is_zero_step(facts: Facts, node: NodeFact) -> bool:
    """Definition 1, of the autograd node alone."""
    functions = {facts.values[v].function for v in node.makes}
    return any(is_zero_node(f) or f in _MODES for f in functions)


def is_zero_node(function: str, sometimes: bool = True) -> bool:
    """Whether torch's autograd node of that name hands back zeros: always, or (`sometimes`) for one of its
    inputs.

    Torch numbers its own (`RoundBackward0`); a user's Function called Round has a backward of its own.
    """
    name = function.rstrip("0123456789")
    return name != function and name in ZERO_NODES and (sometimes or name not in _SOMETIMES)


def _number(node: NodeFact, name: str) -> str | None:
    """A Python number that weighs the value with zero. That the step did lose the gradient is known."""
    numbers = [c for c in node.constants if isinstance(c, int | float)]
    for operations, weights, text in _WEIGHTS:
        if name in operations and not weights.isdisjoint(numbers):
            return text
    if name in ("clamp", "clip", "hardtanh") and len(set(numbers)) < len(numbers):
        return _CLAMPS
    return _DROPS if "dropout" in name.lower() else None


def single_element(facts: Facts, node: NodeFact, source: int) -> str | None:
    """What a step that looks at a value relative to its only element does to it: a softmax over one, a norm
    over one, one class.

    Only of the operand that is so looked at: the bias of a norm and the value of an attention get their
    gradients.
    """
    is_alone, text = _RELATIVE.get(_plain_word(node), (None, ""))
    return text if is_alone is not None and is_alone(facts, node, source) else None


def _plain_word(node: NodeFact) -> str:
    return word(node).lower().replace("_", "")


def _is_single_in_softmax(facts: Facts, node: NodeFact, source: int) -> bool:
    name = _plain_word(node)
    dims = _dims(node, _SOFTMAXES[name], -1 if name == "gumbelsoftmax" else None)
    return _is_single(facts.values[source].shape, dims)


def _is_single_class(facts: Facts, node: NodeFact, source: int) -> bool:
    shape = facts.values[source].shape
    return _size(shape, 1 if len(shape) > 1 else 0) == 1 and _is_operand(node, source, {0: "input"})


def _is_single_in_norm(facts: Facts, node: NodeFact, source: int) -> bool:
    sizes = next((value for key, value in node.settings if key in (1, "normalized_shape")), None)
    if sizes is None or _product(sizes) != 1:
        return False
    return _is_operand(node, source, {0: "input", 2: "weight"}) or _is_weight(facts, node, source)


def _is_single_in_variance(facts: Facts, node: NodeFact, source: int) -> bool:
    settings, shape = dict(node.settings), facts.values[source].shape
    if settings.get("correction", settings.get("unbiased", settings.get(2, True))):
        return False  # divided by one less, it is NaN
    return _is_single(shape, _dims(node, 1, tuple(range(len(shape)))))


def _is_single_key(facts: Facts, node: NodeFact, source: int) -> bool:
    keys = next((facts.values[value].shape for key, value in node.operands if key in (1, "key")), ())
    return _size(keys, -2) == 1 and _is_operand(node, source, {0: "query", 1: "key", 3: "attn_mask"})


# Where the dimension stands among the arguments.
_SOFTMAXES = {"softmax": 1, "logsoftmax": 1, "softmin": 1, "gumbelsoftmax": 4}
_OVER_ONE = "normalises over a single element"
_ONE_CLASS = "chooses from a single class, with certainty"
# By operation: whether it looks at a value relative to its only element, and what it then does to it.
_RELATIVE: Mapping[str, tuple[Callable[[Facts, NodeFact, int], bool], str]] = {
    **dict.fromkeys(_SOFTMAXES, (_is_single_in_softmax, _OVER_ONE)),
    "crossentropy": (_is_single_class, _ONE_CLASS),
    "crossentropyloss": (_is_single_class, _ONE_CLASS),
    "layernorm": (_is_single_in_norm, _OVER_ONE),
    "nativelayernorm": (_is_single_in_norm, _OVER_ONE),
    "var": (_is_single_in_variance, _OVER_ONE),
    "std": (_is_single_in_variance, _OVER_ONE),
    "scaleddotproductattention": (_is_single_key, "attends to a single key"),
}


def _is_operand(node: NodeFact, source: int, names: Mapping[int, str]) -> bool:
    """Whether a value is an argument of these positions or names and of no other; of a module: what it is
    called with."""
    places = [key for key, value in node.operands if value == source]
    if node.kind == "module" and not places:
        return 0 in names and source in node.reads[:1]
    return bool(places) and all(key in names or key in names.values() for key in places)


def _is_weight(facts: Facts, node: NodeFact, source: int) -> bool:
    """Whether a value is the parameter that a module calls its weight."""
    owners = [p.name for p in facts.parameters if source in p.values]
    return node.kind == "module" and any(name.rpartition(".")[2] == "weight" for name in owners)


def _dims(node: NodeFact, position: int, otherwise: int | tuple[int, ...] | None) -> tuple[int, ...]:
    found = next((value for key, value in node.settings if key in (position, "dim")), otherwise)
    if found is None or isinstance(found, bool | float):
        return ()
    return found if isinstance(found, tuple) else (found,)


def _is_single(shape: tuple[int, ...], dims: tuple[int, ...]) -> bool:
    """Whether these dimensions hold a single element; where there is no such dimension they do not."""
    return bool(dims) and all(_size(shape, dim) == 1 for dim in dims)


def _product(sizes: int | tuple[int, ...]) -> int:
    return math.prod(sizes) if isinstance(sizes, tuple) else sizes


def _size(shape: tuple[int, ...], dim: int) -> int | None:
    return shape[dim] if -len(shape) <= dim < len(shape) else None


def _is_term(facts: Facts, source: int, target: int) -> bool:
    """Whether a computed scalar only goes on as a scalar: a term of the loss."""
    if facts.values[source].shape != () or facts.values[source].is_leaf:
        return False
    reached = {target}
    for node in facts.nodes:
        for flow in node.flows:
            if flow.open and flow.source in reached and flow.target in facts.live:
                reached.add(flow.target)
    return all(math.prod(facts.values[v].shape) <= 16 and len(facts.values[v].shape) <= 1 for v in reached)


# --------------------------------------------------------------------------------------------- fixed operands


def _selected_away(facts: Facts, loss: Loss) -> Reason | None:
    """Definition 3: by this step, or where the step only joins, by every step that takes the joined value
    apart."""
    assert loss.flow is not None
    name = word(loss.node)
    if name in PRODUCTS | _SELECTIONS:
        return _by_operand(facts, loss.node, loss.flow.source, loss.flow.target)
    if name not in _JOINS:
        return None
    takers = _takers(facts, loss.flow.target)
    if takers is None or any(facts.values[flow.target].delivered in ("zero", "none") for _, flow in takers):
        return None  # no step takes it apart, or that part was taken, and its gradient was lost further on
    reasons = [_by_operand(facts, node, flow.source, flow.target, joined=True) for node, flow in takers]
    if not reasons or any(reason is None for reason in reasons):
        return None
    return reasons[-1]


def _takers(facts: Facts, joined: int) -> list[tuple[NodeFact, Flow]] | None:
    """The steps that take the joined value apart, also after others have worked on it; None if some way to
    the loss never does."""
    found: list[tuple[NodeFact, Flow]] = []
    pending, seen = [joined], {joined}
    while pending:
        value = pending.pop()
        if value == facts.loss:
            return None
        for node, flow in facts.open_from.get(value, ()):
            if flow.target not in facts.live:
                continue
            if word(node) in _CUTTING | _SELECTIONS | PRODUCTS:
                found.append((node, flow))
            elif flow.target not in seen:
                seen.add(flow.target)
                pending.append(flow.target)
    return found


def _by_operand(
    facts: Facts, node: NodeFact, source: int, target: int, *, joined: bool = False
) -> Reason | None:
    name = word(node)
    others = _selecting(facts, node, source)
    if others is None or not (others or joined or name in _SELECTIONS):
        return None
    attributes = _attributes(facts, others)
    if attributes is None:
        return None
    made_by = facts.maker_of
    if name not in PRODUCTS:
        if joined and name in _CUTTING:
            return Reason(node, "cuts off what was joined before", _SELECT, certain=not attributes)
        mask = f": {named(facts, node, attributes, others, made_by)} never selects it" if others else ""
        return Reason(node, f"keeps nothing of it{mask}", _SELECT, certain=not attributes)
    text = (
        f"multiplies by {named(facts, node, attributes, others, made_by)}, which is zero wherever a "
        "gradient arrives"
    )
    return Reason(node, text, _WEIGH, certain=not attributes, term=_is_term(facts, source, target))


def _selecting(facts: Facts, node: NodeFact, source: int) -> list[int] | None:
    """The operands that could select `source` away; None where a trained factor is among them."""
    name = word(node)
    if name in PRODUCTS and any(v != source and facts.values[v].requires_grad for v in node.reads):
        return None
    others = [v for v in node.reads if v != source and v not in node.makes]
    others = [v for v in others if not facts.values[v].requires_grad]
    if name in _SELECTIONS:
        others = [v for v in others if not facts.values[v].dtype.is_floating_point]
    return others


def _attributes(facts: Facts, values: Iterable[int]) -> list[str] | None:
    """The attributes that the values come from; None where one of them is not fixed."""
    found: list[str] = []
    for value in values:
        behind = attributes_behind(facts, value, facts.maker_of)
        if behind is None:
            return None
        found += behind
    return found
