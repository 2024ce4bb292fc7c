"""Where a fake tensor's data is: nowhere. What asks for it is answered on real values, or refused; nothing goes to address zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import fxgrad


class Launched(torch.autograd.Function):
    """A kernel of the program's own, which takes addresses."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        assert x.data_ptr() % x.element_size() == 0
        return x * 2

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return grad * 2


def in_forward(x: torch.Tensor) -> torch.Tensor:
    return x if x.data_ptr() else x * 0


def exported(x: torch.Tensor) -> torch.Tensor:
    return x + torch.from_dlpack(x.detach())


class Model(nn.Module):
    def __init__(self, use: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.lin, self.use = nn.Linear(3, 3), use

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.use(self.lin(x))


USES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "in a Function": lambda x: Launched.apply(x),
    "in forward": in_forward,
    "by DLPack": exported,
}


@pytest.mark.parametrize("name", USES)
def test_what_asks_for_an_address_runs_on_real_values(name: str) -> None:
    model, x = Model(USES[name]), torch.randn(2, 3)
    report = fxgrad.analyze(model, (x,))
    assert (report.values, set(report.verdicts.values())) == ("real", {"flows"})


@pytest.mark.parametrize("name", USES)
def test_on_fake_values_alone_it_is_refused_with_the_line(name: str) -> None:
    model, x = Model(USES[name]), torch.randn(2, 3)
    with pytest.raises(fxgrad.TraceError) as refused:
        fxgrad.analyze(model, (x,), options=fxgrad.Options(values="fake"))
    assert refused.value.site is not None
    assert refused.value.site.file == __file__


def test_an_address_that_nobody_asks_for_costs_nothing() -> None:
    model = Model(lambda x: x * 2)
    assert fxgrad.analyze(model, (torch.randn(2, 3),), options=fxgrad.Options(values="fake")).values == "fake"


class Full(nn.Module):
    """The device is full when the step runs beside the originals; a plain step of its own would fit."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")


def test_a_full_device_is_a_refusal_with_the_line_and_never_blocked() -> None:
    for refused in (lambda: fxgrad.analyze(Full(), (torch.randn(2, 3),)), lambda: fxgrad.fix(Full(), (torch.randn(2, 3),))):
        with pytest.raises(fxgrad.FxgradError, match="the device's memory is full") as error:
            refused()
        assert error.value.site is not None
        assert error.value.site.file == __file__
        assert "smaller batch" in (error.value.hint or "")
