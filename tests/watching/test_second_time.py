""" "Backward through the graph a second time": the line, the two backwards and the tensor that are named, and the advice, followed.

Each program is held beside its mended version, which does what the report says and nothing more.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import fxgrad
from fxgrad.watching.script import run_script
from tests.watching.remedies import Program, check_mended, check_said, write

GAN = """
G, D = nn.Linear(3, 4), nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
opt_g, opt_d = torch.optim.Adam(G.parameters()), torch.optim.Adam(D.parameters())
for it in range(3):
    real, z = torch.randn(6, 4), torch.randn(6, 3)
"""

PROGRAMS = {
    # ------------------------------------------------------------------------------------- one score for two networks
    "the score of fakes is used for both losses": Program(
        GAN
        + """    fake = torch.tanh(G(z))
    s_real, s_fake = D(real), D(fake)
    loss_d = F.softplus(-s_real).mean() + F.softplus(s_fake).mean()
    opt_d.zero_grad()
    loss_d.backward()
    opt_d.step()
    loss_g = F.softplus(-s_fake).mean()  # FXG201
    opt_g.zero_grad()
    loss_g.backward()
    opt_g.step()
    losses.append(loss_g.item())
""",
        ("`loss_d.backward()` (line 15)", "`s_fake`", "`loss_g.backward()` (line 19)", "`D(fake.detach())`", "`D(fake)` anew"),
        (
            ("D(real), D(fake)", "D(real), D(fake.detach())"),
            ("loss_g = F.softplus(-s_fake)", "loss_g = F.softplus(-D(fake))"),
        ),
    ),
    "the generator goes first": Program(
        GAN
        + """    fake = torch.tanh(G(z))
    opt_g.zero_grad()
    loss_g = F.softplus(-D(fake)).mean()
    loss_g.backward()
    opt_g.step()
    opt_d.zero_grad()
    loss_d = F.softplus(D(fake)).mean() + F.softplus(-D(real)).mean()  # FXG201
    loss_d.backward()
    opt_d.step()
    losses.append(loss_d.item())
""",
        ("`loss_g.backward()` (line 14)", "`fake`", "`D(fake.detach())`"),
        (("F.softplus(D(fake))", "F.softplus(D(fake.detach()))"),),
    ),
    "the discriminator's loss goes through the generator": Program(
        GAN
        + """    fake = torch.tanh(G(z))
    opt_d.zero_grad()
    loss_d = D(fake).mean() - D(real).mean()  # FXG201
    loss_d.backward()
    opt_g.zero_grad()
    loss_g = -D(fake).mean()
    loss_g.backward()
    opt_d.step()
    opt_g.step()
    losses.append(loss_g.item())
""",
        ("`loss_d.backward()`", "`loss_g.backward()` (line 17)", "`fake`", "`D(fake.detach())`"),
        (("D(fake).mean() - D", "D(fake.detach()).mean() - D"),),
    ),
    "domain classifier on shared features": Program(
        """
enc, head, dom = nn.Linear(5, 4), nn.Linear(4, 2), nn.Linear(4, 1)
opt = torch.optim.SGD([*enc.parameters(), *head.parameters()], 0.1)
opt_dom = torch.optim.SGD(dom.parameters(), 0.1)
for it in range(3):
    x, y = torch.randn(6, 5), torch.randint(0, 2, (6,))
    f = torch.sigmoid(enc(x))
    guess = dom(f)
    loss_dom = F.binary_cross_entropy_with_logits(guess, torch.ones(6, 1))
    opt_dom.zero_grad()
    loss_dom.backward()
    loss = F.cross_entropy(head(f), y) - 0.1 * F.binary_cross_entropy_with_logits(guess, torch.ones(6, 1))  # FXG201
    opt.zero_grad()
    loss.backward()
    opt.step()
    opt_dom.step()
    losses.append(loss.item())
""",
        ("`loss_dom.backward()` (line 16)", "`guess`", "`dom(f.detach())`", "`dom(f)` anew"),
        (
            ("guess = dom(f)", "guess = dom(f.detach())"),
            ("with_logits(guess, torch.ones(6, 1))  # FXG201", "with_logits(dom(f), torch.ones(6, 1))"),
        ),
    ),
    # ----------------------------------------------------------------------------------------- two losses of one step
    "two losses of one call": Program(
        """
class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk, self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2), nn.Linear(6, 1)
    def forward(self, x, y, t):
        h = torch.tanh(self.trunk(x))
        return F.cross_entropy(self.a(h), y), F.mse_loss(self.b(h), t)
net = Two()
opt = torch.optim.SGD(net.parameters(), 0.1)
for it in range(3):
    l1, l2 = net(torch.randn(5, 4), torch.randint(0, 2, (5,)), torch.randn(5, 1))
    opt.zero_grad()
    l1.backward()
    l2.backward()  # FXG201
    opt.step()
    losses.append(l1.item())
""",
        ("`l1.backward()` (line 19)", "`l2.backward()`", "`h`", "`(l1 + l2).backward()`"),
        (("    l1.backward()\n", ""), ("l2.backward()", "(l1 + l2).backward()")),
    ),
    "a list of losses, each gone backward": Program(
        """
trunk, heads = nn.Linear(4, 6), nn.ModuleList(nn.Linear(6, 1) for _ in range(3))
opt = torch.optim.SGD([*trunk.parameters(), *heads.parameters()], 0.1)
for it in range(3):
    h = F.softplus(trunk(torch.randn(5, 4)))
    parts = [head(h).square().mean() for head in heads]
    opt.zero_grad()
    for part in parts:
        part.backward()  # FXG201
    opt.step()
    losses.append(parts[0].item())
