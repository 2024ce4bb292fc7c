"""What takes part in some steps and not in others: said in the head of the report, and the branch that
decided is named.

From further steps (`fxgrad.watching.further`): a parameter that had no gradient in the first and got one in a
later is no fault. Where a condition on a tensor in the model's own code went both ways meanwhile, that is the
branch. Not handled: draws of Python's or NumPy's random numbers and turns that the script itself takes, which
pass by unseen.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import CodeType, FunctionType

import torch
from torch import nn

from fxgrad.passes.findings import listed
from fxgrad.records import Site
from fxgrad.source.sites import Spot, site_of
from fxgrad.torch_api import registry
from fxgrad.trace.observer import Observer


def names_of(tensors: Sequence[torch.Tensor], root: nn.Module) -> tuple[str, ...]:
    """The first names of these parameters, in the order of the model."""
    wanted = {id(tensor) for tensor in tensors}
    return tuple(name for name, parameter in registry.named_parameters(root) if id(parameter) in wanted)


def said(further: int, late: tuple[str, ...]) -> tuple[str, ...]:
    """How many further steps there were, and what they showed."""
    if not further:
        return ()
    steps = (
        f"{further} further step{'s' if further > 1 else ''} ran, watched for "
        f"{'its' if further == 1 else 'their'} gradients alone"
    )
    if not late:
        return (f"{steps}: what has none in the first has none in {'it' if further == 1 else 'them'}",)
    return (f"{steps}: {listed(late)} had no gradient in the first step and got one later",)


def both_ways(late: tuple[str, ...], observer: Observer, root: nn.Module) -> dict[Site, tuple[str, ...]]:
    """Every branch that left parameters out of some steps, with their names."""
    outcomes: dict[Spot, set[bool]] = {}
    for decided in observer.decisions:
        if decided.spots:
            outcomes.setdefault(decided.spots[0], set()).add(decided.outcome)
    changing = {spot for spot, seen in outcomes.items() if len(seen) > 1}
    groups: dict[Spot, list[str]] = {}
    for name in late:
        codes = _codes_above(root, name)
        spot = next((spot for spot in changing if spot[0] in codes), None)
        if spot is not None:
            groups.setdefault(spot, []).append(name)
    return {site_of(spot): tuple(names) for spot, names in groups.items()}


def _codes_above(root: nn.Module, name: str) -> set[CodeType]:
    """The methods of the modules that a parameter lies in."""
    found: set[CodeType] = set()
    module: nn.Module | None = root
    for word in name.split("."):
        if module is None:
            break
        for base in type(module).__mro__:
            found.update(
                method.__code__ for method in vars(base).values() if isinstance(method, FunctionType)
            )
        module = module._modules.get(word)
    return found
