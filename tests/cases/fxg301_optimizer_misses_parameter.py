"""FXG301: trainable parameters that no optimizer holds, and parameters that need none."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import nn


def guilty_generator_read_by_a_count():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 1)

        def forward(self, x):
            return self.head(self.body(x).relu())

    def count(parameters):
        return sum(p.numel() for p in parameters)

    model = Net()
    body = model.body.parameters()
    count(body)
    optimizer = torch.optim.AdamW([{"params": body, "lr": 1e-4}, {"params": model.head.parameters()}])  # FXG301
    return dict(model=model, inputs=(torch.randn(3, 4),), loss=lambda o: o.sum(), optimizer=optimizer)


def guilty_name_filter_matches_nothing():
    class Bert(nn.Module):
        def __init__(self):
            super().__init__()
            self.emb, self.norm, self.fc = nn.Embedding(9, 4), nn.LayerNorm(4), nn.Linear(4, 9)

        def forward(self, ids):
            return self.fc(self.norm(self.emb(ids)))

    def groups(model):
        no_decay = ["bias", "LayerNorm.weight"]
        return [
            {"params": [p for n, p in model.named_parameters() if n in ("emb.weight", "fc.weight")], "weight_decay": 0.1},
            {"params": [p for n, p in model.named_parameters() if n in no_decay], "weight_decay": 0.0},
        ]

    model, ids = Bert(), torch.randint(0, 9, (2, 3))
    optimizer = torch.optim.Adam(groups(model))  # FXG301
    return dict(model=model, inputs=(ids,), loss=lambda o: F.cross_entropy(o.flatten(0, 1), ids.flatten()), optimizer=optimizer)


def guilty_optimizer_built_while_frozen():
    class Transfer(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone, self.head = nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Linear(4, 2)

        def unfreeze(self):
            self.backbone.requires_grad_(True)

        def forward(self, x):
            return self.head(self.backbone(x))

    model = Transfer()
    model.backbone.requires_grad_(False)
    optimizer = torch.optim.SGD(filter(lambda p: p.requires_grad, model.parameters()), 0.1)  # FXG301
    model.unfreeze()
    return dict(model=model, inputs=(torch.randn(3, 4),), loss=lambda o: o.sum(), optimizer=optimizer)


def guilty_layer_added_on_first_call():
    class Lazy(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.head = nn.Linear(4, 4), None

        def forward(self, x):
            h = self.stem(x)
            if self.head is None:
                self.head = nn.Linear(h.shape[-1], 1)
            return self.head(h)

    model, x = Lazy(), torch.randn(3, 4)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)  # FXG301
    model(x)
    return dict(model=model, inputs=(x,), loss=lambda o: o.sum(), optimizer=optimizer)


def guilty_only_the_last_stage_handed_over():
    class Stages(nn.Module):
        def __init__(self):
            super().__init__()
            self.stages = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
            self.temperature = nn.Parameter(torch.tensor(1.0))

        def configure_optimizers(self):
            for stage in self.stages:
                chosen = stage.parameters()
            return torch.optim.Adam(chosen, 1e-3)  # FXG301

        def forward(self, x):
            for stage in self.stages:
                x = stage(x).tanh()
            return x / self.temperature

    model = Stages()
    return dict(model=model, inputs=(torch.randn(3, 4),), loss=lambda o: o.sum(), optimizer=model.configure_optimizers(), expect=["*"])


def guilty_optimizer_of_another_copy():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 1)

        def forward(self, x):
            return self.fc(x)

    student, teacher = Net(), Net()
    optimizer = torch.optim.Adam(teacher.parameters())  # FXG301
    return dict(
        model=student,
        inputs=(torch.randn(3, 4),),
        loss=lambda o, teacher=teacher: (o - teacher(torch.zeros(3, 4)).detach()).square().mean(),
        optimizer=optimizer,
    )


def guilty_lora_added_after_the_optimizer():
    class Lora(nn.Module):
        def __init__(self, base):
            super().__init__()
            self.base = base.requires_grad_(False)
            self.a = nn.Parameter(torch.randn(base.in_features, 2))
            self.b = nn.Parameter(torch.zeros(2, base.out_features))

        def forward(self, x):
            return self.base(x) + x @ self.a @ self.b

    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)  # FXG301
    model[0] = Lora(model[0])
    return dict(model=model, inputs=(torch.randn(3, 4),), loss=lambda o: o.square().sum(), optimizer=optimizer)


def quiet_frozen_backbone_left_out():
    class Transfer(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone, self.head = nn.Linear(4, 4), nn.Linear(4, 2)
            for p in self.backbone.parameters():
                p.requires_grad = False

        def forward(self, x):
            return self.head(self.backbone(x))

    model = Transfer()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-3)
    return dict(model=model, inputs=(torch.randn(3, 4),), loss=lambda o: o.sum(), optimizer=optimizer, expect=["head.*"])


def quiet_two_optimizers_in_a_list():
    class Gan(nn.Module):
        def __init__(self):
            super().__init__()
            self.g, self.d = nn.Linear(2, 3), nn.Linear(3, 1)

        def forward(self, z):
            return self.d(self.g(z))

    model = Gan()
    optimizers = [torch.optim.Adam(model.g.parameters()), torch.optim.SGD(model.d.parameters(), 0.1)]
    return dict(model=model, inputs=(torch.randn(4, 2),), loss=lambda o: o.mean(), optimizer=optimizers)


def quiet_second_optimizer_kept_on_the_model():
    class ActorCritic(nn.Module):
        def __init__(self):
            super().__init__()
            self.actor, self.critic = nn.Linear(3, 2), nn.Linear(2, 1)
            self.critic_optimizer = torch.optim.Adam(self.critic.parameters())

        def forward(self, x):
            return self.critic(self.actor(x))

    model = ActorCritic()
    return dict(model=model, inputs=(torch.randn(4, 3),), loss=lambda o: o.mean(), optimizer=torch.optim.Adam(model.actor.parameters()))


def quiet_optimizer_over_several_models():
    class Part(nn.Module):
        def __init__(self, *sizes):
            super().__init__()
            self.fc = nn.Linear(*sizes)

        def forward(self, x):
            return self.fc(x)

    encoder, decoder = Part(4, 2), Part(2, 4)
    optimizer = torch.optim.Adam(itertools.chain(encoder.parameters(), decoder.parameters()))
    x = torch.randn(3, 4)
    return dict(model=encoder, inputs=(x,), loss=lambda z: F.mse_loss(decoder(z), x), optimizer=optimizer)


def quiet_criterion_with_parameters():
    class Centers(nn.Module):
        def __init__(self):
            super().__init__()
            self.centers = nn.Parameter(torch.randn(3, 4))

        def forward(self, z):
            return torch.cdist(z, self.centers).amin(1).mean()

    model, criterion = nn.Linear(5, 4), Centers()
    optimizer = torch.optim.SGD([*model.parameters(), *criterion.parameters()], 0.1)
    return dict(model=model, inputs=(torch.randn(6, 5),), loss=criterion, optimizer=optimizer)


def quiet_moved_and_cast_after_the_optimizer():
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))
    optimizer = torch.optim.Adam(model.parameters())
    model.double().to("cpu")
    model.train()
    return dict(model=model, inputs=(torch.randn(3, 4).double(),), loss=lambda o: o.sum(), optimizer=optimizer)


def quiet_schedulers_and_closures():
    model = nn.Linear(4, 1)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1)
    torch.optim.lr_scheduler.StepLR(optimizer, 10)
    x = torch.randn(3, 4)

    def closure():
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    return dict(model=model, inputs=(x,), loss=lambda o: o.square().mean(), optimizer=optimizer)


def quiet_group_added_when_unfrozen():
    class Transfer(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.head(self.backbone(x))

    model = Transfer()
    model.backbone.requires_grad_(False)
    optimizer = torch.optim.SGD(model.head.parameters(), 0.1)
    model.backbone.requires_grad_(True)
    optimizer.add_param_group({"params": model.backbone.parameters(), "lr": 0.01})
    return dict(model=model, inputs=(torch.randn(3, 4),), loss=lambda o: o.sum(), optimizer=optimizer)


def quiet_only_the_image_is_optimised():
    class Features(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            for p in self.parameters():
                p.requires_grad_(False)

        def forward(self, image):
            return self.conv(image).relu()

    image = torch.rand(1, 3, 5, 5, requires_grad=True)
    return dict(model=Features(), inputs=(image,), loss=lambda o: o.square().mean(), optimizer=torch.optim.LBFGS([image]), expect=[])
