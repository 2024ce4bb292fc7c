"""The modules, parameters and buffers that are registered below a module, whatever its class makes of the
methods that list them.

`nn.Module` has methods for this, and a program may override them with others of its own: `parameters()` that
returns a list, `named_parameters()` without torch's options, a layer that is called `modules`. Names and
order are torch's: what is registered under several names has the first, with `remove_duplicate=False` all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import torch
from torch import nn

T = TypeVar("T", bound=torch.Tensor)


def named_modules(
    module: nn.Module, *, remove_duplicate: bool = True, prefix: str = ""
) -> Iterator[tuple[str, nn.Module]]:
    """The module itself as "", and all below it, as they are when this is called."""
    found: list[tuple[str, nn.Module]] = []
    _add_modules(found, module, prefix, set() if remove_duplicate else None)
    return iter(found)


def _add_modules(
    found: list[tuple[str, nn.Module]], module: nn.Module, prefix: str, seen: set[int] | None
) -> None:
    # a list, not a generator in generators: this is asked several times of every model, at each run
    if seen is not None:
        if id(module) in seen:
            return
        seen.add(id(module))
    found.append((prefix, module))
    for name, inner in module._modules.items():
        if inner is not None:
            _add_modules(found, inner, f"{prefix}.{name}" if prefix else name, seen)


def modules(module: nn.Module) -> Iterator[nn.Module]:
    """The module itself and all below it, each once."""
    found: dict[int, nn.Module] = {}
    _add_nameless(found, module)
    return iter(found.values())


def _add_nameless(found: dict[int, nn.Module], module: nn.Module) -> None:
    # names are most of the cost of `_add_modules`
    found[id(module)] = module
    for inner in module._modules.values():
        if inner is not None and id(inner) not in found:
            _add_nameless(found, inner)


def named_parameters(
    module: nn.Module, *, remove_duplicate: bool = True, prefix: str = ""
) -> Iterator[tuple[str, nn.Parameter]]:
    """Every registered parameter."""
    return _named(module, lambda inner: inner._parameters, remove_duplicate, prefix)


def parameters(module: nn.Module) -> Iterator[nn.Parameter]:
    """Every registered parameter once."""
    return _nameless(module, lambda inner: inner._parameters)


def named_buffers(module: nn.Module, *, remove_duplicate: bool = True) -> Iterator[tuple[str, torch.Tensor]]:
    """Every registered buffer."""
    return _named(module, lambda inner: inner._buffers, remove_duplicate, "")


def buffers(module: nn.Module) -> Iterator[torch.Tensor]:
    """Every registered buffer once."""
    return _nameless(module, lambda inner: inner._buffers)


def _named(
    module: nn.Module, registered: Callable[[nn.Module], Mapping[str, T | None]], once: bool, prefix: str
) -> Iterator[tuple[str, T]]:
    seen: set[int] = set()
    for path, inner in named_modules(module, remove_duplicate=once, prefix=prefix):
        for name, tensor in list(registered(inner).items()):
            if tensor is None or id(tensor) in seen:
                continue
            if once:
                seen.add(id(tensor))
            yield f"{path}.{name}" if path else name, tensor


def _nameless(module: nn.Module, registered: Callable[[nn.Module], Mapping[str, T | None]]) -> Iterator[T]:
    seen: set[int] = set()
    for inner in modules(module):
        for tensor in list(registered(inner).values()):
            if tensor is not None and id(tensor) not in seen:
                seen.add(id(tensor))
                yield tensor
