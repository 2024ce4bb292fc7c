"""What is asked of one tensor: its storage, its geometry in it, its version, whether it knows of writes through its base."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where a strided tensor lies in its storage, in elements."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int

    @staticmethod
    def of(tensor: torch.Tensor) -> Geometry:
        return Geometry(tuple(tensor.shape), tuple(tensor.stride()), int(tensor.storage_offset()))


def storage_key(tensor: torch.Tensor) -> int | None:
    """What two tensors have in common that share memory; None for a tensor without a storage (sparse, some wrappers)."""
    try:
        key: int = tensor.untyped_storage()._cdata
    except (NotImplementedError, RuntimeError):
        return None
    return key


def refresh(tensor: torch.Tensor) -> None:
    """Let a view hear of a write through its base: until someone asks for its history, eager takes it for a leaf and refuses writes."""
    try:
        tensor.grad_fn  # noqa: B018  asking is what does it
    except RuntimeError:  # one of several views: refused where it is used
        return


def version(tensor: torch.Tensor) -> int:
    """The version counter; an inference tensor counts none."""
    try:
        return tensor._version
    except RuntimeError:
        return -1
