"""A gradient of zeros confirmed: other numbers, drawn anew, must give zeros too; on fake values the structure
decides."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Literal

import torch

from fxgrad.diagnosis.branches import outcomes
from fxgrad.passes.analyses.dead_structure import structural_zeros
from fxgrad.program.loss import SUMMED, weighed
from fxgrad.program.program import Program
from fxgrad.records import Facts
from fxgrad.torch_api import registry
from fxgrad.trace.experiment import Experiment
from fxgrad.trace.lab import Lab
from fxgrad.trace.run import Run

_Draw = tuple[int, Literal["", "moved", "drawn"]]

# epsilons: a gradient of a loss of about 1 that is smaller, where the first draw gave exact zeros, is
# rounding
ROUNDING = 16
TURNS = 6  # draws until what stays zero is known
SECOND_DRAWS: tuple[_Draw, ...] = ((1, ""), (2, ""))  # seeds, and what becomes of constant parameters
UNSETTLED_DRAWS: tuple[_Draw, ...] = ((1, "moved"), (2, "drawn"), (3, "drawn"))


def confirm_zeros(lab: Lab, main: Run, facts: Facts, values: str, *, unsettle: bool = False) -> Facts:
    """A gradient of zeros is "zero" only if other numbers give zeros too: a ReLU that happens to be off is
    not by construction.

    With `unsettle` constant parameters are other numbers too: a gate or a last layer that starts at zero
    holds nothing back for good. Fake gradients have no numbers: there the structure decides, as far as it
    can.
    """
    if values != "real":
        dead = structural_zeros(facts)
        parameters = tuple(replace(p, gradient="zero") if p.name in dead else p for p in facts.parameters)
        return replace(facts, parameters=parameters) if dead else facts
    zeros = {p.name for p in facts.parameters if p.gradient == "zero"}
    if not zeros:
        return facts
    for seed, how in UNSETTLED_DRAWS if unsettle else SECOND_DRAWS:
        if not zeros:
            break
        other = lab.left(Experiment("real", forced=outcomes(main), noise=seed, seed=seed, unsettle=how))
        if other.error is None:
            zeros -= _above_rounding(other)
    parameters = tuple(
        replace(p, gradient="some") if p.gradient == "zero" and p.name not in zeros else p
        for p in facts.parameters
    )
    return replace(facts, parameters=parameters)


def zero_by_the_sum(lab: Lab, main: Run, facts: Facts) -> frozenset[str]:
    """Of the parameters with a gradient of zeros those that get one as soon as the outputs are not weighed
    evenly, where no loss was given and their sum stands in for one."""
    zeros = {p.name: p.names for p in facts.parameters if p.gradient == "zero" and p.requires_grad}
    if main.loss_used != SUMMED or not zeros:
        return frozenset()
    other = lab.beside(replace(lab.program, loss=weighed)).left(Experiment("real", forced=outcomes(main)))
    moved = _above_rounding(other) if other.error is None else set()
    return frozenset(alias for name in moved.intersection(zeros) for alias in zeros[name])


def zero_for_good(lab: Lab, main: Run, facts: Facts) -> frozenset[str]:
    """Of the parameters with a gradient of zeros those that keep it: the largest set that stays so while all
    outside it are drawn anew.

    A parameter that is zero itself and gets only zeros is where it was after every step: it is held. LoRA's B
    gets a gradient, so it is drawn, and A has one then; of two layers in a row that both start at zero each
    holds the other.
    """
    names = {p.name: p.names for p in facts.parameters if p.gradient == "zero" and p.requires_grad}
    own = dict(registry.named_parameters(lab.program.root, remove_duplicate=False))
    zeros = set(names)
    for seed in range(1, TURNS + 1):
        held = frozenset(id(own[name]) for name in zeros if _is_zero(own[name]))
        if not held:
            return frozenset()
        other = lab.left(
            Experiment("real", forced=outcomes(main), noise=seed, seed=seed, unsettle="drawn", held=held)
        )
        if other.error is not None:
            return frozenset()
        moved = zeros & _above_rounding(other)
        zeros -= moved
        if not moved and seed > 1:
            break
    return frozenset(alias for name in zeros for alias in names[name])


def pending(program: Program, facts: Facts, settled: frozenset[str]) -> dict[str, tuple[str, ...]]:
    """By parameter whose gradient is zero for now, those that are zero themselves and get one: after a step
    they are zero no more."""
    own = dict(registry.named_parameters(program.root, remove_duplicate=False))
    zeros = [
        p
        for p in facts.parameters
        if p.gradient == "zero" and p.requires_grad and settled.isdisjoint(p.names)
    ]
    if not zeros:
        return {}
    movers = [
        p.name for p in facts.parameters if p.gradient == "some" and p.requires_grad and _is_zero(own[p.name])
    ]
    found: dict[str, tuple[str, ...]] = {}
    for parameter in zeros:
        near = _nearest(parameter.name, movers)
        if near:
            found[parameter.name] = near
    return found


def _nearest(name: str, movers: list[str]) -> tuple[str, ...]:
    """Those that share the longest part of the path with it."""
    shared = {mover: len(os.path.commonprefix([name.split("."), mover.split(".")])) for mover in movers}
    most = max(shared.values(), default=0)
    return tuple(mover for mover in movers if shared[mover] == most)


def _is_zero(parameter: torch.Tensor) -> bool:
    return (
        parameter.layout is torch.strided
        and not parameter.is_meta
        and parameter.numel() > 0
        and not bool(parameter.detach().any())
    )


def _above_rounding(result: Run) -> set[str]:
    """Parameters whose gradient is more than what rounding leaves of contributions that cancel: a softmax
    that is summed up."""
    found = set()
    for name, parameter in registry.named_parameters(result.program.root, remove_duplicate=False):
        if result.gradients.get(name) != "some":
            continue
        made = result.recorder.standins.get(parameter)
        grad = made.grad if made is not None else None
        if (
            grad is None
            or grad.layout is not torch.strided
            or float(grad.abs().max()) > ROUNDING * torch.finfo(grad.dtype).eps
        ):
            found.add(name)
    return found
