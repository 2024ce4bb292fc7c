"""FXG205: parameters written between forward and backward, and steps taken at the right time."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn


def guilty_actor_critic_steps_critic_first():
    class Agent(nn.Module):
        def __init__(self):
            super().__init__()
            self.actor, self.critic = nn.Linear(3, 2), nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 1))
            self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), foreach=True)

        def learn_critic(self, q, target):
            loss = F.mse_loss(q, target)
            self.critic_optimizer.zero_grad()
            loss.backward(retain_graph=True)
            self.critic_optimizer.step()  # FXG205

        def forward(self, state, target):
            q = self.critic(torch.cat([state, torch.tanh(self.actor(state))], -1))
            self.learn_critic(q, target)
            return -q.mean()

    return dict(model=Agent(), inputs=(torch.randn(4, 3), torch.randn(4, 1)), loss=lambda o: o)


def guilty_manual_sgd_in_the_loss():
    class Unrolled:
        def __init__(self, model):
            self.model = model

        def inner_update(self, loss):
            grads = torch.autograd.grad(loss, list(self.model.parameters()), retain_graph=True)
            with torch.no_grad():
                for p, g in zip(self.model.parameters(), grads, strict=True):
                    p -= 0.1 * g  # FXG205

        def __call__(self, out):
            loss = out.square().mean()
            self.inner_update(loss)
            return loss

    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    return dict(model=model, inputs=(torch.randn(5, 3),), loss=Unrolled(model))


def guilty_weights_pulled_to_average_after_forward():
    class Swa(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Conv1d(2, 3, 3)
            self.average = copy.deepcopy(self.net).requires_grad_(False)

        @torch.no_grad()
        def swap_in(self):
            for p, a in zip(self.net.parameters(), self.average.parameters(), strict=True):
                p.copy_(0.5 * p + 0.5 * a)  # FXG205

        def forward(self, x):
            y = self.net(x.requires_grad_())
            self.swap_in()
            return y

    return dict(model=Swa(), inputs=(torch.randn(1, 2, 6),), loss=lambda o: o.square().sum())


def guilty_norm_projection_after_use():
    class MaxNorm(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.weight = nn.Linear(4, 4), nn.Parameter(torch.randn(4, 3))

        def project(self):
            with torch.no_grad():
                self.weight.div_(self.weight.norm(dim=0).clamp(min=1))  # FXG205

        def forward(self, x):
            y = self.first(x) @ self.weight
            self.project()
            return y

    return dict(model=MaxNorm(), inputs=(torch.randn(2, 4),), loss=lambda o: o.sum())


def guilty_two_generators_two_steps():
    class CycleGan(nn.Module):
        def __init__(self):
            super().__init__()
            self.ab, self.ba = (nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3)) for _ in range(2))
            self.optimizers = [torch.optim.SGD(m.parameters(), 0.1) for m in (self.ab, self.ba)]

        def forward(self, a):
            b = self.ab(a)
            cycle = F.l1_loss(self.ba(b), a)
            for optimizer in self.optimizers:
                optimizer.zero_grad()
            cycle.backward(retain_graph=True)
            for optimizer in self.optimizers:
                optimizer.step()  # FXG205
            return cycle + b.square().mean()

    return dict(model=CycleGan(), inputs=(torch.randn(4, 3),), loss=lambda o: o)


def quiet_step_on_detached_fakes():
    class Gan(nn.Module):
        def __init__(self):
            super().__init__()
            self.g, self.d = nn.Linear(2, 4), nn.Linear(4, 1)
            self.opt_d = torch.optim.SGD(self.d.parameters(), 0.1)

        def forward(self, z, real):
            fake = self.g(z)
            loss = F.softplus(self.d(fake.detach())).mean() + F.softplus(-self.d(real)).mean()
            self.opt_d.zero_grad()
            loss.backward()
            self.opt_d.step()
            return F.softplus(-self.d(fake)).mean()

    return dict(model=Gan(), inputs=(torch.randn(3, 2), torch.randn(3, 4)), loss=lambda o: o)


def quiet_target_network_averaged_after_forward():
    class Byol(nn.Module):
        def __init__(self):
            super().__init__()
            self.online, self.predictor = nn.Linear(4, 4), nn.Linear(4, 4)
            self.target = copy.deepcopy(self.online).requires_grad_(False)

        @torch.no_grad()
        def update(self):
            for t, o in zip(self.target.parameters(), self.online.parameters(), strict=True):
                t.lerp_(o, 0.01)

        def forward(self, x):
            with torch.no_grad():
                goal = self.target(x)
            loss = F.mse_loss(self.predictor(self.online(x)), goal)
            self.update()
            return loss

    return dict(model=Byol(), inputs=(torch.randn(3, 4),), loss=lambda o: o, expect=["online.*", "predictor.*"])


def quiet_projection_before_use():
    class MaxNorm(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 3))

        def forward(self, x):
            with torch.no_grad():
                self.weight.div_(self.weight.norm(dim=0).clamp(min=1))
            return x @ self.weight

    return dict(model=MaxNorm(), inputs=(torch.randn(2, 4),), loss=lambda o: o.sum())


def quiet_inner_step_on_a_copy_of_the_weights():
    class Maml(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(3, 1)

        def forward(self, x, y):
            fast = dict(self.net.named_parameters())
            inner = F.mse_loss(torch.func.functional_call(self.net, fast, (x,)), y)
            grads = torch.autograd.grad(inner, list(fast.values()), create_graph=True)
            fast = {n: p - 0.1 * g for (n, p), g in zip(fast.items(), grads, strict=True)}
            return F.mse_loss(torch.func.functional_call(self.net, fast, (x,)), y)

    return dict(model=Maml(), inputs=(torch.randn(5, 3), torch.randn(5, 1)), loss=lambda o: o)


def quiet_gradients_scaled_between_the_losses():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 1)

        def forward(self, x):
            y = self.b(self.a(x))
            y.mean().backward(retain_graph=True)
            with torch.no_grad():
                for p in self.parameters():
                    p.grad.mul_(0.1)
            return y.square().mean()

    return dict(model=Two(), inputs=(torch.randn(4, 3),), loss=lambda o: o)


def quiet_bias_written_after_use_is_not_saved():
    class Shift(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, x):
            y = self.fc(x)
            with torch.no_grad():
                self.fc.bias.sub_(self.fc.bias.mean())
            return y

    return dict(model=Shift(), inputs=(torch.randn(4, 3),), loss=lambda o: o.sum())
