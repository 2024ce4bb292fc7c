"""What a regenerated module hands out, and tensors that left torch with their memory and came back: those of this call, not of the traced."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.dlpack import from_dlpack, to_dlpack

import fxgrad

Tensor = torch.Tensor
Body = Callable[[Tensor, Tensor], Any]
Named = namedtuple("Named", "y sizes")


@dataclass
class Made:
    y: Tensor
    sizes: Any


class Net(nn.Module):
    def __init__(self, body: Body) -> None:
        super().__init__()
        self.w, self.body = nn.Parameter(torch.rand(3)), body

    def forward(self, x: Tensor) -> Any:
        return self.body(self.w, x)


def plain(item: Any) -> Any:
    """Tensors as lists, everything else with its type."""
    if isinstance(item, Tensor):
        return item.tolist()
    if isinstance(item, Made):
        return "Made", plain(vars(item))
    if isinstance(item, dict):
        return {key: plain(value) for key, value in item.items()}
    if isinstance(item, tuple | list):
        return type(item), [plain(value) for value in item]
    return type(item), item


OUTPUTS: dict[str, Body] = {
    "a size": lambda w, x: (w * x, x.shape),
    "a part of a size": lambda w, x: [w * x, x.shape[1:]],
    "a size in a dict": lambda w, x: {"y": w * x, "sizes": (x * w).size()},
    "a size in a named tuple": lambda w, x: Named(w * x, x.shape),
    "a size in a dataclass": lambda w, x: Made(w * x, x.shape),
    "a size that was computed": lambda w, x: (w * x, torch.Size([x.shape[0] * 2, 3])),
    "numbers": lambda w, x: (w * x, x.numel(), x.shape[0] / 2, list(x.shape)),
    "a number of data's": lambda w, x: (w * x, x.sum().item()),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_python_values_in_an_output_are_those_of_the_call(name: str) -> None:
    net = Net(OUTPUTS[name])
    module = fxgrad.fix(net, (torch.rand(4, 3),), loss=first).module
    for x in (torch.rand(4, 3), torch.rand(6, 3)):
        assert plain(module(x)) == plain(net(x))


def first(output: Any) -> Tensor:
    y: Tensor = output["y"] if isinstance(output, dict) else output.y if isinstance(output, Made) else output[0]
    return y.sum()


def exchanged_slice(w: Tensor, x: Tensor) -> Tensor:
    return from_dlpack((x * 2).t()[1:]) * w[:1]


EXCHANGED: dict[str, Body] = {
    "DLPack": lambda w, x: torch.from_dlpack(x * 2) * w,
    "a DLPack capsule": lambda w, x: from_dlpack(to_dlpack(x * 2)) * w,
    "DLPack of a view": exchanged_slice,
    "DLPack through NumPy": lambda w, x: torch.from_numpy(np.from_dlpack(x * 2)) * w,
    "NumPy": lambda w, x: torch.from_numpy((x * 2).numpy()) * w,
    "DLPack of what a parameter made": lambda w, x: from_dlpack((w * 2).detach()) * w * x,
}


@pytest.mark.parametrize("name", EXCHANGED)
def test_memory_that_left_and_came_back_is_that_of_the_call(name: str) -> None:
    net = Net(EXCHANGED[name])
    module = fxgrad.fix(net, (torch.rand(4, 3),)).module
    assert not [n for n, _ in module.named_buffers()]  # nothing of the traced call is kept
    x = torch.rand(4, 3)
    assert module(x).tolist() == net(x).tolist()
    gradients = []
    for call in (net, module):
        net.w.grad = None
        call(x).sum().backward()
        assert net.w.grad is not None
        gradients.append(net.w.grad.tolist())
    assert gradients[0] == gradients[1]


def test_memory_that_numpy_writes_meanwhile_is_refused() -> None:
    def body(w: Tensor, x: Tensor) -> Tensor:
        array = (x * 2).numpy()
        array += 1
        return torch.from_numpy(array) * w

    with pytest.raises(fxgrad.FxgradError, match="memory that NumPy shares is written"):
        fxgrad.fix(Net(body), (torch.rand(4, 3),))
