"""FXG115: branches on the values of tensors that starve parameters, and branches that starve nothing."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


def guilty_item_comparison_skips_a_block() -> dict[str, Any]:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.extra, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.stem(x)
            if h.abs().mean().item() > 100.0:  # FXG115
                h = h + self.extra(h)
            return self.head(h)

    return dict(model=Gated(), inputs=(torch.randn(3, 4),), loss=lambda out: out.square().mean())


def guilty_layer_drop_by_float() -> dict[str, Any]:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])
            self.embed = nn.Linear(2, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.embed(x)
            draws = torch.Generator().manual_seed(3)
            for layer in self.layers:
                if float(torch.rand((), generator=draws)) < 0.5:  # FXG115
                    continue
                h = h + torch.tanh(layer(h))
            return h

    return dict(model=Encoder(), inputs=(torch.randn(3, 2),), loss=lambda out: out.square().mean())


def guilty_any_chooses_the_head() -> dict[str, Any]:
    class Router(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads = nn.ModuleDict({"long": nn.Linear(4, 1), "short": nn.Linear(4, 1)})

        def pick(self, mask: torch.Tensor) -> nn.Module:
            if mask.any():  # FXG115
                return self.heads["long"]
            return self.heads["short"]

        def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return self.pick(mask)(x)

    return dict(model=Router(), inputs=(torch.randn(2, 4), torch.tensor([True, False])), loss=lambda out: out.square().mean())


def guilty_early_return_when_sure() -> dict[str, Any]:
    class Cascade(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.small, self.large = nn.Linear(4, 3), nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))

        def sure(self, logits: torch.Tensor) -> torch.Tensor:
            return logits.softmax(-1).amax(-1).min() > 0.05

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits = self.small(x)
            if self.sure(logits):  # FXG115
                return logits
            return logits + self.large(x)

    return dict(model=Cascade(), inputs=(torch.randn(4, 4),), loss=lambda out: F.cross_entropy(out, torch.tensor([0, 1, 2, 0])))


def guilty_nested_conditions() -> dict[str, Any]:
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.a(x)
            if x.sum() > 50:  # FXG115
                h = self.b(h) if x.max() > 60 else self.c(h)  # or FXG115
            return h

    return dict(model=Nested(), inputs=(torch.randn(2, 3),), loss=lambda out: out.square().mean())


def guilty_python_max_of_losses() -> dict[str, Any]:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(3, 1), nn.Linear(3, 1)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.left(x).square().mean(), self.right(x).square().mean() + 5.0

    return dict(model=Two(), inputs=(torch.randn(4, 3),), loss=lambda out: max(out))  # FXG115


def guilty_while_loop_adds_steps() -> dict[str, Any]:
    class Refine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.step, self.read = nn.Linear(3, 3), nn.Linear(3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            rounds = 0
            while x.norm() > 1000 and rounds < 4:  # FXG115
                x = 0.5 * self.step(x)
                rounds += 1
            return self.read(x)

    return dict(model=Refine(), inputs=(torch.randn(2, 3),), loss=lambda out: out.square().mean())


def guilty_auxiliary_loss_only_if_positive() -> dict[str, Any]:
    class Vae(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encode, self.log_var, self.decode = nn.Linear(4, 2), nn.Linear(4, 2), nn.Linear(2, 4)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            mean = self.encode(x)
            return {"x": self.decode(mean), "kl": self.log_var(x).exp().mean() - 30.0}

    x = torch.randn(3, 4)

    def loss(out: dict[str, torch.Tensor]) -> torch.Tensor:
        total = F.mse_loss(out["x"], x)
        if out["kl"] > 0:  # FXG115
            total = total + out["kl"]
        return total

    return dict(model=Vae(), inputs=(x,), loss=loss)


def guilty_tokens_of_an_expert() -> dict[str, Any]:
    class Moe(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.ModuleList([nn.Linear(3, 3) for _ in range(4)])
            self.register_buffer("route", torch.tensor([0, 0, 2, 2]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = torch.zeros_like(x)
            for index, expert in enumerate(self.experts):
                chosen = (self.route == index).nonzero().flatten()
                if chosen.sum() + (self.route == index).sum() == 0:  # FXG115
                    continue
                out = out.index_add(0, chosen, expert(x[chosen]))
            return out

    return dict(model=Moe(), inputs=(torch.randn(4, 3),), loss=lambda out: out.square().mean())


def guilty_ternary_in_a_lambda_loss() -> dict[str, Any]:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.near, self.far = nn.Linear(2, 1), nn.Linear(2, 1)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.near(x).sum(), self.far(x).sum()

    flag = torch.tensor(1)
    return dict(model=Pair(), inputs=(torch.randn(3, 2),), loss=lambda out: out[0] if flag == 1 else out[1])  # FXG115


def guilty_gate_that_only_decides() -> dict[str, Any]:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Parameter(torch.tensor(0.7))
            self.body = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if torch.sigmoid(self.gate) > 0.5:  # FXG115
                return self.body(x)
            return self.body(x) + x

    return dict(model=Gated(), inputs=(torch.randn(2, 3),), loss=lambda out: out.square().sum())


def guilty_expert_by_index() -> dict[str, Any]:
    class Switch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.ModuleList([nn.Linear(3, 2) for _ in range(4)])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            chosen = int(x.sum(0).argmax())  # FXG115
            return self.experts[chosen](x)

    return dict(model=Switch(), inputs=(torch.ones(2, 3),), loss=lambda out: out.square().sum())


def guilty_expert_without_tokens() -> dict[str, Any]:
    class Moe(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.ModuleList([nn.Linear(3, 3) for _ in range(3)])

        def forward(self, x: torch.Tensor, route: torch.Tensor) -> torch.Tensor:
            out = torch.zeros_like(x)
            for number, expert in enumerate(self.experts):
                tokens = (route == number).nonzero().flatten()
                if tokens.numel() == 0:  # FXG115
                    continue
                out[tokens] = expert(x[tokens])
            return out

    return dict(model=Moe(), inputs=(torch.randn(4, 3), torch.tensor([0, 2, 2, 0])), loss=lambda out: out.square().sum())


def guilty_empty_selection_in_the_loss() -> dict[str, Any]:
    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.classes, self.boxes = nn.Linear(3, 2), nn.Linear(3, 4)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.classes(x), self.boxes(x)

    labels, boxes = torch.zeros(3, dtype=torch.long), torch.rand(3, 4)

    def loss(out: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        total = F.cross_entropy(out[0], labels)
        positive = out[1][labels > 0]
        if len(positive):  # FXG115
            total = total + F.l1_loss(positive, boxes[labels > 0])
        return total

    return dict(model=Detector(), inputs=(torch.randn(3, 3),), loss=loss)


def guilty_condition_in_numpy() -> dict[str, Any]:
    class Adaptive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.coarse, self.fine = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            spread = np.percentile(x.numpy(), 90)
            out = self.coarse(x)
            if spread > 50:  # FXG115
                out = out + self.fine(x)
            return out

    return dict(model=Adaptive(), inputs=(torch.randn(3, 3),), loss=lambda out: out.square().sum())


def guilty_condition_in_a_variable() -> dict[str, Any]:
    class Skipping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.extra = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            large = float(x.norm()) > 100.0
            h = self.embed(x)
            if large and self.training:  # FXG115
                h = self.extra(h)
            return h

    return dict(model=Skipping(), inputs=(torch.randn(3, 3),), loss=lambda out: out.square().sum())


def guilty_truth_kept_in_a_variable() -> dict[str, Any]:
    class Skipping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.extra = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            large = bool(x.norm() > 100.0)
            h = self.embed(x)
            if large and self.training:  # FXG115
                h = self.extra(h)
            return h

    return dict(model=Skipping(), inputs=(torch.randn(3, 3),), loss=lambda out: out.square().sum())


# ---------------------------------------------------------------------------------------------------------------- healthy


def guilty_experts_by_counts_that_must_add_up() -> dict[str, Any]:
    """No single count can be changed: the split would not fit. Other weights send the tokens elsewhere."""

    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.route = nn.Linear(4, 4)
            self.experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            weight, chosen = self.route(x).softmax(-1).max(-1)
            order = chosen.argsort()
            counts = torch.bincount(chosen, minlength=4).tolist()  # or FXG115
            parts = x[order].split(counts)
            out = torch.cat([expert(part) for expert, part in zip(self.experts, parts, strict=True) if len(part)])  # FXG115
            return out * weight[order, None]

    return dict(model=Experts(), inputs=(torch.randn(2, 4),), loss=lambda out: out.square().mean())


def guilty_experts_by_counts_in_numpy() -> dict[str, Any]:
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.route = nn.Linear(4, 4)
            self.experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            weight, chosen = self.route(x).softmax(-1).topk(1)
            order = chosen.view(-1).argsort()
            outs, start = [], 0
            for number, count in enumerate(chosen.view(-1).bincount(minlength=4).numpy()):
                if count == 0:  # FXG115
                    continue
                outs.append(self.experts[number](x[order[start : start + count]]))
                start += count
            return torch.cat(outs) * weight[order]

    return dict(model=Experts(), inputs=(torch.randn(2, 4),), loss=lambda out: out.square().mean())


def quiet_guard_that_raises() -> dict[str, Any]:
    class Checked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = self.net(x)
            if torch.isnan(out).any():
                raise FloatingPointError("not a number")
            assert out.abs().max() < 1e6, "overflow"
            return out

    return dict(model=Checked(), inputs=(torch.randn(2, 3),), loss=lambda out: out.square().mean())


def quiet_nan_guard_in_the_loss() -> dict[str, Any]:
    """The other outcome drops the whole step, nothing would train there: a guard, not an alternative."""
    model = nn.Linear(3, 2)

    def loss(out: torch.Tensor) -> torch.Tensor:
        value = out.square().mean()
        if torch.isnan(value):
            return torch.zeros((), requires_grad=True)
        return value

    return dict(model=model, inputs=(torch.randn(2, 3),), loss=loss)


def quiet_both_outcomes_train_everything() -> dict[str, Any]:
    class Clipped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.out = nn.Linear(3, 3), nn.Linear(3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.net(x)
            if h.norm() > 10:
                h = h * (10 / h.norm())
            return self.out(h)

    return dict(model=Clipped(), inputs=(torch.randn(2, 3),), loss=lambda out: out.square().mean())


def quiet_logging_every_so_often() -> dict[str, Any]:
    class Logged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(3, 1)
            self.register_buffer("step", torch.tensor(7))
            self.seen: list[float] = []

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = self.net(x)
            if self.step % 10 == 0:
                self.seen.append(out.mean().item())
            return out

    return dict(model=Logged(), inputs=(torch.randn(2, 3),), loss=lambda out: out.square().mean())


def quiet_branch_on_a_shape() -> dict[str, Any]:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.long = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.dim() == 3 or len(x) > 5:
                return self.long(x)
            return self.net(x) + 0.0 * self.long(x)

    net = nn.Sequential(Pooled(), nn.Linear(2, 1))
    return dict(model=net, inputs=(torch.randn(6, 3),), loss=lambda out: out.mean(), expect=["0.long.*"])


def quiet_torch_where_instead_of_if() -> dict[str, Any]:
    class Soft(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.where(x.sum(-1, keepdim=True) > 0, self.a(x), self.b(x))

    return dict(model=Soft(), inputs=(torch.randn(6, 3),), loss=lambda out: out.square().mean())


def quiet_metric_branches_in_the_loss() -> dict[str, Any]:
    model = nn.Linear(3, 2)
    best = {"value": 1e9}

    def loss(out: torch.Tensor) -> torch.Tensor:
        value = out.square().mean()
        if value.item() < best["value"]:
            best["value"] = value.item()
        return value

    return dict(model=model, inputs=(torch.randn(3, 3),), loss=loss)


def quiet_frozen_alternative() -> dict[str, Any]:
    """The branch that the inputs do not take uses only a frozen layer beside what always trains."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.prior = nn.Linear(3, 2), nn.Linear(3, 2).requires_grad_(False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = self.net(x)
            if x.mean() > 3:
                out = out + self.prior(x)
            return out

    return dict(model=Net(), inputs=(torch.randn(3, 3),), loss=lambda out: out.square().mean())


