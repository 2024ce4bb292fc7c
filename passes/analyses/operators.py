"""Custom operators behind recorded steps: their names in torch's dispatcher, and whether an autograd formula is registered for them."""

from __future__ import annotations

import torch

from fxgrad.records import NodeFact

_OWN = ("aten", "prims", "prim", "_C")
_KEYS = ("Autograd", "AutogradCPU", "AutogradCUDA", "AutogradOther", "CompositeImplicitAutograd")


def operator(node: NodeFact) -> str | None:
    """`space::name` of the custom operator that the step calls; None for anything else, torch's own operators included."""
    head, _, path = node.target.partition("torch._ops.")
    space, _, name = path.partition(".")
    if head or not name or space in _OWN:
        return None
    return f"{space}::{name.removesuffix('.default')}"


def has_formula(name: str) -> bool:
    """Whether the dispatcher has an autograd kernel for it. Without one torch runs the plain kernel and warns in backward."""
    try:
        return any(torch._C._dispatch_has_kernel_for_dispatch_key(name, key) for key in _KEYS)
    except RuntimeError:  # gone since the run: nothing is known
        return True