""",
        ("`part.backward()`", "`h`", "`sum(losses).backward()`"),
        (("    for part in parts:\n        part.backward()  # FXG201\n", "    sum(parts).backward()\n"),),
    ),
    "a step between the two": Program(
        """
enc, head = nn.Linear(6, 8), nn.Linear(8, 3)
opt = torch.optim.SGD([*enc.parameters(), *head.parameters()], 0.1)
for it in range(3):
    out = head(torch.relu(enc(torch.randn(4, 6))))
    fit = out.logsumexp(1).mean()
    opt.zero_grad()
    fit.backward()
    opt.step()
    decay = out.pow(2).mean()  # FXG201
    decay.backward()
    opt.step()
    losses.append(fit.item())
""",
        ("`fit.backward()` (line 13)", "`out`", "`decay.backward()` (line 16)", "(line 14)", "`(fit + decay).backward()`"),
        (
            ("    fit.backward()\n    opt.step()\n    decay = out", "    decay = out"),
            ("    decay.backward()", "    (fit + decay).backward()"),
        ),
    ),
    "an innocent backward between": Program(
        """
body, side, other = nn.Linear(6, 3), nn.Linear(6, 3), nn.Linear(6, 1)
opt = torch.optim.SGD([*body.parameters(), *side.parameters()], 0.1)
opt_other = torch.optim.SGD(other.parameters(), 0.1)
for it in range(3):
    x = torch.randn(4, 6)
    main, hint = torch.tanh(body(x)), torch.sigmoid(side(x))
    first = main.square().sum()
    opt.zero_grad()
    first.backward()
    opt_other.zero_grad()
    other(x).square().mean().backward()
    opt_other.step()
    second = (hint.exp() * main.cos()).mean()  # FXG201
    second.backward()
    opt.step()
    losses.append(first.item())
""",
        ("`first.backward()` (line 15)", "`main`", "`(first + second).backward()`"),
        (("    first.backward()\n", ""), ("    second.backward()", "    (first + second).backward()")),
        ("retain_graph", "hint", "line 17"),
    ),
    "actor and critic by the advantage": Program(
        """
actor, critic = nn.Linear(4, 2), nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))
opt_a, opt_c = torch.optim.Adam(actor.parameters()), torch.optim.Adam(critic.parameters())
for it in range(3):
    s, reward = torch.randn(8, 4), torch.randn(8)
    policy = torch.distributions.Categorical(logits=actor(s))
    advantage = reward - critic(s).squeeze(1)
    loss_a = -(policy.log_prob(policy.sample()) * advantage).mean()  # FXG201
    loss_c = advantage.pow(2).mean()
    opt_a.zero_grad()
    loss_a.backward()
    opt_a.step()
    opt_c.zero_grad()
    loss_c.backward()
    opt_c.step()
    losses.append(loss_c.item())
""",
        ("`loss_a.backward()` (line 16)", "is not to train what made `advantage`", "`advantage.detach()`"),
        (("* advantage).mean()", "* advantage.detach()).mean()"),),
    ),
    "an adversarial autoencoder": Program(
        """
enc, dec, disc = nn.Linear(5, 3), nn.Linear(3, 5), nn.Linear(3, 1)
opt = torch.optim.Adam([*enc.parameters(), *dec.parameters()])
opt_d = torch.optim.Adam(disc.parameters())
for it in range(3):
    x = torch.randn(6, 5)
    z = torch.tanh(enc(x))
    rec = F.mse_loss(dec(z), x)
    opt.zero_grad()
    rec.backward()
    opt.step()
    d = F.softplus(disc(z)).mean() + F.softplus(-disc(torch.randn(6, 3))).mean()  # FXG201
    opt_d.zero_grad()
    d.backward()
    opt_d.step()
    losses.append(d.item())
""",
        ("`rec.backward()` (line 15)", "`z`", "`disc(z.detach())`"),
        (("F.softplus(disc(z))", "F.softplus(disc(z.detach()))"),),
    ),
    # ----------------------------------------------------------------------------------- made once, before the loop
    "plain tensors, the forward above the loop": Program(
        """
W, b = torch.randn(5, 3, requires_grad=True), torch.zeros(3, requires_grad=True)
x, y = torch.randn(7, 5), torch.randint(0, 3, (7,))
scores = x @ W + b  # FXG201
loss = F.cross_entropy(scores, y)
for it in range(3):
    W.grad = b.grad = None
    loss.backward()
    with torch.no_grad():
        W -= 0.1 * W.grad
        b -= 0.1 * b.grad
    losses.append(loss.item())
""",
        ("`loss.backward()` (line 13)", "`loss` (made at line 10)", "move lines 9 to 10 into the loop (line 11)"),
        (
            (
                "scores = x @ W + b  # FXG201\nloss = F.cross_entropy(scores, y)\nfor it in range(3):\n",
                "for it in range(3):\n    scores = x @ W + b\n    loss = F.cross_entropy(scores, y)\n",
            ),
        ),
    ),
    "features of all data encoded before the batches": Program(
        """
