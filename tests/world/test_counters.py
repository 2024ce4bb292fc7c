"""Stand-ins share version counters and histories where their originals do: verdicts equal eager's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import fxgrad


class Written(nn.Module):
    """Saves `x`, then writes `y`."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        h = self.layer(x) * x
        y.add_(1.0)
        return h


class Carried(Written):
    """What is written into `y` has a gradient, which `x` hands on where both are of one base."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        y.mul_(self.layer(torch.ones(4)))
        return x * 2.0


class Held(Written):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.ones(3, 4))
        self.register_buffer("row", self.table[0])

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        h = self.layer(x[:2]) * self.table[:2]
        self.row.add_(1.0)
        return h


def rows(base: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return base[:2], base[:1]


def apart(base: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return base[:2], base[2:]


def whole(base: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return base[:2].reshape(1, 2, 4)[0], base


def detached(base: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return base, base.detach()


def data(base: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return base, base.data


def other(base: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return base[:2], base.clone()[:2]


def inferred(base: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.inference_mode():
        return base[:2] * 1.0, base[:2].clone()


PAIRS = [rows, apart, whole, detached, data, other, inferred]


def eager(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> dict[str, str]:
    try:
        net(x, y).sum().backward()
    except RuntimeError:
        return dict.fromkeys((name for name, _ in net.named_parameters()), "blocked")
    return {n: "none" if p.grad is None else "flows" if bool(p.grad.any()) else "zero" for n, p in net.named_parameters()}


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("make", [Written, Carried, Held])
def test_verdicts_equal_eagers(make: type[Written], pair: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]) -> None:
    want = eager(make(), *pair(torch.rand(3, 4) + 1.0))
    assert fxgrad.analyze(make(), pair(torch.rand(3, 4) + 1.0)).verdicts == want


def test_the_originals_count_on_as_before() -> None:
    base = torch.rand(3, 4)
    base.add_(1.0)
    x, y = rows(base)
    fxgrad.analyze(Written(), (x, y))
    assert (base._version, x._version, y._version) == (1, 1, 1)


def test_a_view_whose_data_was_replaced_is_no_part_of_its_base_in_memory() -> None:
    x = torch.linspace(-1, 1, 12).reshape(3, 4)
    x.data = torch.randn(4, 4)
    report = fxgrad.analyze(nn.Linear(4, 4), (x,), options=fxgrad.Options(values="real"))
    assert set(report.verdicts.values()) == {"flows"}
