"""Runs are asked for by records, and made once; numbers that C code must ask for show who takes one."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fxgrad
from fxgrad.diagnosis.analyze import examine
from fxgrad.fix_source.live import mended
from fxgrad.program.load import load
from fxgrad.program.program import program
from fxgrad.trace.experiment import Experiment
from fxgrad.trace.lab import Lab
from fxgrad.trace.run import run

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "residual.py"


class Chosen(nn.Module):
    """An expert by an index, a branch on data, a gate that starts at zero, a number that only a text takes."""

    def __init__(self) -> None:
        super().__init__()
        self.router, self.experts = nn.Linear(4, 3), nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])
        self.extra, self.gate = nn.Linear(4, 4), nn.Parameter(torch.zeros(()))
        self.said = ""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.experts[int(self.router(x).sum(0).argmax())](x)
        if y.mean() > 100:
            y = y + self.extra(y)
        self.said = f"{y.abs().max().item():.3f}"
        return (y + self.gate * self.extra(x)).square().mean()


def test_no_experiment_is_recorded_twice() -> None:
    examined = examine(Chosen(), (X,))
    asked = examined.lab.asked
    assert len(asked) > 10
    assert len(set(asked)) == len(asked)
    assert examined.report.verdicts["router.weight"] == "none"


def test_edits_are_found_without_another_run() -> None:
    found = load(str(EXAMPLE))
    examined = examine(found.model, found.inputs, loss=found.loss)
    before = list(examined.lab.asked)
    assert [finding.code for finding in examined.report.findings] == ["FXG201"]
    assert len(mended(examined)) == 1
    assert examined.lab.asked == before


def test_what_was_seen_is_asked_of_no_second_run() -> None:
    lab = Lab(program(nn.Linear(4, 4), (X,), None))
    asked = Experiment("real", watch_saves=True)
    assert lab.shown(asked) is lab.shown(Experiment("real", watch_saves=True))
    assert lab.lines(asked) == lab.lines(asked)
    assert lab.truth() is lab.truth()
    assert lab.asked == [asked, asked]  # one recorded, one whose lines were noted


# ---------------------------------------------------------------------------------------------- numbers that C code must ask for


Forward = Callable[[Any, torch.Tensor], torch.Tensor]
PLAIN: list[Forward] = [
    lambda net, x: net(x).view(x.shape[0], 2, -1).reshape(x.size(0), x.shape[1]) / x.shape[0],
    lambda net, x: net(x)[: x.shape[0] - 1].repeat(x.size(-1), 1) * x.numel(),
    lambda net, x: F.pad(net(x), (0, x.shape[0])).clamp(max=x.shape[1]) + torch.arange(x.shape[0] * 2)[::2, None],
    lambda net, x: net(x) * (x.shape[0] ** 0.5 + math.floor(x.shape[1] / 2)) + x.sum().item(),
    lambda net, x: net(x).expand(torch.Size([2, *x.shape])) * max(x.shape[0], x.shape[1]),
    lambda net, x: sum((net(x[i]) for i in range(x.shape[0])), torch.zeros(4)),
    lambda net, x: torch.full((x.shape[0], 2), x.shape[1] / 2) @ net(x)[:2].narrow(0, 0, x.shape[0] - 1),
]
TAKEN: list[Forward] = [
    lambda net, x: net(x) * [0.0, 1.0, 2.0, 3.0][x.shape[0]],
    lambda net, x: net(x) * sum([1.0, 2.0, 3.0][: x.shape[0] - 1]),
    lambda net, x: net(x) + torch.from_numpy(np.zeros(x.shape[1], dtype=np.float32)),
    lambda net, x: net(x) * math.comb(x.shape[1], 2),
    lambda net, x: net(x) * len(struct.pack("i" * 2, x.shape[0], x.size(1))),
    lambda net, x: net(x) * "abcd".index("abcd"[x.shape[0]]),
    lambda net, x: net(x) * math.sqrt(x.abs().sum().item()),
]


def opened(forward: Forward) -> Any:
    net = nn.Linear(4, 4)
    asked = Experiment("real", assumptions=True, open_numbers=True)
    return run(program(lambda x: forward(net, x), (X,), None), asked)


@pytest.mark.parametrize("forward", PLAIN)
def test_python_and_torch_take_an_open_number_as_any_other(forward: Forward) -> None:
    made = opened(forward)
    assert (made.error, made.recorder.taken_by_c) == (None, 0)


@pytest.mark.parametrize("forward", TAKEN)
def test_c_code_must_ask_for_an_open_number(forward: Forward) -> None:
    made = opened(forward)
    assert made.recorder.taken_by_c > 0 or made.error is not None


def test_an_open_number_passes_for_what_it_stands_for() -> None:
    def forward(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        size, number = x.shape[0], x.sum().item()
        assert (isinstance(size, int), isinstance(size, float | bool), type(size)) == (True, False, int)
        assert (isinstance(number, float), type(number)) == (True, float)
        assert (isinstance(x.shape, torch.Size), x.shape, f"{size}", {3: 1}[size]) == (True, (3, 4), "3", 1)
        return net(x)

    assert opened(forward).error is None


class NeedsAnInt(nn.Module):
    """C code that takes an int and nothing else: what it is told in a run with open numbers is an error that plain ones do not give."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.noted = SimpleNamespace(bits=0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) * int.bit_length(x.shape[0])


def test_a_program_that_needs_plain_numbers_is_recorded_with_these() -> None:
    net = NeedsAnInt()
    fixed = fxgrad.fix(net, (X,))
    torch.testing.assert_close(fixed.module(X), net(X))
    with pytest.raises(fxgrad.GuardError):
        fixed.module(torch.randn(4, 4))