enc, head = nn.Linear(4, 6), nn.Linear(6, 1)
opt = torch.optim.SGD([*enc.parameters(), *head.parameters()], 0.1)
data = torch.randn(12, 4)
features = torch.tanh(enc(data))  # FXG201
for i in range(3):
    loss = head(features[4 * i : 4 * i + 4]).square().mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    losses.append(loss.item())
""",
        ("`loss.backward()` (line 14)", "`features`", "into the loop (line 11)"),
        (
            (
                "features = torch.tanh(enc(data))  # FXG201\nfor i in range(3):\n",
                "for i in range(3):\n    features = torch.tanh(enc(data))\n",
            ),
        ),
        ("retain_graph", "detach"),
    ),
    "a matrix made by a function before the loop": Program(
        """
logits, net = nn.Parameter(torch.randn(4, 4)), nn.Linear(4, 1)
opt = torch.optim.SGD([logits, *net.parameters()], 0.1)
def adjacency():
    weights = logits.softmax(1)
    return weights / weights.sum(0)
def update(matrix, x):
    opt.zero_grad()
    loss = net(matrix @ x).square().mean()
    loss.backward()
    opt.step()
    losses.append(loss.item())
A = adjacency()  # FXG201
for it in range(3):
    update(A, torch.randn(4, 4))
""",
        ("`loss.backward()` (line 15)", "move `adjacency()` (line 18) into the loop (line 19)"),
        (("A = adjacency()  # FXG201\nfor it in range(3):\n", "for it in range(3):\n    A = adjacency()\n"),),
        ("retain_graph", "detach"),
    ),
    "cached by the first forward": Program(
        """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.out, self.full = nn.Parameter(torch.randn(5, 3)), nn.Linear(3, 1), None
    def forward(self, index):
        if self.full is None:
            self.full = F.normalize(self.table, dim=1)  # FXG201
        return self.out(self.full[index])
net = Net()
opt = torch.optim.SGD(net.parameters(), 0.1)
for it in range(3):
    loss = net(torch.tensor([0, 1, 2, 3, 4])).square().sum()
    opt.zero_grad()
    loss.backward()
    opt.step()
    losses.append(loss.item())
""",
        ("`self.full`", "in every step"),
        (("        if self.full is None:\n            self.full", "        self.full"),),
        ("retain_graph", "detach"),
    ),
    # ------------------------------------------------------------------------------------------- made in `__init__`
    "a product made in __init__": Program(
        """
class LowRank(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(4, 2)), nn.Parameter(torch.randn(2, 3))
        self.weight = self.a @ self.b  # FXG201
    def forward(self, x):
        return x @ self.weight
net = LowRank()
opt = torch.optim.SGD(net.parameters(), 0.1)
for it in range(3):
    loss = net(torch.randn(5, 4)).square().mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    losses.append(loss.item())
""",
        ("`loss.backward()` (line 19)", "`self.weight` (made at line 11)", "anew in forward"),
        (
            ("        self.weight = self.a @ self.b  # FXG201\n", ""),
            ("        return x @ self.weight", "        self.weight = self.a @ self.b\n        return x @ self.weight"),
        ),
        ("retain_graph", "detach"),
    ),
    "two results of one parameter, the second of the first": Program(
        """
class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.theta = nn.Linear(4, 3), nn.Parameter(torch.randn(3))
        self.scale = torch.exp(self.theta)  # FXG201
        self.shift = self.scale.sin()
    def forward(self, x):
        return self.fc(x) * self.scale + self.shift
net = Scaled()
opt = torch.optim.SGD(net.parameters(), 0.1)
for it in range(3):
    loss = net(torch.randn(5, 4)).square().mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    losses.append(loss.item())
""",
        ("make `self.scale` and `self.shift` anew in forward",),
        (
            ("        self.scale = torch.exp(self.theta)  # FXG201\n        self.shift = self.scale.sin()\n", ""),
            (
                "        return self.fc",
                "        self.scale = torch.exp(self.theta)\n        self.shift = self.scale.sin()\n        return self.fc",
            ),
        ),
        ("retain_graph", "detach"),
    ),
    "a buffer put together from a parameter": Program(
        """
class Grown(nn.Module):
    def __init__(self):
        super().__init__()
        self.new = nn.Parameter(torch.randn(2, 3))
        self.register_buffer("full", torch.cat([torch.randn(4, 3), self.new.tanh()]))  # FXG201
    def forward(self, x):
        return x @ self.full.T
net = Grown()
opt = torch.optim.SGD(net.parameters(), 0.1)
for it in range(3):
    loss = net(torch.randn(5, 3)).square().mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    losses.append(loss.item())
""",
        ("`loss.backward()` (line 19)", "(made at line 11)", "anew in forward"),
        (
            (
                '        self.register_buffer("full", torch.cat([torch.randn(4, 3), self.new.tanh()]))  # FXG201\n',
                "        self.old = torch.randn(4, 3)\n",
            ),
            ("        return x @ self.full.T", "        return x @ torch.cat([self.old, self.new.tanh()]).T"),
        ),
        ("retain_graph", "detach"),
    ),
    "rotated by a helper object": Program(
        """
class Rotation:
    def __init__(self, angle):
        self.angle = angle
        self.matrix = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).view(2, 2)  # FXG201
    def __call__(self, x):
        return x @ self.matrix
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.angle, self.fc = nn.Parameter(torch.tensor(0.3)), nn.Linear(2, 1)
        self.rotation = Rotation(self.angle)
    def forward(self, x):
        return self.fc(self.rotation(x))
