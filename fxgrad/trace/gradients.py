"""The state of a gradient: none, only zeros, or some. Of several readings the best counts. And the first look
at one, before hooks of the program take it away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

from fxgrad.records.facts import Delivered
from fxgrad.torch_api.distributed import local_part
from fxgrad.torch_api.internals import version_of
from fxgrad.torch_api.tensors import has_nonzero
from fxgrad.trace.notes import RANK


def state_of(gradient: torch.Tensor | None) -> Delivered:
    """ "none", "zero" or "some"."""
    if gradient is None:
        return "none"
    with torch.no_grad():
        gradient = local_part(gradient)  # a DTensor: this process's part of it
        if gradient.layout is not torch.strided:
            gradient = gradient.coalesce().values() if gradient.is_sparse else gradient.to_dense()
        return "some" if has_nonzero(gradient) else "zero"


def values_of(leaf: torch.Tensor) -> tuple[int, float, float]:
    """What tells whether something has written a leaf since, through `.data` too."""
    with torch.no_grad():
        part = local_part(leaf.detach())
        part = part if part.layout is torch.strided else part.to_dense()
        part = torch.view_as_real(part.resolve_conj()) if part.is_complex() else part
        total = torch.sum(part, dtype=torch.float64)
        return version_of(leaf), float(total), float(torch.linalg.vector_norm(part, dtype=torch.float64))


def better(one: Delivered, other: Delivered) -> Delivered:
    """The higher of two states; "" is no reading."""
    return max(one, other, key=lambda state: RANK.get(state, -1))


class Handle(Protocol):
    """What takes a hook off again."""

    def remove(self) -> None: ...


def looked_at_first(parameter: torch.Tensor, look: Callable[[torch.Tensor], None]) -> Handle | None:
    """Have `look` called once the gradient is there, before the hooks of the program that may step and clear
    it; None of a parameter that has no such hooks: its gradient stays where it is."""
    hooks = getattr(parameter, "_post_accumulate_grad_hooks", None)
    if not hooks:
        return None
    before = list(hooks.items())
    handle: Handle = parameter.register_post_accumulate_grad_hook(look)  # type: ignore[no-untyped-call]
    for key, hook in before:  # torch goes by the dictionary's own order, which `move_to_end` does not change
        del hooks[key]
        hooks[key] = hook
    return handle
