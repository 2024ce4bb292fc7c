"""What is asked of one tensor: its geometry in its storage, whether it knows of writes through its base."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.parameter import is_lazy

TENSOR_CLASSES = frozenset((torch.Tensor, nn.Parameter))  # those without a subclass's ways


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where a strided tensor lies in its storage, in elements."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int

    @staticmethod
    def of(tensor: torch.Tensor) -> Geometry:
        # no shape, no strides: all its elements, one after the other
        if tensor.is_nested and tensor.layout is torch.strided:
            return Geometry((tensor.numel(),), (1,), 0)
        return Geometry(tuple(tensor.shape), tuple(tensor.stride()), int(tensor.storage_offset()))


def refresh(tensor: torch.Tensor) -> None:
    """Let a view hear of a write through its base: until someone asks for its history, eager takes it for a
    leaf and refuses writes."""
    try:
        tensor.grad_fn  # noqa: B018  asking is what does it
    except RuntimeError:  # one of several views: refused where it is used
        return


def shape_of(tensor: torch.Tensor) -> tuple[int, ...]:
    """The shape; of a nested tensor that has none the number of its parts, of an uninitialised parameter
    ()."""
    if is_lazy(tensor):
        return ()
    if tensor.is_nested and tensor.layout is torch.strided:
        return (tensor.size(0),)
    return tuple(tensor.shape)


def inner_tensors(tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of a subclass around other tensors those, by attribute; empty for a tensor with data of its own."""
    try:
        tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):
        return {
            name: part
            for name, part in getattr(tensor, "__dict__", {}).items()
            if isinstance(part, torch.Tensor)
        }
    return {}


def lay_on(tensor: torch.Tensor, data: torch.Tensor) -> None:
    """Give a tensor other data, of another size too.

    Autograd notes the size of a leaf in the node that collects its gradient, and goes on with that node for
    as long as any graph holds it: the gradient would be summed to the old size. Data of another dtype in
    between (as `VariableHooks::set_data` has it) makes it begin a new one.
    """
    if tensor.is_leaf and tensor.requires_grad and tensor.shape != data.shape:
        other = torch.float64 if tensor.dtype is torch.float32 else torch.float32
        tensor.data = torch.empty(0, dtype=other, device=data.device)
    tensor.data = data


def has_nonzero(gradient: torch.Tensor) -> bool:
    """Whether any element is not zero, of the numbers that a subclass is made of; true of one that does not
    say."""
    if type(gradient) is not torch.Tensor:
        parts = [
            part for part in inner_tensors(gradient).values() if part.is_floating_point() or part.is_complex()
        ]
        if parts:
            return any(has_nonzero(part) for part in parts)
    try:
        return bool(gradient.any())
    except (TypeError, NotImplementedError, RuntimeError):
        return True