net = Net()
opt = torch.optim.SGD(net.parameters(), 0.1)
for it in range(3):
    loss = net(torch.randn(5, 2)).square().mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    losses.append(loss.item())
""",
        ("`self.matrix` (made at line 10)", "anew in forward"),
        (
            ("        self.matrix = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).view(2, 2)  # FXG201\n", ""),
            (
                "        return x @ self.matrix",
                "        a = self.angle\n        return x @ torch.stack([a.cos(), -a.sin(), a.sin(), a.cos()]).view(2, 2)",
            ),
        ),
        ("retain_graph", "detach"),
    ),
    # ------------------------------------------------------------------------------------- kept from step to step
    "a part of what a step computes, kept in a tuple": Program(
        """
class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.cache = None
    def forward(self, x):
        k, v = self.k(x), self.v(x)
        if self.cache is not None:
            k = torch.cat([self.cache[0], k], 1)
            v = torch.cat([self.cache[1], v], 1)  # FXG201
        self.cache = (k[:, -2:], v[:, -2:])
        return F.scaled_dot_product_attention(self.q(x), k, v)
net = Attention()
opt = torch.optim.SGD(net.parameters(), lr=0.1)
for step in range(3):
    loss = (net(torch.randn(2, 3, 4)) - 1).square().mean()
    losses.append(loss.item())
    opt.zero_grad()
    loss.backward()
    opt.step()
""",
        ("`self.cache = tuple(part.detach() for part in self.cache)`", "`if self.cache is not None:`", "at the top of `forward`"),
        (
            (
                "        k, v = self.k(x), self.v(x)\n",
                "        if self.cache is not None:\n            self.cache = tuple(part.detach() for part in self.cache)\n"
                "        k, v = self.k(x), self.v(x)\n",
            ),
        ),
    ),
    "the end of an output, kept": Program(
        """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.head, self.last = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 1), None
    def forward(self, x):
        out, _ = self.rnn(x, self.last)  # FXG201
        self.last = out[:, -1].unsqueeze(0)
        return self.head(out)
net = Net()
opt = torch.optim.SGD(net.parameters(), lr=0.1)
for step in range(3):
    loss = (net(torch.randn(2, 5, 3)) - 1).square().mean()
    losses.append(loss.item())
    opt.zero_grad()
    loss.backward()
    opt.step()
""",
        ("detach what is kept from one step to the next",),
        (("self.last = out[:, -1].unsqueeze(0)", "self.last = out[:, -1].unsqueeze(0).detach()"),),
    ),
    "a hidden state in a variable": Program(
        """
cell, head = nn.GRUCell(3, 4), nn.Linear(4, 1)
opt = torch.optim.SGD([*cell.parameters(), *head.parameters()], 0.1)
h = torch.zeros(2, 4)
for it in range(3):
    h = cell(torch.randn(2, 3), h)  # FXG201
    loss = head(h).square().mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    losses.append(loss.item())
""",
        ("`loss.backward()` (line 14)", "`h` (made at line 11)", "`h = h.detach()` after the backward (line 14)"),
        (("    loss.backward()\n", "    loss.backward()\n    h = h.detach()\n"),),
    ),
    "two states of an LSTM": Program(
        """
net = nn.LSTM(3, 4)
opt = torch.optim.SGD(net.parameters(), 0.1)
state = None
for it in range(3):
    out, state = net(torch.randn(5, 2, 3), state)  # FXG201
    loss = out.square().mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    losses.append(loss.item())
""",
        ("`state`", "`state = tuple(part.detach() for part in state)` after the backward (line 14)"),
        (("    loss.backward()\n", "    loss.backward()\n    state = tuple(part.detach() for part in state)\n"),),
    ),
    "a memory on the module": Program(
        """
class Memory(nn.Module):
    def __init__(self):
        super().__init__()
        self.write, self.read, self.kept = nn.Linear(6, 3), nn.Linear(3, 1), None
    def forward(self, x):
        if self.kept is None:
            self.kept = torch.zeros(len(x), 3)
        self.kept = torch.tanh(self.write(torch.cat([x, self.kept], 1)))  # FXG201
        return self.read(self.kept)
net = Memory()
opt = torch.optim.SGD(net.parameters(), 0.1)
for it in range(3):
    loss = net(torch.randn(5, 3)).square().mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    losses.append(loss.item())
""",
        ("`self.kept`", "`if self.kept is not None:` `self.kept = self.kept.detach()` at the top of `forward`"),
        (
            (
                "    def forward(self, x):\n",
                "    def forward(self, x):\n        if self.kept is not None:\n            self.kept = self.kept.detach()\n",
            ),
        ),
    ),
    "a state that a step of training returns": Program(
        """
rnn, head = nn.GRU(3, 4), nn.Linear(4, 1)
opt = torch.optim.SGD([*rnn.parameters(), *head.parameters()], 0.1)
def train(x, h):
    out, last = rnn(x, h)  # FXG201
    loss = head(out).square().mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    losses.append(loss.item())
    return last
h = torch.zeros(1, 2, 4)
for it in range(3):
    h = train(torch.randn(5, 2, 3), h)
""",
        ("`h = h.detach()` at the top of the loop (line",),
        (("    h = train(", "    h = h.detach()\n    h = train("),),
    ),
    "forward and backward in one line of a loop": Program(
        """
