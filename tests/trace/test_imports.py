"""A module that a program is the first to import, inside its forward: it loads as it would in eager, and is within reach from then on."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import fxgrad
from fxgrad.records import Options

LATE = """
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

ITEM = range.__getitem__
LENGTH = len
TABLE = torch.arange(3.0)
WEIGHT = nn.Parameter(torch.ones(3))
LAYER = nn.Linear(3, 3)
FROZEN = LAYER(TABLE).detach()
import late_too
"""
LATE_TOO = """
import torch

VMAP, FROM_NUMPY, CALL = torch.vmap, torch.from_numpy, torch.nn.Module._call_impl
SPLIT = [row for row in torch.arange(6.0).view(2, 3)]
CALLS = []
"""


class Late(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        import late
        import late_too

        late_too.CALLS.append(1)
        late.LAYER.bias.data.add_(1)
        return late.LAYER(self.layer(x)) * late.WEIGHT + late.TABLE + late_too.SPLIT[1] + late.FROZEN


class Named(Late):
    """By the import system's own function."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        late, late_too = importlib.import_module("late"), importlib.import_module("late_too")
        return late.LAYER(self.layer(x)) * late.WEIGHT + late.TABLE + late_too.SPLIT[1] + late.FROZEN


@pytest.fixture(autouse=True)
def not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "late.py").write_text(LATE)
    (tmp_path / "late_too.py").write_text(LATE_TOO)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("late", "late_too"):
        sys.modules.pop(name, None)


HOW: dict[str, Callable[[nn.Module, Any], Any]] = {
    "auto": fxgrad.analyze,
    "fake": lambda model, inputs: fxgrad.analyze(model, inputs, options=Options(values="fake")),
    "real": lambda model, inputs: fxgrad.analyze(model, inputs, options=Options(values="real")),
    "fix": fxgrad.fix,
}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("kind", [Late, Named])
def test_a_module_loads_as_without_a_recorder(kind: type[Late], how: str) -> None:
    model, inputs = kind(), (torch.randn(2, 3),)
    HOW[how](model, inputs)
    late, late_too = sys.modules["late"], sys.modules["late_too"]
    assert [type(t) for t in (late.TABLE, late.FROZEN, *late_too.SPLIT)] == [torch.Tensor] * 4
    assert (range.__getitem__, len) == (late.ITEM, late.LENGTH)
    assert (torch.vmap, torch.from_numpy, nn.Module._call_impl) == (late_too.VMAP, late_too.FROM_NUMPY, late_too.CALL)
    assert (late.TABLE.tolist(), late_too.CALLS) == ([0, 1, 2], [])
    assert [p.grad for p in (late.WEIGHT, *late.LAYER.parameters())] == [None] * 3
    before = late.LAYER.bias.detach().clone()
    assert model(*inputs).requires_grad
    assert torch.equal(late.LAYER.bias.detach(), before + (kind is Late))


@pytest.mark.parametrize("values", ["fake", "real"])
def test_the_verdict_is_that_of_later_analyses(values: Any) -> None:
    reports = [fxgrad.analyze(Named(), (torch.randn(2, 3),), options=Options(values=values)) for _ in range(2)]
    assert [[(f.code, f.message) for f in report.findings] for report in reports] == [
        [(f.code, f.message) for f in reports[1].findings]
    ] * 2


def test_an_import_that_fails_is_the_programs_error() -> None:
    class Missing(Late):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            try:
                import no_module_of_this_name  # noqa: F401
            except ImportError:
                return torch.sin(self.layer(x))
            return x

    assert fxgrad.analyze(Missing(), (torch.randn(2, 3),)).ok
