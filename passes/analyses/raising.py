"""What torch's own gradient errors mean: the step behind the message."""

from __future__ import annotations

from collections.abc import Container
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
    for node in reversed(facts.nodes):
        if _is_called(node, name) and not facts.live.isdisjoint(node.makes):
            return Missing(node, custom, second=False)
    recorded = _recorded(facts, f"{name}Backward", facts.live)
    if recorded is not None:
        return Missing(recorded, custom, second=False)
    # The operator ran inside a backward that is differentiated: the step that it is the derivative of has a
    # node of that name.
    derived = _recorded(facts, name, range(len(facts.values)))
    if derived is not None:
        return Missing(derived, custom, second=True)
    # torch recorded only that there is no derivative
    unknown = _recorded(facts, "torch::autograd::NotImplemented", facts.live)
    return Missing(unknown, custom, second=False) if unknown is not None else None


def _is_called(node: NodeFact, operator: str) -> bool:
    words = [_ALIASES.get(w, w).strip("_").removeprefix("special_") for w in node.target.split(".")]
    return operator.strip("_") in words


def _recorded(facts: Facts, function: str, among: Container[int]) -> NodeFact | None:
    """The last step of the user's for which autograd made a node of this name, for one of these values:
    `torch.unique` runs `_unique2`, of which it keeps a `Unique2Backward0`. What only hands that on, as
    `y.float()` may, came later."""
    word = _plain(function)
    first: dict[int, NodeFact] = {}
    for node in facts.nodes:
        for made in node.makes if node.site is not None else ():
            value = facts.values[made]
            if value.grad is not None and made in among and _plain(value.function) == word:
                first.setdefault(value.grad, node)
    return list(first.values())[-1] if first else None


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
