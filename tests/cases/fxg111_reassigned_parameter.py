"""FXG111: parameters replaced while the model runs, and parameters that are rightly written."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import vector_to_parameters


def guilty_generated_weight_into_data() -> dict[str, Any]:
    class Hyper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.generate = nn.Linear(3, 8)
            self.target = nn.Linear(4, 2, bias=False).requires_grad_(False)

        def forward(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
            self.target.weight.data = self.generate(context).view(2, 4)  # FXG111
            return self.target(x)

    return dict(model=Hyper(), inputs=(torch.randn(5, 4), torch.randn(3)), loss=lambda out: out.square().mean().requires_grad_())


def guilty_plain_tensor_assigned_to_parameter() -> dict[str, Any]:
    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.weight = self.weight / self.weight.norm(dim=1, keepdim=True)  # FXG111
            return F.linear(x, self.weight)

    net = nn.Sequential(nn.Linear(4, 4), Normalised())
    return dict(model=net, inputs=(torch.randn(2, 4),), loss=lambda out: out.square().mean())


def guilty_new_parameter_over_the_old_one() -> dict[str, Any]:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 4))
            self.register_buffer("mask", torch.tensor([[1.0, 0.0, 1.0, 1.0]]).expand(3, 4).clone())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.weight = nn.Parameter(self.weight * self.mask)  # FXG111
            return F.linear(x, self.weight)

    return dict(model=nn.Sequential(Masked(), nn.Tanh(), nn.Linear(3, 1)), inputs=(torch.randn(2, 4),), loss=lambda out: out.sum())


def guilty_vector_to_parameters_in_helper() -> dict[str, Any]:
    class Meta(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.learner = nn.Linear(2, 1)
            self.encode = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3))

        def adapt(self, task: torch.Tensor) -> None:
            vector_to_parameters(self.encode(task).mean(0), self.learner.parameters())  # FXG111

        def forward(self, task: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            self.adapt(task)
            return self.learner(x)

    return dict(model=Meta(), inputs=(torch.randn(4, 3), torch.randn(5, 2)), loss=lambda out: out.square().mean())


def guilty_copy_of_generated_weight_under_no_grad() -> dict[str, Any]:
    class Dynamic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = nn.Linear(3, 3)
            self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():  # or FXG104 FXG111
                self.conv.weight.copy_(self.kernel(x.mean((0, 1))[:3]).view(1, 1, 3))  # FXG104
            return self.conv(x)

    return dict(model=Dynamic(), inputs=(torch.randn(2, 1, 5),), loss=lambda out: out.square().mean())


def guilty_setattr_in_a_loop_over_names() -> dict[str, Any]:
    class Fast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(4, 2)
            self.rate = nn.Parameter(torch.tensor(0.1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            updated = {n: p - self.rate * torch.ones_like(p) for n, p in self.net.named_parameters()}
            for name, value in updated.items():
                setattr(self.net, name, nn.Parameter(value))  # FXG111
            return self.net(x)

    return dict(model=Fast(), inputs=(torch.randn(3, 4),), loss=lambda out: out.square().mean())


def guilty_load_state_dict_of_computed_weights() -> dict[str, Any]:
    class Blend(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.mixed = nn.Linear(3, 2), nn.Linear(3, 2), nn.Linear(3, 2).requires_grad_(False)
            self.alpha = nn.Parameter(torch.tensor(0.3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            a, b = dict(self.a.named_parameters()), dict(self.b.named_parameters())
            self.mixed.load_state_dict({k: self.alpha * a[k] + (1 - self.alpha) * b[k] for k in a})  # FXG111
            return self.mixed(x)

    return dict(model=Blend(), inputs=(torch.randn(4, 3),), loss=lambda out: out.square().mean().requires_grad_())


def guilty_generated_weight_copied_into_data() -> dict[str, Any]:
    class Film(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norms = nn.ModuleList([nn.LayerNorm(4), nn.LayerNorm(4)])
            self.gamma = nn.Linear(3, 4)

        def forward(self, x: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
            gamma = self.gamma(style)
            for norm in self.norms:
                norm.weight.data.copy_(gamma)  # FXG111
                x = norm(x)
            return x

    return dict(model=Film(), inputs=(torch.randn(2, 4), torch.randn(3)), loss=lambda out: (out * torch.arange(4.0)).sum())


def guilty_fresh_parameter_in_every_forward() -> dict[str, Any]:
    class Noisy(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.weight = nn.Parameter(torch.randn(self.out_features, self.in_features))  # FXG111
            return super().forward(x)

    net = nn.Sequential(nn.Linear(4, 4), Noisy(4, 2))
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    return dict(model=net, inputs=(torch.randn(3, 4),), loss=lambda out: out.square().mean(), optimizer=optimizer)


def guilty_weight_set_to_none() -> dict[str, Any]:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.fc = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(torch.relu(self.embed(x)))

    model = Net()
    model.fc.weight = None  # FXG111
    return dict(model=model, inputs=(torch.randn(3, 4),), loss=lambda out: out.square().mean())


def guilty_mask_stored_through_data() -> dict[str, Any]:
    """The mask is learned; writing it into `.data` leaves its parameters out."""

    class Pruned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)
            self.scores = nn.Parameter(torch.randn(3, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.layer.weight.data = self.layer.weight.data * torch.sigmoid(self.scores)  # FXG111
            return self.layer(x)

    return dict(model=Pruned(), inputs=(torch.randn(2, 4),), loss=lambda out: out.square().mean())


# ---------------------------------------------------------------------------------------------------------------- healthy


def quiet_functional_call_with_generated_weights() -> dict[str, Any]:
    class Hyper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.generate = nn.Linear(3, 8)
            self.target = nn.Linear(4, 2, bias=False).requires_grad_(False)

        def forward(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
            return torch.func.functional_call(self.target, {"weight": self.generate(context).view(2, 4)}, (x,))

    return dict(model=Hyper(), inputs=(torch.randn(5, 4), torch.randn(3)), loss=lambda out: out.square().mean())


def quiet_momentum_encoder_update() -> dict[str, Any]:
    class Moco(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.online, self.momentum = nn.Linear(4, 3), nn.Linear(4, 3).requires_grad_(False)

        @torch.no_grad()
        def update(self) -> None:
            for slow, fast in zip(self.momentum.parameters(), self.online.parameters(), strict=True):
                slow.data = slow.data * 0.99 + fast.data * 0.01

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.update()
            with torch.no_grad():
                key = self.momentum(x)
            return (self.online(x) * key).sum()

    return dict(model=Moco(), inputs=(torch.randn(2, 4),))


def quiet_computed_weight_under_another_name() -> dict[str, Any]:
    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 4))
            self.current = None

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.current = self.weight / self.weight.norm(dim=1, keepdim=True)
            return F.linear(x, self.current)

    return dict(model=Normalised(), inputs=(torch.randn(2, 4),), loss=lambda out: out.square().mean())


def quiet_weights_clamped_before_use() -> dict[str, Any]:
    class Monotone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                self.layer.weight.clamp_(min=0.01)
            return self.layer(x)

    return dict(model=Monotone(), inputs=(torch.randn(4, 3),), loss=lambda out: out.square().mean())


def quiet_reset_before_the_model_is_used() -> dict[str, Any]:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight.data = torch.randn_like(module.weight) * 0.1
            module.bias = nn.Parameter(torch.zeros_like(module.bias))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    return dict(model=model, inputs=(torch.randn(2, 4),), loss=lambda out: out.square().mean(), optimizer=optimizer)


def quiet_spectral_norm() -> dict[str, Any]:
    net = nn.Sequential(nn.utils.spectral_norm(nn.Linear(4, 4)), nn.ReLU(), nn.utils.parametrizations.weight_norm(nn.Linear(4, 1)))
    return dict(model=net, inputs=(torch.randn(3, 4),), loss=lambda out: out.square().mean())


def quiet_weight_swapped_in_and_out() -> dict[str, Any]:
    """The parameter slot is emptied for the call and the computed weight takes its name; the parameter comes back after."""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 2)
            self.gain = nn.Parameter(torch.ones(2, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            weight = self.inner._parameters.pop("weight")
            try:
                self.inner.weight = weight * self.gain
                return self.inner(x)
            finally:
                del self.inner.weight
                self.inner._parameters["weight"] = weight

    return dict(model=Scaled(), inputs=(torch.randn(3, 4),), loss=lambda out: out.square().mean())


def quiet_batch_norm_without_affine() -> dict[str, Any]:
    net = nn.Sequential(nn.Linear(4, 4, bias=False), nn.BatchNorm1d(4, affine=False), nn.ReLU(), nn.Linear(4, 1))
    return dict(model=net, inputs=(torch.randn(6, 4),), loss=lambda out: out.square().mean())


def quiet_activation_data_kept_for_a_plot() -> dict[str, Any]:
    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(4, 2)
            self.register_buffer("last", torch.zeros(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = self.net(x)
            self.last.data = out.mean(0).data
            return out

    return dict(model=Watched(), inputs=(torch.randn(3, 4),), loss=lambda out: out.square().mean())


def quiet_sharpness_aware_ascent_and_return() -> dict[str, Any]:
    class Sam(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1))

        def forward(self, x):
            params = list(self.net.parameters())
            grads = torch.autograd.grad(self.net(x).square().mean(), params)
            before = [p.data.clone() for p in params]
            with torch.no_grad():
                for p, g in zip(params, grads, strict=True):
                    p.add_(g, alpha=0.05)
                sharp = self.net(x).square().mean()
                for p, b in zip(params, before, strict=True):
                    p.data = b
            return self.net(x).square().mean() * (1 + sharp)

    return dict(model=Sam(), inputs=(torch.randn(3, 4),))


def quiet_average_weights_for_a_metric_then_back() -> dict[str, Any]:
    class Averaged(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 2)
            self.average = {k: v.clone() * 0.9 for k, v in self.fc.state_dict().items()}
            self.score = None

        def forward(self, x):
            mine = {k: v.clone() for k, v in self.fc.state_dict().items()}
            self.fc.load_state_dict(self.average)
            with torch.no_grad():
                self.score = self.fc(x).mean()
            self.fc.load_state_dict(mine)
            return self.fc(x)

    return dict(model=Averaged(), inputs=(torch.randn(3, 4),), loss=lambda o: o.square().mean())


def quiet_table_grown_before_the_first_batch() -> dict[str, Any]:
    class Lm(nn.Module):
        def __init__(self):
            super().__init__()
            self.emb, self.out = nn.Embedding(5, 4), nn.Linear(4, 3)

        def resize(self, n):
            old = self.emb
            self.emb = nn.Embedding(n, 4)
            self.emb.weight.data[: old.num_embeddings] = old.weight.data

        def forward(self, ids):
            return self.out(self.emb(ids))

    model = Lm()
    model.resize(8)
    return dict(
        model=model, inputs=(torch.tensor([1, 6]),), loss=lambda o: o.square().mean(), optimizer=torch.optim.Adam(model.parameters())
    )


def quiet_rows_of_a_dead_codebook_restarted() -> dict[str, Any]:
    class Codebook(nn.Module):
        def __init__(self):
            super().__init__()
            self.enc, self.codes = nn.Linear(4, 3), nn.Parameter(torch.randn(6, 3))
            self.register_buffer("used", torch.zeros(6))

        def forward(self, x):
            z = self.enc(x)
            with torch.no_grad():
                dead = self.used < 0
                self.codes[dead] = z[torch.randint(len(z), (int(dead.sum()),))]
            q = self.codes[torch.cdist(z, self.codes).argmin(-1)]
            return F.mse_loss(q, z.detach()) + F.mse_loss(z, q.detach())

    return dict(model=Codebook(), inputs=(torch.randn(7, 4),))


def quiet_frozen_network_fed_with_generated_numbers() -> dict[str, Any]:
    """What is stored into the frozen network is a mix of other frozen networks; the mixing is not trained."""

    class Soup(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleList(nn.Linear(4, 4).requires_grad_(False) for _ in range(2))
            self.soup = nn.Linear(4, 4).requires_grad_(False)
            self.head = nn.Linear(4, 1)

        def forward(self, x):
            with torch.no_grad():
                for name, p in self.soup.named_parameters():
                    p.copy_(torch.stack([part.get_parameter(name) for part in self.parts]).mean(0))
            return self.head(self.soup(x))

    return dict(model=Soup(), inputs=(torch.randn(3, 4),), loss=lambda o: o.square().mean())


def quiet_codebook_made_anew_from_its_average() -> dict[str, Any]:
    """As in the best known notebook on VQ-VAE: both are Parameters, and neither is trained by a gradient."""

    class Vq(nn.Module):
        def __init__(self):
            super().__init__()
            self.enc, self.dec, self.codes = nn.Linear(4, 3), nn.Linear(3, 4), nn.Embedding(5, 3)
            self.register_buffer("counts", torch.zeros(5))
            self.average = nn.Parameter(torch.randn(5, 3))

        def forward(self, x):
            z = self.enc(x)
            one_hot = F.one_hot(torch.cdist(z, self.codes.weight).argmin(1), 5).float()
            q = one_hot @ self.codes.weight
            self.counts = self.counts * 0.99 + 0.01 * one_hot.sum(0)
            self.average = nn.Parameter(self.average * 0.99 + 0.01 * one_hot.T @ z)
            self.codes.weight = nn.Parameter(self.average / (self.counts.unsqueeze(1) + 1e-5))
            return F.mse_loss(self.dec(z + (q - z).detach()), x) + 0.25 * F.mse_loss(q.detach(), z)

    return dict(model=Vq(), inputs=(torch.randn(6, 4),))