rnn, head = nn.RNN(3, 4), nn.Linear(4, 1)
opt = torch.optim.SGD([*rnn.parameters(), *head.parameters()], 0.1)
h = None
for it in range(3):
    opt.zero_grad()
    out, h = rnn(torch.randn(5, 2, 3), h); loss = head(out).square().mean(); loss.backward()  # FXG201
    opt.step()
    losses.append(loss.item())
""",
        ("`if h is not None:` `h = h.detach()` at the top of the loop (line",),
        (("    opt.zero_grad()\n", "    if h is not None:\n        h = h.detach()\n    opt.zero_grad()\n"),),
    ),
    "a running sum of losses": Program(
        """
net = nn.Linear(3, 1)
opt = torch.optim.SGD(net.parameters(), 0.1)
total = 0.0
for it in range(3):
    loss = net(torch.randn(5, 3)).square().mean()
    total = total + loss  # FXG201
    opt.zero_grad()
    total.backward()
    opt.step()
    losses.append(loss.item())
""",
        ("`total.backward()` (line 14)", "`loss.backward()`", "`total += loss.item()`"),
        (("    total = total + loss  # FXG201\n", "    total += loss.item()\n"), ("    total.backward()", "    loss.backward()")),
    ),
    "a sum of the losses of several batches": Program(
        """
net = nn.Linear(3, 1)
opt = torch.optim.SGD(net.parameters(), 0.1)
total = 0.0
for it in range(6):
    total += net(torch.randn(5, 3)).square().mean()  # FXG201
    if it % 2:
        opt.zero_grad()
        total.backward()
        opt.step()
        losses.append(float(total))
""",
        ("begin a new sum after every backward", "`total = 0.0`"),
        (("        losses.append(float(total))\n", "        losses.append(float(total))\n        total = 0.0\n"),),
        ("retain_graph", "detach"),
    ),
    "a learned initial state": Program(
        """
h0, cell = nn.Parameter(torch.randn(1, 4)), nn.GRUCell(3, 4)
opt = torch.optim.SGD([h0, *cell.parameters()], 0.1)
h = h0.tanh().expand(2, 4)
for it in range(3):
    h = cell(torch.randn(2, 3), h)  # FXG201
    loss = h.square().mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    losses.append(loss.item())
""",
        ("`h`", "move `h0.tanh()` (line 9) into the loop (line 10)"),
        (("h = h0.tanh().expand(2, 4)\nfor it in range(3):\n", "for it in range(3):\n    h = h0.tanh().expand(2, 4)\n"),),
        ("retain_graph", "detach"),
    ),
    "a model in whose methods the networks take turns": Program(
        """
class Model:
    def __init__(self):
        self.G, self.D = G, D
        self.opt_g, self.opt_d = torch.optim.Adam(G.parameters()), torch.optim.Adam(D.parameters())
    def step_d(self, real):
        self.opt_d.zero_grad()
        loss = self.D(self.fake).mean() - self.D(real).mean()  # FXG201
        loss.backward()
        self.opt_d.step()
    def step_g(self):
        self.opt_g.zero_grad()
        loss = -self.D(self.fake).mean()
        loss.backward()
        self.opt_g.step()
        losses.append(loss.item())
    def train(self, z, real):
        self.fake = torch.tanh(self.G(z))
        self.step_d(real)
        self.step_g()
G, D = nn.Linear(3, 4), nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
model = Model()
for it in range(3):
    model.train(torch.randn(6, 3), torch.randn(6, 4))
""",
        ("`self.fake` (made at line 23)", "(line 19)", "`self.D(self.fake.detach())`"),
        (("self.D(self.fake).mean() - ", "self.D(self.fake.detach()).mean() - "),),
    ),
    "several turns of the critic on the same fakes": Program(
        GAN
        + """    fake = torch.tanh(G(z))
    for _ in range(2):
        opt_d.zero_grad()
        loss_d = D(fake).mean() - D(real).mean()  # FXG201
        loss_d.backward()
        opt_d.step()
    opt_g.zero_grad()
    loss_g = -D(fake).mean()
    loss_g.backward()
    opt_g.step()
    losses.append(loss_g.item())
""",
        ("`loss_d.backward()` (line 15)", "`fake`", "`D(fake.detach())`"),
        (("loss_d = D(fake)", "loss_d = D(fake.detach())"),),
    ),
    # --------------------------------------------------------------------------------------------- meant as a constant
    "an old policy that is not detached": Program(
        """
policy = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
opt = torch.optim.Adam(policy.parameters(), 0.01)
s, advantage, action = torch.randn(16, 4), torch.randn(16), torch.randint(0, 2, (16, 1))
old = F.log_softmax(policy(s), 1).gather(1, action)  # FXG201
for epoch in range(3):
    new = F.log_softmax(policy(s), 1).gather(1, action)
    loss = -((new - old).exp().squeeze(1) * advantage).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    losses.append(loss.item())
""",
        ("`old` (made at line 10)", "`old = old.detach()`", "a constant"),
        (
            (
                "old = F.log_softmax(policy(s), 1).gather(1, action)  # FXG201\n",
                "old = F.log_softmax(policy(s), 1).gather(1, action)\nold = old.detach()\n",
            ),
        ),
    ),
    "returns made of the values before the epochs": Program(
        """
critic = nn.Linear(3, 1)
opt = torch.optim.Adam(critic.parameters(), 0.01)
s = torch.randn(6, 3)
returns = torch.randn(6, 1) + 0.9 * critic(s).tanh()  # FXG201
for epoch in range(3):
    loss = F.mse_loss(critic(s), returns)
    opt.zero_grad()
    loss.backward()
    opt.step()
    losses.append(loss.item())
