"""Fixed operands: whether what a step multiplies by, or selects with, can be anything else in another step of
training.

From facts of one run. A value is *fixed* if it comes from no input and no trained parameter: from constants
made in the program, or from a buffer or another attribute (which something may change between steps). A
comparison of a value with itself is fixed whatever the value. Not handled: values that came back from NumPy
or Python count as data.
"""

from __future__ import annotations

from collections.abc import Mapping

from fxgrad.passes.analyses.shapes import MADE_LIKE
from fxgrad.passes.findings import expression, line_of
from fxgrad.records import Facts, NodeFact

_WITH_ITSELF = frozenset(["eq", "ne", "lt", "gt", "le", "ge", "not_equal", "equal", "less", "greater", "sub"])
_VIEWS = frozenset(["float", "to", "type", "type_as", "unsqueeze", "expand", "view", "reshape"])


def word(node: NodeFact) -> str:
    """The operation's bare name: `imul` of `Tensor.__imul__`, `relu` of `Tensor.relu_`."""
    return node.target.rpartition(".")[2].strip("_")


def attributes_behind(facts: Facts, value: int, makers: Mapping[int, NodeFact]) -> list[str] | None:
    """The attributes a fixed value comes from ([]: none, it is made of constants); None if it depends on data
    or on trained weights."""
    attributes, pending, seen = [], [value], set()
    while pending:
        current = pending.pop()
        node = makers.get(current)
        if node is None or facts.values[current].requires_grad:
            return None
        if node.name in seen:
            continue
        seen.add(node.name)
        if node.kind == "attribute":
            if facts.values[value].shape != () and _is_from_outside(facts, current):
                return None
            attributes.append(_attribute_name(facts, current, node))
        elif node.kind not in ("op", "region") or word(node).startswith("empty"):
            return None
        elif not (word(node) in MADE_LIKE or _is_with_itself(node)):
            pending.extend(node.reads)
    return attributes


def named(
    facts: Facts, node: NodeFact, attributes: list[str], operands: list[int], makers: Mapping[int, NodeFact]
) -> str:
    """What the fixed operands of `node` are called."""
    if attributes:
        return f"`{attributes[0]}`"
    maker = makers.get(operands[0]) if operands else None
    while maker is not None and word(maker) in _VIEWS and maker.reads:
        maker = makers.get(maker.reads[0])
    if maker is None or maker.site is None:
        return "a constant"
    return f"`{expression(maker)}`{line_of(maker.site, node.site)}"


def _is_with_itself(node: NodeFact) -> bool:
    """`mask != mask`, `x - x`."""
    return word(node) in _WITH_ITSELF and len(node.reads) == 1 and not node.constants


def _is_from_outside(facts: Facts, value: int) -> bool:
    """Whether it is no module's: a target or a mask that the loss closes over is this batch's data. A scalar
    is a weight."""
    return any(e.value == value and e.owner is None for e in facts.externals)


def _attribute_name(facts: Facts, value: int, node: NodeFact) -> str:
    return next((e.path for e in facts.externals if e.value == value and e.path), node.target)
