"""Which modules are one node of the graph: torch.nn's own, whole as they were registered, with nothing of the
user's hooked in.

`Leaves` answers for one run, from the modules as they are when it begins; a module whose tensors were
replaced since (`functional_call`, an assigned weight) is recorded from the inside instead. `scripted` puts
stand-ins into a compiled module.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import nn

from fxgrad.source.objects import module_of
from fxgrad.torch_api import registry
from fxgrad.torch_api.module_internals import FLAT_WEIGHTS, global_hooks, is_scripted, set_scripted

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Leaves:
    """The leaf modules below `root`. `_parts`: per module its inner modules and the tensors registered with
    each, None if it is none."""

    def __init__(self, root: nn.Module) -> None:
        self._parts: dict[int, tuple[_Part, ...] | None] = {}
        for module in registry.modules(root):
            self._take(module)
        self._hooked = any(global_hooks())

    def is_leaf(self, module: nn.Module) -> bool:
        """Whether a call of `module` is one node."""
        parts = None if self._hooked or isinstance(module, _CONTAINERS) else self._parts.get(id(module))
        return parts is not None and all(part.unchanged() for part in parts)

    def _take(self, module: nn.Module) -> tuple[_Part, ...] | None:
        key = id(module)
        if key not in self._parts:
            self._parts[key] = None  # a module inside itself is no leaf
            own = _Part.of(module)
            inner = [self._take(child) for child in module._modules.values() if child is not None]
            if own is not None and None not in inner:
                self._parts[key] = (own, *(part for parts in inner for part in parts or ()))
        return self._parts[key]


def is_own(module: nn.Module) -> bool:
    """Whether its class is torch's own."""
    return type(module).__module__.startswith("torch.nn.modules.")


def is_plain_layer(module: nn.Module) -> bool:
    """Whether a call of it runs nothing of the user's: a layer of torch's own without parts and hooks."""
    attributes = vars(module)
    return (
        module_of(type(module)).startswith("torch.nn.modules.")
        and not module._modules
        and "forward" not in attributes
        and not any(attributes.get(name) for name in _HOOKS)
        and not any(global_hooks())
    )


class Whole:
    """A module of torch's own throughout that writes nothing: what a call of it runs is known, for as long as
    it is `unchanged`."""

    def __init__(self, parts: tuple[_Part, ...]) -> None:
        self._parts = parts  # the module itself is among them: it lives as long, and its id is no other's

    @classmethod
    def of(cls, module: nn.Module) -> Whole | None:
        """None for any other."""
        parts = [_Part.of(inner) for inner in registry.modules(module)]
        found = tuple(part for part in parts if part is not None and not part.module._buffers)
        return cls(found) if len(found) == len(parts) else None

    def unchanged(self) -> bool:
        """Whether it is as it was."""
        return not any(global_hooks()) and all(
            part.unchanged() and not any(part.hooks) for part in self._parts
        )


class _Part:
    """One module of a leaf, and what it must still be at a call."""

    __slots__ = ("attributes", "hooks", "module", "size", "tensors")

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.attributes = vars(module)
        self.size = len(self.attributes)
        self.hooks = [self.attributes.get(name) for name in _HOOKS]
        holders = (module._parameters, module._buffers)
        self.tensors = tuple((holder, name, tensor) for holder in holders for name, tensor in holder.items())

    @classmethod
    def of(cls, module: nn.Module) -> _Part | None:
        """The part, if this module alone could be a leaf's."""
        attributes = vars(module)
        if not module_of(type(module)).startswith("torch.nn.modules.") or is_scripted(module):
            return None
        if any(attributes.get(name) for name in _HOOKS) or "forward" in attributes:
            return None
        if any(isinstance(value, torch.Tensor) for value in attributes.values()):
            return None  # a weight that is no parameter: whoever sets it means the layer to use it
        return cls(module)

    def unchanged(self) -> bool:
        """Same tensors, no attribute more or less, and a recurrent layer's own list of weights still names
        its parameters."""
        if len(self.attributes) != self.size or any(
            holder.get(name) is not tensor for holder, name, tensor in self.tensors
        ):
            return False
        weights = self.attributes.get(FLAT_WEIGHTS)
        return weights is None or {id(w) for w in weights if w is not None} <= {
            id(tensor) for _, _, tensor in self.tensors
        }


@contextlib.contextmanager
def scripted(module: nn.Module, swap: Callable[[object], object]) -> Iterator[None]:
    """The compiled module below reads and writes stand-ins: its tensors live in C++, where no mode sees them
    used."""
    put = []
    for inner in registry.modules(module):
        if is_scripted(inner):
            for holder in (inner._parameters, inner._buffers):
                put += [(inner, name, tensor) for name, tensor in holder.items() if tensor is not None]
    try:
        for inner, name, tensor in put:
            set_scripted(inner, name, swap(tensor))
        yield
    finally:
        for inner, name, tensor in put:
            set_scripted(inner, name, tensor)
