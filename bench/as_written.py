"""Two programs of many runs in an analysis, in plain torch as people write them: a frozen model with LoRA on
its attention, whose B starts at zero, and a sparse Gaussian process, whose distributions check their
arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from tests.zoo.configured import transformers_models


class LoRALinear(nn.Module):
    """A frozen layer and a low-rank update."""

    def __init__(self, base: nn.Linear, rank: int = 8, alpha: float = 16) -> None:
        super().__init__()
        self.base = base
        self.lora_A = nn.Linear(base.in_features, rank, bias=False)
        self.lora_B = nn.Linear(rank, base.out_features, bias=False)
        nn.init.zeros_(self.lora_B.weight)
        self.scaling = alpha / rank

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.base(x) + self.lora_B(self.lora_A(x)) * self.scaling
        return out


def lora() -> tuple[nn.Module, Any]:
    """The small Llama of the zoo, frozen, with LoRA on the projections of its attention."""
    builders = {name.rpartition("/")[2]: build for name, build in transformers_models()}
    model, inputs = builders["LlamaForCausalLM"]()
    model.requires_grad_(False)
    for layer in model.model.layers:
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            setattr(layer.self_attn, name, LoRALinear(getattr(layer.self_attn, name)))
    return model, inputs


class SparseGP(nn.Module):
    """A variational Gaussian process on inducing points; its negative ELBO."""

    def __init__(self, points: torch.Tensor) -> None:
        super().__init__()
        count, width = points.shape
        self.points, self.mean = nn.Parameter(points), nn.Parameter(torch.zeros(count))
        self.log_lengthscale, self.log_variance = (
            nn.Parameter(torch.zeros(width)),
            nn.Parameter(torch.zeros(())),
        )
        self.log_noise, self.root = nn.Parameter(torch.tensor(-2.0)), nn.Parameter(torch.eye(count))

    def kernel(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        scale = self.log_lengthscale.exp()
        return self.log_variance.exp() * torch.exp(-0.5 * torch.cdist(a / scale, b / scale).square())

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        eye = torch.eye(len(self.points))
        lower = torch.linalg.cholesky(self.kernel(self.points, self.points) + 1e-4 * eye)
        near = torch.linalg.solve_triangular(lower, self.kernel(self.points, x), upper=False)
        root = self.root.tril()
        variance = self.log_variance.exp() - near.square().sum(0) + (root.T @ near).square().sum(0)
        prior = MultivariateNormal(torch.zeros_like(self.mean), eye)
        apart = kl_divergence(MultivariateNormal(self.mean, scale_tril=root), prior)
        noise = self.log_noise.exp()
        likely = Normal(near.T @ self.mean, noise.sqrt()).log_prob(y) - 0.5 * variance / noise
        return apart - likely.sum()


def sparse_gp() -> tuple[nn.Module, Any]:
    """20 inducing points, 100 observations."""
    torch.manual_seed(0)
    return SparseGP(torch.randn(20, 2)), (torch.randn(100, 2), torch.randn(100))


def as_written() -> Iterator[tuple[str, Callable[[], tuple[nn.Module, Any]]]]:
    """The family, as those of the zoo are."""
    yield "as_written/LoRA", lora
    yield "as_written/SparseGP", sparse_gp
