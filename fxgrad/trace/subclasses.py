"""Where a tensor of a subclass was made: no history comes along, and no mode of torch is asked in a way that
shows what it is made of. It is met at its first use, and belongs to the line that made it.

Not handled: what a subclass keeps elsewhere than in its attributes.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from fxgrad.source.sites import Spot
from fxgrad.torch_api.internals import SUBCLASS_MAKERS, FakeTensor

MOST = 1000  # places that are remembered

Spots = tuple[Spot, ...]


class Births:
    """The places, by tensor. Holds nobody who looks: a run must end without the garbage collector."""

    def __init__(self) -> None:
        self._places: dict[int, tuple[weakref.ref[torch.Tensor], Spots]] = {}

    def of(self, tensor: torch.Tensor) -> Spots:
        """Where the tensor was made; () where that is not known."""
        known = self._places.get(id(tensor))
        return known[1] if known is not None and known[0]() is tensor else ()

    def interceptions(
        self, spots: Callable[[], Spots]
    ) -> Iterator[tuple[object, str, Callable[..., object]]]:
        """What to replace. `spots` gives the user's frames, () where nobody looks."""
        for name in SUBCLASS_MAKERS:
            yield torch.Tensor, name, staticmethod(self._noting(getattr(torch.Tensor, name), spots))

    def _noting(self, original: Callable[..., Any], spots: Callable[[], Spots]) -> Callable[..., Any]:
        @functools.wraps(original)
        def make(cls: type, *args: Any, **kwargs: Any) -> Any:
            made = original(cls, *args, **kwargs)
            # torch's own have other ways to be met
            if cls is not FakeTensor and not issubclass(cls, nn.Parameter) and len(self._places) < MOST:
                found = spots()
                if found:
                    self._places[id(made)] = weakref.ref(made), found
            return made

        return make
