"""Cases of FXG103 detached-path."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint


def guilty_features_detached_in_a_helper() -> dict[str, Any]:
    def normalize(features: torch.Tensor) -> torch.Tensor:
        features = features.clone().detach()  # FXG103
        return features / features.norm(dim=-1, keepdim=True)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))
            self.head = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(normalize(self.encoder(x)))

    return dict(model=Net(), inputs=(torch.randn(3, 4),), loss=lambda o: o.pow(2).mean())


def guilty_data_of_an_activation() -> dict[str, Any]:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3)
            self.fc = nn.Linear(2 * 4 * 4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = F.relu(self.conv(x))
            y = y.data.view(y.size(0), -1)  # FXG103
            return self.fc(y)

    return dict(model=Net(), inputs=(torch.randn(2, 1, 6, 6),), loss=lambda o: o.sum())


def guilty_weight_read_through_data() -> dict[str, Any]:
    class Masked(nn.Linear):
        def __init__(self, i: int, o: int) -> None:
            super().__init__(i, o)
            self.register_buffer("mask", (torch.arange(o)[:, None] >= torch.arange(i)).float())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.linear(x, self.weight.data * self.mask, self.bias)  # FXG103

    return dict(model=nn.Sequential(Masked(4, 4), nn.Tanh(), Masked(4, 2)), inputs=(torch.randn(3, 4),), loss=lambda o: o.pow(2).mean())


def guilty_state_detached_at_every_step() -> dict[str, Any]:
    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.GRUCell(3, 5)
            self.out = nn.Linear(5, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = x.new_zeros(x.shape[0], 5)
            for t in range(x.shape[1]):
                h = self.cell(x[:, t], h)
                h.detach_()  # FXG103
            return self.out(h)

    return dict(model=Cell(), inputs=(torch.randn(2, 4, 3),), loss=lambda o: o.mean())


def guilty_prediction_detached_in_the_loss() -> dict[str, Any]:
    class TdLoss(nn.Module):
        def __init__(self, reward: torch.Tensor, action: torch.Tensor) -> None:
            super().__init__()
            self.reward, self.action = reward, action

        def forward(self, out: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
            q, value = out
            chosen = q.gather(1, self.action[:, None]).squeeze(1)
            return F.smooth_l1_loss(chosen.detach(), self.reward + 0.9 * value.squeeze(-1))  # FXG103

    class Agent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.v = nn.Linear(4, 3), nn.Linear(4, 1)

        def forward(self, s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.q(s), self.v(s)

    return dict(model=Agent(), inputs=(torch.randn(5, 4),), loss=TdLoss(torch.randn(5), torch.randint(0, 3, (5,))))


def guilty_straight_through_without_the_soft_term() -> dict[str, Any]:
    class Binary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.score = nn.Linear(4, 4)
            self.value = nn.Linear(4, 4)

        def gate(self, x: torch.Tensor) -> torch.Tensor:
            soft = torch.sigmoid(self.score(x))
            hard = (soft > 0.5).float()
            return (hard - soft).detach()  # FXG103

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.gate(x) * self.value(x)

    return dict(model=Binary(), inputs=(torch.randn(3, 4),), loss=lambda o: o.pow(2).mean())


def guilty_list_of_detached_features() -> dict[str, Any]:
    class Pyramid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.levels = nn.ModuleList([nn.Sequential(nn.Linear(4, 4), nn.GELU()) for _ in range(12)])
            self.mix = nn.Linear(4 * 12, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            features = []
            for level in self.levels:
                x = level(x)
                features.append(x)
            return self.mix(torch.cat([f.detach() for f in features], -1))  # FXG103

    return dict(model=Pyramid(), inputs=(torch.randn(3, 4),), loss=lambda o: o.pow(2).mean())


def guilty_features_taken_by_a_hook() -> dict[str, Any]:
    class Extractor(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6))
            self.found: dict[str, torch.Tensor] = {}
            self.net[1].register_forward_hook(self.keep("relu"))
            self.head = nn.Linear(6, 1)

        def keep(self, name: str) -> Any:
            def hook(module: nn.Module, args: Any, output: torch.Tensor) -> None:
                self.found[name] = output.detach()  # FXG103

            return hook

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.net[:2](x)
            return self.head(self.found["relu"])

    model = Extractor()
    model.net[2].requires_grad_(False)
    return dict(model=model, inputs=(torch.randn(3, 4),), loss=lambda o: o.sum())


def guilty_weights_from_a_state_dict() -> dict[str, Any]:
    class Perturbed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            weights = {k: v * 1.01 for k, v in self.net.state_dict().items()}  # FXG103
            return torch.func.functional_call(self.net, weights, (x,)) * self.scale

    return dict(model=Perturbed(), inputs=(torch.randn(2, 3),), loss=lambda o: o.pow(2).mean())


def guilty_two_cuts_one_behind_the_other() -> dict[str, Any]:
    @dataclass
    class State:
        latent: torch.Tensor
        belief: torch.Tensor

    class World(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encode, self.transition, self.decode = nn.Linear(4, 3), nn.Linear(3, 3), nn.Linear(3, 4)

        def observe(self, x: torch.Tensor) -> State:
            latent = self.encode(x)
            return State(latent, latent.detach())  # FXG103

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            state = self.observe(x)
            nxt = self.transition(state.belief)
            return self.decode(torch.detach(nxt))  # FXG103

    return dict(model=World(), inputs=(torch.randn(5, 4),), loss=lambda o: o.pow(2).mean())


def guilty_whole_loss_detached() -> dict[str, Any]:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    target = torch.randn(2, 1)

    def loss(out: torch.Tensor) -> torch.Tensor:
        value = F.mse_loss(out, target)
        return value.detach()  # FXG103

    return dict(model=model, inputs=(torch.randn(2, 3),), loss=loss)


def guilty_both_sides_stopped() -> dict[str, Any]:
    class SimSiam(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.projector, self.predictor = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

        def embed(self, x: torch.Tensor) -> torch.Tensor:
            return self.projector(F.relu(self.encoder(x))).detach()  # FXG103

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            za, zb = self.embed(a), self.embed(b)
            return -(F.cosine_similarity(self.predictor(za), zb) + F.cosine_similarity(self.predictor(zb), za)).mean()

    return dict(model=SimSiam(), inputs=(torch.randn(5, 4), torch.randn(5, 4)))


def guilty_lambda_inside_a_module_list() -> dict[str, Any]:
    class Lambda(nn.Module):
        def __init__(self, function: Any) -> None:
            super().__init__()
            self.function = function

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.function(x)

    model = nn.Sequential(
        nn.Linear(4, 4),
        Lambda(lambda t: t.detach() * 2),  # FXG103
        nn.Linear(4, 1),
    )
    return dict(model=model, inputs=(torch.randn(2, 4),), loss=lambda o: o.sum())


def guilty_edge_weights_of_a_sparse_matrix() -> dict[str, Any]:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.edge, self.lift = nn.Linear(2, 1), nn.Linear(3, 2)

        def forward(self, x: torch.Tensor, ends: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
            weights = self.edge(features).squeeze(-1).detach()  # FXG103
            adjacency = torch.sparse_coo_tensor(ends, weights, (5, 5))
            return torch.sparse.mm(adjacency, self.lift(x))

    ends = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]])
    return dict(model=Net(), inputs=(torch.randn(5, 3), ends, torch.randn(4, 2)), loss=lambda o: o.pow(2).mean())


def guilty_clones_of_one_layer() -> dict[str, Any]:
    """A stack of clones is no target network: nothing keeps one of them as a copy of another."""

    class Stack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.Linear(4, 4)
            self.layers = nn.ModuleList([copy.deepcopy(layer) for _ in range(3)])
            self.head = nn.Linear(4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers:
                x = torch.tanh(layer(x))
            return self.head(x.detach())  # FXG103

    return dict(model=Stack(), inputs=(torch.randn(2, 4),), loss=lambda o: o.sum())


def quiet_teacher_averaged_after_the_step() -> dict[str, Any]:
    class Distilled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.student = nn.Linear(4, 3)
            self.teacher = copy.deepcopy(self.student)
            self.predictor = nn.Linear(3, 3)

        def after_step(self) -> None:
            with torch.no_grad():
                for average, current in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                    average.mul_(0.99).add_(current, alpha=0.01)

        def forward(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
            return -F.cosine_similarity(self.predictor(self.student(one)), self.teacher(other).detach()).mean()

    return dict(model=Distilled(), inputs=(torch.randn(4, 4), torch.randn(4, 4)))


def quiet_vector_quantizer() -> dict[str, Any]:
    class Vq(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encode, self.decode = nn.Linear(6, 4), nn.Linear(4, 6)
            self.codes = nn.Embedding(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            z = self.encode(x)
            q = self.codes(torch.cdist(z, self.codes.weight).argmin(-1))
            loss = F.mse_loss(q, z.detach()) + 0.25 * F.mse_loss(z, q.detach())
            return F.mse_loss(self.decode(z + (q - z).detach()), x) + loss

    return dict(model=Vq(), inputs=(torch.randn(9, 6),))


def quiet_siamese_stop_gradient() -> dict[str, Any]:
    class SimSiam(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.predictor = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4)), nn.Linear(4, 4)

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            za, zb = self.encoder(a), self.encoder(b)
            return -(F.cosine_similarity(self.predictor(za), zb.detach()) + F.cosine_similarity(self.predictor(zb), za.detach())).mean()

    return dict(model=SimSiam(), inputs=(torch.randn(5, 4), torch.randn(5, 4)))


def quiet_actor_critic() -> dict[str, Any]:
    class Policy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.pi, self.v = nn.Linear(4, 8), nn.Linear(8, 2), nn.Linear(8, 1)

        def forward(self, s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            h = torch.tanh(self.body(s))
            return torch.log_softmax(self.pi(h), -1), self.v(h).squeeze(-1)

    returns, action = torch.randn(6), torch.randint(0, 2, (6,))

    def loss(out: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        logp, value = out
        advantage = returns - value.detach()
        return -(logp.gather(1, action[:, None]).squeeze(1) * advantage).mean() + 0.5 * F.mse_loss(value, returns)

    return dict(model=Policy(), inputs=(torch.randn(6, 4),), loss=loss)


def quiet_truncated_backpropagation() -> dict[str, Any]:
    class Rnn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.out = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            state, total = None, x.new_zeros(())
            for chunk in x.split(3, 1):
                y, state = self.rnn(chunk, state)
                state = tuple(s.detach() for s in state)
                total = total + F.mse_loss(self.out(y), chunk)
            return total

    return dict(model=Rnn(), inputs=(torch.randn(2, 9, 3),))


def quiet_discriminator_step() -> dict[str, Any]:
    class Gan(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.generator, self.discriminator = nn.Linear(2, 4), nn.Sequential(nn.Linear(4, 6), nn.LeakyReLU(0.2), nn.Linear(6, 1))

        def forward(self, z: torch.Tensor, real: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            fake = self.generator(z)
            return self.discriminator(fake.detach()), self.discriminator(real)

    model = Gan()
    return dict(
        model=model,
        inputs=(torch.randn(5, 2), torch.randn(5, 4)),
        loss=lambda out: F.softplus(out[0]).mean() + F.softplus(-out[1]).mean(),
        optimizer=torch.optim.Adam(model.discriminator.parameters(), 2e-4),
    )


def quiet_target_network_outside_the_optimizer() -> dict[str, Any]:
    class Dqn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
            self.target = copy.deepcopy(self.q)

        def forward(self, s: torch.Tensor, s2: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
            goal = r + 0.9 * self.target(s2).max(1).values
            return F.mse_loss(self.q(s)[:, 0], goal.detach())

    model = Dqn()
    return dict(
        model=model, inputs=(torch.randn(6, 4), torch.randn(6, 4), torch.randn(6)), optimizer=torch.optim.SGD(model.q.parameters(), 0.1)
    )


def quiet_target_network_that_averages_the_online_one() -> dict[str, Any]:
    class Byol(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.online, self.predict = nn.Linear(4, 4), nn.Linear(4, 4)
            self.target = copy.deepcopy(self.online)

        @torch.no_grad()
        def average(self) -> None:
            for slow, fast in zip(self.target.parameters(), self.online.parameters(), strict=True):
                slow.mul_(0.99).add_(fast, alpha=0.01)

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            self.average()
            goal = self.target(b).detach()
            return F.mse_loss(self.predict(self.online(a)), goal)

    return dict(model=Byol(), inputs=(torch.randn(5, 4), torch.randn(5, 4)))


def quiet_gumbel_and_metrics() -> dict[str, Any]:
    class Chooser(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.logits, self.items = nn.Linear(4, 3), nn.Parameter(torch.randn(3, 2))
            self.register_buffer("mean", torch.zeros(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits = self.logits(x)
            self.mean.mul_(0.9).add_(logits.mean(0).detach(), alpha=0.1)
            soft = torch.softmax(logits, -1)
            hard = F.one_hot(soft.argmax(-1), 3).to(soft.dtype)
            choice = hard - soft.detach() + soft
            self.accuracy = (logits.detach().argmax(-1) == 0).float().mean()
            return choice @ self.items

    return dict(model=Chooser(), inputs=(torch.randn(5, 4),), loss=lambda o: o.pow(2).mean())


def quiet_input_detached() -> dict[str, Any]:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x.detach() / x.data.abs().max())

    return dict(model=Net(), inputs=(torch.randn(3, 4, requires_grad=True),), loss=lambda o: o.sum())


def guilty_detach_under_partial() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 1)
            self.post = functools.partial(torch.detach)

        def forward(self, x):
            return self.b(self.post(self.a(x)))  # FXG103

    return dict(model=N(), inputs=(torch.randn(2, 3),), loss=lambda o: o.sum())


def guilty_property_weight() -> dict[str, Any]:
    class W(nn.Module):
        def __init__(self):
            super().__init__()
            self.raw = nn.Parameter(torch.randn(3, 3))

        @property
        def weight(self):
            return F.softplus(self.raw).detach()  # FXG103

        def forward(self, x):
            return F.linear(x, self.weight)

    return dict(model=nn.Sequential(W(), nn.Linear(3, 1)), inputs=(torch.randn(2, 3),), loss=lambda o: o.sum())


def guilty_dict_comp() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.enc = nn.ModuleDict({k: nn.Linear(3, 3) for k in "ab"})
            self.head = nn.Linear(3, 1)

        def forward(self, x):
            z = {k: m(x).detach() for k, m in self.enc.items()}  # FXG103
            return self.head(sum(z.values()))

    return dict(model=N(), inputs=(torch.randn(2, 3),), loss=lambda o: o.sum())


def guilty_named_parameters_data() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
            self.lr = nn.Parameter(torch.tensor(0.1))

        def forward(self, x):
            w = {n: p.data * self.lr for n, p in self.net.named_parameters()}  # FXG103
            return torch.func.functional_call(self.net, w, (x,))

    return dict(model=N(), inputs=(torch.randn(2, 3),), loss=lambda o: o.sum())


def guilty_detach_then_requires_grad() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.enc, self.dec = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            z = self.enc(x)
            z = z.detach().requires_grad_(True)  # FXG103
            return self.dec(z)

    return dict(model=N(), inputs=(torch.randn(2, 3),), loss=lambda o: o.sum())


def guilty_nested_containers() -> dict[str, Any]:
    class Block(nn.Module):
        def __init__(self, d, stop):
            super().__init__()
            self.f, self.stop = nn.Linear(d, d), stop

        def forward(self, x):
            y = self.f(x)
            if self.stop:
                y = y.detach()  # FXG103
            return y

    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.stages = nn.ModuleList([nn.ModuleList([Block(3, i == 1 and j == 1) for j in range(2)]) for i in range(3)])

        def forward(self, x):
            for s in self.stages:
                for b in s:
                    x = b(x)
            return x

    return dict(model=N(), inputs=(torch.randn(2, 3),), loss=lambda o: o.sum())


def guilty_residual_detached_branch() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            return self.a(x) + self.b(x).detach()  # FXG103

    return dict(model=N(), inputs=(torch.randn(2, 3),), loss=lambda o: o.sum())


def guilty_teacher_forcing_feedback() -> dict[str, Any]:
    class Seq(nn.Module):
        def __init__(self):
            super().__init__()
            self.start = nn.Parameter(torch.randn(3))
            self.cell, self.out = nn.GRUCell(3, 3), nn.Linear(3, 3)

        def forward(self, h):
            y, outs = self.start.expand(h.shape[0], -1), []
            for _ in range(3):
                h = self.cell(y.detach(), h)  # FXG103
                y = self.out(h)
                outs.append(y)
            return torch.stack(outs)

    return dict(model=Seq(), inputs=(torch.randn(2, 3),), loss=lambda o: o.pow(2).sum())


def guilty_detach_in_a_base_class() -> dict[str, Any]:
    class Base(nn.Module):
        def features(self, x):
            return self.extract(x).flatten(1).detach()  # FXG103

        def forward(self, x):
            return self.head(self.features(x))

    class Net(Base):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(1, 2, 3), nn.Linear(8, 2)

        def extract(self, x):
            return self.conv(x).relu()

    return dict(model=Net(), inputs=(torch.randn(2, 1, 4, 4),), loss=lambda o: o.sum())


def guilty_two_on_one_line() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(6, 1)

        def forward(self, x):
            return self.c(torch.cat([self.a(x).detach(), self.b(x).detach()], 1))  # FXG103

    return dict(model=N(), inputs=(torch.randn(2, 3),), loss=lambda o: o.sum())


def guilty_no_grad_and_detach_inside() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.c = nn.Linear(3, 3), nn.Linear(3, 1)

        def forward(self, x):
            with torch.no_grad():  # FXG104
                h = self.a(x).detach()  # or FXG103
            return self.c(h)

    return dict(model=N(), inputs=(torch.randn(2, 3),), loss=lambda o: o.sum())


def quiet_detach_input_of_head_with_aux() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 1), nn.Linear(3, 1)

        def forward(self, x):
            h = self.body(x)
            return self.a(h), self.b(h.detach())

    return dict(model=N(), inputs=(torch.randn(2, 3),), loss=lambda o: sum(t.pow(2).sum() for t in o))


def quiet_grad_scaling() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.a = nn.Linear(3, 3), nn.Linear(3, 1)

        def forward(self, x):
            h = self.body(x)
            h = h * 0.1 + h.detach() * 0.9
            return self.a(h)

    return dict(model=N(), inputs=(torch.randn(2, 3),), loss=lambda o: o.sum())


def quiet_weight_standardize() -> dict[str, Any]:
    class C(nn.Conv1d):
        def forward(self, x):
            w = self.weight
            w = (w - w.mean()) / (w.detach().std() + 1e-5)
            return F.conv1d(x, w, self.bias)

    return dict(model=nn.Sequential(C(2, 3, 3), nn.ReLU(), C(3, 1, 1)), inputs=(torch.randn(2, 2, 6),), loss=lambda o: o.pow(2).sum())


def quiet_spectral_norm() -> dict[str, Any]:
    from torch.nn.utils.parametrizations import spectral_norm

    return dict(
        model=nn.Sequential(spectral_norm(nn.Linear(3, 4)), nn.LeakyReLU(), spectral_norm(nn.Linear(4, 1))),
        inputs=(torch.randn(2, 3),),
        loss=lambda o: o.pow(2).sum(),
    )


def quiet_old_spectral_norm() -> dict[str, Any]:
    from torch.nn.utils import spectral_norm, weight_norm

    return dict(
        model=nn.Sequential(spectral_norm(nn.Linear(3, 4)), nn.LeakyReLU(), weight_norm(nn.Linear(4, 1))),
        inputs=(torch.randn(2, 3),),
        loss=lambda o: o.pow(2).sum(),
    )


def quiet_kl_to_detached_self() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = nn.Linear(3, 4)

        def forward(self, x):
            logits = self.f(x)
            p = logits.softmax(-1).detach()
            return F.kl_div(F.log_softmax(self.f(x + 0.1), -1), p, reduction="batchmean") + F.cross_entropy(logits, p.argmax(-1))

    return dict(model=N(), inputs=(torch.randn(2, 3),))


def quiet_memory_bank() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = nn.Linear(3, 4)
            self.bank = [torch.randn(4) for _ in range(5)]

        def forward(self, x):
            z = F.normalize(self.f(x), dim=1)
            neg = torch.stack(self.bank)
            for r in z.detach():
                self.bank.pop(0)
                self.bank.append(r)
            return z @ neg.T

    t = torch.tensor([0, 1])
    return dict(model=N(), inputs=(torch.randn(2, 3),), loss=lambda o: F.cross_entropy(o, t))


def quiet_ema_normalizer() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = nn.Linear(3, 4)
            self.register_buffer("m", torch.ones(()))

        def forward(self, x):
            z = self.f(x)
            self.m = 0.9 * self.m + 0.1 * z.abs().mean().detach()
            return z / self.m

    return dict(model=N(), inputs=(torch.randn(2, 3),), loss=lambda o: o.pow(2).sum())


def quiet_deepcopy_target_not_in_optimizer_no_grad() -> dict[str, Any]:
    class A(nn.Module):
        def __init__(self):
            super().__init__()
            self.q = nn.Linear(3, 2)
            self.t = copy.deepcopy(self.q)

        def forward(self, s, s2):
            with torch.no_grad():
                y = self.t(s2).max(1)[0]
            return F.mse_loss(self.q(s).gather(1, torch.zeros(4, 1, dtype=torch.long)).squeeze(), y)

    m = A()
    return dict(model=m, inputs=(torch.randn(4, 3), torch.randn(4, 3)), optimizer=torch.optim.Adam(m.q.parameters()))


def guilty_inside_checkpoint() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 1)

        def block(self, h):
            g = torch.sigmoid(self.b(h)).detach()  # FXG103
            return h * g

        def forward(self, x):
            return self.c(checkpoint(self.block, self.a(x), use_reentrant=False))

    return dict(model=N(), inputs=(torch.randn(2, 3),), loss=lambda o: o.sum())


def guilty_inside_checkpoint_module() -> dict[str, Any]:
    class B(nn.Module):
        def __init__(self):
            super().__init__()
            self.b, self.g = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, h):
            with torch.no_grad():  # FXG104
                g = torch.sigmoid(self.g(h))
            return self.b(h) * g

    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList([B(), B()])
            self.a = nn.Linear(3, 3)

        def forward(self, x):
            x = self.a(x)
            for b in self.blocks:
                x = checkpoint(b, x, use_reentrant=False)
            return x

    return dict(model=N(), inputs=(torch.randn(2, 3),), loss=lambda o: o.sum())


def guilty_unused_inside_checkpoint() -> dict[str, Any]:
    class B(nn.Module):
        def __init__(self):
            super().__init__()
            self.b, self.g = nn.Linear(3, 3), nn.Linear(3, 3)  # or FXG101
            self.h = nn.Linear(3, 3)  # FXG101

        def forward(self, h):
            self.g(h)  # FXG101
            return self.b(h)

    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = B()
            self.a = nn.Linear(3, 3)

        def forward(self, x):
            return checkpoint(self.block, self.a(x), use_reentrant=False)

    return dict(model=N(), inputs=(torch.randn(2, 3),), loss=lambda o: o.sum())


def guilty_autograd_grad_without_create_graph() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(3, 4), nn.Softplus(), nn.Linear(4, 1))
            self.s = nn.Parameter(torch.ones(1))

        def forward(self, x):
            x = x.requires_grad_()
            e = self.net(x).sum()
            return torch.autograd.grad(e, x)[0] * self.s  # FXG103

    return dict(model=N(), inputs=(torch.randn(2, 3),), loss=lambda o: o.pow(2).sum())


def quiet_value_clipped_around_the_old_one() -> dict[str, Any]:
    class Ppo(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.pi, self.v = nn.Linear(4, 6), nn.Linear(6, 3), nn.Linear(6, 1)

        def forward(self, s):
            h = self.body(s).tanh()
            return self.pi(h).log_softmax(-1), self.v(h).squeeze(-1)

    def loss(out):
        logp, value = out
        old_logp, old_value = logp.detach() - 0.05, value.detach() + 0.1
        ratio = (logp - old_logp).exp()[:, 0]
        advantage = torch.arange(5.0) - old_value
        clipped = old_value + (value - old_value).clamp(-0.2, 0.2)
        return -torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean() + (clipped - 1).square().mean()

    return dict(model=Ppo(), inputs=(torch.randn(5, 4),), loss=loss)


def quiet_gradient_penalty_on_interpolates() -> dict[str, Any]:
    class Critic(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1, bias=False))

        def forward(self, real, fake):
            eps = torch.rand(len(real), 1)
            mixed = (eps * real.detach() + (1 - eps) * fake.detach()).requires_grad_(True)
            (slope,) = torch.autograd.grad(self.net(mixed).sum(), mixed, create_graph=True)
            return self.net(fake).mean() - self.net(real).mean() + 10 * (slope.norm(dim=1) - 1).square().mean()

    return dict(model=Critic(), inputs=(torch.randn(5, 4), torch.randn(5, 4)))


def quiet_adaptive_weight_of_the_adversarial_term() -> dict[str, Any]:
    class Vqgan(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.last = nn.Linear(4, 4), nn.Linear(4, 4)
            self.judge = nn.Linear(4, 1).requires_grad_(False)

        def forward(self, x):
            y = self.last(self.body(x).relu())
            rec, adv = F.l1_loss(y, x), -self.judge(y).mean()
            (a,) = torch.autograd.grad(rec, self.last.weight, retain_graph=True)
            (b,) = torch.autograd.grad(adv, self.last.weight, retain_graph=True)
            weight = (a.norm() / (b.norm() + 1e-4)).clamp(0, 1e4).detach()
            return rec + weight * adv

    return dict(model=Vqgan(), inputs=(torch.randn(5, 4),))


def quiet_target_averaged_by_foreach() -> dict[str, Any]:
    class Sac(nn.Module):
        def __init__(self):
            super().__init__()
            self.critic = nn.Linear(4, 2)
            self.slow = nn.Linear(4, 2)

        def sync(self):
            with torch.no_grad():
                torch._foreach_lerp_(list(self.slow.parameters()), list(self.critic.parameters()), 0.01)

        def forward(self, s, s2):
            self.sync()
            return F.mse_loss(self.critic(s), 0.9 * self.slow(s2).detach())

    return dict(model=Sac(), inputs=(torch.randn(3, 4), torch.randn(3, 4)))


def quiet_teacher_set_by_state_dict_average() -> dict[str, Any]:
    class MeanTeacher(nn.Module):
        def __init__(self):
            super().__init__()
            self.pupil, self.master = nn.Linear(4, 3), nn.Linear(4, 3)

        def momentum(self):
            mine, theirs = self.master.state_dict(), self.pupil.state_dict()
            self.master.load_state_dict({k: 0.99 * mine[k] + 0.01 * theirs[k] for k in mine})

        def forward(self, x):
            self.momentum()
            goal = self.master(x).detach().softmax(-1)
            return -(goal * self.pupil(x + 0.1).log_softmax(-1)).sum(-1).mean()

    return dict(model=MeanTeacher(), inputs=(torch.randn(3, 4),))


def quiet_target_flattened_and_mixed() -> dict[str, Any]:
    from torch.nn.utils import parameters_to_vector, vector_to_parameters

    class Td(nn.Module):
        def __init__(self):
            super().__init__()
            self.live, self.lagged = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, s, s2):
            with torch.no_grad():
                mixed = parameters_to_vector(self.lagged.parameters()).lerp(parameters_to_vector(self.live.parameters()), 0.05)
                vector_to_parameters(mixed, self.lagged.parameters())
            return F.mse_loss(self.live(s), self.lagged(s2).detach())

    return dict(model=Td(), inputs=(torch.randn(3, 3), torch.randn(3, 3)))


def quiet_average_updated_by_a_free_function() -> dict[str, Any]:
    def soft_update(target, source, tau):
        for target_param, param in zip(target.parameters(), source.parameters(), strict=True):
            target_param.data.copy_(target_param.data * (1.0 - tau) + param.data * tau)

    class Ddpg(nn.Module):
        def __init__(self):
            super().__init__()
            self.critic, self.critic_target = nn.Linear(4, 1), nn.Linear(4, 1)

        def forward(self, s, s2):
            loss = F.mse_loss(self.critic(s), self.critic_target(s2).detach())
            return loss

    model = Ddpg()
    soft_update(model.critic_target, model.critic, 1.0)
    return dict(model=model, inputs=(torch.randn(3, 4), torch.randn(3, 4)))


def quiet_average_by_names_of_a_dict() -> dict[str, Any]:
    class Ema(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(4, 2)
            self.ema = nn.Linear(4, 2)

        @torch.no_grad()
        def accumulate(self, decay=0.99):
            ours, theirs = dict(self.ema.named_parameters()), dict(self.net.named_parameters())
            for k in ours:
                ours[k].data.mul_(decay).add_(theirs[k].data, alpha=1 - decay)

        def forward(self, x):
            self.accumulate()
            return F.mse_loss(self.net(x), self.ema(x).detach())

    return dict(model=Ema(), inputs=(torch.randn(3, 4),))


def quiet_averaged_model_inside() -> dict[str, Any]:
    class Consistency(nn.Module):
        def __init__(self):
            super().__init__()
            self.student = nn.Linear(4, 2)
            self.teacher = torch.optim.swa_utils.AveragedModel(self.student)

        def forward(self, x):
            self.teacher.update_parameters(self.student)
            return F.mse_loss(self.student(x + 0.1), self.teacher(x).detach())

    return dict(model=Consistency(), inputs=(torch.randn(3, 4),))


def quiet_linear_probe_beside_the_optimizer() -> dict[str, Any]:
    class Probe(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone, self.probe = nn.Sequential(nn.Linear(4, 6), nn.ReLU()), nn.Linear(6, 2)

        def forward(self, x):
            return self.probe(self.backbone(x).detach())

    model = Probe()
    return dict(
        model=model,
        inputs=(torch.randn(3, 4),),
        loss=lambda o: o.logsumexp(-1).mean(),
        optimizer=torch.optim.SGD(model.probe.parameters(), 0.1),
    )


def quiet_stop_gradient_on_the_weight_only() -> dict[str, Any]:
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.emb, self.mix = nn.Embedding(6, 4), nn.Linear(4, 4)

        def forward(self, ids):
            h = self.mix(self.emb(ids))
            return F.cross_entropy(F.linear(h, self.emb.weight.detach()), ids)

    return dict(model=Shared(), inputs=(torch.tensor([1, 4, 5]),))


def quiet_focal_weight_detached() -> dict[str, Any]:
    y = torch.tensor([0, 2, 1])

    def loss(logits):
        ce = F.cross_entropy(logits, y, reduction="none")
        pt = torch.exp(-ce.detach())
        return ((1 - pt) ** 2 * ce).mean()

    return dict(model=nn.Linear(4, 3), inputs=(torch.randn(3, 4),), loss=loss)


def quiet_softmax_shifted_by_a_detached_maximum() -> dict[str, Any]:
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            scores = self.q(x) @ self.k(x).T
            weights = torch.exp(scores - scores.detach().amax(-1, keepdim=True))
            return weights / weights.sum(-1, keepdim=True) @ self.v(x)

    return dict(model=Attention(), inputs=(torch.randn(5, 4),), loss=lambda o: o.square().mean())


def quiet_newton_iterations_then_one_attached_step() -> dict[str, Any]:
    class Implicit(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = nn.Linear(3, 3)

        def forward(self, x):
            z = torch.zeros_like(x)
            for _ in range(4):
                z = (0.5 * torch.tanh(self.f(z)) + x).detach()
            return 0.5 * torch.tanh(self.f(z)) + x

    return dict(model=Implicit(), inputs=(torch.randn(2, 3),), loss=lambda o: o.square().sum())


def quiet_scheduled_sampling_with_detached_feedback() -> dict[str, Any]:
    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.out = nn.GRUCell(3, 4), nn.Linear(4, 3)

        def forward(self, x, steps):
            h, previous, outs = x.new_zeros(len(x), 4), x, []
            for _ in range(steps):
                h = self.cell(previous, h)
                outs.append(self.out(h))
                previous = outs[-1].detach()
            return torch.stack(outs, 1)

    return dict(model=Decoder(), inputs=(torch.randn(2, 3), 3), loss=lambda o: o.square().mean())


def quiet_features_kept_by_a_hook_for_a_plot() -> dict[str, Any]:
    features = {}

    def keep(name, module, args, out):
        features[name] = out.detach()

    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    for name, layer in model.named_children():
        layer.register_forward_hook(functools.partial(keep, name))
    return dict(model=model, inputs=(torch.randn(2, 3),), loss=lambda o: o.square().mean())


def quiet_log_derivative_trick_with_itself() -> dict[str, Any]:
    """DiCE: exp(logp - stopped logp) is one, its derivative is not."""

    class Policy(nn.Module):
        def __init__(self):
            super().__init__()
            self.pi = nn.Linear(4, 3)

        def forward(self, s):
            logp = self.pi(s).log_softmax(-1)[:, 0]
            return torch.exp(logp - logp.detach())

    return dict(model=Policy(), inputs=(torch.randn(5, 4),), loss=lambda o: -(o * torch.arange(5.0)).mean())


def quiet_lower_bound_clamp_with_a_residual() -> dict[str, Any]:
    class Clamp(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = nn.Linear(3, 3)

        def forward(self, x):
            y = self.f(x)
            return y + (y.clamp(-0.1, 0.1) - y).data

    return dict(model=Clamp(), inputs=(torch.randn(2, 3),), loss=lambda o: o.pow(3).sum())


def quiet_hidden_state_kept_by_a_stateful_network() -> dict[str, Any]:
    class Stateful(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 1)
            self.state = None

        def forward(self, x):
            state = None if self.state is None else self.state.data
            y, self.state = self.rnn(x, state)
            return self.head(y)

    return dict(model=Stateful(), inputs=(torch.randn(2, 4, 3),), loss=lambda o: o.square().mean())


def quiet_running_center_of_the_teacher() -> dict[str, Any]:
    class Dino(nn.Module):
        def __init__(self):
            super().__init__()
            self.student = nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 5))
            self.teacher = copy.deepcopy(self.student)
            for p in self.teacher.parameters():
                p.requires_grad = False
            self.register_buffer("center", torch.zeros(1, 5))

        def forward(self, a, b):
            t = self.teacher(a)
            goal = ((t - self.center) / 0.04).softmax(-1).detach()
            self.center = self.center * 0.9 + t.detach().mean(0, keepdim=True) * 0.1
            return -(goal * (self.student(b) / 0.1).log_softmax(-1)).sum(-1).mean()

    return dict(model=Dino(), inputs=(torch.randn(5, 4), torch.randn(5, 4)))


def quiet_snapshot_of_the_weights_as_an_anchor() -> dict[str, Any]:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    anchor = {name: p.detach().clone() for name, p in model.named_parameters()}

    def loss(out):
        drift = sum((p - anchor[name]).square().sum() for name, p in model.named_parameters())
        return out.square().mean() + 0.1 * drift

    return dict(model=model, inputs=(torch.randn(3, 4),), loss=loss)


def quiet_two_detached_halves_that_together_cover_all() -> dict[str, Any]:
    class Alternating(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            a, b = self.a(x), self.b(x)
            return (a * b.detach()).sum() + (a.detach() * b).sum()

    return dict(model=Alternating(), inputs=(torch.randn(2, 3),))


def quiet_virtual_adversarial_direction() -> dict[str, Any]:
    class Vat(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))

        def forward(self, x):
            logits = self.net(x)
            goal = logits.softmax(-1).detach()
            d = F.normalize(torch.randn_like(x), dim=1).requires_grad_()
            (g,) = torch.autograd.grad(F.kl_div(self.net(x + d).log_softmax(-1), goal, reduction="batchmean"), d)
            bad = F.normalize(g.detach(), dim=1)
            return F.kl_div(self.net(x + bad).log_softmax(-1), goal, reduction="batchmean") + logits.square().mean()

    return dict(model=Vat(), inputs=(torch.randn(5, 4),))


def quiet_logged_losses_collected_detached() -> dict[str, Any]:
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.encode, self.decode = nn.Linear(4, 2), nn.Linear(2, 4)

        def forward(self, x):
            z = self.encode(x)
            parts = {"rec": F.mse_loss(self.decode(z), x), "norm": z.square().mean()}
            return sum(parts.values()), {k: v.detach() for k, v in parts.items()}

    return dict(model=Model(), inputs=(torch.randn(3, 4),), loss=lambda out: out[0])


def quiet_previous_model_kept_for_distillation() -> dict[str, Any]:
    class Lwf(nn.Module):
        def __init__(self, old):
            super().__init__()
            self.net, self.old = nn.Linear(4, 3), old
            self.net.load_state_dict(old.state_dict())

        def forward(self, x):
            return self.net(x), self.old(x).detach()

    def loss(out):
        return F.kl_div(out[0].log_softmax(-1), out[1].softmax(-1), reduction="batchmean") + F.cross_entropy(
            out[0], torch.tensor([0, 1, 2])
        )

    return dict(model=Lwf(nn.Linear(4, 3).requires_grad_(False)), inputs=(torch.randn(3, 4),), loss=loss)


def quiet_target_picked_by_the_online_network() -> dict[str, Any]:
    """Double DQN with the target in the model, made by a factory and copied by `load_state_dict`."""

    def q_network():
        return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))

    class Agent(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.q_old = q_network(), q_network()
            self.q_old.load_state_dict(self.q.state_dict())

        def forward(self, s, s2):
            best = self.q(s2).argmax(-1, keepdim=True)
            goal = self.q_old(s2).gather(1, best).detach()
            return F.smooth_l1_loss(self.q(s)[:, :1], goal)

    return dict(model=Agent(), inputs=(torch.randn(5, 4), torch.randn(5, 4)))


def quiet_forces_trained_on_alone() -> dict[str, Any]:
    """The energy's last bias has no part in the forces: nothing is detached."""

    class Potential(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 1))

        def forward(self, x):
            x = x.clone().requires_grad_()
            (slope,) = torch.autograd.grad(self.net(x).sum(), x, create_graph=True)
            return -slope

    return dict(model=Potential(), inputs=(torch.randn(4, 3),), loss=lambda o: (o - 1).square().mean())


