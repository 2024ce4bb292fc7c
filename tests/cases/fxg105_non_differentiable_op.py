"""Cases of FXG105 non-differentiable-op."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import Variable


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


def quiet_hard_labels_of_a_copied_teacher() -> dict[str, Any]:
    class SelfTraining(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(4, 3)
            self.teacher = copy.deepcopy(self.net)

        def forward(self, x):
            return F.cross_entropy(self.net(x + 0.1 * torch.randn_like(x)), self.teacher(x).argmax(-1))

    return dict(model=SelfTraining(), inputs=(torch.randn(5, 4),))


def quiet_values_of_an_old_target_in_a_variable() -> dict[str, Any]:
    class Dqn(nn.Module):
        def __init__(self):
            super().__init__()
            self.policy_net, self.target_net = nn.Linear(4, 2), nn.Linear(4, 2)
            self.target_net.load_state_dict(self.policy_net.state_dict())

        def forward(self, s, s2):
            goal = Variable(self.target_net(s2).data.max(1)[0])
            return F.smooth_l1_loss(self.policy_net(s)[:, 0], goal)

    return dict(model=Dqn(), inputs=(torch.randn(3, 4), torch.randn(3, 4)))


def quiet_targets_of_a_copy_in_numpy() -> dict[str, Any]:
    class Dqn(nn.Module):
        def __init__(self):
            super().__init__()
            self.model, self.target_model = nn.Linear(4, 2), nn.Linear(4, 2)
            self.target_model.load_state_dict(self.model.state_dict())

        def forward(self, s, s2):
            best = self.target_model(s2).detach().cpu().numpy().max(axis=1)
            return F.mse_loss(self.model(s)[:, 0], torch.from_numpy(0.9 * best))

    return dict(model=Dqn(), inputs=(torch.randn(3, 4), torch.randn(3, 4)))


def quiet_confident_half_of_the_batch_kept() -> dict[str, Any]:
    class Fixmatch(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))

        def forward(self, weak, strong):
            p = self.net(weak).detach().softmax(-1)
            confidence, label = p.max(-1)
            keep = confidence.ge(0.3).float()
            return (F.cross_entropy(self.net(strong), label, reduction="none") * keep).sum() / len(keep)

    return dict(model=Fixmatch(), inputs=(torch.randn(6, 4), torch.randn(6, 4)))


def quiet_straight_through_in_vector_quantisation_by_one_hot() -> dict[str, Any]:
    class Vq(nn.Module):
        def __init__(self):
            super().__init__()
            self.enc, self.dec, self.codes = nn.Linear(4, 3), nn.Linear(3, 4), nn.Parameter(torch.randn(5, 3))

        def forward(self, x):
            z = self.enc(x)
            distance = z.square().sum(1, keepdim=True) - 2 * z @ self.codes.T + self.codes.square().sum(1)
            one_hot = torch.zeros(len(x), 5).scatter_(1, distance.argmin(1, keepdim=True), 1)
            q = one_hot @ self.codes
            usage = one_hot.mean(0)
            perplexity = torch.exp(-(usage * (usage + 1e-9).log()).sum())
            loss = F.mse_loss(q.detach(), z) * 0.25 + F.mse_loss(q, z.detach())
            return F.mse_loss(self.dec(z + (q - z).detach()), x) + loss, perplexity

    return dict(model=Vq(), inputs=(torch.randn(7, 4),), loss=lambda out: out[0])


def quiet_top_k_router_with_renormalised_weights() -> dict[str, Any]:
    class Router(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate = nn.Linear(4, 3)
            self.experts = nn.Parameter(torch.randn(3, 4, 4))

        def forward(self, x):
            probs = self.gate(x).softmax(-1)
            weight, chosen = probs.topk(2, -1)
            weight = weight / weight.sum(-1, keepdim=True)
            load = F.one_hot(chosen, 3).float().mean((0, 1))
            out = torch.einsum("bk,bi,bkij->bj", weight, x, self.experts[chosen])
            return out.square().mean() + 3 * (load * probs.mean(0)).sum()

    return dict(model=Router(), inputs=(torch.randn(12, 4),))


def quiet_sigmoid_focal_with_hard_negatives() -> dict[str, Any]:
    class Ohem(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(4, 1)

        def forward(self, x, y):
            loss = F.binary_cross_entropy_with_logits(self.net(x).squeeze(-1), y, reduction="none")
            hardest = loss.argsort(descending=True)[:4]
            return loss[hardest].mean()

    return dict(model=Ohem(), inputs=(torch.randn(8, 4), torch.randint(0, 2, (8,)).float()))


def quiet_triplets_mined_in_the_batch() -> dict[str, Any]:
    class Embed(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(4, 3)

        def forward(self, x, y):
            z = F.normalize(self.net(x), dim=1)
            d = 2 - 2 * z @ z.T
            same = y[:, None] == y[None]
            positive = d.masked_fill(~same, -1e9).argmax(1)
            negative = d.masked_fill(same, 1e9).argmin(1)
            return F.triplet_margin_loss(z, z[positive], z[negative], margin=0.5)

    return dict(model=Embed(), inputs=(torch.randn(6, 4), torch.tensor([0, 0, 1, 1, 2, 2])))


def quiet_policy_with_entropy_and_sampled_value() -> dict[str, Any]:
    class Policy(nn.Module):
        def __init__(self):
            super().__init__()
            self.mean, self.log_std = nn.Linear(4, 2), nn.Parameter(torch.zeros(2))

        def forward(self, s):
            dist = torch.distributions.Independent(torch.distributions.Normal(self.mean(s), self.log_std.exp()), 1)
            action = dist.sample()
            return dist.log_prob(action), dist.entropy(), -action.square().sum(-1)

    return dict(model=Policy(), inputs=(torch.randn(5, 4),), loss=lambda o: -(o[0] * (o[2] - o[2].mean())).mean() - 0.01 * o[1].mean())


def quiet_relu_written_with_a_mask() -> dict[str, Any]:
    class Gelu(nn.Module):
        def forward(self, x):
            return x * (x > 0) + 0.01 * x * (x <= 0)

    return dict(
        model=nn.Sequential(nn.Linear(4, 4), Gelu(), nn.Linear(4, 1)), inputs=(torch.randn(3, 4),), loss=lambda o: o.square().mean()
    )


def quiet_last_valid_step_by_lengths() -> dict[str, Any]:
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.emb, self.rnn, self.out = nn.Embedding(9, 4, padding_idx=0), nn.GRU(4, 4, batch_first=True), nn.Linear(4, 2)

        def forward(self, ids):
            last = (ids != 0).sum(1) - 1
            h, _ = self.rnn(self.emb(ids))
            return self.out(h[torch.arange(len(ids)), last])

    return dict(model=Reader(), inputs=(torch.tensor([[1, 2, 0], [3, 4, 5]]),), loss=lambda o: o.logsumexp(-1).mean())


def quiet_searchsorted_into_trained_knots() -> dict[str, Any]:
    class Spline(nn.Module):
        def __init__(self):
            super().__init__()
            self.widths, self.heights = nn.Parameter(torch.rand(5)), nn.Parameter(torch.rand(5))

        def forward(self, x):
            right = self.widths.softmax(0).cumsum(0)
            left = right - self.widths.softmax(0)
            k = torch.searchsorted(right.detach(), x).clamp(max=4)
            slope = self.heights[k] / (right[k] - left[k])
            return slope * (x - left[k])

    return dict(model=Spline(), inputs=(torch.rand(7),), loss=lambda o: o.square().mean())


def quiet_median_and_mode_of_activations() -> dict[str, Any]:
    class Robust(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(4, 5)

        def forward(self, x):
            y = self.net(x)
            return y.median(-1).values + y.kthvalue(2, -1).values + y.quantile(0.3, -1) + y.cummax(-1).values.sum(-1)

    return dict(model=Robust(), inputs=(torch.randn(3, 4),), loss=lambda o: o.square().mean())


def quiet_beam_of_hypotheses_scored() -> dict[str, Any]:
    class Search(nn.Module):
        def __init__(self):
            super().__init__()
            self.emb, self.out = nn.Embedding(6, 4), nn.Linear(4, 6)

        def forward(self, start):
            tokens, score = start, torch.zeros(len(start))
            for _ in range(3):
                logp = self.out(self.emb(tokens)).log_softmax(-1)
                best, tokens = logp.max(-1)
                score = score + best
            return -score.mean()

    return dict(model=Search(), inputs=(torch.tensor([1, 2, 3]),))


def quiet_concrete_gate_stretched_and_clamped() -> dict[str, Any]:
    class HardConcrete(nn.Module):
        def __init__(self):
            super().__init__()
            self.log_alpha, self.fc = nn.Parameter(torch.zeros(4)), nn.Linear(4, 2)

        def forward(self, x):
            u = torch.empty(4).uniform_(0.4, 0.6)
            s = torch.sigmoid((u.log() - (1 - u).log() + self.log_alpha) / 0.66)
            gate = (s * 1.2 - 0.1).clamp(0, 1)
            open_gates = (gate > 0.5).sum()
            return self.fc(x * gate), open_gates

    return dict(model=HardConcrete(), inputs=(torch.randn(3, 4),), loss=lambda o: o[0].square().mean())


def quiet_dice_on_soft_masks_with_a_hard_metric() -> dict[str, Any]:
    seen = []

    def loss(logits):
        p, goal = logits.sigmoid(), (torch.arange(12).view(3, 4) % 3 == 0).float()
        seen.append((((p > 0.5) & (goal > 0)).sum() / ((p > 0.5) | (goal > 0)).sum()).item())
        return 1 - (2 * (p * goal).sum() + 1) / (p.sum() + goal.sum() + 1)

    return dict(model=nn.Linear(4, 4), inputs=(torch.randn(3, 4),), loss=loss)


def quiet_direction_of_a_derivative_shaped_like_the_output() -> dict[str, Any]:
    class Score(nn.Module):
        def __init__(self):
            super().__init__()
            self.energy = nn.Sequential(nn.Linear(2, 6), nn.Softplus(), nn.Linear(6, 1))

        def forward(self, x):
            x = x.clone().requires_grad_()
            e = self.energy(x)
            (score,) = torch.autograd.grad(e, x, grad_outputs=e.new_ones(e.shape).expand_as(e), create_graph=True)
            return (score + x).square().mean()

    return dict(model=Score(), inputs=(torch.randn(5, 2),))
