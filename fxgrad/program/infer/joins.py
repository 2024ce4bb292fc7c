"""Inputs that a program joins: what each may be when a layer takes them together.

A layer that takes 6 channels of `cat((a, b), 1)` says nothing about `a` alone. `Joins` remembers which input
each part of a joined tensor is, and shares what the layer takes among them. Not handled: parts that were
reshaped before they were joined; they keep the size they have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from fxgrad.program.infer.candidates import Need

JOINING = frozenset({"cat", "concat", "concatenate"})


@dataclass(frozen=True, slots=True)
class Part:
    """One of the tensors that were joined: its size along the dimension, and the input whose own size that is
    (None: of no input)."""

    size: int
    name: str | None


class Joins:
    """The joined tensors of one run, by id."""

    def __init__(self, source: Callable[[torch.Tensor], str | None]) -> None:
        self._source = source  # the input that a tensor has its sizes from
        self._known: dict[int, tuple[int, tuple[Part, ...]]] = {}

    def note(self, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> None:
        """A call of one of `JOINING` that came to its end."""
        tensors = args[0] if args else kwargs.get("tensors")
        dim = args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis", 0))
        if (
            not isinstance(dim, int)
            or not isinstance(tensors, tuple | list)
            or not isinstance(result, torch.Tensor)
            or not result.dim()
        ):
            return
        if not -result.dim() <= dim < result.dim():
            return
        # torch passes over empty tensors of one dimension here.
        whole = [
            tensor for tensor in tensors if isinstance(tensor, torch.Tensor) and tensor.dim() == result.dim()
        ]
        place = dim % result.dim()
        self._known[id(result)] = (
            place,
            tuple(Part(tensor.shape[place], self._source(tensor)) for tensor in whole),
        )

    def share(self, tensor: Any, need: Need) -> Iterator[tuple[str, Need]] | None:
        """What each input among the parts must be for the layer to fit. None: the tensor was not joined where
        the layer looks."""
        if id(tensor) not in self._known or need.kind not in ("channels", "features", "sequence"):
            return None
        dim, parts = self._known[id(tensor)]
        looks = tensor.dim() - need.dims - 1 if need.kind == "channels" else tensor.dim() - 1
        return self._shared(parts, need) if dim == looks else None

    def _shared(self, parts: Sequence[Part], need: Need) -> Iterator[tuple[str, Need]]:
        names = list(dict.fromkeys(part.name for part in parts if part.name is not None))
        times = {name: sum(part.name == name for part in parts) for name in names}
        left = need.size - sum(part.size for part in parts if part.name is None)
        if not names or left < sum(times.values()):
            return
        why = f"{need.why} of what is joined with it"
        for name, size in _sizes(names, times, left).items():
            yield name, replace(need, size=size, why=why)


def _sizes(names: Sequence[str], times: Mapping[str, int], left: int) -> dict[str, int]:
    """Equal sizes where that comes out even; else, and where it leaves pictures of two channels, one channel
    for each input but the first."""
    if left % sum(times.values()) == 0 and not (left == 4 and len(names) == 2):
        return {name: left // sum(times.values()) for name in names}
    others = sum(times[name] for name in names[1:])
    first = (left - others) // times[names[0]]
    return {name: first if name == names[0] else 1 for name in names}
