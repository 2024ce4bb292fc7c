"""What the user calls things: the variables that hold modules and tensors in the script and in the functions
that run now.

A name is the variable's, `agent.actor` for an attribute of an object in a variable, the attribute alone for
one of `self`. Of several the script's own globals come first, then the user's functions, a caller before
what it calls, then those of installed packages. Not handled: what only a closure, a class attribute or a
deeper object holds; it is called by its class.
"""

from __future__ import annotations

import re
import types
import weakref
from collections.abc import Iterable, Iterator, Mapping
from types import CodeType, FrameType

import torch
from torch import nn

from fxgrad.source.objects import module_of
from fxgrad.source.sites import user_frames
from fxgrad.torch_api.module_internals import eager_module

CONTAINER = 64  # items of a list or dictionary that are looked at
PRIVATE = 4  # added to the rank of what an object keeps to itself: any other name is better
LAST = 9  # the rank of a model that only its own methods hold
OBJECTS = 200  # objects of one frame whose attributes are looked at

_WRAPPERS = ("DistributedDataParallel", "DataParallel", "OptimizedModule", "FullyShardedDataParallel")


class Names:
    """Names found so far."""

    def __init__(self) -> None:
        self._modules: dict[int, tuple[tuple[int, int], int, str, nn.Module]] = {}
        # name -> the module it was last seen to hold: the copies a loop makes go by one name
        self._holders: dict[str, int] = {}
        self._tensors: dict[int, tuple[int, str, weakref.ref[torch.Tensor]]] = {}
        # how far outside a module is held at most: the rank, and how many calls the variable is within
        self._outside: dict[int, tuple[int, int]] = {}

    def scan(self, frame: FrameType | None, boundary: CodeType | None) -> None:
        """Look at the variables of the frames from `frame` outwards."""
        seen: set[int] = set()
        frames = list(user_frames(frame, boundary))
        for depth, user in zip(range(len(frames) - 1, -1, -1), frames, strict=True):
            installed = "site-packages" in user.f_code.co_filename
            if user.f_locals is not user.f_globals:
                self.scan_namespace(user.f_locals, 3 if installed else 1, depth)
            if id(user.f_globals) not in seen:
                seen.add(id(user.f_globals))
                main = user.f_globals.get("__name__") == "__main__"
                self.scan_namespace(user.f_globals, 3 if installed else 0 if main else 2)

    def scan_namespace(self, namespace: Mapping[str, object], rank: int, depth: int = 0) -> None:
        """Look at the variables of one namespace, of a function that runs within `depth` others; of names for
        one thing that with the lower `rank` is kept."""
        left = OBJECTS
        for name, value in list(namespace.items()):
            if name.startswith("__") or isinstance(value, types.ModuleType | type | types.FunctionType):
                continue
            self._look(name, value, rank, depth)
            if left and _has_attributes(value):
                left -= 1
                prefix = "" if name in ("self", "cls") else f"{name}."
                for attribute, inner in list(vars(value).items()):
                    self._look(
                        f"{prefix}{attribute}",
                        inner,
                        rank + (PRIVATE if prefix and attribute.startswith("_") else 0),
                        depth,
                    )

    def _look(self, name: str, value: object, rank: int, depth: int) -> None:
        if isinstance(value, nn.Module):
            # a method calls its model so: any variable that a caller holds says more
            own = name in ("self", "cls")
            inner = unwrapped(value)
            self._add(_small(type(inner).__name__) if own else name, inner, (LAST if own else rank, depth))
        elif isinstance(value, torch.Tensor):
            self._add_tensor(name, value, rank)
        elif isinstance(value, list | tuple | dict) and len(value) <= CONTAINER:
            for key, item in _items(value):
                if isinstance(item, nn.Module | torch.Tensor):
                    self._look(f"{name}[{key}]", item, rank, depth)

    def _add_tensor(self, name: str, tensor: torch.Tensor, rank: int) -> None:
        known = self._tensors.get(id(tensor))
        if known is None or known[2]() is not tensor or rank < known[0]:
            self._tensors[id(tensor)] = (rank, name, weakref.ref(tensor))

    def _add(self, name: str, module: nn.Module, place: tuple[int, int]) -> None:
        known = self._modules.get(id(module))
        self._outside[id(module)] = min(self._outside.get(id(module), place), place)
        if known is not None and place >= known[0] and self._holders.get(known[2]) == id(module):
            return
        order = known[1] if known is not None else len(self._modules)
        self._modules[id(module)] = (place, order, name, module)
        self._holders[name] = id(module)

    def modules(self) -> Iterator[tuple[str, nn.Module]]:
        """Every module with a name, the script's own first."""
        for _, _, name, module in sorted(self._modules.values(), key=lambda found: found[:2]):
            if self._holders.get(name) == id(module):
                yield name, module

    def of_module(self, module: nn.Module) -> str:
        """The module's name; its class's in small letters if no variable holds it."""
        known = self._modules.get(id(unwrapped(module)))
        return known[2] if known is not None else _small(type(unwrapped(module)).__name__)

    def is_further_out(self, module: nn.Module, other: nn.Module) -> bool:
        """Whether the first is held by a variable further outside than any that holds the other."""
        place = self._outside.get(id(module))
        return place is not None and place < self._outside.get(id(other), (LAST, 0))

    def of_tensor(self, tensor: torch.Tensor) -> str | None:
        """The tensor's name, if a variable holds it."""
        known = self._tensors.get(id(tensor))
        return known[1] if known is not None and known[2]() is tensor else None


def unwrapped(module: nn.Module) -> nn.Module:
    """The model inside DistributedDataParallel, DataParallel or `torch.compile`'s wrapper."""
    while type(module).__name__ in _WRAPPERS:
        inner = eager_module(module) or getattr(module, "module", None)
        if not isinstance(inner, nn.Module):
            break
        module = inner
    return module


def _items(
    container: list[object] | tuple[object, ...] | dict[object, object],
) -> Iterable[tuple[int | str, object]]:
    """The items with an index or a key that can be written."""
    if isinstance(container, dict):
        return ((key, item) for key, item in container.items() if isinstance(key, str))
    return enumerate(container)


def _has_attributes(value: object) -> bool:
    if isinstance(value, nn.Module | torch.Tensor) or not hasattr(value, "__dict__"):
        return False
    return module_of(type(value)).partition(".")[0] not in (
        "torch",
        "numpy",
        "builtins",
        "collections",
        "fxgrad",
    )


def _small(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
