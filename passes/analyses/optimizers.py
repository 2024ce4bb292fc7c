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

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fxgrad.passes.analyses.causes import Causes
from fxgrad.passes.context import Context
from fxgrad.records import Facts
from fxgrad.world.living import held_elsewhere, registered_anywhere


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
    held = {id(p): (p, name) for optimizer in given for p, name in _held(optimizer)}
    named: dict[int, str] = {}
    for name, parameter in context.model.named_parameters(remove_duplicate=False):
        named.setdefault(id(parameter), name)
    missing = {
        id(p): n
        for n, p in context.model.named_parameters()
        if p.requires_grad
        and id(p) not in held
        and n in context.expected
        and context.verdicts.get(n) != "none"
    }
    unknown = {i: pair for i, pair in held.items() if i not in named}
    shapes = {n: p.shape for n, p in context.model.named_parameters()}
    elsewhere = held_elsewhere(given, missing) if missing else frozenset()
    registered = registered_anywhere(unknown) if unknown else frozenset()
    gone = [
        (p, name)
        for i, (p, name) in unknown.items()
        if isinstance(p, nn.Parameter) and i not in registered and not _is_used(facts, p)
    ]
    return Held(
        _first(given),
        tuple(n for i, n in missing.items() if i not in elsewhere),
        tuple(name or "x".join(map(str, p.shape)) or "scalar" for p, name in gone),
        tuple(tuple(p.shape) for p, _ in gone),
        tuple(i for i, group in enumerate(_first(given).param_groups) if not group.get("params")),
        len(unknown) - len(gone),
        any(i in named for i in held),
        bool(missing)
        and sorted(tuple(p.shape) for p, _ in unknown.values())
        == sorted(tuple(shapes[n]) for n in missing.values()),
    )


def idle(context: Context) -> tuple[Any, tuple[str, ...]] | None:
    """The first optimizer and the names of definition 3; None where none was given."""
    given = tuple(optimizers_in(context.optimizer))
    if not given:
        return None
    held = {id(p) for optimizer in given for p, _ in _held(optimizer)}
    causes: Causes = context.causes
    starved = {n for p in causes.starved for n in p.names}
    return given[0], tuple(n for n, p in context.model.named_parameters() if id(p) in held and n in starved)


def waiting(context: Context) -> frozenset[str]:
    """The names of definition 4."""
    causes: Causes = context.causes
    starved = {n for p in causes.starved for n in p.names}
    kept = [list(vars(module).values()) for module in context.model.modules()] if starved else []
    optimizers = {id(optimizer): optimizer for optimizer in optimizers_in([context.optimizer, *kept])}
    if len(optimizers) < 2:
        return frozenset()
    named = [(id(p), n) for n, p in context.model.named_parameters(remove_duplicate=False) if p.requires_grad]
    turns: list[set[str]] = []
    for optimizer in optimizers.values():
        held = {id(p) for p, _ in _held(optimizer)}
        turns.append({name for number, name in named if number in held})
    training = {name for names in turns if names - starved for name in names}
    return (
        frozenset(name for names in turns if names <= starved for name in names) - training
        if training
        else frozenset()
    )


def optimizers_in(given: Any) -> Iterator[Any]:
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


def _first(given: tuple[Any, ...]) -> Any:
    """The one with an empty group, else the first."""
    return next((o for o in given if not all(g.get("params") for g in o.param_groups)), given[0])


def _held(optimizer: Any) -> Iterator[tuple[torch.Tensor, str]]:
    """Every tensor of its groups, with the name it was given there ("" if none)."""
    for group in optimizer.param_groups:
        names = group.get("param_names") or ()
        for index, parameter in enumerate(group.get("params", ())):
            yield parameter, names[index] if index < len(names) else ""


def _is_used(facts: Facts, tensor: torch.Tensor) -> bool:
    """Whether the run read a Parameter of that shape from outside the model: a loss may own parameters that
    no module registers."""
    shape = tuple(tensor.shape)
    return any(e.is_parameter and e.is_leaf and facts.values[e.value].shape == shape for e in facts.externals)
