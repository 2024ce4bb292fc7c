"""Regions that a program enters and does not leave, in forward and in backward: torch works after, also once their objects are let go of.

Such a region ends with its object, and puts back what the thread had when it was entered: the keys of the analysis's own modes among it.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode

import fxgrad
from fxgrad import Options

KEPT: list[Any] = []


def _enter() -> None:
    KEPT[0].append(torch.inference_mode())  # a list in a list: what the forward appends is taken out again, the inner one is let go of
    KEPT[0][-1].__enter__()


def _raises_inside(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    _enter()
    raise ValueError("inside the region")


def _two_deep(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    y: torch.Tensor = layer(x)
    _enter()
    torch.inference_mode(False).__enter__()
    _enter()
    return y


def _in_a_hook(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    y: torch.Tensor = layer(x)
    y.register_hook(lambda grad: _raises_inside(layer, grad))  # type: ignore[no-untyped-call]  # torch's
    return y


def _in_a_transform(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        torch.func.grad(lambda t: torch.tanh(layer(t)).sum())(x)
    y: torch.Tensor = layer(x)
    return y


def _a_level(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    forward_ad.enter_dual_level()  # type: ignore[no-untyped-call]  # torch's
    y: torch.Tensor = layer(x)
    return y


def _past_the_modes(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    KEPT[0].append(torch._C.DisableTorchFunction())
    KEPT[0][-1].__enter__()
    raise ValueError("where no mode is asked")


class Model(nn.Module):
    def __init__(self, act: Callable[[nn.Module, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.act = act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.layer, x)


class Counting(torch.overrides.TorchFunctionMode):
    calls = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        return func(*args, **(kwargs or {}))


def _torch_works() -> None:
    assert (torch.is_inference_mode_enabled(), torch.is_grad_enabled(), forward_ad._current_level) == (False, True, -1)
    layer = nn.Linear(4, 4)
    with Counting() as mode:
        layer(torch.randn(3, 4)).sum().backward()
    assert mode.calls
    assert layer.weight.grad is not None


@pytest.mark.parametrize("use", ["real", "fake", "fix"])
@pytest.mark.parametrize("act", [_raises_inside, _two_deep, _in_a_hook, _in_a_transform, _a_level, _past_the_modes])
def test_torch_works_after(act: Callable[[nn.Module, torch.Tensor], torch.Tensor], use: Any) -> None:
    KEPT[:] = [[]]
    with contextlib.suppress(fxgrad.FxgradError):
        if use == "fix":
            fxgrad.fix(Model(act), (torch.randn(3, 4),))
        else:
            fxgrad.analyze(Model(act), (torch.randn(3, 4),), options=Options(values=use))
    KEPT.clear()
    gc.collect()
    _torch_works()


class Passing(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def test_a_module_that_raises_in_a_region_leaves_it() -> None:
    """What `fix` gave, called in a mode of the user's with other inputs, its error let go of after."""

    def forward(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            chosen = torch.arange(4.0)[index]
        return x * 2 + chosen.clone()

    x = torch.randn(3, 4, requires_grad=True)
    module = fxgrad.fix(forward, (x, torch.tensor([1]))).module
    caught: list[IndexError] = []
    with Passing():  # type: ignore[no-untyped-call]  # torch's
        try:
            module(x, torch.tensor([9]))
        except IndexError as error:
            caught.append(error)
    assert caught.pop()
    gc.collect()
    _torch_works()
