"""What a program asks of a tensor beside its numbers is answered on fake values as with data, or real values are taken; never a crash."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils import dlpack

import fxgrad
from fxgrad.diagnosis import gather


class Labeled(torch.Tensor):
    """A subclass of the program's own."""


class Choosing(nn.Module):
    """Goes through `a` where what it asks is so, else through `b`: a wrong answer is a wrong verdict."""

    def __init__(self, asks: Callable[[Choosing, torch.Tensor], Any]) -> None:
        super().__init__()
        self.asks = asks
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.a(x) if self.asks(self, x * 1) else self.b(x)


def known_by_class(net: Choosing, x: torch.Tensor) -> bool:
    kinds: dict[type, str] = {torch.Tensor: "tensor", nn.Parameter: "parameter"}
    return kinds.get(type(x)) == "tensor" and kinds.get(type(nn.Parameter(x.detach()))) == "parameter"


def parted_by_size(net: Choosing, x: torch.Tensor) -> bool:
    return type(x.shape[0]) is int and type(x.size(-1)) in (int, bool)


def made_by_type(net: Choosing, x: torch.Tensor) -> bool:
    Point = type("Point", (), {"x": 1})

    class Meta(type):
        pass

    return (
        isinstance(Meta, type) and isinstance(Point, type) and type(net) is Choosing and type[int] is not None and type.__name__ == "type"
    )


def viewed_when_it_can(net: Choosing, x: torch.Tensor) -> bool:
    try:
        x.t().view(-1)
    except RuntimeError:
        return True
    return False


def counted_when_it_can(net: Choosing, x: torch.Tensor) -> bool:
    try:
        x.detach().apply_(lambda v: v + 1)
    except (TypeError, RuntimeError):
        return False
    return True


def pickled_when_it_can(net: Choosing, x: torch.Tensor) -> bool:
    try:
        pickle.dumps(x.detach())
    except (TypeError, RuntimeError, AttributeError):
        return False
    return True


def saved(net: Choosing, x: torch.Tensor) -> bool:
    file = io.BytesIO()
    torch.save({"x": x.detach(), "w": net.b.weight}, file)
    return file.tell() > 0


def through_a_pipe(net: Choosing, x: torch.Tensor) -> bool:
    return len(ForkingPickler.dumps(x.detach().clone())) > 0


ASKS: dict[str, Callable[[Choosing, torch.Tensor], Any]] = {
    "type is Tensor": lambda net, x: type(x) is torch.Tensor,
    "type is not Tensor": lambda net, x: type(x) not in (torch.Tensor, Labeled),
    "type of a parameter": lambda net, x: type(net.b.weight) is nn.Parameter,
    "type's name": lambda net, x: type(x).__name__ == "Tensor",
    "known by class": known_by_class,
    "type of a size": parted_by_size,
    "type as a class": made_by_type,
    "as_subclass": lambda net, x: type(x.as_subclass(Labeled)) is Labeled,
    "text with a format": lambda net, x: float(f"{x.mean():.3f}") < 1e9,
    "an error with and without data": viewed_when_it_can,
    "an error without data": counted_when_it_can,
    "an error of a pickler": pickled_when_it_can,
    "pickled": lambda net, x: pickle.loads(pickle.dumps(x.detach())).shape == x.shape,
    "a pickled parameter": lambda net, x: len(pickle.dumps(net.b.weight)) > 0,
    "a pickled module": lambda net, x: len(pickle.dumps(net.b)) > 0,
    "saved": saved,
    "through a pipe": through_a_pipe,
    "copied": lambda net, x: copy.deepcopy(x.detach()).shape == x.shape,
    "a copied module": lambda net, x: copy.deepcopy(net.b)(x).shape == x.shape,
    "a copied module in float64": lambda net, x: copy.deepcopy(net.b).double()(x.double()).dtype == torch.float64,
    "shared": lambda net, x: x.detach().share_memory_().is_shared(),
    "a capsule": lambda net, x: dlpack.from_dlpack(dlpack.to_dlpack(x.detach())).shape == x.shape,
    "an address": lambda net, x: x.data_ptr() != 0,
    "an address of a storage": lambda net, x: x.untyped_storage().data_ptr() != 0,
    "NumPy": lambda net, x: x.detach().numpy().sum() < 1e9,
}


def truth(net: nn.Module, x: torch.Tensor) -> dict[str, str]:
    net(x).sum().backward()
    found = {name: "none" if p.grad is None else "flows" for name, p in net.named_parameters()}
    net.zero_grad()
    return found


@pytest.mark.parametrize("name", ASKS)
def test_a_large_model_is_judged_as_with_data(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = Choosing(ASKS[name]), torch.randn(4, 4)
    monkeypatch.setattr(gather, "REAL_ELEMENTS", 0)
    assert fxgrad.analyze(net, (x,)).verdicts == truth(net, x)


@pytest.mark.parametrize("name", ASKS)
def test_on_fake_values_alone_the_verdict_is_right_or_refused_with_the_line(name: str) -> None:
    net, x = Choosing(ASKS[name]), torch.randn(4, 4)
    verdicts, site = {}, None
    try:
        verdicts = dict(fxgrad.analyze(net, (x,), options=fxgrad.Options(values="fake")).verdicts)
    except fxgrad.TraceError as refused:
        site = refused.site
    assert site.file == __file__ if site is not None else verdicts == truth(net, x)


@pytest.mark.parametrize("name", ["type is Tensor", "known by class", "type of a size", "type as a class", "a copied module"])
def test_what_needs_no_data_runs_on_fake_values(name: str) -> None:
    net = Choosing(ASKS[name])
    assert fxgrad.analyze(net, (torch.randn(4, 4),), options=fxgrad.Options(values="fake")).verdicts["a.weight"] == "flows"


def test_type_is_pythons_own_after_a_run() -> None:
    fxgrad.analyze(Choosing(ASKS["type is Tensor"]), (torch.randn(4, 4),))
    assert "type" not in globals()


def test_expanded_inputs_are_as_good_as_others() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.gate = nn.Linear(4, 4), nn.Parameter(torch.ones(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.a(x) + self.gate * 0

    row, rows = torch.randn(1, 4), torch.randn(6)
    for x in (row.expand(3, 4), row[:, :1].expand(3, 4), torch.tensor(1.5).expand(3, 4), rows.unfold(0, 4, 1)):
        assert dict(fxgrad.analyze(Gated(), (x,)).verdicts) == {"gate": "zero", "a.weight": "flows", "a.bias": "flows"}
        assert fxgrad.fix(Gated(), (x,)).verification.passed


@pytest.mark.parametrize("expanded", [False, True])
def test_an_inference_tensor_stays_one(expanded: bool) -> None:
    class Cloning(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.a(x.clone().add_(1)).mul_(2)

    with torch.inference_mode():
        x = torch.randn(1, 4).expand(3 if expanded else 1, 4)
    fxgrad.fix(Cloning(), (x,))
    assert x.is_inference()
