"""The optimizers against the model: what they miss, what they hold that the model gave up, what they hold in
vain.

From the objects as they are (groups and parameters are compared by identity), the verdicts, and the run.
Definitions:
 1. A parameter is *missing* if it requires grad, gets a gradient, and no living optimizer holds it: not those
    given, not one kept elsewhere (on the model, in a variable of the script).
 2. A held Parameter is *stale* if the model does not have it, the run did not use it, and no living module
    registers it. Any other tensor from elsewhere is *foreign*: an optimizer may serve several models, or an
    image.
 3. A held parameter is *idle* if it requires grad and backward leaves none on it.
 4. Of several optimizers, given or kept on the model, one whose every held parameter is starved while
    another's trains has its turn in another step (the generator's in the discriminator's step): what it holds
    is *waiting*.
Not handled: optimizers that are not given and hold the same parameters twice, parameters kept alive by a
module nobody uses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fxgrad.passes.analyses.causes import Causes
from fxgrad.passes.context import Context
from fxgrad.passes.findings import shape
from fxgrad.records import Facts
from fxgrad.torch_api import registry
from fxgrad.world.living import held_elsewhere, registered_anywhere

_Named = tuple[str, torch.Tensor]
# Attributes in which no user keeps an optimizer: looked through in every module, they cost most.
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))


@dataclass(frozen=True, slots=True)
class Held:
    """`missing` by parameter name, `stale` by name in the optimizer or shape; `first` is the optimizer to
    speak of.

    `empty`: numbers of its groups without parameters; `foreign`: how many tensors from elsewhere it holds;
    `any`: whether it holds anything of the model; `twin`: it holds another copy of just the missing ones.
    """

    first: Any
    missing: tuple[str, ...]
    stale: tuple[str, ...]
    stale_shapes: tuple[tuple[int, ...], ...]
    empty: tuple[int, ...]
    foreign: int
    any: bool
    twin: bool


def compare(facts: Facts, context: Context) -> Held | None:
    """None where no optimizer (an object with `param_groups`, or a list or dict of them) was given."""
    given = tuple(optimizers_in(context.optimizer))
    if not given:
        return None
    held = {id(p): (name, p) for optimizer in given for name, p in _held(optimizer)}
    named = {id(p) for _, p in registry.named_parameters(context.model, remove_duplicate=False)}
    missing = {i: pair for i, pair in _trained(context).items() if i not in held}
    elsewhere = held_elsewhere(given, missing)
    unknown = {i: pair for i, pair in held.items() if i not in named}
    gone = _gone(facts, unknown)
    first = _first(given)
    return Held(
        first,
        missing=tuple(name for i, (name, _) in missing.items() if i not in elsewhere),
        stale=tuple(name or shape(p.shape) for name, p in gone),
        stale_shapes=tuple(tuple(p.shape) for _, p in gone),
        empty=_empty_groups(first),
        foreign=len(unknown) - len(gone),
        any=not named.isdisjoint(held),
        twin=bool(missing) and _shapes(missing.values()) == _shapes(unknown.values()),
    )


def _gone(facts: Facts, unknown: Mapping[int, _Named]) -> list[_Named]:
    """The held ones of definition 2."""
    registered = registered_anywhere(unknown)
    return [
        (name, p)
        for i, (name, p) in unknown.items()
        if isinstance(p, nn.Parameter) and i not in registered and not _is_used(facts, p)
    ]


def _empty_groups(optimizer: Any) -> tuple[int, ...]:
    return tuple(i for i, group in enumerate(optimizer.param_groups) if not group.get("params"))


def _trained(context: Context) -> dict[int, _Named]:
    """The parameters that are to train and get a gradient, with their names."""
    return {
        id(p): (name, p)
        for name, p in registry.named_parameters(context.model)
        if p.requires_grad and name in context.expected and context.verdicts.get(name) != "none"
    }


def _shapes(named: Iterable[_Named]) -> list[tuple[int, ...]]:
    return sorted(tuple(tensor.shape) for _, tensor in named)


def idle(context: Context) -> Iterator[tuple[object, tuple[str, ...]]]:
    """The optimizers that hold some of definition 3, and their names; each name once.

    Of what is waiting (definition 4), and of optimizers that have not stepped in a watched script while
    others have, nothing is known.
    """
    if context.training is None:
        starved = _starved(context) - waiting(context)
    else:
        starved = _starved(context) & context.expected
    told: set[int] = set()
    for optimizer in optimizers_in(context.optimizer):
        held = {id(p) for _, p in _held(optimizer)} - told
        told |= held
        names = tuple(
            n for n, p in registry.named_parameters(context.model) if id(p) in held and n in starved
        )
        if names:
            yield optimizer, names


def _starved(context: Context) -> set[str]:
    causes: Causes | None = context.causes  # None: of a plain step alone, in which nothing is starved
    return {n for p in causes.starved for n in p.names} if causes is not None else set()


def waiting(context: Context) -> frozenset[str]:
    """The names of definition 4."""
    starved = _starved(context)
    if not starved:
        return frozenset()
    given = [context.optimizer, *_kept_on(context.model)]
    optimizers = {id(optimizer): optimizer for optimizer in optimizers_in(given)}
    named = [
        (id(p), n)
        for n, p in registry.named_parameters(context.model, remove_duplicate=False)
        if p.requires_grad
    ]
    turns: list[set[str]] = []
    for optimizer in optimizers.values():
        held = {id(p) for _, p in _held(optimizer)}
        turns.append({name for number, name in named if number in held})
    training = set().union(*(names for names in turns if not names <= starved))
    starving = set().union(*(names for names in turns if names <= starved))
    return frozenset(starving - training) if training else frozenset()


def _kept_on(model: nn.Module) -> Iterator[object]:
    """What the user hung on a model and its parts."""
    for module in registry.modules(model):
        for name, value in vars(module).items():
            if name not in _OF_EVERY_MODULE:
                yield value


def held_by(optimizer: torch.optim.Optimizer) -> Iterator[torch.Tensor]:
    """The tensors in the optimizer's groups."""
    for group in optimizer.param_groups:
        yield from group["params"]


def optimizers_in(given: Any) -> Iterator[object]:
    """The optimizers among what the user passed: itself, the items of a list or dict, the one that a wrapper
    holds."""
    if isinstance(getattr(given, "param_groups", None), list):
        yield given
    elif isinstance(given, dict):
        yield from optimizers_in(list(given.values()))
    elif isinstance(given, list | tuple):
        for item in given:
            yield from optimizers_in(item)
    elif isinstance(getattr(getattr(given, "optimizer", None), "param_groups", None), list):
        yield given.optimizer


def _first(given: tuple[object, ...]) -> object:
    """The one with an empty group, else the first."""
    return next((o for o in given if _empty_groups(o)), given[0])


def _held(optimizer: Any) -> Iterator[_Named]:
    """Every tensor of its groups, with the name it was given there ("" if none)."""
    for group in optimizer.param_groups:
        names = group.get("param_names") or ()
        for index, parameter in enumerate(group.get("params", ())):
            yield names[index] if index < len(names) else "", parameter


def _is_used(facts: Facts, tensor: torch.Tensor) -> bool:
    """Whether the run read a Parameter of that shape from outside the model: a loss may own parameters that
    no module registers."""
    sizes = tuple(tensor.shape)
    return any(e.is_parameter and e.is_leaf and facts.values[e.value].shape == sizes for e in facts.externals)
