"""Cases of FXG105 non-differentiable-op."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


def guilty_argmax_looked_up() -> dict[str, Any]:
    class Router(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.choose = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
            self.experts = nn.Embedding(3, 4)

        def pick(self, x: torch.Tensor) -> torch.Tensor:
            return self.choose(x).argmax(-1)  # FXG105

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (self.experts(self.pick(x)) * x).sum(-1)

    return dict(model=Router(), inputs=(torch.randn(5, 4),), loss=lambda o: o.pow(2).mean())


def guilty_learned_threshold_compared() -> dict[str, Any]:
    class Pruned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)
            self.threshold = nn.Parameter(torch.tensor(0.1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mask = (self.fc.weight.abs() > self.threshold).float()  # FXG105
            return F.linear(x, self.fc.weight * mask, self.fc.bias)

    return dict(model=nn.Sequential(Pruned(), nn.ReLU(), Pruned()), inputs=(torch.randn(3, 4),), loss=lambda o: o.sum())


def guilty_indices_of_a_sort() -> dict[str, Any]:
    class Select(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.score, self.out = nn.Linear(4, 1), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            _, order = torch.topk(self.score(x).squeeze(-1), 2, dim=1)  # FXG105
            kept = torch.gather(x, 1, order.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
            return self.out(kept.mean(1))

    return dict(model=Select(), inputs=(torch.randn(3, 6, 4),), loss=lambda o: o.pow(2).sum())


def guilty_accuracy_as_loss() -> dict[str, Any]:
    class Accuracy(nn.Module):
        def __init__(self, target: torch.Tensor) -> None:
            super().__init__()
            self.target = target

        def forward(self, out: torch.Tensor) -> torch.Tensor:
            guess = torch.max(out, 1).indices  # FXG105
            right = guess.eq(self.target)
            return 1 - right.float().mean()  # FXG116

    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    return dict(model=model, inputs=(torch.randn(5, 4),), loss=Accuracy(torch.randint(0, 3, (5,))))


def guilty_sampled_action() -> dict[str, Any]:
    class Policy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.logits = nn.Linear(4, 3)
            self.effect = nn.Parameter(torch.randn(3, 4))

        def forward(self, s: torch.Tensor) -> torch.Tensor:
            probabilities = torch.softmax(self.logits(s), -1)
            action = torch.multinomial(probabilities, 1).squeeze(1)  # FXG105
            return (self.effect[action] * s).sum(-1)

    return dict(model=Policy(), inputs=(torch.randn(5, 4),), loss=lambda o: -o.mean())


def guilty_learned_bin_edges() -> dict[str, Any]:
    class Bins(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.edges = nn.Parameter(torch.linspace(-1, 1, 5))
            self.table = nn.Embedding(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.table(torch.bucketize(x, self.edges))  # FXG105

    return dict(model=Bins(), inputs=(torch.randn(7),), loss=lambda o: o.pow(2).mean())


def guilty_gate_by_boolean_index() -> dict[str, Any]:
    class Early(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.head = nn.Linear(4, 1), nn.Linear(4, 2)

        def keep(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sigmoid(self.gate(x)).squeeze(-1) >= 0.0  # FXG105

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(x[self.keep(x)])

    return dict(model=Early(), inputs=(torch.randn(5, 4),), loss=lambda o: o.mean())


def guilty_condition_of_where() -> dict[str, Any]:
    class Hinge(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.knee = nn.Parameter(torch.zeros(3))
            self.fc = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(torch.where(x < self.knee, 0.1 * x, x))  # FXG105

    return dict(model=Hinge(), inputs=(torch.randn(4, 3),), loss=lambda o: o.pow(2).mean())


def guilty_floor_division() -> dict[str, Any]:
    class Bucket(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.width = nn.Parameter(torch.tensor(0.5))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x - (x // self.width) * self.width  # FXG105

    return dict(model=nn.Sequential(nn.Linear(3, 3), Bucket()), inputs=(torch.randn(2, 3),), loss=lambda o: o.sum())


def guilty_counts_of_unique_codes() -> dict[str, Any]:
    class Usage(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encode = nn.Linear(4, 6)
            self.scale = nn.Parameter(torch.ones(6))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            codes = F.one_hot(self.encode(x).argmax(1), 6)  # FXG105
            share = codes.float().mean(0)
            return -(share * torch.log(share + 1e-6) * self.scale).sum()

    return dict(model=Usage(), inputs=(torch.randn(5, 4),))


def quiet_values_beside_indices() -> dict[str, Any]:
    class Pool(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.fc(x)
            top, index = h.topk(2, -1)
            best = h.gather(-1, h.argmax(-1, keepdim=True))
            return top.sum(-1) + best.squeeze(-1) + (index > 1).float().sum(-1)

    return dict(model=Pool(), inputs=(torch.randn(3, 4),), loss=lambda o: o.pow(2).mean())


def quiet_straight_through_estimator() -> dict[str, Any]:
    class Hard(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.score, self.value = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            soft = torch.sigmoid(self.score(x))
            hard = (soft > 0.5).float()
            return self.value(x) * (hard + soft - soft.detach()) + F.gumbel_softmax(self.score(x), hard=True)

    return dict(model=Hard(), inputs=(torch.randn(3, 4),), loss=lambda o: o.pow(2).mean())


def quiet_policy_gradient() -> dict[str, Any]:
    class Policy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pi = nn.Linear(4, 3)

        def forward(self, s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            pi = torch.distributions.Categorical(logits=self.pi(s))
            action = pi.sample()
            return pi.log_prob(action), (action == 0).float()

    return dict(model=Policy(), inputs=(torch.randn(6, 4),), loss=lambda out: -(out[0] * (out[1] - 0.4)).mean())


def quiet_masked_mean_of_a_trained_value() -> dict[str, Any]:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.emb, self.out = nn.Embedding(9, 4, padding_idx=0), nn.Linear(4, 2)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            mask = ids.ne(0).unsqueeze(-1)
            h = torch.where(mask, self.emb(ids), 0.0).sum(1) / mask.sum(1).clamp(min=1)
            return self.out(h)

    return dict(model=Masked(), inputs=(torch.tensor([[1, 2, 0], [3, 0, 0]]),), loss=lambda o: o.logsumexp(-1).mean())


def quiet_accuracy_is_logged() -> dict[str, Any]:
    class Trainer:
        def __init__(self, target: torch.Tensor) -> None:
            self.target = target
            self.log: dict[str, Any] = {}

        def loss(self, logits: torch.Tensor) -> torch.Tensor:
            self.log["accuracy"] = (logits.argmax(-1) == self.target).float().mean()
            return F.cross_entropy(logits, self.target)

    return dict(model=nn.Linear(4, 3), inputs=(torch.randn(5, 4),), loss=Trainer(torch.randint(0, 3, (5,))).loss)


def quiet_two_stage_proposals() -> dict[str, Any]:
    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.score, self.box, self.refine = nn.Linear(4, 1), nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            score = self.score(x).squeeze(-1)
            keep = score.sort(descending=True).indices[:3]
            return score, self.box(x)[keep], self.refine(x[keep])

    return dict(model=Detector(), inputs=(torch.randn(6, 4),), loss=lambda o: F.softplus(o[0]).mean() + sum(t.abs().mean() for t in o[1:]))


def guilty_hard_attention() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            att = self.q(x) @ self.k(x).transpose(1, 2)
            idx = att.max(-1)[1]  # FXG105
            return self.v(x).gather(1, idx.unsqueeze(-1).expand(-1, -1, 3))

    return dict(model=N(), inputs=(torch.randn(2, 4, 3),), loss=lambda o: o.sum())


def guilty_categorical_sample() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.pi, self.emb = nn.Linear(3, 4), nn.Embedding(4, 3)

        def forward(self, x):
            d = torch.distributions.Categorical(logits=self.pi(x))
            return self.emb(d.sample())  # FXG105

    return dict(model=N(), inputs=(torch.randn(2, 3),), loss=lambda o: o.sum())


def guilty_normal_sample() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.mu, self.dec = nn.Linear(3, 4), nn.Linear(4, 3)

        def forward(self, x):
            d = torch.distributions.Normal(self.mu(x), 1.0)
            return self.dec(d.sample())  # FXG105

    return dict(model=N(), inputs=(torch.randn(2, 3),), loss=lambda o: o.sum())


def guilty_nonzero() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.s, self.o = nn.Linear(3, 1), nn.Linear(3, 1)

        def forward(self, x):
            idx = torch.nonzero(self.s(x).squeeze(-1) > 0).squeeze(-1)  # FXG105
            return self.o(x[idx]).sum() + self.o(x).sum()

    return dict(model=N(), inputs=(torch.randn(6, 3),))


def guilty_one_hot_argmax_module() -> dict[str, Any]:
    class Hard(nn.Module):
        def forward(self, x):
            i = x.argmax(-1, keepdim=True)  # FXG105
            return torch.zeros_like(x).scatter_(-1, i, 1.0)

    return dict(model=nn.Sequential(nn.Linear(3, 4), Hard(), nn.Linear(4, 1)), inputs=(torch.randn(5, 3),), loss=lambda o: o.sum())


def guilty_heaviside() -> dict[str, Any]:
    class Spike(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = nn.Linear(3, 3)
            self.g = nn.Linear(3, 1)

        def forward(self, x):
            s = (self.f(x) >= 0.5).to(x.dtype)  # FXG105
            return self.g(s)

    return dict(model=Spike(), inputs=(torch.randn(5, 3),), loss=lambda o: o.sum())


def guilty_dice_on_thresholded() -> dict[str, Any]:
    class Dice(nn.Module):
        def __init__(self, t):
            super().__init__()
            self.t = t

        def forward(self, o):
            p = (torch.sigmoid(o) > 0.5).float()  # FXG105
            inter = (p * self.t).sum()
            return 1 - 2 * inter / (p.sum() + self.t.sum() + 1e-6)  # or FXG116

    return dict(model=nn.Conv2d(1, 1, 3, padding=1), inputs=(torch.randn(2, 1, 4, 4),), loss=Dice(torch.ones(2, 1, 4, 4)))


def guilty_isclose_logical() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.lo, self.hi = nn.Parameter(torch.tensor(-1.0)), nn.Parameter(torch.tensor(1.0))
            self.f = nn.Linear(3, 3)

        def forward(self, x):
            inside = torch.logical_and(x > self.lo, x < self.hi)  # FXG105
            return self.f(x) * inside

    return dict(model=N(), inputs=(torch.randn(5, 3),), loss=lambda o: o.sum())


def guilty_matching_cost() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.cls, self.box = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x):
            return self.cls(x), self.box(x)

    t = torch.randn(5, 2)

    def crit(o):
        c, b = o
        cost = torch.cdist(b, t) - c[:, :1]
        m = cost.argmin(1)  # FXG105
        return F.mse_loss(b, t[m])

    return dict(model=N(), inputs=(torch.randn(5, 3),), loss=crit)


def guilty_unique_consecutive() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = nn.Linear(3, 4)
            self.w = nn.Parameter(torch.ones(1))

        def forward(self, x):
            n = torch.bincount(self.f(x).argmax(-1), minlength=4)  # FXG105
            return (n.float() / n.sum()).pow(2).sum() * self.w

    return dict(model=N(), inputs=(torch.randn(5, 3),), loss=lambda o: o.sum())


def guilty_count_nonzero() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = nn.Linear(3, 4)
            self.w = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return torch.count_nonzero(self.f(x).relu()) * self.w  # FXG105

    return dict(model=N(), inputs=(torch.randn(5, 3),), loss=lambda o: o.sum())


def guilty_clamp_index() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = nn.Linear(3, 1)
            self.w = nn.Parameter(torch.randn(8, 3))

        def forward(self, x):
            i = torch.searchsorted(torch.linspace(-1, 1, 7), self.f(x).squeeze(-1))  # FXG105
            return self.w[i]

    return dict(model=N(), inputs=(torch.randn(5, 3),), loss=lambda o: o.sum())


def guilty_embedding_bag_weights_from_mask() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.gates = nn.ParameterList([nn.Parameter(torch.zeros(())) for _ in range(4)])
            self.fs = nn.ModuleList([nn.Linear(3, 3) for _ in range(4)])

        def forward(self, x):
            for g, f in zip(self.gates, self.fs, strict=True):
                x = x + f(x) * (g >= 0)  # FXG105
            return x

    return dict(model=N(), inputs=(torch.randn(5, 3),), loss=lambda o: o.sum())


def quiet_straight_through_heaviside() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = nn.Linear(3, 3)

        def forward(self, x):
            h = self.f(x)
            s = torch.sigmoid(h)
            return ((h > 0).float() - s).detach() + s

    return dict(model=N(), inputs=(torch.randn(5, 3),), loss=lambda o: o.pow(2).sum())


def quiet_nms_like() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.s, self.b = nn.Linear(3, 1), nn.Linear(3, 4)

        def forward(self, x):
            s = self.s(x).squeeze(-1).sigmoid()
            k = torch.topk(s, 3).indices
            return s[k], self.b(x)[k]

    return dict(model=N(), inputs=(torch.randn(5, 3),), loss=lambda o: o[0].sum() + o[1].pow(2).sum())


def quiet_rsample() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.f, self.d = nn.Linear(3, 4), nn.Linear(2, 3)

        def forward(self, x):
            m, s = self.f(x).chunk(2, -1)
            q = torch.distributions.Normal(m, F.softplus(s))
            kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum()
            return F.mse_loss(self.d(q.rsample()), x) + kl

    return dict(model=N(), inputs=(torch.randn(5, 3),))


def quiet_hinge_and_mask() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = nn.Linear(3, 3)

        def forward(self, x):
            d = torch.cdist(self.f(x), self.f(x))
            pos = torch.eye(len(x), dtype=torch.bool).logical_not()
            hard = (d == d.max(1, keepdim=True).values) & pos
            return F.relu(d[hard] - 0.1).mean()

    return dict(model=N(), inputs=(torch.randn(5, 3),))
