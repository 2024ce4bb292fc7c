"""Custom operators behind recorded steps: their names in torch's dispatcher, and whether an autograd formula is registered for them."""

from __future__ import annotations

from fxgrad.records import NodeFact
from fxgrad.torch_api.calls import custom_operator, has_formula


def operator(node: NodeFact) -> str | None:
    """`space::name` of the custom operator that the step calls; None for anything else, torch's own operators included."""
    return custom_operator(node.target)


__all__ = ["has_formula", "operator"]
