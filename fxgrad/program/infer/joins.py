"""Inputs that a program joins: what each may be when a layer takes them together.

A layer that takes 6 channels of `cat((a, b), 1)` says nothing about `a` alone. `Joins` remembers which input
each part of a joined tensor is, and shares what the layer takes among them; so too where a part is an input
spread out first (`c.view(n, k, 1, 1).repeat(1, 1, h, w)`), and where the joined tensor is changed element
by element or loses its places (`rearrange(x, 'b ... d -> b (...) d')`). Not handled: parts that were
computed, or whose size is that of two dimensions of the input; they keep the size they have.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from fxgrad.program.infer.candidates import Need

JOINING = frozenset({"cat", "concat", "concatenate"})


@dataclass(frozen=True, slots=True)
class Part:
    """One of the tensors that were joined: its size along the dimension, and the input that has it from
    (None: none).

    `shape` is that of an input that is of another shape than its part, `place` where it has the size.
    """

    size: int
    name: str | None
    shape: tuple[int, ...] = ()
    place: int = 0


class Sources(Protocol):
    """What is known of where a tensor comes from."""

    def whose(self, tensor: torch.Tensor) -> str | None:
        """The input of the very shape that the tensor was computed from element by element."""

    def spread(self, tensor: torch.Tensor) -> tuple[str, tuple[int, ...]] | None:
        """The only input whose elements these are, only moved and repeated; and its shape."""


class Joins:
    """The joined tensors of one run, by id."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._known: dict[int, tuple[int, tuple[Part, ...]]] = {}

    def note(self, args: Sequence[object], kwargs: Mapping[str, object], result: object) -> None:
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
        parts = [part for tensor in whole for part in self._parts(tensor, place)]
        self._known[id(result)] = (place, tuple(parts))

    def follow(self, tensors: Sequence[torch.Tensor], result: object) -> None:
        """A call of another function that came to its end: what has the sizes of a joined tensor, all of them
        or the last, is joined as that is."""
        if not isinstance(result, torch.Tensor) or id(result) in self._known:
            return
        for tensor in tensors:
            place, parts = self._known.get(id(tensor), (0, ()))
            if not parts:
                continue
            if result.shape == tensor.shape:
                self._known[id(result)] = place, parts
            elif place == tensor.dim() - 1 and result.dim() and result.shape[-1] == tensor.shape[-1]:
                self._known[id(result)] = result.dim() - 1, parts

    def _parts(self, tensor: torch.Tensor, place: int) -> tuple[Part, ...]:
        """What was joined is joined again: its parts."""
        joined, parts = self._known.get(id(tensor), (place, ()))
        return parts if parts and joined == place else (self._part(tensor, place),)

    def _part(self, tensor: torch.Tensor, place: int) -> Part:
        size, name = tensor.shape[place], self._sources.whose(tensor)
        spread = self._sources.spread(tensor) if name is None else None
        if spread is None or spread[1].count(size) != 1:
            return Part(size, name)
        return Part(size, spread[0], spread[1], spread[1].index(size))

    def share(
        self, tensor: torch.Tensor, need: Need, decided: Collection[str]
    ) -> Iterator[tuple[str, Need]] | None:
        """What each input among the parts must be for the layer to fit; those `decided` keep the size they
        have. None: the tensor was not joined where the layer looks."""
        if id(tensor) not in self._known or need.kind not in ("channels", "features", "sequence", "flat"):
            return None
        dim, parts = self._known[id(tensor)]
        looks = tensor.dim() - need.dims - 1 if need.kind == "channels" else tensor.dim() - 1
        free = [replace(part, name=None) if part.name in decided else part for part in parts]
        return self._shared(free, need) if dim == looks else None

    def _shared(self, parts: Sequence[Part], need: Need) -> Iterator[tuple[str, Need]]:
        named = {part.name: part for part in reversed(parts) if part.name is not None}
        times = {
            name: sum(part.name == name for part in parts)
            for name in dict.fromkeys(p.name for p in parts)
            if name
        }
        left = need.size - sum(part.size for part in parts if part.name is None)
        if not times or left < sum(times.values()):
            return
        why = f"{need.why} of what is joined with it"
        for name, size in _sizes(named, times, left).items():
            part = named[name]
            if part.shape:
                shape = (*part.shape[: part.place], size, *part.shape[part.place + 1 :])
                yield name, Need("like", shape=shape, why=why)
            else:
                yield name, replace(need, size=size, why=why, ground=None)


def _total(sizes: Mapping[str, int], times: Mapping[str, int]) -> int:
    return sum(size * times[name] for name, size in sizes.items())


def _sizes(named: Mapping[str, Part], times: Mapping[str, int], left: int) -> dict[str, int]:
    """Equal sizes where that comes out even, but for those that have been told another since; else, and where
    it leaves pictures of two channels, one channel for each input but the first. Beside inputs that were
    spread out the others keep what they have."""
    whole = [name for name in times if not named[name].shape]
    spread = {name: times[name] for name in times if named[name].shape}
    if whole and spread:
        kept = {name: named[name].size for name in whole}
        if _total(kept, times) + sum(spread.values()) > left:
            kept = dict.fromkeys(whole, 1)
        return {**kept, **_sizes(named, spread, left - _total(kept, times))}
    if left % sum(times.values()) == 0 and not (left == 4 and len(times) == 2):
        equal = left // sum(times.values())
        return _beside_moved(named, times, left, equal) or dict.fromkeys(times, equal)
    first, *others = times
    most = left - sum(times[name] for name in others)
    return {first: most // times[first], **dict.fromkeys(others, 1)}


def _beside_moved(
    named: Mapping[str, Part], times: Mapping[str, int], left: int, equal: int
) -> dict[str, int] | None:
    """Where some are of the equal size already, others were, and have been told another: they keep it."""
    still = [name for name in times if named[name].size == equal]
    kept = {name: named[name].size for name in times if name not in still}
    rest = left - _total(kept, times)
    if not still or not kept or rest < sum(times[name] for name in still):
        return None
    count = sum(times[name] for name in still)
    return {**kept, **dict.fromkeys(still, rest // count)} if rest % count == 0 else None
