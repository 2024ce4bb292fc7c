"""Cases of FXG116 loss-without-grad."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


def guilty_loss_is_a_number() -> dict[str, Any]:
    def loss(out: torch.Tensor) -> float:
        return out.pow(2).mean().item()  # FXG116

    return dict(model=nn.Linear(3, 2), inputs=(torch.randn(4, 3),), loss=loss)


def guilty_everything_frozen() -> dict[str, Any]:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(3, 3), nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(torch.relu(self.body(x)))

    model = Net()
    for parameter in model.parameters():
        parameter.requires_grad = False  # FXG102
    target = torch.randn(4, 2)
    return dict(model=model, inputs=(torch.randn(4, 3),), loss=lambda o: F.mse_loss(o, target))  # FXG116


def guilty_wrong_variables_compared() -> dict[str, Any]:
    class Loss(nn.Module):
        def __init__(self, target: torch.Tensor) -> None:
            super().__init__()
            self.target = target

        def forward(self, prediction: torch.Tensor) -> torch.Tensor:
            target = self.target.view(prediction.shape)
            return F.mse_loss(target, self.target)  # FXG116

    return dict(model=nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), inputs=(torch.randn(4, 3),), loss=Loss(torch.randn(4, 2)))


def guilty_empty_sum_of_terms() -> dict[str, Any]:
    class MultiLoss:
        def __init__(self, terms: dict[str, float]) -> None:
            self.terms = terms

        def __call__(self, out: dict[str, torch.Tensor]) -> torch.Tensor:
            total = torch.zeros(())  # or FXG116
            for name, weight in self.terms.items():
                if name in out:
                    total = total + weight * out[name].pow(2).mean()
            return total  # FXG116

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"first": self.a(x), "second": self.b(x)}

    return dict(model=Net(), inputs=(torch.randn(4, 3),), loss=MultiLoss({"loss_first": 1.0, "loss_second": 0.5}))


def guilty_loss_not_returned() -> dict[str, Any]:
    def loss(out: torch.Tensor) -> None:
        value = F.relu(out).mean()
        value * 2  # FXG116

    return dict(model=nn.Linear(3, 2), inputs=(torch.randn(4, 3),), loss=loss)


def guilty_loss_of_many_numbers() -> dict[str, Any]:
    target = torch.randn(4, 2)

    def per_sample(out: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(out, target, reduction="none")  # FXG116

    return dict(model=nn.Linear(3, 2), inputs=(torch.randn(4, 3),), loss=per_sample)


def guilty_tuple_instead_of_a_loss() -> dict[str, Any]:
    def loss(out: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
        value = out.pow(2).mean()
        return value, {"mse": 0.0}  # FXG116

    return dict(model=nn.Linear(3, 2), inputs=(torch.randn(4, 3),), loss=loss)


def quiet_a_module_without_parameters() -> dict[str, Any]:
    class Round(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x.clamp(-1, 1) * 8).round() / 8

    return dict(model=Round(), inputs=(torch.randn(4, 3),))


def quiet_a_module_without_parameters_returns_indices_too() -> dict[str, Any]:
    class Nearest(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("codes", torch.randn(5, 3))

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            found = torch.cdist(x, self.codes).argmin(1)
            return self.codes[found], found

    return dict(model=Nearest(), inputs=(torch.randn(4, 3),))


def quiet_loss_kept_by_the_model() -> dict[str, Any]:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            h = self.fc(x)
            return {"loss": h.pow(2).mean(), "accuracy": (h > 0).float().mean()}

    return dict(model=Net(), inputs=(torch.randn(4, 3),), loss=lambda out: out["loss"])


def quiet_one_element_loss() -> dict[str, Any]:
    return dict(model=nn.Linear(3, 1), inputs=(torch.randn(1, 3),), loss=lambda o: o)


def quiet_zero_start_of_a_sum() -> dict[str, Any]:
    def loss(outs: list[torch.Tensor]) -> torch.Tensor:
        total = torch.tensor(0.0)
        for out in outs:
            total += out.pow(2).mean()
        return total

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [self.a(x), self.b(x)]

    return dict(model=Net(), inputs=(torch.randn(4, 3),), loss=loss)


def quiet_only_the_input_needs_a_gradient() -> dict[str, Any]:
    return dict(model=nn.Linear(3, 2).requires_grad_(False), inputs=(torch.randn(4, 3, requires_grad=True),), loss=lambda o: o.sum())


def quiet_loss_module_with_constants() -> dict[str, Any]:
    class Focal(nn.Module):
        def __init__(self, target: torch.Tensor) -> None:
            super().__init__()
            self.register_buffer("weight", torch.tensor([0.3, 0.7]))
            self.target = target

        def forward(self, logits: torch.Tensor) -> torch.Tensor:
            ce = F.cross_entropy(logits, self.target, weight=self.weight, reduction="none")
            with torch.no_grad():
                hard = (1 - torch.exp(-ce)) ** 2
            return (hard * ce).mean()

    return dict(model=nn.Linear(3, 2), inputs=(torch.randn(4, 3),), loss=Focal(torch.tensor([0, 1, 0, 1])))


def _mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def guilty_float_of_loss() -> dict[str, Any]:
    def crit(o):
        value = o.pow(2).mean()
        return float(value)  # FXG116

    return dict(model=_mlp(), inputs=(torch.randn(2, 3),), loss=crit)


def guilty_sum_of_items() -> dict[str, Any]:
    def crit(o):
        total = 0
        for row in o:
            total += row.pow(2).mean().item()  # FXG116
        return total

    return dict(model=_mlp(), inputs=(torch.randn(2, 3),), loss=crit)


def guilty_numpy_metric() -> dict[str, Any]:
    class Rmse:
        def __call__(self, o):
            p = o.detach().numpy()  # FXG116
            return np.sqrt(np.mean(p**2))

    return dict(model=_mlp(), inputs=(torch.randn(2, 3),), loss=Rmse())


def guilty_method_returns_none() -> dict[str, Any]:
    class Crit(nn.Module):
        def __init__(self):
            super().__init__()
            self.l = nn.MSELoss()

        def forward(self, o):
            self.value = self.l(o, torch.zeros_like(o))  # FXG116

    return dict(model=_mlp(), inputs=(torch.randn(2, 3),), loss=Crit())


def guilty_list_returned() -> dict[str, Any]:
    return dict(model=_mlp(), inputs=(torch.randn(2, 3),), loss=lambda o: [o.sum(), o.mean()])  # FXG116


def guilty_dict_returned() -> dict[str, Any]:
    class Crit(nn.Module):
        def forward(self, o):
            return {"mse": o.pow(2).mean(), "l1": o.abs().mean()}  # FXG116

    return dict(model=_mlp(), inputs=(torch.randn(2, 3),), loss=Crit())


def guilty_constant_loss() -> dict[str, Any]:
    class Reg(nn.Module):
        def forward(self, o):
            penalty = torch.tensor(0.0)
            for n in []:
                penalty = penalty + n
            return penalty  # FXG116

    return dict(model=_mlp(), inputs=(torch.randn(2, 3),), loss=Reg())


def guilty_target_twice() -> dict[str, Any]:
    t = torch.randn(2, 2)

    def crit(o):
        pred, target = t, t * 1.0
        return F.l1_loss(pred, target)  # FXG116

    return dict(model=_mlp(), inputs=(torch.randn(2, 3),), loss=crit)


def guilty_model_loss_no_grad() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = _mlp()

        def forward(self, x, y):
            self.seen = self.f(x)
            loss = F.mse_loss(y, y.clone())  # FXG116
            return loss

    return dict(model=N(), inputs=(torch.randn(2, 3), torch.randn(2, 2)))


def guilty_all_frozen_eval() -> dict[str, Any]:
    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = _mlp()
            self.net.requires_grad_(False)  # FXG102

        def forward(self, x):
            return self.net(x)

    return dict(model=Head(), inputs=(torch.randn(2, 3),), loss=lambda o: o.sum())  # FXG116


def quiet_loss_in_float64() -> dict[str, Any]:
    return dict(model=_mlp().double(), inputs=(torch.randn(2, 3, dtype=torch.float64),), loss=lambda o: o.pow(2).mean())


def quiet_loss_with_logged_item() -> dict[str, Any]:
    log = []

    def crit(o):
        value = o.pow(2).mean()
        log.append(value.item())
        return value

    return dict(model=_mlp(), inputs=(torch.randn(2, 3),), loss=crit)


def quiet_weighted_by_detached_item() -> dict[str, Any]:
    def crit(o):
        a, b = o[:, 0].pow(2).mean(), o[:, 1].abs().mean()
        return a + b * (a.item() / (b.item() + 1e-6))

    return dict(model=_mlp(), inputs=(torch.randn(2, 3),), loss=crit)


def quiet_zero_plus_the_terms_of_a_loop() -> dict[str, Any]:
    def loss(out):
        total = 0
        for column in out.unbind(1):
            total = total + column.square().mean()
        return total / 2

    return dict(model=_mlp(), inputs=(torch.randn(4, 3),), loss=loss)


def quiet_new_zeros_that_collect() -> dict[str, Any]:
    def loss(out):
        total = out.new_zeros(1)
        total[0] = out.square().mean()
        total += out.abs().mean()
        return total.squeeze()

    return dict(model=_mlp(), inputs=(torch.randn(4, 3),), loss=loss)


def quiet_nothing_to_train_but_the_criterion() -> dict[str, Any]:
    class Criterion(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.temperature = _mlp().requires_grad_(False), nn.Parameter(torch.tensor(1.0))

        def forward(self, x):
            return F.cross_entropy(self.encoder(x) * self.temperature, torch.tensor([0, 1, 0, 1]))

    return dict(model=Criterion(), inputs=(torch.randn(4, 3),))


def quiet_penalty_alone_this_time() -> dict[str, Any]:
    model = _mlp()
    return dict(model=model, inputs=(torch.randn(4, 3),), loss=lambda o: sum(p.square().sum() for p in model.parameters()))


def quiet_multiplied_by_a_scale_held_as_a_number() -> dict[str, Any]:
    class Scaler:
        def __init__(self):
            self.factor = torch.tensor(2.0**10)

        def scale(self, value):
            return value * self.factor.item()

    scaler = Scaler()
    return dict(model=_mlp(), inputs=(torch.randn(4, 3),), loss=lambda o: scaler.scale(o.square().mean()) / 4)


def quiet_terms_reduced_and_stacked() -> dict[str, Any]:
    def loss(out):
        terms = {"a": out[:, 0].square().mean(), "b": out[:, 1].abs().mean(), "c": torch.tensor(0.25)}
        weights = torch.tensor([1.0, 0.5, 2.0])
        return functools.reduce(torch.add, (w * t for w, t in zip(weights, terms.values(), strict=True)))

    return dict(model=_mlp(), inputs=(torch.randn(4, 3),), loss=loss)


def quiet_complex_numbers_made_real() -> dict[str, Any]:
    return dict(model=_mlp(), inputs=(torch.randn(4, 3),), loss=lambda o: torch.fft.fft(o).abs().square().mean())


def quiet_loss_in_half_precision() -> dict[str, Any]:
    class Cast(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = _mlp()

        def forward(self, x):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return self.net(x)

    return dict(model=Cast(), inputs=(torch.randn(4, 3),), loss=lambda o: o.float().square().mean())


def quiet_gradient_of_the_energy_as_the_loss() -> dict[str, Any]:
    class Force(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Tanh(), nn.Linear(4, 1, bias=False))

        def forward(self, x):
            return torch.func.vmap(torch.func.grad(lambda row: self.net(row).sum()))(x)

    return dict(model=Force(), inputs=(torch.randn(4, 3),), loss=lambda f: (f - 1).square().mean())


def quiet_one_by_one_loss_matrix() -> dict[str, Any]:
    return dict(model=nn.Linear(3, 1), inputs=(torch.randn(4, 3),), loss=lambda o: o.T @ o)


def quiet_loss_of_the_only_valid_row() -> dict[str, Any]:
    def loss(logits):
        target = torch.tensor([-100, -100, 1, -100])
        return F.cross_entropy(logits, target, ignore_index=-100)

    return dict(model=_mlp(), inputs=(torch.randn(4, 3),), loss=loss)


def quiet_negative_likelihood_of_a_distribution() -> dict[str, Any]:
    class Gaussian(nn.Module):
        def __init__(self):
            super().__init__()
            self.mean, self.scale = nn.Linear(3, 1), nn.Parameter(torch.zeros(1))

        def forward(self, x):
            return torch.distributions.Normal(self.mean(x).squeeze(-1), F.softplus(self.scale))

    return dict(model=Gaussian(), inputs=(torch.randn(4, 3),), loss=lambda d: -d.log_prob(torch.arange(4.0)).mean())
