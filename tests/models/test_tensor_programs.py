"""Programs over tensors: writes in place, views and indexing, sizes and batch-generic graphs, properties, numbers, random draws."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

X = torch.randn(2, 8, generator=torch.Generator().manual_seed(1))
WIDE = torch.randn(5, 8, generator=torch.Generator().manual_seed(2))
CASES: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {}


def case(**options: Any) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """Make the class a test on input X; `options` are those of `same_as_eager`."""

    def add(cls: type[nn.Module]) -> type[nn.Module]:
        CASES[cls.__name__] = (cls, options)
        return cls

    return add


class OneLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)


# ------------------------------------------------------------------ writes in place


@case()
class Subscripts(OneLayer):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x) * 1
        y[0] = 0
        y[:, 1:3] *= 2
        y[y > 1] = 0.5
        y[..., -1] = x[..., 0]
        y[1:,] += x[:1]
        return y


@case()
class AugmentedAssignments(OneLayer):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x)
        y += 1
        y -= x
        y *= 2
        y /= x.shape[0]
        y @= torch.eye(8)
        y **= 2
        return y


@case()
class Outputs(OneLayer):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        torch.add(x, 1, out=out)
        rows, columns = torch.empty(0), torch.empty(0, dtype=torch.long)
        torch.max(x, 1, out=(rows, columns))
        return self.a(out) + rows[:, None] + columns[:, None]


@case()
class InPlaceLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 8), nn.ReLU(inplace=True), nn.Linear(8, 8), nn.Dropout(0.3, inplace=True))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.leaky_relu(self.body(x), inplace=True)


@case()
class WritesThroughViews(OneLayer):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x) + 0
        flat = y.view(-1)
        flat[::2].mul_(2)
        y.T.add_(1)
        y.diagonal().zero_()
        return y + flat.view(2, 8)


@case()
class WritesItsInput(OneLayer):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x.mul_(2)
        x[0] += 1
        return self.a(x), x


@case()
class Foreach(OneLayer):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("average", torch.zeros(8, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            torch._foreach_mul_([self.average], 0.9)
            torch._foreach_add_([self.average], [self.a.weight])
            self.average.lerp_(self.a.weight, 0.1)
        return self.a(x) + x @ self.average


# ------------------------------------------------------------------ sizes


@case(then=((WIDE,),))
class BatchGeneric(OneLayer):
    def __init__(self) -> None:
        super().__init__()
        self.b = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, width = x.shape
        y = self.a(x).view(batch, 2, width // 2).transpose(0, 1).reshape(2 * batch, -1)
        y = self.b(y)
        one = torch.zeros(batch, batch).fill_diagonal_(1)
        order = torch.arange(batch).flip(0)
        scale = torch.ones(x.shape[0], x.numel() // x.size(0)) * math.sqrt(width)
        half = math.ceil(x.shape[0] / 2) + round(x.size(0) * 0.5)
        return (one @ x)[order] / y.size(0) + scale + y.sum() / batch**0.5 + x.new_zeros(x.shape) + torch.full((batch, 1), 1.0) * half


@case(then=((WIDE,),))
class IndicesFromSizes(OneLayer):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x).clone()
        batch = x.shape[0]
        y[torch.arange(batch), torch.arange(batch)] = 0
        y[batch - 1 :,] += 1
        y[: batch // 2] = x[: batch // 2]
        return y.masked_fill(y > 0.9, 0).index_select(1, torch.tensor([0, 2])).split([1, 1], 1)[0].expand(batch, 3)


# ------------------------------------------------------------------ views, indices, several results


@case(fake=None)
class SeveralResults(OneLayer):
    def forward(self, x: torch.Tensor) -> Any:
        first, second = self.a(x)
        left, right = torch.split(self.a(x), 4, 1)
        values, places = torch.topk(x, 3)
        best = torch.max(x, 1)
        parts = torch.linalg.svd(self.a(x)[:, :2])
        return first + second, left + right, values, best.values, best.indices, parts.S, x[None], x[:, None, ::2], x[places[:, 0] >= 0]


@case(then=((WIDE,),))
class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(8, 24)

    def forward(self, x: torch.Tensor) -> Any:
        q, k, v = self.project(x[:, None].repeat(1, 3, 1)).chunk(3, -1)
        weights = torch.einsum("bid,bjd->bij", q, k).softmax(-1)
        out = torch.einsum("bij,bjd->bid", weights, v)
        values, places = torch.stack([out, v]).max(0)
        return torch.cat([values, places.float()], -1), *torch.stack([out, v]).unbind(0)


@case()
class ChosenKernel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(8, 24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (t.unflatten(-1, (1, 2, 4)).transpose(1, 2) for t in self.project(x).chunk(3, -1))
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            first = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return first + F.scaled_dot_product_attention(q, k, v, dropout_p=0.1)


@case(fake=None)
class NestedTensors(OneLayer):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        ragged = torch.nested.nested_tensor([x, x[:1]], layout=torch.jagged)
        return torch.nested.to_padded_tensor(self.a(ragged), 0.0).sum()


@case()
class SparseProduct(OneLayer):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sparse.mm(torch.eye(2).to_sparse(), self.a(x)) + torch.eye(2).to_sparse_csr() @ self.a(x)


@case(fake=False)
class Routing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(8, 3)
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights, chosen = self.gate(x).softmax(-1).topk(2)
        out = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            rows, places = torch.where(chosen == number)
            if rows.numel():
                out.index_add_(0, rows, expert(x[rows]) * weights[rows, places, None])
        return out


# ------------------------------------------------------------------ properties, numbers, data from outside


@case()
class Properties(OneLayer):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x)
        z = torch.complex(y, y * 2)
        w = (z.real + z.imag).T.mT.H.T.data
        bonus = 0 if self.a.weight.grad is None else 1
        return (y * w + y.ndim + bonus + y.mH.T).to(y.device, y.dtype) + y.shape[-1] + y.shape.numel() + y.itemsize


@case()
class Complex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Parameter(torch.randn(8, dtype=torch.cfloat))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.fft.ifft(torch.fft.fft(x) * self.filter).real + (x * self.filter).abs() + torch.view_as_real(self.filter).sum()


@case(fake=False)
class Numbers(OneLayer):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x)
        return y / y.abs().max().item() + int((x > 0).sum()) + x.tolist()[0][0] + float(x.mean())


@case(fake=False)
class ThroughNumpy(OneLayer):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.numpy().mean(0)
        return self.a(x) * np.float64(2) + torch.from_numpy(mean) + torch.tensor(mean) + torch.as_tensor(mean.tolist())


@case(fake=None)
class LegacyConstructors(OneLayer):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = torch.Tensor([0.0])
        total += x.sum()
        return self.a(x) * total


@case()
class RandomDraws(OneLayer):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.dropout(self.a(x), 0.3) * torch.rand_like(x) + torch.randn(x.shape)
        torch.manual_seed(3)
        return y + torch.bernoulli(torch.full_like(x, 0.5)) + torch.randint(0, 3, (8,))


@case(fake=None)
class Distributions(OneLayer):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        normal = torch.distributions.Normal(self.a(x), self.a(x).exp())
        divergence = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0))
        return normal.log_prob(normal.rsample()).sum() + divergence.sum()


@case()
class OperatorsByPacket(OneLayer):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.aten.sin(self.a(x)) + torch.ops.aten.add.Tensor(x, x) + 2 ** self.a(x) - (1 - x) // 1


@pytest.mark.parametrize("name", CASES)
def test_regenerated_program_is_the_program(name: str, same_as_eager: Callable[..., Any]) -> None:
    cls, options = CASES[name]
    same_as_eager(cls(), (X,), **options)
