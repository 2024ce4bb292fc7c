"""What torch's own gradient errors mean: the step behind the message."""

from __future__ import annotations

from dataclasses import dataclass

from fxgrad.records import Facts, NodeFact
from fxgrad.torch_api.errors import INFERENCE_TENSOR, says, without_derivative

_ALIASES = {"__floordiv__": "floor_divide", "__rfloordiv__": "floor_divide"}


@dataclass(frozen=True, slots=True)
class Missing:
    """A step whose derivative is missing; `custom`: it is no operator of torch's own; `second`: it is the
    derivative of its derivative."""

    node: NodeFact
    custom: bool
    second: bool


def missing_formula(facts: Facts) -> Missing | None:
    """The step that the error of a missing derivative is about."""
    text = facts.error.message if facts.error is not None else ""
    operator = without_derivative(text)
    if operator is None:
        return None
    parts = operator.replace("::", ".").split(".")
    space, name = (parts[0], parts[1]) if len(parts) > 1 else ("aten", parts[0])
    custom = space != "aten"
    last_first = facts.nodes[::-1]
    live = [node for node in last_first if not facts.live.isdisjoint(node.makes)]
    for node in live:
        if _is_called(node, name):
            return Missing(node, custom, second=False)
    # The operator ran inside a backward that is differentiated: the step that it is the derivative of has a
    # node of that name.
    for node in last_first:
        functions = [_plain(facts.values[v].function) for v in node.makes]
        if node.site is not None and _plain(name) in functions:
            return Missing(node, custom, second=True)
    for node in live:
        if _is_unimplemented(facts, node):
            return Missing(node, custom, second=False)
    return None


def _is_called(node: NodeFact, operator: str) -> bool:
    words = [_ALIASES.get(w, w).strip("_") for w in node.target.split(".")]
    return operator.strip("_") in words


def _is_unimplemented(facts: Facts, node: NodeFact) -> bool:
    """Whether torch recorded, for what the step made, only that there is no derivative."""
    return any(v in facts.live and "NotImplemented" in facts.values[v].function for v in node.makes)


def _plain(name: str) -> str:
    """`ScaledDotProductBackward0` and `_scaled_dot_product_backward` as one word."""
    return name.rstrip("0123456789").replace("_", "").lower()


def inference_site(facts: Facts) -> NodeFact | None:
    """The step, run in inference mode, whose result the raising step read."""
    error = facts.error
    if error is None or not says(error.message, INFERENCE_TENSOR):
        return None
    made = facts.maker_of
    current = next(
        (n for n in reversed(facts.nodes) if n.name == error.node), facts.nodes[-1] if facts.nodes else None
    )
    pending, seen = list(current.reads) if current else [], set()
    while pending:
        node = made.get(pending.pop(0))
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        if node.inference:
            return node
        pending.extend(node.reads)
    return next((n for n in facts.nodes if n.inference), None)
