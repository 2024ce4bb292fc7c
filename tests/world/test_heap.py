"""A program that asks the garbage collector which objects there are gets all of them, and the collector is as before."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import fxgrad
from fxgrad import Options


def _objects(layer: nn.Module) -> int:
    return sum(type(o) is nn.Linear for o in ASK["get_objects"]())


def _referrers(layer: nn.Module) -> int:
    return len(ASK["get_referrers"](layer.weight))


FROZEN = gc.get_freeze_count()  # some hundred in Python 3.12, which begins with them


def _nothing_frozen(layer: nn.Module) -> int:
    return int(ASK["get_freeze_count"]() <= FROZEN)


class ByName:
    """The functions of `gc` as `from gc import ...` has them: looked up before the analysis."""

    def __init__(self) -> None:
        self.held = dict(vars(gc))

    def __getitem__(self, name: str) -> Any:
        return self.held[name]


class ByModule:
    """As `gc.get_objects()` has them: looked up at every call."""

    def __getitem__(self, name: str) -> Any:
        return getattr(gc, name)


ASK: Any = None


class Tracked(nn.Module):
    """Its output is zero where the collector does not know of its layer."""

    def __init__(self, count: Callable[[nn.Module], int]) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.count = count

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layer(x) * min(self.count(self.layer), 1)
        return out


@pytest.mark.parametrize("values", ["real", "fake"])
@pytest.mark.parametrize("ask", [ByModule, ByName])
@pytest.mark.parametrize("count", [_objects, _referrers, _nothing_frozen])
def test_the_program_sees_all_objects(count: Callable[[nn.Module], int], ask: Any, values: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ASK", ask())
    report = fxgrad.analyze(Tracked(count), (torch.randn(3, 4),), options=Options(values=values))
    assert set(report.verdicts.values()) == {"flows"}


@pytest.mark.parametrize("use", [fxgrad.analyze, fxgrad.fix])
def test_the_collector_is_as_before(use: Callable[..., Any]) -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        gc.freeze()
        gc.get_objects()
        gc.freeze()
        return x * 2

    fxgrad.analyze(nn.Linear(2, 2), (torch.randn(1, 2),))  # Python 3.12 begins with frozen objects, which the first analysis thaws
    before = gc.get_freeze_count(), gc.isenabled(), gc.get_threshold(), id(gc.get_objects), id(gc.freeze)
    use(forward, (torch.randn(3, 4, requires_grad=True),))
    assert (gc.get_freeze_count(), gc.isenabled(), gc.get_threshold(), id(gc.get_objects), id(gc.freeze)) == before