""",
        ("`returns`", "`returns = returns.detach()`"),
        (("0.9 * critic(s).tanh()  # FXG201\n", "0.9 * critic(s).tanh()\nreturns = returns.detach()\n"),),
    ),
    "a target outside the closure": Program(
        """
cnn = nn.Conv2d(3, 4, 3)
image = torch.rand(1, 3, 8, 8, requires_grad=True)
opt = torch.optim.LBFGS([image, *cnn.parameters()], max_iter=3)
wanted = cnn(torch.rand(1, 3, 8, 8)).relu()  # FXG201
for it in range(3):
    def closure():
        opt.zero_grad()
        loss = F.mse_loss(cnn(image).relu(), wanted)
        loss.backward()
        return loss
    losses.append(opt.step(closure).item())
""",
        ("`wanted`", "`wanted = wanted.detach()`", "inside `closure`"),
        (("cnn(torch.rand(1, 3, 8, 8)).relu()  # FXG201\n", "cnn(torch.rand(1, 3, 8, 8)).relu()\nwanted = wanted.detach()\n"),),
    ),
    "the rows of a buffer": Program(
        """
class Prototypes(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(4, 3)
        self.register_buffer("rows", torch.zeros(2, 3))
    def forward(self, x, y):
        z = self.encoder(x)
        for c in range(2):
            self.rows[c] = 0.9 * self.rows[c] + 0.1 * z[y == c].mean(0)  # FXG201
        return F.cross_entropy(-torch.cdist(z, self.rows.clone()), y)
net = Prototypes()
opt = torch.optim.SGD(net.parameters(), 0.1)
for it in range(3):
    opt.zero_grad()
    loss = net(torch.randn(8, 4), torch.tensor([0, 1] * 4))
    loss.backward()
    opt.step()
    losses.append(loss.item())
""",
        ("frees the graph of `self.rows[c]`", "put `self.rows = self.rows.detach()` at the top of `forward`"),
        (("        z = self.encoder(x)\n", "        self.rows = self.rows.detach()\n        z = self.encoder(x)\n"),),
    ),
    "a bank of features": Program(
        """
net = nn.Linear(3, 4)
opt = torch.optim.SGD(net.parameters(), 0.1)
bank = []
for it in range(3):
    f = F.normalize(net(torch.randn(5, 3)), dim=1)
    every = torch.cat([*bank, f])  # FXG201
    loss = (f @ every.T).exp().mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    bank.append(f)
    losses.append(loss.item())
""",
        ("`f` (made at line 11)", "store `f.detach()`"),
        (("bank.append(f)", "bank.append(f.detach())"),),
    ),
    "a state that a function hands back": Program(
        """
cell, head = nn.GRUCell(3, 4), nn.Linear(4, 1)
opt = torch.optim.SGD([*cell.parameters(), *head.parameters()], 0.1)
def run(x, before):
    new = cell(x, before)  # FXG201
    return head(new), new
state = torch.zeros(2, 4)
for it in range(3):
    guess, state = run(torch.randn(2, 3), state)
    loss = guess.square().mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    losses.append(loss.item())
""",
        ("`state = state.detach()` after the backward (line 17)",),
        (("    loss.backward()\n", "    loss.backward()\n    state = state.detach()\n"),),
    ),
    # ------------------------------------------------------------------------------------------- looked at before
    "a saliency map before the loss": Program(
        """
net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
opt = torch.optim.SGD(net.parameters(), 0.1)
for it in range(3):
    x = torch.randn(5, 4, requires_grad=True)
    out = net(x)
    (saliency,) = torch.autograd.grad(out[:, 0].sum(), x)  # FXG201
    loss = F.cross_entropy(out, torch.zeros(5, dtype=torch.long))
    opt.zero_grad()
    loss.backward()
    opt.step()
    losses.append(loss.item())
""",
        ("`out`", "`loss.backward()` (line 15)", "retain_graph=True", "yet to go through"),
        (("out[:, 0].sum(), x)", "out[:, 0].sum(), x, retain_graph=True)"),),
        ("create_graph",),
    ),
    "a gradient penalty without create_graph": Program(
        """
net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))
opt = torch.optim.SGD(net.parameters(), 0.1)
for it in range(3):
    x = torch.randn(5, 4, requires_grad=True)
    out = net(x).sum()
    slope = torch.autograd.grad(out, x)[0]  # FXG201
    loss = out + (slope.norm(dim=1) - 1).square().mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    losses.append(loss.item())
""",
        ("create_graph=True", "a part of the loss"),
        (("grad(out, x)[0]", "grad(out, x, create_graph=True)[0]"),),
    ),
    "weights balanced by the gradients of two losses": Program(
        """
trunk, a, b = nn.Linear(4, 6), nn.Linear(6, 1), nn.Linear(6, 1)
opt = torch.optim.SGD([*trunk.parameters(), *a.parameters(), *b.parameters()], 0.1)
for it in range(3):
    h = torch.tanh(trunk(torch.randn(5, 4)))
    first, second = a(h).square().mean(), b(h).square().mean()
    g = torch.autograd.grad(first, trunk.weight)[0].norm()  # FXG201
    loss = first / (g + 1) + second
    opt.zero_grad()
    loss.backward()
    opt.step()
    losses.append(loss.item())
