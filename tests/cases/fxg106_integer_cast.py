"""Cases of FXG106 integer-cast."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


def guilty_long_for_an_index() -> dict[str, Any]:
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.where = nn.Linear(4, 1)
            self.table = nn.Embedding(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            index = (torch.sigmoid(self.where(x)) * 7).long()  # FXG106
            return self.table(index.squeeze(-1)) + x

    return dict(model=Positions(), inputs=(torch.randn(5, 4),), loss=lambda o: o.pow(2).mean())


def guilty_to_and_back() -> dict[str, Any]:
    def quantize(x: torch.Tensor, levels: int) -> torch.Tensor:
        x = (x.clamp(0, 1) * levels).to(torch.uint8)  # FXG106
        return x.float() / levels

    class Codec(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encode, self.decode = nn.Conv1d(1, 2, 3, padding=1), nn.Conv1d(2, 1, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.decode(quantize(torch.sigmoid(self.encode(x)), 255))

    return dict(model=Codec(), inputs=(torch.randn(2, 1, 6),), loss=lambda o: o.pow(2).mean())


def guilty_integer_buffer_filled() -> dict[str, Any]:
    class Collect(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.steps = nn.ModuleList([nn.Linear(3, 1) for _ in range(3)])
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = torch.zeros(x.shape[0], 3, dtype=torch.long)
            for i, step in enumerate(self.steps):
                out[:, i] = step(x).squeeze(-1)  # FXG106
            return out * self.scale

    return dict(model=Collect(), inputs=(torch.randn(4, 3) * 9,), loss=lambda o: o.pow(2).mean())


def guilty_cast_to_the_type_of_the_labels() -> dict[str, Any]:
    labels = torch.randint(0, 5, (4,))

    def loss(out: torch.Tensor) -> torch.Tensor:
        guess = out.squeeze(-1).type_as(labels)  # FXG106
        return (guess - labels).abs().float().mean()  # FXG116

    return dict(model=nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)), inputs=(torch.randn(4, 3),), loss=loss)


def guilty_int_method_in_a_module() -> dict[str, Any]:
    class ToInt(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.round().int()  # FXG106

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pre = nn.Sequential(nn.Linear(4, 4), nn.Softplus(), ToInt())
            self.bias = nn.Parameter(torch.zeros(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.pre(x) + self.bias

    return dict(model=Net(), inputs=(torch.randn(3, 4),), loss=lambda o: o.pow(2).mean())


def guilty_bool_gate() -> dict[str, Any]:
    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.value = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            is_open = torch.relu(self.gate(x)).to(dtype=torch.bool)  # FXG106
            return self.value(x).masked_fill(~is_open, 0.0)

    return dict(model=Gate(), inputs=(torch.randn(3, 4),), loss=lambda o: o.sum())


def guilty_learned_length() -> dict[str, Any]:
    class Duration(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.duration, self.out = nn.Linear(4, 1), nn.Linear(4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            repeats = F.softplus(self.duration(x)).squeeze(-1).type(torch.LongTensor) + 1  # FXG106
            return self.out(torch.repeat_interleave(x, repeats, dim=0))

    return dict(model=Duration(), inputs=(torch.randn(5, 4),), loss=lambda o: o.mean())


def quiet_indices_from_the_inputs() -> dict[str, Any]:
    class Times(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.out = nn.Embedding(10, 4), nn.Linear(4, 1)

        def forward(self, t: torch.Tensor) -> torch.Tensor:
            return self.out(self.table((t * 9).long()) * t.unsqueeze(-1))

    return dict(model=Times(), inputs=(torch.rand(5),), loss=lambda o: o.pow(2).mean())


def quiet_labels_cast() -> dict[str, Any]:
    target = torch.tensor([0.0, 2.0, 1.0])
    return dict(model=nn.Linear(4, 3), inputs=(torch.randn(3, 4),), loss=lambda o: F.cross_entropy(o, target.long()))


def quiet_rounding_straight_through() -> dict[str, Any]:
    class Quantize(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.step = nn.Linear(4, 4), nn.Parameter(torch.tensor(0.1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.fc(x) / self.step
            return (y + (y.round().int().float() - y).detach()) * self.step

    return dict(model=Quantize(), inputs=(torch.randn(3, 4),), loss=lambda o: o.pow(2).mean())


def quiet_relative_position_buckets() -> dict[str, Any]:
    class Bias(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias, self.q = nn.Embedding(8, 1), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            n = torch.arange(x.shape[1])
            distance = (n[None] - n[:, None]).abs()
            bucket = torch.log2(distance.float() + 1).to(torch.int64).clamp(max=7)
            return self.q(x) @ x.transpose(1, 2) + self.bias(bucket).squeeze(-1)

    return dict(model=Bias(), inputs=(torch.randn(2, 5, 4),), loss=lambda o: o.pow(2).mean())


def quiet_predicted_length_with_its_own_loss() -> dict[str, Any]:
    class Duration(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.duration, self.out = nn.Linear(4, 1), nn.Linear(4, 1)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            log_duration = self.duration(x).squeeze(-1)
            repeats = (log_duration.exp().round().long() % 3) + 1
            return self.out(torch.repeat_interleave(x, repeats, dim=0)), log_duration

    return dict(model=Duration(), inputs=(torch.randn(5, 4),), loss=lambda o: o[0].mean() + o[1].pow(2).mean())


def quiet_counter_and_mask() -> dict[str, Any]:
    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)
            self.register_buffer("calls", torch.zeros((), dtype=torch.long))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            h = self.fc(x)
            active = (h > 0).int().sum(-1, keepdim=True)
            return h / (active + 1)

    return dict(model=Steps(), inputs=(torch.randn(3, 4),), loss=lambda o: o.pow(2).mean())


def quiet_boolean_mask_of_trained_scores() -> dict[str, Any]:
    class Pruned(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.score = nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(3, 4))

        def forward(self, x):
            keep = (self.score > self.score.median()).to(torch.uint8)
            mask = keep.float() + self.score.sigmoid() - self.score.sigmoid().detach()
            return F.linear(x, self.weight * mask)

    return dict(model=Pruned(), inputs=(torch.randn(2, 4),), loss=lambda o: o.square().mean())


def quiet_bilinear_sampling_at_learned_places() -> dict[str, Any]:
    class Sampler(nn.Module):
        def __init__(self):
            super().__init__()
            self.offset = nn.Linear(2, 1)

        def forward(self, x, signal):
            at = self.offset(x).squeeze(-1).sigmoid() * (len(signal) - 2)
            left = at.floor().long()
            part = at - left.float()
            return signal[left] * (1 - part) + signal[left + 1] * part

    return dict(model=Sampler(), inputs=(torch.randn(4, 2), torch.randn(6)), loss=lambda o: o.square().mean())


def quiet_hashed_coordinates_of_a_grid() -> dict[str, Any]:
    class HashGrid(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.out = nn.Embedding(16, 2), nn.Linear(2, 1)

        def forward(self, x):
            corner = (x * 4).floor().to(torch.int32)
            weight = (x * 4 - corner).prod(-1, keepdim=True)
            index = (corner[:, 0] * 1 ^ corner[:, 1] * 2654435) % 16
            return self.out(self.table(index.long()) * weight)

    return dict(model=HashGrid(), inputs=(torch.rand(5, 2),), loss=lambda o: o.square().mean())


def quiet_fake_quantised_weights() -> dict[str, Any]:
    class Qat(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(2, 4))

        def forward(self, x):
            scale = self.weight.detach().abs().max() / 127
            stored = (self.weight / scale).round().clamp(-128, 127).to(torch.int8)
            w = self.weight + (stored * scale - self.weight).detach()
            return F.linear(x, w)

    return dict(model=Qat(), inputs=(torch.randn(3, 4),), loss=lambda o: o.square().mean())


def quiet_picture_of_the_output_as_bytes() -> dict[str, Any]:
    class Painter(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.picture = nn.Linear(4, 6), None

        def forward(self, x):
            y = self.net(x).sigmoid()
            self.picture = (y * 255).byte()
            return y

    return dict(model=Painter(), inputs=(torch.randn(3, 4),), loss=lambda o: o.square().mean())
