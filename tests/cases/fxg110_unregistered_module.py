"""FXG110: layers that `parameters()` does not list although they run, and layers kept aside on purpose."""

from __future__ import annotations

import copy
import weakref
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


def guilty_list_of_layers() -> dict[str, Any]:
    class Mlp(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = [nn.Linear(4, 4) for _ in range(3)]  # FXG110
            self.head = nn.Linear(4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers:
                x = torch.relu(layer(x))
            return self.head(x)

    return dict(model=Mlp(), inputs=(torch.randn(2, 4),), loss=lambda out: out.square().mean())


def guilty_dict_filled_in_loop() -> dict[str, Any]:
    class Heads(nn.Module):
        def __init__(self, tasks: tuple[str, ...]) -> None:
            super().__init__()
            self.trunk = nn.Linear(4, 4)
            self.heads: dict[str, nn.Module] = {}
            for task in tasks:
                self.heads[task] = nn.Linear(4, 2)  # FXG110

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            h = self.trunk(x)
            return {task: head(h) for task, head in self.heads.items()}

    return dict(model=Heads(("seg", "cls")), inputs=(torch.randn(2, 4),), loss=lambda out: sum(v.square().mean() for v in out.values()))


def guilty_tuple_inside_a_block() -> dict[str, Any]:
    class Residual(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(width)
            self.branches = (nn.Linear(width, width), nn.Sequential(nn.Linear(width, 2), nn.Linear(2, width)))  # FXG110

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + sum(branch(self.norm(x)) for branch in self.branches)

    net = nn.Sequential(nn.Linear(3, 4), Residual(4), Residual(4))
    return dict(model=net, inputs=(torch.randn(2, 3),), loss=lambda out: out.square().mean())


def guilty_plain_object_holds_the_layers() -> dict[str, Any]:
    class Encoder:
        """Not an nn.Module."""

        def __init__(self) -> None:
            self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 4)

        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(torch.relu(self.first(x)))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = Encoder()  # FXG110
            self.decoder = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.decoder(self.encoder(x))

    return dict(model=Model(), inputs=(torch.randn(2, 4),), loss=lambda out: out.square().mean())


def guilty_appended_in_a_local_list() -> dict[str, Any]:
    class Unet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            down = []
            for _ in range(2):
                down.append(nn.Conv1d(2, 2, 3, padding=1))  # FXG110
            self.down = down
            self.up = nn.Conv1d(2, 1, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for conv in self.down:
                x = F.gelu(conv(x))
            return self.up(x)

    return dict(model=Unet(), inputs=(torch.randn(1, 2, 5),), loss=lambda out: out.square().mean())


def guilty_layer_made_in_forward() -> dict[str, Any]:
    class Lazy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(3, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.embed(x)
            projection = nn.Linear(h.shape[-1], 2)  # FXG110
            return projection(h)

    return dict(model=Lazy(), inputs=(torch.randn(2, 3),), loss=lambda out: out.square().mean())


def guilty_closure_over_a_layer() -> dict[str, Any]:
    def make_adapter(width: int) -> Any:
        down = nn.Linear(width, 2)  # or FXG110
        up = nn.Linear(2, width)  # or FXG110

        def adapter(x: torch.Tensor) -> torch.Tensor:
            return x + up(torch.relu(down(x)))

        return adapter

    class Adapted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base = nn.Linear(4, 4)
            self.adapter = make_adapter(4)  # FXG110

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.adapter(self.base(x))

    return dict(model=Adapted(), inputs=(torch.randn(2, 4),), loss=lambda out: out.square().mean())


def guilty_functools_partial_of_a_layer() -> dict[str, Any]:
    def apply_norm(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return layer(x) * 0.5

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(4, 4)
            self.steps = [partial(apply_norm, nn.LayerNorm(4)), torch.relu]  # FXG110

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.body(x)
            for step in self.steps:
                x = step(x)
            return x

    return dict(model=Net(), inputs=(torch.randn(2, 4),), loss=lambda out: out.square().mean())


def guilty_global_layer() -> dict[str, Any]:
    shared = nn.Linear(4, 2)  # FXG110

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(3, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return shared(self.embed(x))

    return dict(model=Net(), inputs=(torch.randn(2, 3),), loss=lambda out: out.square().mean())


def guilty_same_line_in_many_blocks() -> dict[str, Any]:
    """Twelve blocks, one line: one finding."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(4)
            self.mix = {"up": nn.Linear(4, 8), "down": nn.Linear(8, 4)}  # FXG110

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.mix["down"](F.gelu(self.mix["up"](self.norm(x))))

    net = nn.Sequential(*(Block() for _ in range(12)))
    return dict(model=net, inputs=(torch.randn(2, 4),), loss=lambda out: out.square().mean())


def guilty_layer_of_the_class() -> dict[str, Any]:
    class Net(nn.Module):
        shared = nn.Linear(4, 4)  # FXG110

        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(3, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.shared(torch.relu(self.embed(x)))

    return dict(model=Net(), inputs=(torch.randn(2, 3),), loss=lambda out: out.square().mean())


# ---------------------------------------------------------------------------------------------------------------- healthy


def guilty_registered_layer_built_again_in_forward() -> dict[str, Any]:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.out = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.fc = nn.Linear(x.shape[-1], 4)  # FXG110
            return self.out(self.fc(x))

    return dict(model=Net(), inputs=(torch.randn(2, 3),), loss=lambda o: o.pow(2).mean())


def quiet_module_list() -> dict[str, Any]:
    class Mlp(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers:
                x = torch.relu(layer(x))
            return x

    return dict(model=Mlp(), inputs=(torch.randn(2, 4),), loss=lambda out: out.square().mean())


def quiet_list_of_registered_layers() -> dict[str, Any]:
    class Stages(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
            self.order = [self.second, self.first]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.order:
                x = torch.relu(layer(x))
            return x

    return dict(model=Stages(), inputs=(torch.randn(2, 4),), loss=lambda out: out.square().mean())


def quiet_list_with_add_module() -> dict[str, Any]:
    class Stages(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = []
            for i in range(2):
                block = nn.Linear(3, 3)
                self.blocks.append(block)
                self.add_module(f"block{i}", block)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for block in self.blocks:
                x = torch.tanh(block(x))
            return x

    return dict(model=Stages(), inputs=(torch.randn(2, 3),), loss=lambda out: out.square().mean())


def quiet_frozen_perceptual_network_in_a_list() -> dict[str, Any]:
    class Perceptual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.generate = nn.Linear(3, 4)
            self.vgg = [nn.Linear(4, 2).requires_grad_(False)]

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return F.mse_loss(self.vgg[0](self.generate(x)), self.vgg[0](y))

    return dict(model=Perceptual(), inputs=(torch.randn(2, 3), torch.randn(2, 4)))


def quiet_teacher_hidden_under_no_grad() -> dict[str, Any]:
    class Student(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(3, 2)
            self.teacher = (nn.Linear(3, 2),)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                soft = self.teacher[0](x).softmax(-1)
            return F.kl_div(self.net(x).log_softmax(-1), soft, reduction="batchmean")

    return dict(model=Student(), inputs=(torch.randn(2, 3),))


def quiet_activations_in_a_list() -> dict[str, Any]:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(4, 4)
            self.activations = [nn.ReLU(), nn.Dropout(0.0), torch.tanh]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.net(x)
            for act in self.activations:
                x = act(x)
            return x

    return dict(model=Net(), inputs=(torch.randn(2, 4),), loss=lambda out: out.square().mean())


def quiet_criterion_in_the_loss() -> dict[str, Any]:
    model = nn.Linear(4, 3)
    criteria = [nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.1)]
    labels = torch.tensor([0, 2])
    return dict(model=model, inputs=(torch.randn(2, 4),), loss=lambda out: sum(c(out, labels) for c in criteria))


def quiet_trained_aside_with_its_own_optimizer() -> dict[str, Any]:
    """The discriminator is not part of the generator's module: the loss reaches through it and another optimizer steps it."""
    generator, discriminator = nn.Linear(2, 3), nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    return dict(
        model=generator,
        inputs=(torch.randn(4, 2),),
        loss=lambda fake: F.softplus(-discriminator(fake)).mean(),
        optimizer=torch.optim.Adam(generator.parameters()),
    )


def quiet_hidden_with_the_one_element_idiom() -> dict[str, Any]:
    """The critic is kept out of `parameters()` on purpose: another optimizer trains it."""

    class Generator(nn.Module):
        def __init__(self, critic: nn.Module) -> None:
            super().__init__()
            self.net = nn.Linear(2, 3)
            self.critic = [critic]

        def forward(self, noise: torch.Tensor) -> torch.Tensor:
            return -self.critic[0](self.net(noise)).mean()

    return dict(model=Generator(nn.Linear(3, 1)), inputs=(torch.randn(4, 2),))


def quiet_given_to_the_optimizer_by_hand() -> dict[str, Any]:
    class Mlp(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = [nn.Linear(3, 3) for _ in range(2)]
            self.head = nn.Linear(3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers:
                x = torch.tanh(layer(x))
            return self.head(x)

    model = Mlp()
    optimizer = torch.optim.SGD([*model.parameters(), *(p for layer in model.layers for p in layer.parameters())], 0.1)
    return dict(model=model, inputs=(torch.randn(2, 3),), loss=lambda out: out.square().mean(), optimizer=optimizer)


def quiet_average_kept_beside_the_modules() -> dict[str, Any]:
    """An EMA that must not be in the state dict: a plain object holds the copy."""

    class Average:
        def __init__(self, net, decay):
            self.net, self.decay = copy.deepcopy(net).eval(), decay

        @torch.no_grad()
        def update(self, net):
            for a, p in zip(self.net.parameters(), net.parameters(), strict=True):
                a.lerp_(p, 1 - self.decay)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(4, 3)
            self.average = Average(self.net, 0.99)

        def forward(self, x):
            self.average.update(self.net)
            goal = self.average.net(x).detach()
            return F.mse_loss(self.net(x + 0.1), goal)

    return dict(model=Model(), inputs=(torch.randn(3, 4),))


def quiet_parent_kept_in_a_list_against_recursion() -> dict[str, Any]:
    class Child(nn.Module):
        def __init__(self, parent):
            super().__init__()
            self.fc = nn.Linear(3, 3)
            self.parent = [parent]

        def forward(self, x):
            return self.fc(x) * self.parent[0].gain

    class Parent(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.ones(3))
            self.child = Child(self)

        def forward(self, x):
            return self.child(x)

    return dict(model=Parent(), inputs=(torch.randn(2, 3),), loss=lambda o: o.square().mean())


def quiet_layers_of_another_branch_in_a_tuple() -> dict[str, Any]:
    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.down, self.up = nn.ModuleList(nn.Linear(4, 4) for _ in range(2)), nn.ModuleList(nn.Linear(8, 4) for _ in range(2))
            self.pairs = tuple(zip(self.down, reversed(self.up), strict=True))

        def forward(self, x):
            skips = []
            for down, _ in self.pairs:
                x = down(x).relu()
                skips.append(x)
            for _, up in reversed(self.pairs):
                x = up(torch.cat([x, skips.pop()], -1))
            return x

    return dict(model=UNet(), inputs=(torch.randn(2, 4),), loss=lambda o: o.square().mean())


def quiet_weak_reference_to_a_tied_table() -> dict[str, Any]:
    class Head(nn.Module):
        def __init__(self, table):
            super().__init__()
            self.table = weakref.ref(table)

        def forward(self, h):
            return h @ self.table().weight.T

    class Lm(nn.Module):
        def __init__(self):
            super().__init__()
            self.emb = nn.Embedding(6, 4)
            self.head = Head(self.emb)

        def forward(self, ids):
            return self.head(self.emb(ids).tanh())

    ids = torch.tensor([1, 2, 5])
    return dict(model=Lm(), inputs=(ids,), loss=lambda o: F.cross_entropy(o, ids))


def quiet_losses_in_a_dict_of_modules_without_parameters() -> dict[str, Any]:
    class Trainer(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(4, 3)
            self.losses = {"ce": nn.CrossEntropyLoss(), "reg": nn.Sequential(nn.Softmax(-1), nn.Flatten())}

        def forward(self, x, y):
            logits = self.net(x)
            return self.losses["ce"](logits, y) + self.losses["reg"](logits).square().mean()

    return dict(model=Trainer(), inputs=(torch.randn(3, 4), torch.tensor([0, 1, 2])))
