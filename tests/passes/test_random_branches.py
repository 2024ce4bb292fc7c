"""FXG115 of a condition that random numbers decide: told as a draw, and the same whichever way it went."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import fxgrad

DRAWN: dict[str, Callable[[torch.Tensor], object]] = {
    "uniform": lambda x: torch.rand(()) < 0.5,
    "normal, of a shape": lambda x: torch.randn_like(x).sum() > 0,
    "an integer": lambda x: torch.randint(0, 2, (1,)) == 1,
    "in place": lambda x: torch.empty(()).uniform_() < 0.5,
    "a number": lambda x: torch.rand(1).item() < 0.5,
}
OF_DATA: dict[str, Callable[[torch.Tensor], object]] = {
    "data": lambda x: x.mean() > 0,
    "a draw beside data": lambda x: torch.rand(()) < x.mean().sigmoid(),
    "a drawn number beside data": lambda x: torch.rand(()).item() < x.mean().sigmoid().item(),
    "a draw beside a number of data": lambda x: torch.rand(()) < x.mean().sigmoid().item(),
    "a draw by data": lambda x: torch.bernoulli(x.mean().sigmoid()) > 0,
}


class Gated(nn.Module):
    def __init__(self, test: Callable[[torch.Tensor], object]) -> None:
        super().__init__()
        self.a, self.b, self.test = nn.Linear(3, 3), nn.Linear(3, 3), test

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.a(x)
        return self.b(h) if self.test(x) else h


def found(test: Callable[[torch.Tensor], object], seed: int) -> tuple[str, str]:
    torch.manual_seed(seed)
    report = fxgrad.analyze(Gated(test), (torch.randn(2, 3),), loss=lambda out: out.square().mean())
    (one,) = [f for f in report.findings if f.code == "FXG115"]
    return one.severity, one.message


@pytest.mark.parametrize("name", DRAWN)
def test_a_draw_is_told_as_one(name: str) -> None:
    told = {found(DRAWN[name], seed) for seed in range(6)}
    assert len(told) == 1, told
    ((severity, message),) = told
    assert severity == "warning"
    assert "is a random draw" in message


@pytest.mark.parametrize("name", OF_DATA)
def test_data_is_told_as_data(name: str) -> None:
    assert all("depends on data" in found(OF_DATA[name], seed)[1] for seed in range(3))
