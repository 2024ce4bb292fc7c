"""Copies of what is saved change no gradient."""

from __future__ import annotations

import pytest
import torch

from fxgrad.torch_api.saved_hooks import saved_copies


def sine(x: torch.Tensor) -> torch.Tensor:
    return x.sin() * 2


def view(x: torch.Tensor) -> torch.Tensor:
    return x.view(-1).exp()


def written(x: torch.Tensor) -> torch.Tensor:
    out = torch.zeros_like(x)
    for row in range(len(x)):
        out[row] = x[row] * x[row]
    return out


KERNELS = (sine, view, written)


@pytest.mark.filterwarnings("ignore:.*an autograd kernel was not registered")
@pytest.mark.parametrize("key", ["CPU", "CompositeExplicitAutograd", "CompositeImplicitAutograd"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_an_operator_without_a_formula_keeps_its_gradient(kernel: object, key: str) -> None:
    with torch.library._scoped_library("fxgrad_copies", "FRAGMENT") as library:
        name = f"{kernel.__name__}_{key}"  # type: ignore[attr-defined]
        library.define(f"{name}(Tensor x) -> Tensor")
        library.impl(name, kernel, key)

        def gradient() -> torch.Tensor | None:
            x = torch.ones(2, 3, requires_grad=True)
            getattr(torch.ops.fxgrad_copies, name)(x * 1).sum().backward()
            return x.grad

        want = gradient()
        with saved_copies():
            got = gradient()
    assert (got is None) == (want is None)
    assert got is None or want is None or torch.equal(got, want)