def quiet_equation_residual_of_first_and_second_order() -> dict[str, Any]:
    class Pinn(nn.Module):
        def __init__(self):
            super().__init__()
            self.u = nn.Sequential(nn.Linear(1, 6), nn.Tanh(), nn.Linear(6, 1))

        def forward(self, t):
            t = t.clone().requires_grad_()
            u = self.u(t)
            first = torch.autograd.grad(u, t, torch.ones_like(u), create_graph=True)[0]
            second = torch.autograd.grad(first, t, grad_outputs=torch.ones_like(first), create_graph=True)[0]
            return (second + 0.5 * first).square().mean()

    return dict(model=Pinn(), inputs=(torch.rand(5, 1),))


def quiet_codebook_averaged_over_what_it_is_given() -> dict[str, Any]:
    class Vq(nn.Module):
        def __init__(self):
            super().__init__()
            self.enc, self.dec, self.codes = nn.Linear(4, 3), nn.Linear(3, 4), nn.Embedding(5, 3)

        def forward(self, x):
            z = self.enc(x)
            index = torch.cdist(z, self.codes.weight).argmin(-1)
            q = self.codes(index).detach()
            with torch.no_grad():
                self.codes.weight.mul_(0.99).add_(F.one_hot(index, 5).float().T @ z, alpha=0.01)
            return F.mse_loss(self.dec(z + (q - z).detach()), x) + F.mse_loss(z, q)

    return dict(model=Vq(), inputs=(torch.randn(6, 4),))