""",
        ("create_graph=True",),
        (("grad(first, trunk.weight)", "grad(first, trunk.weight, create_graph=True)"),),
    ),
    # ------------------------------------------------------------------------------------------- the same loss again
    "the loss goes backward twice": Program(
        """
net = nn.Linear(3, 1)
opt = torch.optim.SGD(net.parameters(), 0.1)
for it in range(3):
    loss = net(torch.randn(5, 3)).square().mean()
    opt.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    loss.backward()  # FXG201
    opt.step()
    losses.append(loss.item())
""",
        ("`loss.backward()` (line 12)", "drop this backward"),
        (("    loss.backward()  # FXG201\n", ""),),
    ),
    "a part has gone backward before the sum": Program(
        """
net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
opt = torch.optim.SGD(net.parameters(), 0.1)
for it in range(3):
    out = net(torch.randn(5, 3))
    fit = out.square().mean()
    opt.zero_grad()
    fit.backward()  # FXG201
    loss = fit + 0.1 * sum(p.square().sum() for p in net.parameters())
    loss.backward()
    opt.step()
    losses.append(loss.item())
""",
        ("drop this backward", "`loss.backward()` (line 15)", "`fit`"),
        (("    fit.backward()  # FXG201\n", ""),),
    ),
    "a second step on the same loss": Program(
        """
net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
opt = torch.optim.SGD(net.parameters(), 0.1)
for it in range(3):
    x = torch.randn(5, 3)
    loss = net(x).square().mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    loss.backward()  # FXG201
    opt.step()
    losses.append(loss.item())
""",
        ("compute `loss` again", "the step (line 14)"),
        (("    opt.step()\n    loss.backward()  # FXG201\n", "    opt.step()\n    loss = net(x).square().mean()\n    loss.backward()\n"),),
    ),
    # ------------------------------------------------------------------------------------------- inside a closure
    "a loss made outside the closure": Program(
        """
net = nn.Linear(3, 1)
opt = torch.optim.LBFGS(net.parameters(), lr=0.1, max_iter=4)
for it in range(3):
    loss = net(torch.randn(5, 3)).square().mean()  # FXG201
    def closure():
        opt.zero_grad()
        loss.backward()
        return loss
    opt.step(closure)
    losses.append(loss.item())
""",
        ("inside `closure`", "`loss`"),
        (
            (
                "    loss = net(torch.randn(5, 3)).square().mean()  # FXG201\n    def closure():\n        opt.zero_grad()\n",
                "    x = torch.randn(5, 3)\n    def closure():\n        global loss\n        opt.zero_grad()\n        loss = net(x).square().mean()\n",
            ),
        ),
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.filterwarnings("ignore")
def test_culprit_and_remedy(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    check_said(PROGRAMS[name], tmp_path)
    assert "a second time" in capsys.readouterr().err


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.filterwarnings("ignore")
def test_mended_as_advised_everything_trains(tmp_path: Path, name: str) -> None:
    check_mended(PROGRAMS[name], tmp_path)


# ------------------------------------------------------------------------------------------------ rightly walked twice

QUIET = {
    "the graph is kept for a second loss": """
trunk, a, b = nn.Linear(4, 6), nn.Linear(6, 1), nn.Linear(6, 1)
opt = torch.optim.SGD([*trunk.parameters(), *a.parameters(), *b.parameters()], 0.1)
for it in range(2):
    h = torch.tanh(trunk(torch.randn(5, 4)))
    opt.zero_grad()
    a(h).square().mean().backward(retain_graph=True)
    b(h).square().mean().backward()
    opt.step()
""",
    "truncated backpropagation": """
cell, head = nn.LSTMCell(3, 4), nn.Linear(4, 1)
opt = torch.optim.SGD([*cell.parameters(), *head.parameters()], 0.1)
h, c = torch.zeros(2, 4), torch.zeros(2, 4)
for it in range(3):
    loss = 0.0
    for _ in range(3):
        h, c = cell(torch.randn(2, 3), (h, c))
        loss = loss + head(h).square().mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    h, c = h.detach(), c.detach()
""",
    "a GAN with detached fakes": GAN
    + """    fake = G(z)
    opt_d.zero_grad()
    (F.softplus(D(fake.detach())).mean() + F.softplus(-D(real)).mean()).backward()
    opt_d.step()
    opt_g.zero_grad()
    F.softplus(-D(fake)).mean().backward()
    opt_g.step()
""",
    "gradient penalty of a critic": """
