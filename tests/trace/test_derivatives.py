"""What the transforms of `torch.func` take a derivative of: what drops out of it, and what was cut before."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.func import grad, grad_and_value, hessian, jacfwd, jacrev, jvp, vjp, vmap

import fxgrad
from fxgrad.records import Finding

Taken = Callable[[Callable[[torch.Tensor], torch.Tensor], torch.Tensor], torch.Tensor]


def by_vjp(f: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    y, back = vjp(f, x)
    return back(torch.ones_like(y))[0]


def by_autograd(f: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    x = x.requires_grad_()
    y = f(x)
    return torch.autograd.grad(y, x, torch.ones_like(y), create_graph=True)[0]


WAYS: dict[str, Taken] = {
    "grad": lambda f, x: grad(f)(x),
    "grad_and_value": lambda f, x: grad_and_value(f)(x)[0],
    "jacrev": lambda f, x: jacrev(f)(x),
    "jacfwd": lambda f, x: jacfwd(f)(x),
    "hessian": lambda f, x: hessian(f)(x),
    "vjp": by_vjp,
    "jvp": lambda f, x: jvp(f, (x,), (torch.ones_like(x),))[1],
    "vmap of grad": lambda f, x: vmap(grad(f))(x),
    "vmap of jacrev": lambda f, x: vmap(jacrev(f))(x),
    "vmap of jacfwd": lambda f, x: vmap(jacfwd(f))(x),
    "vmap of hessian": lambda f, x: vmap(hessian(f))(x),
    "autograd.grad": by_autograd,
}


class Energy(nn.Module):
    def __init__(self, way: Taken) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))
        self.way = way

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x).sum()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.way(self.energy, x)


class Cut(Energy):
    """As before, scaled by a choice that has no derivative."""

    def __init__(self, way: Taken) -> None:
        super().__init__(way)
        self.router = nn.Linear(3, 2)

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        return (self.net(x).sum(-1) * (1.0 + self.router(x).argmax(-1))).sum()


def square(out: torch.Tensor) -> torch.Tensor:
    return out.square().mean()


def analyzed(model: nn.Module) -> list[Finding]:
    return list(fxgrad.analyze(model, (torch.randn(4, 3),), loss=square).findings)


def watched(model: nn.Module) -> list[Finding]:
    with fxgrad.watch(model) as seen:
        square(model(torch.randn(4, 3))).backward()
    return list(seen.report.findings)


@pytest.mark.parametrize("ask", [analyzed, watched])
@pytest.mark.parametrize("way", WAYS)
def test_what_drops_out_is_a_note(way: str, ask: Callable[[nn.Module], list[Finding]]) -> None:
    model = Energy(WAYS[way])
    square(model(torch.randn(4, 3))).backward()
    assert model.net[2].bias.grad is None
    model.zero_grad()
    (found,) = ask(model)
    assert (found.code, found.severity, found.parameters) == ("FXG101", "note", ("net.2.bias",))
    assert "does not depend on `net.2.bias`" in found.message


@pytest.mark.parametrize("ask", [analyzed, watched])
@pytest.mark.parametrize("way", [way for way in WAYS if "hessian" not in way])
def test_what_was_cut_before_does_not_drop_out(way: str, ask: Callable[[nn.Module], list[Finding]]) -> None:
    found = [f for f in ask(Cut(WAYS[way])) if "router.weight" in f.parameters]
    assert [(f.code, f.severity) for f in found] == [("FXG105", "error")]
    assert set(found[0].parameters) == {"router.weight", "router.bias"}


@pytest.mark.parametrize("ask", [analyzed, watched])
def test_gradients_that_are_off_are_no_derivative(ask: Callable[[nn.Module], list[Finding]]) -> None:
    class Off(Energy):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                slope = self.way(self.energy, x)
            return slope + self.net[0](x).sum()

    found = [f for f in ask(Off(WAYS["grad"])) if f.code != "FXG303"]
    assert [f.code for f in found] == ["FXG104"]
    assert "net.2.bias" in found[0].parameters
