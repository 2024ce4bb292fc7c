"""An optimizer over one network while another, built alike, is what trains: a copy, or a new one made later.

Where all that an optimizer holds got no gradient, its modules were not called where gradients are on, and a
module with parameters of the same shapes got gradients in several steps that no optimizer uses, the two were
exchanged. A copy that is made anew in each step (the fast weights of MAML) gets gradients in one step alone,
and is none. Not handled: scripts of one step; an optimizer over parts of both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import nn

from fxgrad.passes.analyses.optimizers import held_by
from fxgrad.records.training import Exchanged
from fxgrad.torch_api import registry
from fxgrad.watching.seen import Seen


def exchanged(
    seen: Seen, root: nn.Module, edges: Mapping[str, int], starved: frozenset[str]
) -> Iterator[tuple[torch.optim.Optimizer, Exchanged]]:
    """The optimizers that hold such a network, and both networks by name. `starved`: the parameters without a
    gradient."""
    named = {id(parameter): name for name, parameter in registry.named_parameters(root)}
    lasting = _held_by_none(seen, named, edges)
    for optimizer, stepped in seen.optimizers if lasting else ():
        own = [tensor for tensor in held_by(optimizer) if tensor.requires_grad]
        names = tuple(named.get(id(tensor), "") for tensor in own)
        if not stepped or not names or not starved.issuperset(names):
            continue
        path = _holder(root, {id(tensor) for tensor in own})
        if path is None or _is_called(seen, root.get_submodule(path)):
            continue
        other = _like(root, path, lasting)
        if other:
            theirs = tuple(
                named[id(parameter)] for parameter in registry.parameters(root.get_submodule(other))
            )
            yield optimizer, Exchanged(path, names, other, theirs, None)


def _held_by_none(seen: Seen, named: Mapping[int, str], edges: Mapping[str, int]) -> set[int]:
    """The parameters that get gradients in several steps and that no optimizer holds."""
    held = {id(tensor) for optimizer, _ in seen.optimizers for tensor in held_by(optimizer)}
    lasting = {number for number, name in named.items() if edges.get(name) in seen.lasting}
    return lasting - held


def _like(root: nn.Module, path: str, lasting: set[int]) -> str:
    """The first module that is built like the one at `path` and has these parameters alone; "" for none."""
    wanted = _shapes(root.get_submodule(path))
    for name, module in registry.named_modules(root):
        if name and _shapes(module) == wanted and lasting.issuperset(map(id, registry.parameters(module))):
            return name
    return ""


def _holder(root: nn.Module, wanted: set[int]) -> str | None:
    """The module whose parameters these are, all of them."""
    for path, module in registry.named_modules(root):
        if path and {id(parameter) for parameter in registry.parameters(module)} == wanted:
            return path
    return None


def _is_called(seen: Seen, module: nn.Module) -> bool:
    return any(id(part) in seen.events.with_grad for part in registry.modules(module))


def _shapes(module: nn.Module) -> list[tuple[str, torch.Size]]:
    return [(name, parameter.shape) for name, parameter in registry.named_parameters(module)]
