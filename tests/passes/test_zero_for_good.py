"""Zero for good and zero for now: what no training step changes is a warning, what one step changes is said to be normal."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import fxgrad
from fxgrad.report import Report


class Net(nn.Module):
    """`body(x)`, and beside it what `more` computes."""

    def __init__(self, more: Callable[[Net, torch.Tensor], torch.Tensor], **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.body = nn.Linear(4, 4)
        for name, part in parts.items():
            setattr(self, name, part)
        self.more = more

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x) + self.more(self, x)


def zero(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def scalar(value: float = 0.0) -> nn.Parameter:
    return nn.Parameter(torch.full((1,), value))


def padding(net: Net, x: torch.Tensor) -> torch.Tensor:
    out: torch.Tensor = net.types(torch.zeros(len(x), dtype=torch.long))
    return out


GOOD = {
    "two layers": (
        lambda: Net(lambda net, x: net.b(net.a(x)), a=zero(nn.Linear(4, 4)), b=zero(nn.Linear(4, 4))),
        {"a.weight", "a.bias", "b.weight"},
    ),
    "two gates": (
        lambda: Net(lambda net, x: net.g * net.h * net.f(x), g=scalar(), h=scalar(), f=nn.Linear(4, 4)),
        {"g", "h", "f.weight", "f.bias"},
    ),
    "zero state": (lambda: Net(lambda net, x: torch.tanh(net.r(torch.zeros_like(x))), r=nn.Linear(4, 4)), {"r.weight"}),
    "padding row": (lambda: Net(padding, types=nn.Embedding(2, 4, padding_idx=0)), {"types.weight"}),
    "cell without a past": (lambda: Net(lambda net, x: net.cell(x), cell=nn.GRUCell(4, 4)), {"cell.weight_hh"}),
}

NOW = {
    "low rank": (lambda: Net(lambda net, x: net.b(net.a(x)), a=nn.Linear(4, 2), b=zero(nn.Linear(2, 4))), {"a.weight", "a.bias"}),
    "gate": (lambda: Net(lambda net, x: net.g * net.f(x), g=scalar(), f=nn.Linear(4, 4)), {"f.weight", "f.bias"}),
    "first of two": (lambda: Net(lambda net, x: net.b(net.a(x)), a=zero(nn.Linear(4, 4)), b=nn.Linear(4, 4)), {"b.weight"}),
}

QUIET = {
    "relu that is off": lambda: Net(lambda net, x: net.b(torch.relu(net.a(x) - 3)), a=nn.Linear(4, 4), b=nn.Linear(4, 4)),
    "saturated sigmoid": lambda: Net(lambda net, x: torch.sigmoid(net.a(x) + 500), a=nn.Linear(4, 4)),
    "state that is not zero": lambda: Net(lambda net, x: net.r(torch.ones_like(x)), r=zero(nn.Linear(4, 4))),
    "padding beside words": lambda: Net(lambda net, x: net.t(torch.arange(len(x)) % 2), t=nn.Embedding(2, 4, padding_idx=0)),
}


def report_on(build: Callable[[], nn.Module]) -> Report:
    torch.manual_seed(0)
    return fxgrad.analyze(build(), (torch.randn(5, 4),), loss=lambda out: (out - 1).square().mean())


@pytest.mark.parametrize("name", GOOD)
def test_what_no_step_changes_is_a_warning(name: str) -> None:
    build, want = GOOD[name]
    report = report_on(build)
    found = [f for f in report.findings if f.code == "FXG401"]
    assert {f.severity for f in found} == {"warning"}, str(report)
    assert {n for f in found for n in f.parameters if "bias_hh" not in n} == want
    assert all(f.site is not None for f in found)


@pytest.mark.parametrize("name", NOW)
def test_what_one_step_changes_is_said_to_be_normal(name: str) -> None:
    build, want = NOW[name]
    report = report_on(build)
    assert [f for f in report.findings if f.severity != "note"] == []
    (note,) = [f for f in report.notes if f.code == "FXG401"]
    assert set(note.parameters) == want
    assert "after the first step" in note.message
    model = build()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(2):
        optimizer.zero_grad()
        (model(torch.randn(5, 4)) - 1).square().mean().backward()
        optimizer.step()
    assert all(bool(p.grad.any()) for n, p in model.named_parameters() if n in want and p.grad is not None)


@pytest.mark.parametrize("name", QUIET)
def test_what_other_data_change_is_no_finding(name: str) -> None:
    assert [f for f in report_on(QUIET[name]).findings if f.severity != "note"] == []


class Selecting(nn.Module):
    def __init__(self, chosen: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.layer, self.chosen = nn.Linear(4, 2), chosen

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(self.chosen(x)).sum()


STEPS_OF_NOTHING: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], int, str, str]] = {
    "no row passes": (lambda x: x[x[:, 0] > 99], 5, "selects nothing", "note"),
    "a slice past the end": (lambda x: x[7:], 5, "is empty", "warning"),
    "an empty batch": (lambda x: x, 0, "is given a tensor without elements", "note"),
}


@pytest.mark.parametrize("name", STEPS_OF_NOTHING)
def test_a_step_of_which_every_gradient_is_zero_is_not_without_a_finding(name: str) -> None:
    chosen, rows, why, severity = STEPS_OF_NOTHING[name]
    (found,) = fxgrad.analyze(Selecting(chosen), (torch.randn(rows, 4),)).findings
    assert (found.code, found.severity, set(found.parameters)) == ("FXG401", severity, {"layer.weight", "layer.bias"})
    assert why in found.message
    assert found.message.endswith("; nothing trains")


@pytest.mark.parametrize(
    ("loss", "ending"),
    [
        (lambda net, x: net.body(x).sum() + 0.0 * net.gone(x).sum(), "through any other term"),
        (lambda net, x: 0.0 * net.gone(net.body(x)).sum(), "through any other term; nothing trains"),
    ],
    ids=["beside another term", "alone"],
)
def test_a_term_that_is_multiplied_away_is_said_to_be_all_there_is_where_it_is(
    loss: Callable[[nn.Module, torch.Tensor], torch.Tensor], ending: str
) -> None:
    class Loss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.gone = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return loss(self, x)

    (found,) = fxgrad.analyze(Loss(), (torch.randn(3, 4),)).findings
    assert found.code == "FXG101"
    assert found.message.endswith(ending)
