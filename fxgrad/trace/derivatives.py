"""What the transforms of `torch.func` take derivatives of: the results of the program's own functions, seen
from outside of all transforms.

Backward (`grad`, `vjp`, `jacrev`) each asks one function for gradients, forward (`jvp`, `jacfwd`) each takes
the result apart in another: both are looked up by name at every call. A result is a wrapper of one transform
or several; the tensor inside has the history that a plain call would have given it. A region that runs
meanwhile is told: what its result does not depend on, although that tensor does, dropped out of the
derivative. Not handled: `torch.func.linearize`, which traces.
"""

from __future__ import annotations

import functools
import importlib
import threading
from collections.abc import Callable, Iterator

import torch

from fxgrad.torch_api.internals import unwrapped
from fxgrad.torch_api.module_internals import TAKES_DERIVATIVE, UNPACKS_DERIVATIVE
from fxgrad.torch_api.tree import tensors_in


class Derivatives:
    """The tensors differentiated by the regions that run now, the innermost last. Of the thread that makes
    it."""

    def __init__(self) -> None:
        self._regions: list[list[torch.Tensor]] = []
        self._thread = threading.get_ident()

    def of_region(self) -> _OfRegion:
        """A region; as it is entered it gives what is differentiated in it, as it is found."""
        return _OfRegion(self._regions)

    def _note(self, tensors: object) -> None:
        if not self._regions or threading.get_ident() != self._thread:
            return
        inner = (unwrapped(tensor) for tensor in tensors_in(tensors))
        self._regions[-1].extend(tensor for tensor in inner if tensor.requires_grad)

    def taking(self, original: Callable[..., object]) -> Callable[..., object]:
        """That function, noted: its first argument is what is differentiated."""

        @functools.wraps(original)
        def take(outputs: object, *args: object, **kwargs: object) -> object:
            self._note(outputs)
            return original(outputs, *args, **kwargs)

        return take

    def unpacking(self, original: Callable[..., object]) -> Callable[..., object]:
        """That function, noted: of what it returns the first is what is differentiated."""

        @functools.wraps(original)
        def unpack(*args: object, **kwargs: object) -> object:
            out = original(*args, **kwargs)
            self._note(out[:1] if isinstance(out, tuple) else ())
            return out

        return unpack

    def interceptions(
        self, around: Callable[[Callable[..., object]], Callable[..., object]] | None = None
    ) -> Iterator[tuple[object, str, Callable[..., object]]]:
        """(module, attribute, replacement). `around`: put around the backward one once more."""
        module, name = TAKES_DERIVATIVE
        holder = importlib.import_module(module)
        if hasattr(holder, name):
            taking = self.taking(getattr(holder, name))
            yield holder, name, taking if around is None else around(taking)
        module, name = UNPACKS_DERIVATIVE
        holder = importlib.import_module(module)
        if hasattr(holder, name):
            yield holder, name, self.unpacking(getattr(holder, name))


class _OfRegion:
    """A class, for one is entered at each layer: a generator takes twice the time."""

    __slots__ = ("_regions",)

    def __init__(self, regions: list[list[torch.Tensor]]) -> None:
        self._regions = regions

    def __enter__(self) -> list[torch.Tensor]:
        found: list[torch.Tensor] = []
        self._regions.append(found)
        return found

    def __exit__(self, *_: object) -> None:
        self._regions.pop()
