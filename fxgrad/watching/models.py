"""The models of a watched program: which modules took part, under which names, as one tree with
`named_parameters()` of its own.

Took part: what was called from outside any module, what holds a parameter of an optimizer, what a backward
reached. Of nested modules the outermost that a variable holds counts; of several made around one and the same
module, inside what was called with it, that module does. Tensors that an optimizer holds and no
module owns stand beside the modules.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import nn

from fxgrad.torch_api import registry
from fxgrad.watching.variable_names import Names, unwrapped


def tree(
    names: Names,
    *,
    given: Sequence[nn.Module],
    called: Iterable[nn.Module],
    held: Sequence[torch.Tensor],
    reached: Sequence[torch.Tensor],
    used: set[int],
) -> nn.Module:
    """The tree. One given module is its own: its parameters keep their names. Nothing of the user's modules
    is changed.

    `used`: ids of the tensors that the program reads; an optimizer may hold one that nothing uses any more.
    """
    if len(given) == 1:
        return unwrapped(given[0])
    found = [unwrapped(module) for module in given]
    loose: list[torch.Tensor] = []
    if not given:
        found = _took_part(names, called, held, reached)
        free = used - {id(parameter) for module in found for parameter in registry.parameters(module)}
        candidates = held or [tensor for tensor in reached if names.of_tensor(tensor) is not None]
        loose = [tensor for tensor in candidates if id(tensor) in free]
    root = nn.Module()
    for module in found:
        _put(root, names.of_module(module), module)
    for index, tensor in enumerate(loose):
        _put(root, names.of_tensor(tensor) or f"tensor{index}", tensor)
    return root


def _took_part(
    names: Names, called: Iterable[nn.Module], held: Sequence[torch.Tensor], reached: Sequence[torch.Tensor]
) -> list[nn.Module]:
    named = [module for _, module in names.modules()]
    own = [unwrapped(module) for module in called]
    if held:  # where an optimizer says what trains, a module that no variable holds is a passing copy
        own = [module for module in own if module in named]
    relevant = {id(t) for t in (*held, *reached)}
    relevant.update(id(parameter) for module in own for parameter in registry.parameters(module))
    return _outermost(names, [*named, *own], relevant)


def _outermost(names: Names, candidates: Sequence[nn.Module], relevant: set[int]) -> list[nn.Module]:
    """Of the candidates with a relevant parameter those that are in no other, in the order given; in the
    place of passing wrappers what they are around."""
    sized = {
        module: list(registry.modules(module))
        for module in dict.fromkeys(candidates)
        if any(id(p) in relevant for p in registry.parameters(module))
    }
    for wrapper, module in _wrapped(names, sized).items():
        del sized[wrapper]
        sized.setdefault(module, list(registry.modules(module)))
    inner = {id(part) for parts in sized.values() for part in parts[1:]}
    return [module for module in sized if id(module) not in inner]


def _wrapped(names: Names, sized: Mapping[nn.Module, Sequence[nn.Module]]) -> dict[nn.Module, nn.Module]:
    """Of several modules around one that holds all their parameters, and that a variable further outside
    holds, that one: a solver makes such for each of its calls."""
    found: dict[nn.Module, nn.Module] = {}
    for wrapper, parts in sized.items():
        for part in parts[1:]:
            if names.is_further_out(part, wrapper) and _size(part) == _size(wrapper):
                found[wrapper] = part
    shared = Counter(found.values())
    return {wrapper: module for wrapper, module in found.items() if shared[module] > 1}


def _size(module: nn.Module) -> int:
    return sum(1 for _ in registry.parameters(module))


def _put(root: nn.Module, name: str, item: nn.Module | torch.Tensor) -> None:
    """Under a dotted name, with plain modules between; a second of one name gets a number."""
    *above, last = name.split(".")
    holder = root
    for word in above:
        inner = holder._modules.get(word)
        if type(inner) is not nn.Module:  # none, or a module of the user's own: nothing is put into that
            word = word if inner is None else f"{word}_"
            inner = holder._modules[word] = nn.Module()
        holder = inner
    table: dict[str, object] = holder._modules if isinstance(item, nn.Module) else holder._parameters  # type: ignore[assignment]
    unique, count = last, 1
    while unique in holder._modules or unique in holder._parameters:
        count += 1
        unique = f"{last}_{count}"
    table[unique] = item
