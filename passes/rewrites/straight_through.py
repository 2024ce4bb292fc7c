"""A new value under an old gradient: what a write under `no_grad` leaves in a tensor that requires grad,
without the write."""

from __future__ import annotations

import torch


class _Replaced(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, tensor: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: object, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        return grads[0], None


def replaced_value(tensor: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """A tensor with the content of `value`, whose gradient goes to `tensor` unchanged. Same shape and
    dtype."""
    with torch.enable_grad():
        made: torch.Tensor = _Replaced.apply(tensor, value.detach())  # type: ignore[no-untyped-call]
    return made


class _Copied(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, tensor: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: object, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        return grads[0], None


def replaced_copy(tensor: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """As `replaced_value`, in memory of its own, which may be written in place. `value` may have another
    shape: autograd then does with the gradient what it does after a metadata write under `no_grad`."""
    with torch.enable_grad():
        made: torch.Tensor = _Copied.apply(tensor, value.detach())  # type: ignore[no-untyped-call]
    return made
