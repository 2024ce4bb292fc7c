"""Steps that look at a value relative to its only element, on fake values: of which operand the gradient is zero, beside eager's own.

A norm over one element still trains its bias, attention to one key its values; what only looks like such a step is none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import fxgrad

Forward = Callable[[Any, torch.Tensor], torch.Tensor]


class Model(nn.Module):
    def __init__(self, forward: Forward, **parts: nn.Module | torch.Tensor) -> None:
        super().__init__()
        self.wide, self.one, self.go = nn.Linear(4, 4), nn.Linear(4, 1), forward
        for name, part in parts.items():
            setattr(self, name, part if isinstance(part, nn.Module) else nn.Parameter(part))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.go(self, x)


def projected(self: Any, x: torch.Tensor) -> torch.Tensor:
    q, k, v = self.p(x)[:, None].chunk(3, -1)
    return F.scaled_dot_product_attention(q, k, v)


def shared(self: Any, x: torch.Tensor) -> torch.Tensor:
    both = self.k(x)[:, None]
    return F.scaled_dot_product_attention(self.q(x)[:, None], both, both)


def three() -> dict[str, nn.Module]:
    return {"q": nn.Linear(4, 4), "k": nn.Linear(4, 4), "v": nn.Linear(4, 4)}


def crossed(self: Any, x: torch.Tensor, **more: Any) -> torch.Tensor:
    return F.scaled_dot_product_attention(self.q(x)[:, None], self.k(x)[:, None], self.v(x)[:, None], **more)


def named(self: Any, x: torch.Tensor) -> torch.Tensor:
    return F.scaled_dot_product_attention(query=self.q(x)[:, None], value=self.v(x)[:, None], key=self.k(x)[:, None])


def functional_heads(self: Any, x: torch.Tensor) -> torch.Tensor:
    a, row = self.a, x[:, None]
    weights = (a.in_proj_weight, a.in_proj_bias, None, None, False, 0.0, a.out_proj.weight, a.out_proj.bias)
    return F.multi_head_attention_forward(row, row, row, 4, 2, *weights, need_weights=False)[0]


def rounded_beside(self: Any, x: torch.Tensor) -> torch.Tensor:
    rounded, kept = checkpoint(lambda h: (h.round(), h * 2), self.wide(x), use_reentrant=False)
    return rounded + kept


ONE = torch.ones(1)
PROGRAMS: dict[str, Callable[[], Model]] = {
    "norm module": lambda: Model(lambda m, x: m.n(m.one(x)), n=nn.LayerNorm(1)),
    "norm module without bias": lambda: Model(lambda m, x: m.n(m.one(x)), n=nn.LayerNorm(1, bias=False)),
    "norm module without parameters": lambda: Model(lambda m, x: m.n(m.one(x)), n=nn.LayerNorm(1, elementwise_affine=False)),
    "norm": lambda: Model(lambda m, x: F.layer_norm(m.one(x), (1,), m.w, m.b), w=ONE, b=ONE),
    "norm, named": lambda: Model(lambda m, x: F.layer_norm(m.one(x), (1,), bias=m.b, weight=m.w), w=ONE, b=ONE),
    "norm, bias alone": lambda: Model(lambda m, x: F.layer_norm(m.one(x), (1,), None, m.b), b=ONE),
    "norm over two dimensions": lambda: Model(lambda m, x: F.layer_norm(m.wide(x)[..., None], (4, 1))),
    "norm module over two dimensions": lambda: Model(lambda m, x: m.n(m.wide(x)[..., None]), n=nn.LayerNorm((4, 1))),
    "attention, one projection": lambda: Model(projected, p=nn.Linear(4, 12)),
    "attention": lambda: Model(crossed, **three()),
    "attention, named": lambda: Model(named, **three()),
    "attention, keys are values": lambda: Model(shared, q=nn.Linear(4, 4), k=nn.Linear(4, 4)),
    "attention, a trained mask": lambda: Model(lambda m, x: crossed(m, x, attn_mask=m.m), m=torch.zeros(1, 1), **three()),
    "attention, functional heads": lambda: Model(functional_heads, a=nn.MultiheadAttention(4, 2)),
    "softmax": lambda: Model(lambda m, x: m.one(x).softmax(-1)),
    "softmax module": lambda: Model(lambda m, x: m.s(m.one(x)), s=nn.Softmax(1)),
    "softmax over the batch": lambda: Model(lambda m, x: m.s(m.wide(x)[:, :1]), s=nn.Softmax(0)),
    "gumbel softmax, tau is no dimension": lambda: Model(lambda m, x: F.gumbel_softmax(m.wide(x)[:, None], 1, False, 1e-10, -1)),
    "variance over the batch": lambda: Model(lambda m, x: m.wide(x)[:, :1].var(0)),
    "variance of one": lambda: Model(lambda m, x: m.wide(x)[..., None].var(-1, correction=0)),
    "weighed by zero": lambda: Model(lambda m, x: m.wide(x) * 0 + m.one(x)),
    "one of two results rounded": lambda: Model(rounded_beside),
}  # fmt: skip


def loss(out: torch.Tensor) -> torch.Tensor:
    return (out * torch.arange(1.0, out.numel() + 1, dtype=out.dtype).reshape(out.shape)).sum()


@pytest.mark.parametrize("name", PROGRAMS)
def test_zero_is_said_of_the_operands_whose_gradient_is_zero(name: str) -> None:
    torch.manual_seed(0)
    model, x = PROGRAMS[name]().double(), torch.randn(3, 4, dtype=torch.float64)
    loss(model(x)).backward()
    kept = {n: p.grad for n, p in model.named_parameters()}
    # Over one element a kernel leaves rounding where the structure gives zero. A bias before a softmax or a variance cancels by its
    # numbers, which fake values do not have.
    want = {n: "none" if g is None else "flows" if float(g.abs().max()) > 1e-10 else "zero" for n, g in kept.items()}
    cancels = {"wide.bias"} if "over the batch" in name else set()
    model.zero_grad()
    got = fxgrad.analyze(model, (x,), loss=loss, options=fxgrad.Options(values="fake")).verdicts
    assert {n: v for n, v in got.items() if n not in cancels} == {n: v for n, v in want.items() if n not in cancels}
