"""What torch's own gradient errors mean: the step behind the message."""

from __future__ import annotations

from fxgrad.records import Facts, NodeFact
from fxgrad.torch_api.errors import INFERENCE_TENSOR, says, without_derivative

_ALIASES = {"__floordiv__": "floor_divide", "__rfloordiv__": "floor_divide"}


def missing_formula(facts: Facts) -> tuple[NodeFact, bool] | None:
    """The step whose derivative is missing, and whether it is a custom operator's (not one of torch's own)."""
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
        if name.strip("_") in words or any("NotImplemented" in facts.values[v].function for v in node.makes):
            return node, space != "aten"
    return None


def inference_site(facts: Facts) -> NodeFact | None:
    """The step, run in inference mode, whose result the raising step read."""
    error = facts.error
    if error is None or not says(error.message, INFERENCE_TENSOR):
        return None
    made = facts.maker_of
    current = next((n for n in reversed(facts.nodes) if n.name == error.node), facts.nodes[-1] if facts.nodes else None)
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