def quiet_class_centres_moved_by_hand() -> dict[str, Any]:
    class Centres(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.centres = nn.Linear(4, 2), nn.Parameter(torch.randn(3, 2))

        def forward(self, x, y):
            z = self.net(x)
            loss = (z - self.centres.detach()[y]).square().sum(-1).mean()
            self.centres.data.index_add_(0, y, 0.1 * (z.detach() - self.centres.data[y]))
            return loss

    return dict(model=Centres(), inputs=(torch.randn(4, 4), torch.tensor([0, 1, 2, 1])))


def quiet_layers_stepped_by_their_own_local_loss() -> dict[str, Any]:
    """Forward-forward: each layer takes its step inside the forward pass, and hands on what it computed, detached."""

    class Local(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers, self.head = nn.ModuleList(nn.Linear(4, 4) for _ in range(2)), nn.Linear(4, 2)

        def forward(self, x):
            for layer in self.layers:
                goodness = layer(x).relu().square().mean()
                slopes = torch.autograd.grad(F.softplus(1 - goodness), list(layer.parameters()))
                with torch.no_grad():
                    for p, g in zip(layer.parameters(), slopes, strict=True):
                        p -= 0.1 * g
                x = layer(x).relu().detach()
            return self.head(x)

    return dict(model=Local(), inputs=(torch.randn(5, 4),), loss=lambda o: o.logsumexp(-1).mean())


def quiet_layers_with_optimizers_inside() -> dict[str, Any]:
    class Local(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers, self.head = nn.ModuleList(nn.Linear(4, 4) for _ in range(2)), nn.Linear(4, 2)
            self.optimizers = [torch.optim.SGD(layer.parameters(), 0.1) for layer in self.layers]

        def forward(self, x):
            for layer, optimizer in zip(self.layers, self.optimizers, strict=True):
                optimizer.zero_grad()
                F.softplus(1 - layer(x).relu().square().mean()).backward()
                optimizer.step()
                optimizer.zero_grad()
                x = layer(x).relu().detach()
            return self.head(x)

    return dict(model=Local(), inputs=(torch.randn(5, 4),), loss=lambda o: o.logsumexp(-1).mean())


def quiet_hebbian_weights() -> dict[str, Any]:
    class Hebb(nn.Module):
        def __init__(self):
            super().__init__()
            self.plastic, self.head = nn.Parameter(0.1 * torch.randn(4, 4)), nn.Linear(4, 2)

        def forward(self, x):
            with torch.no_grad():
                y = x @ self.plastic
                self.plastic += 0.01 * (x.T @ y - y.square().mean(0) * self.plastic)
            return self.head(x @ self.plastic.detach())

    return dict(model=Hebb(), inputs=(torch.randn(5, 4),), loss=lambda o: o.logsumexp(-1).mean())


def guilty_projected_by_hand_is_not_trained_by_hand() -> dict[str, Any]:
    """What is written comes from the parameter itself and from noise: no average, no step."""

    class Projected(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.gain = nn.Linear(3, 3), nn.Parameter(torch.rand(3))

        def forward(self, x):
            with torch.no_grad():
                self.gain.add_(0.01 * torch.randn(3)).clamp_(0, 1)
                self.gain.div_(self.gain.norm())
            return self.fc(x) * self.gain.detach()  # FXG103

    return dict(model=Projected(), inputs=(torch.randn(4, 3),), loss=lambda o: o.square().mean())


def guilty_part_of_what_one_of_two_optimizers_holds() -> dict[str, Any]:
    """Its optimizer has its turn in this very step: the other layers that it holds train."""

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 1)
            self.slow = torch.optim.SGD([*self.stem.parameters(), *self.body.parameters()], 0.01)
            self.fast = torch.optim.SGD(self.head.parameters(), 0.1)

        def forward(self, x):
            return self.head(self.body(self.stem(x).detach()).relu())  # FXG103

    return dict(model=Two(), inputs=(torch.randn(3, 4),), loss=lambda o: o.square().mean())


def quiet_judge_step_of_two_optimizers_on_the_model() -> dict[str, Any]:
    class Gan(nn.Module):
        def __init__(self):
            super().__init__()
            self.maker, self.judge = nn.Linear(2, 4), nn.Linear(4, 1)
            self.optimizers = [torch.optim.Adam(self.maker.parameters()), torch.optim.Adam(self.judge.parameters())]

        def forward(self, z, real):
            fake = self.maker(z).detach()
            return F.softplus(self.judge(fake)).mean() + F.softplus(-self.judge(real)).mean()

    return dict(model=Gan(), inputs=(torch.randn(3, 2), torch.randn(3, 4)))


def quiet_judge_step_of_three_optimizers_on_the_model() -> dict[str, Any]:
    class Gan(nn.Module):
        def __init__(self):
            super().__init__()
            self.maker, self.style, self.judge = nn.Linear(2, 4), nn.Linear(4, 4), nn.Linear(4, 1)
            self.optimizers = [torch.optim.Adam(part.parameters()) for part in (self.maker, self.style, self.judge)]

        def forward(self, z, real):
            fake = self.style(self.maker(z)).detach()
            return F.softplus(self.judge(fake)).mean() + F.softplus(-self.judge(real)).mean()

    return dict(model=Gan(), inputs=(torch.randn(3, 2), torch.randn(3, 4)))


def quiet_both_optimizers_handed_over_in_the_critics_step() -> dict[str, Any]:
    class ActorCritic(nn.Module):
        def __init__(self):
            super().__init__()
            self.actor, self.critic = nn.Linear(4, 2), nn.Linear(6, 1)

        def forward(self, s, goal):
            action = self.actor(s).tanh().detach()
            return F.mse_loss(self.critic(torch.cat([s, action], -1)), goal)

    model = ActorCritic()
    turns = {"actor": torch.optim.Adam(model.actor.parameters()), "critic": torch.optim.Adam(model.critic.parameters())}
    return dict(model=model, inputs=(torch.randn(3, 4), torch.randn(3, 1)), optimizer=turns)


def quiet_probe_with_its_own_optimizer_and_schedule() -> dict[str, Any]:
    class Probed(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.probe = nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Linear(4, 2)
            self.body_optimizer = torch.optim.SGD(self.body.parameters(), 0.1)
            self.probe_optimizer = torch.optim.SGD(self.probe.parameters(), 1.0)

        def forward(self, x):
            return self.probe(self.body(x).detach())

    return dict(model=Probed(), inputs=(torch.randn(3, 4),), loss=lambda o: o.logsumexp(-1).mean())


class _Sloped(nn.Module):
    """Its loss is what `loss` makes of the scores of some points, and of the slope there."""

    def __init__(self, loss: Callable[..., torch.Tensor], **asked: Any) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(2, 8), nn.Softplus(), nn.Linear(8, 1, bias=False))
        self.loss, self.asked = loss, asked

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.detach().requires_grad_()
        out = self.score(x)
        (slope,) = torch.autograd.grad(out, x, torch.ones_like(out), **self.asked)
        return self.loss(self, x, out, slope)


def _sloped(loss: Callable[..., torch.Tensor], **asked: Any) -> dict[str, Any]:
    return dict(model=_Sloped(loss, **asked), inputs=(torch.randn(5, 2),), loss=lambda out: out.mean())


def guilty_penalty_on_slopes_without_a_graph() -> dict[str, Any]:
    class Critic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.score = nn.Sequential(nn.Linear(2, 8), nn.Softplus(), nn.Linear(8, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x.detach().requires_grad_()
            out = self.score(x)
            (slope,) = torch.autograd.grad(out.sum(), x, retain_graph=True)  # FXG103
            penalty = (slope.norm(dim=1) - 1).pow(2).mean()
            return out.mean() + 10 * penalty

    return dict(model=Critic(), inputs=(torch.randn(5, 2),), loss=lambda out: out)


def guilty_smoothness_of_a_scaled_loss_summed_per_sample() -> dict[str, Any]:
    class Field(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(2, 8), nn.Softplus(), nn.Linear(8, 1))
            self.register_buffer("scale", torch.tensor(1024.0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x.detach().requires_grad_()
            value = self.net(x)
            slope = torch.autograd.grad(value, x, torch.ones_like(value), retain_graph=True)[0]  # FXG103
            losses = [value.square().sum(1), 0.1 * slope.square().sum(1)]
            return torch.stack(losses).sum(0).mean() * self.scale

    return dict(model=Field(), inputs=(torch.randn(5, 2),), loss=lambda out: out)


def quiet_penalty_on_slopes_with_a_graph() -> dict[str, Any]:
    return _sloped(lambda m, x, out, slope: out.mean() + (slope.norm(dim=1) - 1).pow(2).mean(), create_graph=True)


def quiet_attack_by_the_slope() -> dict[str, Any]:
    return _sloped(lambda m, x, out, slope: out + m.score(x + 0.1 * slope.sign()), retain_graph=True)


def quiet_losses_balanced_by_the_slope() -> dict[str, Any]:
    return _sloped(lambda m, x, out, slope: out.mean() + slope.norm() * out.square().mean(), retain_graph=True)


def quiet_slope_as_a_target() -> dict[str, Any]:
    return _sloped(lambda m, x, out, slope: nn.functional.mse_loss(out.expand(-1, 2), slope), retain_graph=True)


def quiet_slope_shown_beside_the_loss() -> dict[str, Any]:
    return _sloped(lambda m, x, out, slope: out.mean() + slope.square().mean().detach(), retain_graph=True)


def quiet_slope_of_what_has_no_parameter() -> dict[str, Any]:
    def loss(model: nn.Module, x: torch.Tensor, out: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
        (known,) = torch.autograd.grad(x.square().sum(), x)
        return out.mean() + known.square().mean()

    return _sloped(loss, retain_graph=True)


class Collected(nn.Module):
    """A recurrent net whose states are written into one tensor; `write` does it."""

    def __init__(self, write: Callable[[torch.Tensor, int, torch.Tensor], object]) -> None:
        super().__init__()
        self.cell, self.head, self.write = nn.GRUCell(3, 4), nn.Linear(4, 1), write

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h, out = x.new_zeros(x.shape[1], 4), x.new_zeros(x.shape[0], x.shape[1], 4)
        for t in range(x.shape[0]):
            h = self.cell(x[t], h)
            self.write(out, t, h)
        return self.head(out)


def collected(write: Callable[[torch.Tensor, int, torch.Tensor], object]) -> dict[str, Any]:
    return dict(model=Collected(write), inputs=(torch.randn(3, 2, 3),), loss=lambda o: o.square().mean())


def guilty_states_written_through_data() -> dict[str, Any]:
    def write(out, t, h):
        out.data[t] = h  # FXG103

    return collected(write)


def guilty_states_added_through_a_detached_view() -> dict[str, Any]:
    def write(out, t, h):
        out.detach()[t].add_(h)  # FXG103

    return collected(write)


def quiet_states_written_into_the_tensor() -> dict[str, Any]:
    def write(out, t, h):
        out[t] = h

    return collected(write)


def quiet_states_copied_into_a_view() -> dict[str, Any]:
    def write(out, t, h):
        out[t].copy_(h)

    return collected(write)


def quiet_states_written_besides_as_numbers() -> dict[str, Any]:
    kept = torch.zeros(3, 2, 4)

    def write(out, t, h):
        kept.data[t] = h.detach()
        out[t] = h

    return collected(write)
