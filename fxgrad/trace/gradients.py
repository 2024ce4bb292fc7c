"""The state of a gradient: none, only zeros, or some. Of several readings the best counts."""

from __future__ import annotations

import torch

from fxgrad.torch_api.distributed import local_part
from fxgrad.torch_api.tensors import has_nonzero
from fxgrad.trace.notes import RANK


def state_of(gradient: torch.Tensor | None) -> str:
    """ "none", "zero" or "some"."""
    if gradient is None:
        return "none"
    with torch.no_grad():
        gradient = local_part(gradient)  # a DTensor: this process's part of it
        if gradient.layout is not torch.strided:
            gradient = gradient.coalesce().values() if gradient.is_sparse else gradient.to_dense()
        return "some" if has_nonzero(gradient) else "zero"


def better(one: str, other: str) -> str:
    """The higher of two states; "" is no reading."""
    return max(one, other, key=lambda state: RANK.get(state, -1))
