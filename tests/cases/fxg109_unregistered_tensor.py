"""FXG109: plain tensors that take part like a weight, and tensors that rightly are no parameters."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


def guilty_leaf_that_requires_grad() -> dict[str, Any]:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.keys = nn.Linear(4, 4)
            self.query = torch.randn(4, requires_grad=True)  # FXG109

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            weights = (self.keys(x) @ self.query).softmax(0)
            return weights @ x

    return dict(model=Attention(), inputs=(torch.randn(5, 4),), loss=lambda out: out.square().sum())


def guilty_scaled_parameter_is_no_leaf() -> dict[str, Any]:
    class Dense(nn.Module):
        def __init__(self, fan_in: int, fan_out: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(fan_out, fan_in)) * math.sqrt(2 / fan_in)  # FXG109
            self.bias = nn.Parameter(torch.zeros(fan_out))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.linear(x, self.weight, self.bias)

    net = nn.Sequential(Dense(4, 8), nn.ReLU(), Dense(8, 1))
    return dict(model=net, inputs=(torch.randn(3, 4),), loss=lambda out: out.square().mean())


def guilty_random_weight_without_grad() -> dict[str, Any]:
    class FromScratch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w1 = torch.randn(4, 6) * 0.1  # FXG109
            self.w2 = nn.Parameter(torch.randn(6, 2) * 0.1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(x @ self.w1) @ self.w2

    return dict(model=FromScratch(), inputs=(torch.randn(3, 4),), loss=lambda out: out.square().mean())


def guilty_list_of_tensors() -> dict[str, Any]:
    class Bank(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))
            self.filters = [torch.randn(3, 3, requires_grad=True) for _ in range(2)]  # FXG109

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for w in self.filters:
                x = torch.tanh(x @ w)
            return x * self.scale

    return dict(model=Bank(), inputs=(torch.randn(2, 3),), loss=lambda out: out.square().mean())


def guilty_parameter_moved_by_cuda_idiom() -> dict[str, Any]:
    class Prompt(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Linear(4, 4)
            # `.to(...)` after nn.Parameter makes another tensor wherever it has to copy.
            self.prompt = nn.Parameter(torch.zeros(1, 4)).to(torch.float64)  # FXG109
            self.encoder.double()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.encoder(x + self.prompt)

    return dict(model=Prompt(), inputs=(torch.randn(2, 4).double(),), loss=lambda out: out.square().sum())


def guilty_in_helper_method_of_base() -> dict[str, Any]:
    class Base(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.build()

        def build(self) -> None:
            raise NotImplementedError

    class Centers(Base):
        def build(self) -> None:
            self.project = nn.Linear(4, 2)
            centers = torch.empty(3, 2)
            nn.init.xavier_uniform_(centers)
            centers.requires_grad = True
            self.centers = centers  # FXG109

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cdist(self.project(x), self.centers)

    return dict(model=Centers(), inputs=(torch.randn(5, 4),), loss=lambda out: out.min(1).values.mean())


def guilty_dict_of_task_weights() -> dict[str, Any]:
    class Uncertainty(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads = nn.ModuleList([nn.Linear(3, 1), nn.Linear(3, 1)])
            self.log_vars = {"a": torch.zeros((), requires_grad=True), "b": torch.zeros((), requires_grad=True)}  # FXG109

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            losses = {"a": self.heads[0](x).square().mean(), "b": self.heads[1](x).abs().mean()}
            return sum(torch.exp(-self.log_vars[k]) * v + self.log_vars[k] for k, v in losses.items())

    return dict(model=Uncertainty(), inputs=(torch.randn(4, 3),))


def guilty_plain_list_of_parameters() -> dict[str, Any]:
    class Prompts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Linear(4, 4)
            self.prompts = [nn.Parameter(torch.zeros(1, 4)) for _ in range(3)]  # FXG109

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.encoder(torch.cat([x, *self.prompts]))

    return dict(model=Prompts(), inputs=(torch.randn(2, 4),), loss=lambda out: out.square().mean())


def guilty_parameter_made_in_forward() -> dict[str, Any]:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            gain = nn.Parameter(torch.ones(4))  # FXG109
            return self.net(x) * gain

    return dict(model=Scaled(), inputs=(torch.randn(2, 4),), loss=lambda out: out.square().mean())


def guilty_weight_from_a_helper_function() -> dict[str, Any]:
    def init_weight(rows: int, columns: int) -> torch.Tensor:
        return torch.randn(rows, columns) / rows**0.5

    class Layer(nn.Module):
        def __init__(self, rows: int, columns: int) -> None:
            super().__init__()
            self.w = init_weight(rows, columns)  # FXG109
            self.b = nn.Parameter(torch.zeros(columns))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.mm(x, self.w) + self.b

    net = nn.Sequential(Layer(4, 6), nn.Tanh(), Layer(6, 1))
    return dict(model=net, inputs=(torch.randn(3, 4),), loss=lambda out: out.square().mean())


def guilty_buffer_that_requires_grad() -> dict[str, Any]:
    class Queries(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attend = nn.MultiheadAttention(4, 2, batch_first=True)
            self.register_buffer("queries", torch.randn(1, 3, 4, requires_grad=True))  # FXG109

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.attend(self.queries.expand(x.shape[0], -1, -1), x, x)[0]

    return dict(model=Queries(), inputs=(torch.randn(2, 5, 4),), loss=lambda out: out.square().mean())


def guilty_positions_drawn_as_a_plain_tensor() -> dict[str, Any]:
    class Vit(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch = nn.Linear(6, 4)
            self.positions = torch.randn(1, 5, 4) * 0.02  # FXG109
            self.head = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head((self.patch(x) + self.positions).mean(1))

    return dict(model=Vit(), inputs=(torch.randn(2, 5, 6),), loss=lambda out: out.square().mean())


# ---------------------------------------------------------------------------------------------------------------- healthy


def guilty_buffer_put_together_from_a_parameter_once() -> dict[str, Any]:
    class Classes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.new = nn.Parameter(torch.randn(1, 3))
            self.register_buffer("full", torch.cat([torch.randn(2, 3), self.new]))  # FXG109

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.full.t()

    return dict(model=nn.Sequential(nn.Linear(3, 3), Classes()), inputs=(torch.randn(4, 3),), loss=lambda o: o.pow(2).mean())


def guilty_buffer_normalised_from_a_parameter_once() -> dict[str, Any]:
    class Filter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.taps = nn.Parameter(torch.rand(1, 1, 3))
            kernel = self.taps / self.taps.sum()
            self.register_buffer("kernel", kernel, persistent=False)  # FXG109

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.conv1d(x, self.kernel, padding=1)

    return dict(model=Filter(), inputs=(torch.randn(2, 1, 6),), loss=lambda o: o.pow(2).mean())


def quiet_buffer_computed_from_a_parameter_in_forward() -> dict[str, Any]:
    class Classes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.new = nn.Parameter(torch.randn(1, 3))
            self.register_buffer("old", torch.randn(2, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ torch.cat([self.old, self.new]).t()

    return dict(model=Classes(), inputs=(torch.randn(4, 3),), loss=lambda o: o.pow(2).mean())


def quiet_buffer_begun_with_a_parameters_numbers() -> dict[str, Any]:
    class Average(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))
            self.register_buffer("first", self.scale.detach().clone())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.scale - self.first

    return dict(model=Average(), inputs=(torch.randn(4, 3),), loss=lambda o: o.pow(2).mean())


def quiet_buffer_that_forward_computes_again() -> dict[str, Any]:
    class Cached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))
            self.register_buffer("doubled", self.scale * 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.doubled = self.scale * 2
            return x * self.doubled

    return dict(model=Cached(), inputs=(torch.randn(4, 3),), loss=lambda o: o.pow(2).mean())


def quiet_attention_mask_attribute() -> dict[str, Any]:
    class Causal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = nn.Linear(4, 12)
            self.mask = torch.tril(torch.ones(6, 6))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = self.qkv(x).chunk(3, -1)
            scores = (q @ k.transpose(-1, -2)).masked_fill(self.mask[: x.shape[1], : x.shape[1]] == 0, float("-inf"))
            return scores.softmax(-1) @ v

    return dict(model=Causal(), inputs=(torch.randn(2, 3, 4),), loss=lambda out: out.square().mean())


def quiet_sinusoidal_table() -> dict[str, Any]:
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            steps = torch.arange(8).unsqueeze(1)
            rates = torch.exp(torch.arange(0, 4, 2) * (-math.log(10000.0) / 4))
            self.table = torch.zeros(8, 4)
            self.table[:, 0::2], self.table[:, 1::2] = torch.sin(steps * rates), torch.cos(steps * rates)
            self.net = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x + self.table[: x.shape[1]])

    return dict(model=Positions(), inputs=(torch.randn(2, 5, 4),), loss=lambda out: out.square().mean())


def quiet_random_fourier_features_buffer() -> dict[str, Any]:
    class Fourier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("projection", torch.randn(3, 8) * 4)
            self.net = nn.Linear(16, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            z = x @ self.projection
            return self.net(torch.cat([z.sin(), z.cos()], -1))

    return dict(model=Fourier(), inputs=(torch.randn(5, 3),), loss=lambda out: out.square().mean())


def quiet_fixed_kernel() -> dict[str, Any]:
    class Sobel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 3, padding=1)
            self.kernel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]).view(1, 1, 3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.conv2d(self.conv(x), self.kernel)

    return dict(model=Sobel(), inputs=(torch.randn(1, 1, 6, 6),), loss=lambda out: out.abs().mean())


def quiet_noise_and_hidden_state() -> dict[str, Any]:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.GRUCell(3, 4)
            self.hidden = torch.zeros(2, 4)
            self.noise = torch.randn(2, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.hidden = self.cell(x, self.hidden.detach() + 0.01 * self.noise)
            return self.hidden

    return dict(model=Recurrent(), inputs=(torch.randn(2, 3),), loss=lambda out: out.square().mean())


def quiet_class_statistics() -> dict[str, Any]:
    class Normalise(nn.Module):
        mean = torch.tensor([0.4, 0.5, 0.6])
        std = torch.tensor([0.2, 0.2, 0.3])

        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net((x - self.mean) / self.std)

    return dict(model=Normalise(), inputs=(torch.randn(2, 3),), loss=lambda out: out.square().mean())


def quiet_weight_norm_attribute() -> dict[str, Any]:
    """The old weight norm keeps the computed weight as a plain attribute; its two factors are the parameters."""
    layer = nn.utils.weight_norm(nn.Linear(4, 3))
    return dict(model=nn.Sequential(layer, nn.ReLU()), inputs=(torch.randn(5, 4),), loss=lambda out: out.square().mean())


def quiet_random_goal_and_target() -> dict[str, Any]:
    class Planner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(3, 3)
            self.goal = torch.randn(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.mse_loss(self.net(x), self.goal.expand_as(x))

    return dict(model=Planner(), inputs=(torch.randn(4, 3),))


def quiet_alias_of_a_registered_parameter() -> dict[str, Any]:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(6, 4)
            self.tables = {"in": self.embed.weight, "out": self.embed.weight}

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return F.embedding(ids, self.tables["in"]) @ self.tables["out"].t()

    ids = torch.tensor([1, 2, 5])
    return dict(model=Tied(), inputs=(ids,), loss=lambda out: F.cross_entropy(out, ids))


def quiet_random_fourier_frequencies_attribute() -> dict[str, Any]:
    """Fixed by design: nothing but sine and cosine reads the product."""

    class Fourier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.frequencies = torch.randn(2, 8) * 10
            self.net = nn.Linear(16, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            phase = 2 * math.pi * x @ self.frequencies
            return self.net(torch.cat([torch.sin(phase), torch.cos(phase)], -1))

    return dict(model=Fourier(), inputs=(torch.randn(5, 2),), loss=lambda out: out.square().mean())


def quiet_hashing_planes() -> dict[str, Any]:
    class Hashed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.planes = torch.randn(4, 3)
            self.tables = nn.Embedding(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            bits = (x @ self.planes > 0).long()
            return self.tables((bits * torch.tensor([1, 2, 4])).sum(-1)) * x

    return dict(model=Hashed(), inputs=(torch.randn(5, 4),), loss=lambda out: out.square().mean())


def quiet_perturbation_of_the_input() -> dict[str, Any]:
    """A Parameter is made in forward, on purpose: the gradient of the input is what is wanted."""

    class Smooth(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(3, 4), nn.Softplus(), nn.Linear(4, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            delta = nn.Parameter(torch.zeros_like(x))
            energy = self.net(x + delta).sum()
            (force,) = torch.autograd.grad(energy, delta, create_graph=True)
            return force.square().mean() + energy

    return dict(model=Smooth(), inputs=(torch.randn(4, 3),))


def quiet_given_to_the_optimizer_by_hand() -> dict[str, Any]:
    class Inverted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.decode = nn.Linear(4, 3)
            self.codes = [torch.randn(2, 4, requires_grad=True)]
            self.scale = torch.ones((), requires_grad=True)

        def forward(self, target: torch.Tensor) -> torch.Tensor:
            return F.mse_loss(self.decode(self.codes[0]) * self.scale, target)

    model = Inverted()
    optimizer = torch.optim.Adam([*model.parameters(), *model.codes, model.scale])
    return dict(model=model, inputs=(torch.randn(2, 3),), optimizer=optimizer)


def guilty_table_computed_once_from_a_registered_parameter():
    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.new = nn.Parameter(torch.randn(2, 4))
            self.table = torch.cat([torch.zeros(3, 4), self.new])  # FXG109
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            return self.fc(x) @ self.table.t()

    return dict(model=Classifier(), inputs=(torch.randn(3, 4),), loss=lambda o: o.square().sum())


def quiet_first_values_kept_to_stay_near_them():
    class Near(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)
            self.first = self.fc.weight.detach().clone()

        def forward(self, x):
            return self.fc(x).sum() + (self.fc.weight - self.first).square().sum()

    return dict(model=Near(), inputs=(torch.randn(3, 4),), loss=lambda o: o)
