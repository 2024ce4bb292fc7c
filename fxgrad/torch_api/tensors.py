"""What is asked of one tensor: its geometry in its storage, whether it knows of writes through its base."""

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


def refresh(tensor: torch.Tensor) -> None:
    """Let a view hear of a write through its base: until someone asks for its history, eager takes it for a leaf and refuses writes."""
    try:
        tensor.grad_fn  # noqa: B018  asking is what does it
    except RuntimeError:  # one of several views: refused where it is used
        return
