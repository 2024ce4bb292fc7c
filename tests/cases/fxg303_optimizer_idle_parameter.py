"""FXG303: parameters that an optimizer holds in vain, and those that only look idle."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


def guilty_unused_branch_is_held():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.main, self.spare = nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, x):
            return self.main(x)

    model = Branches()
    optimizer = torch.optim.Adam(model.parameters())  # FXG303
    return dict(model=model, inputs=(torch.randn(2, 4),), loss=lambda o: o.sum(), optimizer=optimizer)


def guilty_detached_encoder_in_its_own_group():
    class Probe(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.head = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 1)

        def forward(self, x):
            return self.head(self.encoder(x)[0].detach())

    model = Probe()
    groups = [{"params": model.encoder.parameters(), "lr": 1e-4}, {"params": model.head.parameters()}]
    optimizer = torch.optim.SGD(groups, lr=0.1, weight_decay=0.1)  # FXG303
    return dict(model=model, inputs=(torch.randn(2, 5, 3),), loss=lambda o: o.mean(), optimizer=optimizer)


def guilty_optimizer_made_by_a_factory():
    class Vae(nn.Module):
        def __init__(self):
            super().__init__()
            self.mean, self.log_variance, self.dec = nn.Linear(4, 2), nn.Linear(4, 2), nn.Linear(2, 4)

        def forward(self, x):
            with torch.no_grad():
                noise = torch.randn(3, 2) * (0.5 * self.log_variance(x)).exp()
            return self.dec(self.mean(x) + noise)

    def configure(module, name="AdamW"):
        return getattr(torch.optim, name)(module.parameters(), lr=1e-3)  # or FXG303

    model = Vae()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)  # FXG303
    return dict(model=model, inputs=(torch.randn(3, 4),), loss=lambda o: o.square().sum(), optimizer=optimizer)


def guilty_second_of_two_optimizers():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right, self.spare = nn.Linear(2, 4), nn.Linear(4, 1), nn.Linear(4, 1)

        def forward(self, x):
            return self.right(self.left(x))

    model = Pair()
    first = torch.optim.SGD(model.left.parameters(), lr=0.1)
    second = torch.optim.Adam([*model.right.parameters(), *model.spare.parameters()], lr=0.1)  # FXG303
    return dict(model=model, inputs=(torch.randn(3, 2),), loss=lambda o: o.mean(), optimizer=[first, second])


def quiet_all_train():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
    optimizer = torch.optim.Adam(model.parameters())
    return dict(model=model, inputs=(torch.randn(2, 4),), loss=lambda o: o.sum(), optimizer=optimizer)


def quiet_frozen_ones_are_held_on_purpose():
    class Gradual(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 1)
            self.body.requires_grad_(False)

        def forward(self, x):
            return self.head(self.body(x))

    model = Gradual()
    optimizer = torch.optim.Adam(model.parameters())
    return dict(model=model, inputs=(torch.randn(2, 4),), loss=lambda o: o.sum(), optimizer=optimizer, expect=["head.*"])


def quiet_zero_gradient_is_a_gradient():
    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.gate = nn.Linear(4, 4), nn.Parameter(torch.zeros(1))

        def forward(self, x):
            return x + self.gate * self.fc(x)

    model = Gate()
    optimizer = torch.optim.Adam(model.parameters())
    return dict(model=model, inputs=(torch.randn(2, 4),), loss=lambda o: o.square().sum(), optimizer=optimizer)


def quiet_tied_table_held_once():
    class Lm(nn.Module):
        def __init__(self):
            super().__init__()
            self.emb, self.out = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
            self.out.weight = self.emb.weight

        def forward(self, ids):
            return self.out(self.emb(ids))

    model, ids = Lm(), torch.randint(0, 7, (2, 3))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    return dict(model=model, inputs=(ids,), loss=lambda o: F.cross_entropy(o.transpose(1, 2), ids), optimizer=optimizer)


def quiet_no_optimizer_given():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.main, self.spare = nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, x):
            return self.main(x)

    return dict(model=Branches(), inputs=(torch.randn(2, 4),), loss=lambda o: o.sum(), expect=["main.*"])


def quiet_generators_optimizer_has_its_turn_later():
    class Gan(nn.Module):
        def __init__(self):
            super().__init__()
            self.generator, self.critic = nn.Linear(2, 4), nn.Linear(4, 1)

        def forward(self, z):
            return self.critic(self.generator(z).detach())

    model = Gan()
    critics = torch.optim.SGD(model.critic.parameters(), lr=0.1)
    generators = torch.optim.SGD(model.generator.parameters(), lr=0.1)
    return dict(model=model, inputs=(torch.randn(3, 2),), loss=lambda o: o.mean(), optimizer=[critics, generators])
