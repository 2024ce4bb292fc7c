"""Why `fix` gives no module: the reason is true, the place is the line that stands in the way, and what is advised helps there."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import fxgrad

Tensor = torch.Tensor
Body = Callable[[Tensor, Tensor], Tensor]


class Net(nn.Module):
    def __init__(self, body: Body) -> None:
        super().__init__()
        self.w, self.body = nn.Parameter(torch.rand(4, 4)), body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.w, x)


def transform(w: Tensor, x: Tensor) -> Tensor:
    y = w.exp()
    force = torch.func.grad(lambda q: (q * y).sin().sum())(x)
    y.mul_(2)  # overwrites what the transform saved, where no hook sees it
    return force * y


def expanded(w: Tensor, x: Tensor) -> Tensor:
    rows = w[0].exp().expand(4, 4)
    rows.mul_(x)
    return rows * w


def detached(w: Tensor, x: Tensor) -> Tensor:
    y = w.exp()
    z = y * w
    y.detach_()
    return z * y


def underived(w: Tensor, x: Tensor) -> Tensor:
    y = w.exp()
    y.heaviside_(x)
    return y


def mended_transform(w: Tensor, x: Tensor) -> Tensor:
    y = w.exp()
    kept = y.clone()
    force = torch.func.grad(lambda q: (q * kept).sin().sum())(x)
    y.mul_(2)
    return force * y


def mended_expanded(w: Tensor, x: Tensor) -> Tensor:
    rows = w[0].exp().expand(4, 4).clone()
    rows.mul_(x)
    return rows * w


def mended_detached(w: Tensor, x: Tensor) -> Tensor:
    y = w.exp()
    z = y * w
    y = y.detach()
    return z * y


@pytest.mark.parametrize(
    ("body", "line", "reason", "hint"),
    [
        (transform, 3, "modified by an inplace operation", "`.clone()` of what is written later"),
        (expanded, 2, "more than one element of the written-to tensor", "`.clone()` it first"),
        (detached, 3, "detached in-place", "`y = y.detach()`"),
        (underived, 2, "derivative for aten::heaviside_ is not implemented", "no rewriting of in-place writes mends this"),
    ],
)
def test_a_program_that_raises_is_refused_with_its_line(body: Body, line: int, reason: str, hint: str) -> None:
    with pytest.raises(fxgrad.FxgradError, match=reason) as caught:
        fxgrad.fix(Net(body), (torch.rand(4, 4),))
    assert caught.value.site is not None
    assert (caught.value.site.file, caught.value.site.line) == (__file__, body.__code__.co_firstlineno + line)
    assert hint in f"{caught.value.hint}"


@pytest.mark.parametrize("body", [mended_transform, mended_expanded, mended_detached])
def test_what_is_advised_helps(body: Body) -> None:
    assert fxgrad.fix(Net(body), (torch.rand(4, 4),)).verification.passed
