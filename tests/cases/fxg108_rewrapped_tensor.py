"""FXG108: new leaves made from computed tensors, and new tensors that rightly have no history."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import Variable


def guilty_tensor_of_loss_list() -> dict[str, Any]:
    class MultiTask(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = nn.Linear(4, 6)
            self.heads = nn.ModuleDict({"depth": nn.Linear(6, 1), "normal": nn.Linear(6, 3)})

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            h = torch.relu(self.trunk(x))
            return {name: head(h) for name, head in self.heads.items()}

    def total(out: dict[str, torch.Tensor]) -> torch.Tensor:
        losses = [F.l1_loss(v, torch.zeros_like(v)) for v in out.values()]
        return torch.tensor(losses, requires_grad=True).sum()  # FXG108

    return dict(model=MultiTask(), inputs=(torch.randn(3, 4),), loss=total)


def guilty_variable_of_data_in_module() -> dict[str, Any]:
    class Attend(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            scores = self.query(x) @ self.key(x).transpose(0, 1)
            scores = Variable(scores.data)  # FXG108
            return scores.softmax(-1) @ x

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(7, 4)
            self.attend = Attend()
            self.out = nn.Linear(4, 7)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.out(self.attend(self.embed(ids)))

    ids = torch.tensor([1, 4, 2])
    return dict(model=Net(), inputs=(ids,), loss=lambda out: F.cross_entropy(out, ids))


def guilty_parameter_made_in_forward() -> dict[str, Any]:
    class HyperLinear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.generate = nn.Linear(3, 8)

        def forward(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
            weight = nn.Parameter(self.generate(context).view(2, 4))  # FXG108
            return F.linear(x, weight)

    return dict(model=HyperLinear(), inputs=(torch.randn(5, 4), torch.randn(3)), loss=lambda out: out.square().mean())


def guilty_legacy_constructor_of_scores() -> dict[str, Any]:
    class Pairwise(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(5, 3)
            self.out = nn.Linear(3, 1)

        def similarity(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return F.cosine_similarity(a, b, dim=0)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            z = self.embed(x)
            scores = [self.similarity(z[0], z[i]) for i in range(1, len(z))]
            sims = torch.Tensor(scores)  # FXG108
            return self.out(sims.unsqueeze(0))

    return dict(model=Pairwise(), inputs=(torch.randn(4, 5),), loss=lambda out: out.sum())


def guilty_float_tensor_of_rewards() -> dict[str, Any]:
    class Actor(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.policy = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))

        def forward(self, states: torch.Tensor) -> list[torch.Tensor]:
            return [F.log_softmax(self.policy(s), -1)[0] for s in states]

    def reinforce(log_probs: list[torch.Tensor]) -> torch.Tensor:
        stacked = torch.FloatTensor(log_probs)  # FXG108
        stacked.requires_grad_()
        return -(stacked * torch.tensor([1.0, 0.5, 0.2])).sum()

    return dict(model=Actor(), inputs=(torch.randn(3, 4),), loss=reinforce)


def guilty_new_tensor_in_partial() -> dict[str, Any]:
    def regularise(out: torch.Tensor, weight: float) -> torch.Tensor:
        centre = out.new_tensor(out.mean(0))  # FXG108
        return weight * (centre - 1.0).pow(2).sum().requires_grad_()

    model = nn.Linear(4, 2)
    return dict(model=model, inputs=(torch.randn(6, 4),), loss=partial(regularise, weight=0.5))


def guilty_as_tensor_of_scalars() -> dict[str, Any]:
    class Ensemble(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.members = nn.ModuleList([nn.Linear(3, 1) for _ in range(4)])
            self.calibrate = nn.Linear(4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            votes = tuple(member(x).squeeze() for member in self.members)
            return self.calibrate(torch.as_tensor(votes))  # FXG108

    return dict(model=Ensemble(), inputs=(torch.randn(3),), loss=lambda out: out.abs().sum())


def guilty_tensor_of_tensor_copy() -> dict[str, Any]:
    class Residual(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            skip = torch.tensor(self.inner(x))  # FXG108
            return x + skip

    net = nn.Sequential(nn.Linear(4, 4), Residual(nn.Linear(4, 4)), nn.Linear(4, 1))
    return dict(model=net, inputs=(torch.randn(2, 4),), loss=lambda out: out.mean())


def guilty_data_wrapped_for_gradient_penalty() -> dict[str, Any]:
    class Critic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.generator, self.critic = nn.Linear(2, 3), nn.Sequential(nn.Linear(3, 4), nn.Softplus(), nn.Linear(4, 1))

        def forward(self, noise: torch.Tensor) -> torch.Tensor:
            fake = self.generator(noise)
            fake = torch.autograd.Variable(fake, requires_grad=True)  # FXG108
            return self.critic(fake)

    return dict(model=Critic(), inputs=(torch.randn(5, 2),), loss=lambda out: -out.mean())


# ---------------------------------------------------------------------------------------------------------------- healthy


def quiet_tensor_of_constants() -> dict[str, Any]:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mean = torch.tensor([0.485, 0.456, 0.406])
            return self.net(x - mean) / torch.tensor(x.shape[0])

    return dict(model=Net(), inputs=(torch.randn(2, 3),), loss=lambda out: out.square().mean())


def quiet_variable_around_input() -> dict[str, Any]:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = Variable(x, requires_grad=True)
            return self.net(x)

    return dict(model=Net(), inputs=(torch.randn(2, 3),), loss=lambda out: out.sum())


def quiet_logged_losses_in_a_tensor() -> dict[str, Any]:
    model = nn.Linear(4, 2)
    log: list[torch.Tensor] = []

    def loss(out: torch.Tensor) -> torch.Tensor:
        parts = [out[:, 0].square().mean(), out[:, 1].abs().mean()]
        log.append(torch.tensor([p.item() for p in parts]))
        return torch.stack(parts).sum()

    return dict(model=model, inputs=(torch.randn(3, 4),), loss=loss)


def quiet_pseudo_labels_copied() -> dict[str, Any]:
    """The copied half is a target; the other half trains."""
    model = nn.Linear(4, 3)

    def loss(logits: torch.Tensor) -> torch.Tensor:
        target = torch.tensor(logits.detach().softmax(-1).tolist())
        return F.kl_div(logits.log_softmax(-1), target.roll(1, 0), reduction="batchmean")

    return dict(model=model, inputs=(torch.randn(3, 4),), loss=loss)


def quiet_stacked_scalars() -> dict[str, Any]:
    class Ensemble(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.members = nn.ModuleList([nn.Linear(3, 1) for _ in range(3)])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([m(x).squeeze(-1) for m in self.members]).mean(0)

    return dict(model=Ensemble(), inputs=(torch.randn(2, 3),), loss=lambda out: out.square().sum())


def quiet_target_network_rewrapped() -> dict[str, Any]:
    class Q(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.online = nn.Linear(4, 2)
            self.target = nn.Linear(4, 2).requires_grad_(False)

        def forward(self, state: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
            best = Variable(self.target(following).data.max(1).values)
            return F.smooth_l1_loss(self.online(state)[:, 0], 0.9 * best)

    return dict(model=Q(), inputs=(torch.randn(3, 4), torch.randn(3, 4)))


def quiet_class_weights_from_counts() -> dict[str, Any]:
    model = nn.Linear(4, 3)
    labels = torch.tensor([0, 1, 1, 2])

    def loss(out: torch.Tensor) -> torch.Tensor:
        weights = torch.Tensor([1.0 / max(int(c), 1) for c in torch.bincount(labels, minlength=3)])
        return F.cross_entropy(out, labels, weight=weights)

    return dict(model=model, inputs=(torch.randn(4, 4),), loss=loss)


def quiet_label_smoothing_filled_with_a_number() -> dict[str, Any]:
    class Smooth(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x, y):
            logp = self.fc(x).log_softmax(-1)
            goal = torch.full_like(logp, 0.1 / 2).scatter_(1, y[:, None], 0.9)
            return -(torch.as_tensor(goal) * logp).sum(-1).mean()

    return dict(model=Smooth(), inputs=(torch.randn(3, 4), torch.tensor([0, 2, 1])))


def quiet_advantages_in_a_float_tensor() -> dict[str, Any]:
    class Policy(nn.Module):
        def __init__(self):
            super().__init__()
            self.pi = nn.Linear(4, 2)

        def forward(self, s):
            dist = torch.distributions.Categorical(logits=self.pi(s))
            actions = dist.sample()
            returns = []
            for a in reversed(actions):
                returns.insert(0, float(a) + 0.9 * (returns[0] if returns else 0.5))
            returns = torch.FloatTensor(returns)
            returns = (returns - returns.mean()) / (returns.std() + 1e-6) + 0.3
            log_probs = [dist.log_prob(actions)[i] for i in range(len(s))]
            return torch.stack([-lp * r for lp, r in zip(log_probs, returns, strict=True)]).sum()

    return dict(model=Policy(), inputs=(torch.randn(5, 4),))


def quiet_adversarial_copy_of_the_input() -> dict[str, Any]:
    class Fgsm(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))

        def forward(self, x, y):
            with torch.enable_grad():
                adv = torch.tensor(x.tolist(), requires_grad=True)
                (g,) = torch.autograd.grad(F.cross_entropy(self.net(adv), y), adv)
            return F.cross_entropy(self.net(x + 0.1 * g.sign()), y)

    return dict(model=Fgsm(), inputs=(torch.randn(3, 4), torch.tensor([0, 2, 1])))


def quiet_zero_dimensional_weights_of_a_schedule() -> dict[str, Any]:
    class Annealed(nn.Module):
        def __init__(self):
            super().__init__()
            self.mu, self.log_var, self.dec, self.calls = nn.Linear(4, 2), nn.Linear(4, 2), nn.Linear(2, 4), 3

        def forward(self, x):
            mu, log_var = self.mu(x), self.log_var(x)
            beta = torch.tensor(min(1.0, self.calls / 10), device=mu.device)
            eps = mu.new_tensor([[0.1, -0.2]]).expand_as(mu)
            kl = -0.5 * (1 + log_var - mu.square() - log_var.exp()).sum(-1).mean()
            return F.mse_loss(self.dec(mu + eps * (0.5 * log_var).exp()), x) + beta * kl

    return dict(model=Annealed(), inputs=(torch.randn(3, 4),))


def quiet_replay_of_old_outputs_beside_the_new() -> dict[str, Any]:
    class Replay(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.memory = nn.Linear(3, 2), [[0.1, 0.2]]

        def forward(self, x):
            y = self.net(x)
            old = torch.tensor(self.memory)
            self.memory = y.detach().tolist()
            return torch.cat([y, old])

    return dict(model=Replay(), inputs=(torch.randn(3, 3),), loss=lambda o: o.square().mean())
