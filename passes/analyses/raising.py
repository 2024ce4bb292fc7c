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
    for node in reversed(facts.nodes):
        if not any(v in facts.live for v in node.makes):
            continue
        words = [_ALIASES.get(w, w).strip("_") for w in node.target.split(".")]
        if name.strip("_") in words:
            return Missing(node, space != "aten", second=False)
    # The operator ran inside a backward that is differentiated: the step that it is the derivative of has a
    # node of that name.
    for node in reversed(facts.nodes):
        if node.site is not None and any(
            _plain(facts.values[v].function) == _plain(name) for v in node.makes
        ):
            return Missing(node, space != "aten", second=True)
    for node in reversed(facts.nodes):
        if any(v in facts.live and "NotImplemented" in facts.values[v].function for v in node.makes):
            return Missing(node, space != "aten", second=False)
    return None


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
