"""`z.real = t` and `z.imag = t`, assignments that torch carries out in C without asking a mode."""

from __future__ import annotations

import threading
from types import GetSetDescriptorType
from typing import Any

import torch


class _Part(property):
    """A property that says its name, as what torch has in its place, which a mode is handed."""

    __name__: str


def complex_part(name: str, thread: int) -> property:
    """`Tensor.real` or `Tensor.imag`, for a while: on that thread an assignment is what it does, a copy into
    the view. torch's own asks no mode at its beginning, and one in the middle, under a lock of autograd: who
    looks at a tensor there waits for ever."""
    original: GetSetDescriptorType = getattr(torch.Tensor, name)

    def read(tensor: torch.Tensor) -> Any:
        return original.__get__(tensor, type(tensor))

    def write(tensor: torch.Tensor, value: object) -> None:
        known = isinstance(value, torch.Tensor | complex | float | int)
        if not known or threading.get_ident() != thread:
            original.__set__(tensor, value)
        elif isinstance(value, torch.Tensor):
            read(tensor).copy_(value)
        else:
            read(tensor).fill_(value)

    part = _Part(read, write)
    part.__name__ = name
    return part