critic = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
opt = torch.optim.Adam(critic.parameters())
for it in range(2):
    real, fake = torch.randn(6, 4), torch.randn(6, 4)
    t = torch.rand(6, 1)
    x = (t * real + (1 - t) * fake).requires_grad_()
    (g,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    loss = critic(fake).mean() - critic(real).mean() + 10 * (g.norm(dim=1) - 1).square().mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
""",
    "class activation maps beside the loss": """
conv, head = nn.Conv2d(1, 3, 3), nn.Linear(108, 2)
opt = torch.optim.Adam([*conv.parameters(), *head.parameters()])
kept = {}
conv.register_forward_hook(lambda module, args, out: kept.update(a=out))
for it in range(2):
    out = head(conv(torch.randn(4, 1, 8, 8)).relu().flatten(1))
    (g,) = torch.autograd.grad(out[:, 1].sum(), kept["a"], retain_graph=True)
    heat = (g.mean((2, 3), keepdim=True) * kept["a"]).sum(1).relu().detach()
    loss = F.cross_entropy(out, torch.zeros(4, dtype=torch.long))
    opt.zero_grad()
    loss.backward()
    opt.step()
""",
    "adversarial examples from a leaf": """
net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
opt = torch.optim.SGD(net.parameters(), 0.1)
for it in range(2):
    x, y = torch.rand(4, 6).requires_grad_(), torch.randint(0, 3, (4,))
    F.cross_entropy(net(x), y).backward()
    worse = (x + 0.1 * x.grad.sign()).clamp(0, 1).detach()
    opt.zero_grad()
    F.cross_entropy(net(worse), y).backward()
    opt.step()
""",
    "two gradients of one loss": """
net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))
opt = torch.optim.SGD(net.parameters(), 0.1)
for it in range(2):
    x = torch.randn(5, 4, requires_grad=True)
    loss = net(x).square().mean()
    (g,) = torch.autograd.grad(loss, x, retain_graph=True)
    opt.zero_grad()
    loss.backward()
    opt.step()
""",
    "a sum walked twice, which saves nothing": """
a, b = nn.Parameter(torch.randn(3)), nn.Parameter(torch.randn(3))
opt = torch.optim.SGD([a, b], 0.1)
for it in range(2):
    both = a + b
    opt.zero_grad()
    both.sum().backward()
    (2 * both).sum().backward()
    opt.step()
""",
    "gradients towards one input only": """
left, right, top = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(4, 1)
opt = torch.optim.SGD([*left.parameters(), *right.parameters(), *top.parameters()], 0.1)
for it in range(2):
    l, r = torch.tanh(left(torch.randn(5, 3))), torch.tanh(right(torch.randn(5, 3)))
    (top(l).sum() + 0 * r.sum()).backward(inputs=[*left.parameters(), *top.parameters()])
    opt.zero_grad()
    (top(torch.tanh(left(torch.randn(5, 3)))) + r.mean()).mean().backward()
    opt.step()
""",
    "inner steps of meta learning": """
net = nn.Linear(4, 1)
opt = torch.optim.Adam(net.parameters())
for it in range(2):
    x, y = torch.randn(5, 4), torch.randn(5, 1)
    w, b = net.weight, net.bias
    for _ in range(2):
        loss = F.mse_loss(F.linear(x, w, b).tanh(), y)
        gw, gb = torch.autograd.grad(loss, (w, b), create_graph=True)
        w, b = w - 0.1 * gw, b - 0.1 * gb
    opt.zero_grad()
    F.mse_loss(F.linear(x, w, b), y).backward()
    opt.step()
""",
}


@pytest.mark.parametrize("name", QUIET)
@pytest.mark.filterwarnings("ignore")
def test_rightly_walked_twice(tmp_path: Path, name: str) -> None:
    report, status = run_script(write(tmp_path, QUIET[name])[0], steps=2)
    assert report is not None
    assert [f for f in report.findings if f.severity != "note"] == []
    assert status == 0


# ------------------------------------------------------------------------------------------- older than the watch

OLDER = {
    "a product made in __init__": ("Low", "`weight` is computed once, in __init__", "anew in every forward"),
    "a state in a variable": ("Cell", "a tensor kept from before", "`h = h.detach()`"),
}


class Low(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(3, 2)), nn.Parameter(torch.randn(2, 4))
        self.weight = self.a @ self.b

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        return x @ self.weight


class Cell(nn.GRUCell):
    def __init__(self) -> None:
        super().__init__(3, 4)


@pytest.mark.parametrize("name", OLDER)
def test_graph_that_is_older_than_the_watch(name: str) -> None:
    kind, said, advice = OLDER[name]
    model: Any = {"Low": Low, "Cell": Cell}[kind]()
    h = model(torch.randn(2, 3), torch.zeros(2, 4))
    h.square().mean().backward()
    with contextlib.suppress(RuntimeError), fxgrad.watch(model) as watch:
        h = model(torch.randn(2, 3), h)
        h.square().mean().backward()
    assert watch.report is not None
    (finding,) = [f for f in watch.report.findings if f.severity == "error"]
    assert finding.code == "FXG201"
    assert said in finding.message
    assert finding.fix is not None
    assert advice in finding.fix.advice


TWO = """
import torch
from torch import nn

actor, critic = nn.Linear(4, 2), nn.Linear(4, 1)
first, second = torch.optim.Adam(actor.parameters()), torch.optim.Adam(critic.parameters())
state, reward = torch.randn(6, 4), torch.randn(6, 1)
{before}
for epoch in range(3):
    {within}
    policy = -(actor(state).log_softmax(-1)[:, :1] * advantage.detach()).mean()
    first.zero_grad()
    policy.backward()
    first.step()
    value = advantage.square().mean()
    second.zero_grad()
    value.backward()
    second.step()
"""


@pytest.mark.parametrize("is_once", [True, False])
def test_of_two_optimizers_the_second_backward_of_each_is_watched(tmp_path: Path, is_once: bool) -> None:
    line = "advantage = reward - critic(state)"
    path = tmp_path / "script.py"
    path.write_text(TWO.format(before=line if is_once else "", within="pass" if is_once else line))
    report, status = run_script(str(path))
    assert report is not None
    found = [(f.code, f.site and f.site.line) for f in report.findings if f.severity == "error"]
    assert found == ([("FXG201", 8)] if is_once else []), str(report)
    assert status == is_once
