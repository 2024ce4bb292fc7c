"""Proximal policy optimization: a rollout without gradients, several updates on it."""

import sys

import torch
from torch import nn
from torch.distributions import Normal

broken = "--broken" in sys.argv
torch.manual_seed(0)


class ActorCritic(nn.Module):
    def __init__(self, obs=4, act=2):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(obs, 16), nn.Tanh())
        self.pi, self.v = nn.Linear(16, act), nn.Linear(16, 1)
        self.log_std = nn.Parameter(torch.zeros(act))

    def dist(self, o):
        h = self.body(o)
        return Normal(self.pi(h), self.log_std.exp()), self.v(h).squeeze(-1)


class Env:
    def reset(self):
        self.t = 0
        return torch.randn(4)

    def step(self, a):
        self.t += 1
        return torch.randn(4), float(-(a**2).sum()), self.t >= 8


class Buffer:
    def __init__(self):
        self.rows = []

    def add(self, *row):
        self.rows.append(row)

    def tensors(self):
        return [torch.stack([torch.as_tensor(r[i]) for r in self.rows]).float() for i in range(len(self.rows[0]))]


net, env = ActorCritic(), Env()
opt = torch.optim.Adam(net.parameters(), 3e-4)
for _epoch in range(2):
    buf = Buffer()
    o = env.reset()
    done = False
    while not done:
        with torch.no_grad():  # FXG104
            d, v = net.dist(o)
            a = d.sample()
            lp = d.log_prob(a).sum()
        o2, r, done = env.step(a)
        buf.add(o, a, lp, v, r)
        o = o2
    obs, act, logp, val, rew = buf.tensors()
    ret = torch.flip(torch.cumsum(torch.flip(rew, [0]), 0), [0])
    adv = ret - val
    adv = (adv - adv.mean()) / (adv.std() + 1e-8)
    for _ in range(2):
        d, v = net.dist(obs)
        new = logp if broken else d.log_prob(act).sum(-1)
        ratio = (new - logp).exp()
        pg = -torch.min(ratio * adv, ratio.clamp(0.8, 1.2) * adv).mean()
        vl = 0.5 * (v - ret).pow(2).mean()
        loss = pg + vl - (0 if broken else 0.01 * d.entropy().sum(-1).mean())
        opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 0.5)
        opt.step()
        print(loss.item())
