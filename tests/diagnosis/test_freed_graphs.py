""" "Backward through the graph a second time" of a model by itself: what is named, and that the advice, followed, trains every parameter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import fxgrad


class Product(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(4, 2)), nn.Parameter(torch.randn(2, 3))
        self.weight = self.a @ self.b

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight


class ProductInForward(Product):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ (self.a @ self.b)


class Cached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enc, self.head = nn.Linear(4, 3), nn.Linear(3, 1)
        self.kept: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.kept is None:
            self.kept = torch.tanh(self.enc(x))
        return self.head(self.kept)


class CachedNot(Cached):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.enc(x)))


class State(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(4, 3), nn.Linear(3, 1)
        self.state = torch.zeros(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.state = self.cell(x, self.state)
        return self.head(self.state)


class StateDetached(State):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.state = self.cell(x, self.state.detach())
        return self.head(self.state)


class Looked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 3), nn.Linear(3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(self.a(x))
        out = self.b(h)
        (g,) = torch.autograd.grad(out.sum(), h)
        return out + h.sum(1, keepdim=True) * g.mean().item()


class LookedKept(Looked):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(self.a(x))
        out = self.b(h)
        (g,) = torch.autograd.grad(out.sum(), h, retain_graph=True)
        return out + h.sum(1, keepdim=True) * g.mean().item()


class Penalty(Looked):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(self.a(x))
        out = self.b(h).square()
        (g,) = torch.autograd.grad(out.sum(), h)
        return out + g.norm(dim=1, keepdim=True)


class PenaltyCreated(Looked):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(self.a(x))
        out = self.b(h).square()
        (g,) = torch.autograd.grad(out.sum(), h, create_graph=True)
        return out + g.norm(dim=1, keepdim=True)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.a, self.b = nn.Linear(4, 3), nn.Linear(3, 1), nn.Linear(3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.sigmoid(self.trunk(x))
        self.a(h).square().mean().backward()
        return self.b(h)


class Added(Twice):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.sigmoid(self.trunk(x))
        return self.a(h).square().mean() + self.b(h)


class DetachedInTheFirst(Twice):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.sigmoid(self.trunk(x))
        self.a(h.detach()).square().mean().backward()
        return self.b(h)


PROGRAMS = [
    (Product, ProductInForward, "self.weight = self.a @ self.b", "`weight` is computed once, in __init__", "anew in every forward"),
    (
        Cached,
        CachedNot,
        "return self.head(self.kept)",
        "`kept` still carries",
        "compute it anew in every step: `enc.weight` and `enc.bias`",
    ),
    (State, StateDetached, "self.state = self.cell(x, self.state)", "`state` still carries", "`state.detach()` in place of `state`"),
    (Looked, LookedKept, "(g,) = torch.autograd.grad(out.sum(), h)", "frees the graph of `self.b(h)`", "retain_graph=True"),
    (Penalty, PenaltyCreated, "(g,) = torch.autograd.grad(out.sum(), h)", "frees the graph of", "create_graph=True"),
    (Twice, Added, "self.a(h).square().mean().backward()", "frees the graph of `torch.sigmoid(self.trunk(x))`", "add the two losses"),
    (Twice, DetachedInTheFirst, "self.a(h).square().mean().backward()", "which the loss goes through again", "for this first loss alone"),
]


def loss(out: torch.Tensor) -> torch.Tensor:
    return F.softplus(out).square().mean()


@pytest.mark.parametrize(("broken", "mended", "line", "said", "advice"), PROGRAMS)
def test_culprit_and_remedy(broken: Any, mended: Any, line: str, said: str, advice: str) -> None:
    model, x = broken(), torch.randn(5, 4)
    if broken in (Product, Cached, State):  # only the second step of these raises
        loss(model(x)).backward()
        model.zero_grad()
    report = fxgrad.analyze(model, (x,), loss=loss)
    (finding,) = [f for f in report.findings if f.severity == "error"]
    assert finding.code == "FXG201"
    assert finding.site is not None
    with open(finding.site.file) as text:
        assert text.read().splitlines()[finding.site.line - 1].strip() == line
    assert said in finding.message
    assert finding.fix is not None
    assert advice in finding.fix.advice


@pytest.mark.parametrize("mended", [program[1] for program in PROGRAMS])
def test_mended_as_advised_everything_trains(mended: Any) -> None:
    torch.manual_seed(0)
    model, x, losses = mended(), torch.randn(5, 4), []
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        value = loss(model(x))
        value.backward()
        optimizer.step()
        losses.append(value.item())
    assert len(set(losses)) == 3
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert fxgrad.analyze(mended(), (x,), loss=loss).ok
