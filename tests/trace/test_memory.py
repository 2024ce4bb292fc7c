"""On fake values nothing of the model's size is ever allocated: a guard below autograd sees every real tensor that is made."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode

import fxgrad

WIDTH = 2048  # a weight of 16 MB
SMALL = 2**20


class Guard(TorchDispatchMode):
    """Bytes of the largest tensor with data that any operator returned."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for item in _pytree.tree_leaves(out):
            if isinstance(item, torch.Tensor) and not isinstance(item, FakeTensor) and item.device.type != "meta":
                self.largest = max(self.largest, item.numel() * item.element_size())
        return out


class Net(nn.Module):
    """Layers, an in-place write, a detach and a branch: what sets off further runs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x).sigmoid()
        y = y + self.second(y).detach()
        y.mul_(2)
        return self.third(y) if y.sum() > 0 else y


def largest(values: Any) -> int:
    model, inputs = Net(), (torch.randn(4, WIDTH),)
    with Guard() as guard:
        report = fxgrad.analyze(model, inputs, options=fxgrad.Options(values=values))
    assert report.verdicts["second.weight"] == "none"
    return guard.largest


def test_no_tensor_of_the_models_size_on_fake_values() -> None:
    assert largest("fake") < SMALL


def test_the_guard_sees_the_copies_that_real_values_make() -> None:
    assert largest("real") >= WIDTH * WIDTH * 4


def test_a_model_of_terabytes_on_the_meta_device() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(2**20, 2**20), nn.ReLU(), nn.Linear(2**20, 2**20))
        x = torch.randn(64, 2**20)
    with Guard() as guard:
        report = fxgrad.analyze(model, (x,))
    assert set(report.verdicts.values()) == {"flows"}
    assert guard.largest < SMALL