def quiet_max_of_python_numbers() -> dict[str, Any]:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            scale = max(1.0, x.abs().max().item(), random.random())
            return self.net(x / scale)

    return dict(model=Scaled(), inputs=(torch.randn(3, 3),), loss=lambda out: out.square().mean())


def quiet_convergence_loop() -> dict[str, Any]:
    class Equilibrium(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.step, self.read = nn.Linear(3, 3), nn.Linear(3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            z = torch.zeros_like(x)
            for _ in range(5):
                following = torch.tanh(0.5 * self.step(z) + x)
                done = (following - z).abs().max() < 1e-3
                z = following
                if done:
                    break
            return self.read(z)

    return dict(model=Equilibrium(), inputs=(torch.randn(2, 3),), loss=lambda out: out.square().mean())


def quiet_index_into_one_weight() -> dict[str, Any]:
    """A number read off the data chooses a row; the whole table is one parameter and gets its gradient."""

    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows = nn.Parameter(torch.randn(4, 3))

        def forward(self, x: torch.Tensor, kind: torch.Tensor) -> torch.Tensor:
            return x * self.rows[kind.item()]

    return dict(model=Rows(), inputs=(torch.randn(2, 3), torch.tensor(2)), loss=lambda out: out.square().sum())


def quiet_parameter_checked_by_an_assertion() -> dict[str, Any]:
    class Bounded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(0.5))
            self.net = nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.scale <= 0:
                raise ValueError("the scale must be positive")
            return self.net(x) * self.scale

    return dict(model=Bounded(), inputs=(torch.randn(2, 3),), loss=lambda out: out.square().sum())


def quiet_data_decides_only_what_is_logged() -> dict[str, Any]:
    class Logged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.unused = nn.Linear(3, 2), nn.Linear(3, 2).requires_grad_(False)
            self.worst: list[int] = []

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = self.net(x)
            self.worst.append(int(out.norm(dim=-1).argmax()))
            if np.asarray(out.detach()).max() > 10:
                self.worst.clear()
            return out

    return dict(model=Logged(), inputs=(torch.randn(2, 3),), loss=lambda out: out.square().sum())


def quiet_loss_scale_skips_a_bad_step() -> dict[str, Any]:
    model = nn.Linear(3, 2)
    state = {"scale": 2.0**8, "bad": 0}

    def loss(out):
        value = out.square().mean()
        if not torch.isfinite(value):
            state["scale"] /= 2
            state["bad"] += 1
        return value * state["scale"]

    return dict(model=model, inputs=(torch.randn(4, 3),), loss=loss)


def quiet_padding_stripped_if_there_is_any() -> dict[str, Any]:
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.emb, self.out = nn.Embedding(8, 4, padding_idx=0), nn.Linear(4, 2)

        def forward(self, ids):
            while ids.shape[1] > 1 and (ids[:, -1] == 0).all():
                ids = ids[:, :-1]
            return self.out(self.emb(ids).mean(1))

    return dict(model=Reader(), inputs=(torch.tensor([[1, 2, 0], [3, 4, 0]]),), loss=lambda o: o.square().mean())


def quiet_wide_or_narrow_path_of_the_same_weights() -> dict[str, Any]:
    class Slimmable(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 1)

        def forward(self, x, width):
            k = 3 if width.item() < 0.5 else 6
            h = F.linear(x, self.a.weight[:k], self.a.bias[:k]).relu()
            return F.linear(h, self.b.weight[:, :k], self.b.bias)

    return dict(model=Slimmable(), inputs=(torch.randn(3, 4), torch.tensor(0.7)), loss=lambda o: o.square().mean())


def quiet_stable_softplus_by_cases() -> dict[str, Any]:
    class Stable(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.beta = nn.Linear(3, 1), nn.Parameter(torch.tensor(1.0))

        def forward(self, x):
            z = self.beta * self.fc(x)
            if z.max() > 30:
                return z + torch.log1p((-z).exp())
            return torch.log1p(z.exp())

    return dict(model=Stable(), inputs=(torch.randn(3, 3),), loss=lambda o: o.mean())


def quiet_swapped_inputs_of_a_siamese_pair() -> dict[str, Any]:
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, a, b):
            if random.random() < 0.5:
                a, b = b, a
            return (self.left(a) - self.right(b)).square().sum(-1)

    return dict(model=Pair(), inputs=(torch.randn(4, 3), torch.randn(4, 3)), loss=lambda o: o.mean())


def quiet_line_search_over_a_trained_step() -> dict[str, Any]:
    class Prox(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.log_step = nn.Linear(4, 4, bias=False), nn.Parameter(torch.tensor(-2.0))

        def forward(self, x):
            z, step = x, self.log_step.exp()
            for _ in range(2):
                g = self.a(z).tanh()
                while float((step * g).norm()) > 5:
                    step = step / 2
                z = z - step * g
            return z

    return dict(model=Prox(), inputs=(torch.randn(3, 4),), loss=lambda o: o.square().mean())


def quiet_warm_up_counted_in_a_buffer() -> dict[str, Any]:
    class Warm(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 3)
            self.register_buffer("step", torch.tensor(0))
            self.register_buffer("scale", torch.tensor(0.0))

        def forward(self, x):
            y = self.fc(x)
            if self.step == 0:
                self.scale.copy_(y.detach().abs().mean())
            self.step += 1
            return y / self.scale.clamp(min=0.1)

    return dict(model=Warm(), inputs=(torch.randn(3, 4),), loss=lambda o: o.square().mean())


def quiet_early_stop_of_an_inner_optimisation() -> dict[str, Any]:
    class Sinkhorn(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = nn.Linear(3, 3)

        def forward(self, x, y):
            k = (-torch.cdist(self.f(x), self.f(y))).exp()
            u = v = torch.ones(len(x)) / len(x)
            for _ in range(6):
                before, u = u, 1 / (k @ v)
                v = 1 / (k.T @ u)
                if torch.allclose(u, before, atol=1e-4):
                    break
            return (u[:, None] * k * v).square().sum()

    return dict(model=Sinkhorn(), inputs=(torch.randn(4, 3), torch.randn(4, 3)))


class _Stepped(nn.Module):
    """Steps of a field until a time is past."""

    def __init__(self):
        super().__init__()
        self.field, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def stepped(self, h):
        time, end = torch.zeros(()), torch.ones(())
        while end > time:
            h, time = h + 0.1 * self.field(h), time + 0.6
        return h, time, end


def quiet_loop_whose_end_is_asserted() -> dict[str, Any]:
    """Without a step the assertion fails: the program has no such path."""

    class Solved(_Stepped):
        def forward(self, x):
            h, time, end = self.stepped(x)
            assert (end <= time) & (time >= 0), f"stopped too early: {time}"
            return self.head(h)

    return dict(model=Solved(), inputs=(torch.randn(3, 4),), loss=lambda o: o.square().mean())


def quiet_loop_whose_end_is_checked() -> dict[str, Any]:
    class Solved(_Stepped):
        def forward(self, x):
            h, time, end = self.stepped(x)
            if time < end:
                raise ValueError("stopped too early")
            return self.head(h)

    return dict(model=Solved(), inputs=(torch.randn(3, 4),), loss=lambda o: o.square().mean())


def guilty_branch_before_a_check_that_passes() -> dict[str, Any]:
    class Checked(_Stepped):
        def forward(self, x):
            h = x
            if x.sum() > 1e3:  # FXG115
                h = h + self.field(h)
            assert h.isfinite().all(), "not finite"
            return self.head(h)

    return dict(model=Checked(), inputs=(torch.randn(3, 4),), loss=lambda o: o.square().mean())
