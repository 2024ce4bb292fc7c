"""The modules, parameters and buffers that are registered below a module, whatever its class makes of the
methods that list them.

`nn.Module` has methods for this, and a program may override them with others of its own: `parameters()` that
returns a list, `named_parameters()` without torch's options, a layer that is called `modules`. Names and
order are torch's: what is registered under several names has the first, with `remove_duplicate=False` all.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn


def named_modules(
    module: nn.Module, *, remove_duplicate: bool = True, prefix: str = ""
) -> Iterator[tuple[str, nn.Module]]:
    """The module itself as "", and all below it."""
    yield from _named_modules(module, prefix, remove_duplicate, set())


def _named_modules(
    module: nn.Module, prefix: str, once: bool, seen: set[int]
) -> Iterator[tuple[str, nn.Module]]:
    if id(module) in seen:
        return
    if once:
        seen.add(id(module))
    yield prefix, module
    for name, inner in list(module._modules.items()):
        if inner is not None:
            yield from _named_modules(inner, f"{prefix}.{name}" if prefix else name, once, seen)


def modules(module: nn.Module) -> Iterator[nn.Module]:
    """The module itself and all below it, each once."""
    return (inner for _, inner in named_modules(module))


def named_parameters(
    module: nn.Module, *, remove_duplicate: bool = True, prefix: str = ""
) -> Iterator[tuple[str, nn.Parameter]]:
    """Every registered parameter."""
    seen: set[int] = set()
    for path, inner in named_modules(module, remove_duplicate=remove_duplicate, prefix=prefix):
        for name, parameter in list(inner._parameters.items()):
            if parameter is None or id(parameter) in seen:
                continue
            if remove_duplicate:
                seen.add(id(parameter))
            yield f"{path}.{name}" if path else name, parameter


def parameters(module: nn.Module) -> Iterator[nn.Parameter]:
    """Every registered parameter once."""
    return (parameter for _, parameter in named_parameters(module))


def named_buffers(module: nn.Module, *, remove_duplicate: bool = True) -> Iterator[tuple[str, torch.Tensor]]:
    """Every registered buffer."""
    seen: set[int] = set()
    for path, inner in named_modules(module, remove_duplicate=remove_duplicate):
        for name, buffer in list(inner._buffers.items()):
            if buffer is None or id(buffer) in seen:
                continue
            if remove_duplicate:
                seen.add(id(buffer))
            yield f"{path}.{name}" if path else name, buffer


def buffers(module: nn.Module) -> Iterator[torch.Tensor]:
    """Every registered buffer once."""
    return (buffer for _, buffer in named_buffers(module))
