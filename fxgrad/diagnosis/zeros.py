"""A gradient of zeros confirmed: other numbers, drawn anew, must give zeros too; on fake values the structure decides."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch

from fxgrad.diagnosis.branches import outcomes
from fxgrad.passes.analyses.dead_structure import structural_zeros
from fxgrad.records import Facts
from fxgrad.trace.experiment import Experiment
from fxgrad.trace.lab import Lab
from fxgrad.trace.run import Run

_Draw = tuple[int, Literal["", "moved", "drawn"]]

ROUNDING = 16  # epsilons: a gradient of a loss of about 1 that is smaller, where the first draw gave exact zeros, is rounding
SECOND_DRAWS: tuple[_Draw, ...] = ((1, ""), (2, ""))  # seeds, and what becomes of constant parameters
UNSETTLED_DRAWS: tuple[_Draw, ...] = ((1, "moved"), (2, "drawn"), (3, "drawn"))


def confirm_zeros(lab: Lab, main: Run, facts: Facts, values: str, *, unsettle: bool = False) -> Facts:
    """A gradient of zeros is "zero" only if other numbers give zeros too: a ReLU that happens to be off is not by construction.

    With `unsettle` constant parameters are other numbers too: a gate or a last layer that starts at zero holds nothing back for good.
    Fake gradients have no numbers: there the structure decides, as far as it can.
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
        other = lab.run(Experiment("real", forced=outcomes(main), noise=seed, seed=seed, unsettle=how))
        if other.error is None:
            zeros -= _above_rounding(other)
    parameters = tuple(replace(p, gradient="some") if p.gradient == "zero" and p.name not in zeros else p for p in facts.parameters)
    return replace(facts, parameters=parameters)


def _above_rounding(result: Run) -> set[str]:
    """Parameters whose gradient is more than what rounding leaves of contributions that cancel: a softmax that is summed up."""
    found = set()
    for name, parameter in result.program.root.named_parameters(remove_duplicate=False):
        if result.gradients.get(name) != "some":
            continue
        made = result.recorder.standins.get(parameter)
        grad = made.grad if made is not None else None
        if grad is None or grad.layout is not torch.strided or float(grad.abs().max()) > ROUNDING * torch.finfo(grad.dtype).eps:
            found.add(name)
    return found
