"""Cases of FXG102 frozen-parameter."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


def _encoder() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4))


class _Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head = _encoder(), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(x))


def guilty_head_frozen_with_the_rest() -> dict[str, Any]:
    class Classifier(_Classifier):
        pass

    model = Classifier()
    model.head = nn.Linear(4, 3)
    for p in model.parameters():
        p.requires_grad = False  # FXG102
    y = torch.tensor([0, 1, 2])
    return dict(model=model, inputs=(torch.randn(3, 4),), loss=lambda o: F.cross_entropy(o, y), expect=["head.*"])


def guilty_wrong_name_in_the_filter() -> dict[str, Any]:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.neck, self.classifier = _encoder(), nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.classifier(torch.relu(self.neck(self.backbone(x))))

    def prepare(model: nn.Module) -> None:
        for name, p in model.named_parameters():
            if "fc" not in name and "neck" not in name:
                p.requires_grad_(False)  # FXG102

    model = Net()
    prepare(model)
    return dict(model=model, inputs=(torch.randn(3, 4),), loss=lambda o: o.pow(2).mean(), expect=["classifier.*", "neck.*"])


def guilty_pretrained_embedding_freezes_by_default() -> dict[str, Any]:
    class Tagger(nn.Module):
        def __init__(self, vectors: torch.Tensor) -> None:
            super().__init__()
            self.emb = nn.Embedding.from_pretrained(vectors)  # FXG102
            self.rnn = nn.GRU(4, 3, batch_first=True)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.rnn(self.emb(ids))[0]

    return dict(model=Tagger(torch.randn(9, 4)), inputs=(torch.randint(0, 9, (2, 5)),), loss=lambda o: o.pow(2).mean(), expect="*")


def guilty_parameter_built_frozen() -> dict[str, Any]:
    class Position(nn.Module):
        def __init__(self, n: int, d: int) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.zeros(n, d), requires_grad=False)  # FXG102

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.table

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.position, self.fc = Position(5, 4), nn.Linear(4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.position(x))

    return dict(model=Net(), inputs=(torch.randn(2, 5, 4),), loss=lambda o: o.sum(), expect=["position.*", "fc.*"])


def guilty_helper_left_off() -> dict[str, Any]:
    def set_requires_grad(nets: list[nn.Module], value: bool) -> None:
        for net in nets:
            for p in net.parameters():
                p.requires_grad = value  # or FXG102

    class Gan(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.generator, self.critic = nn.Linear(2, 4), nn.Linear(4, 1)

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return self.critic(self.generator(z))

    model = Gan()
    set_requires_grad([model.generator, model.critic], False)  # FXG102
    set_requires_grad([model.critic], True)
    return dict(model=model, inputs=(torch.randn(3, 2),), loss=lambda o: -o.mean(), expect=["*"])


def guilty_frozen_when_applied() -> dict[str, Any]:
    def quieten(module: nn.Module) -> None:
        if isinstance(module, nn.BatchNorm1d):
            module.eval()
            module.weight.requires_grad = False  # FXG102
            module.bias.requires_grad_(False)  # or FXG102

    class Net(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1))

    model = Net()
    model.apply(quieten)
    return dict(model=model, inputs=(torch.randn(3, 4),), loss=lambda o: o.pow(2).mean(), expect=["*"])


def quiet_frozen_backbone() -> dict[str, Any]:
    model = _Classifier()
    model.encoder.requires_grad_(False)
    y = torch.tensor([0, 1, 0])
    return dict(
        model=model,
        inputs=(torch.randn(3, 4),),
        loss=lambda o: F.cross_entropy(o, y),
        optimizer=torch.optim.Adam(model.head.parameters()),
    )


def quiet_expect_leaves_the_frozen_out() -> dict[str, Any]:
    model = _Classifier()
    for p in model.encoder[0].parameters():
        p.requires_grad = False
    return dict(model=model, inputs=(torch.randn(3, 4),), loss=lambda o: o.sum(), expect=["head.*", "encoder.2.*"])


def quiet_low_rank_adapter() -> dict[str, Any]:
    class Lora(nn.Module):
        def __init__(self, base: nn.Linear) -> None:
            super().__init__()
            self.base = base.requires_grad_(False)
            self.a = nn.Parameter(torch.randn(2, base.in_features) * 0.1)
            self.b = nn.Parameter(torch.randn(base.out_features, 2) * 0.1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.base(x) + F.linear(F.linear(x, self.a), self.b)

    return dict(model=Lora(nn.Linear(4, 3)), inputs=(torch.randn(5, 4),), loss=lambda o: o.pow(2).mean())


def quiet_teacher_copy() -> dict[str, Any]:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.student = _encoder()
            self.teacher = copy.deepcopy(self.student)
            for p in self.teacher.parameters():
                p.requires_grad = False

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.mse_loss(self.student(x), self.teacher(x + 0.1))

    return dict(model=Pair(), inputs=(torch.randn(3, 4),))


def quiet_fixed_table() -> dict[str, Any]:
    class Fourier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.frequency = nn.Parameter(torch.randn(3) * 2, requires_grad=False)
            self.fc = nn.Linear(6, 1)

        def forward(self, t: torch.Tensor) -> torch.Tensor:
            angle = t[:, None] * self.frequency
            return self.fc(torch.cat([angle.sin(), angle.cos()], 1))

    return dict(model=Fourier(), inputs=(torch.rand(5),), loss=lambda o: o.pow(2).mean())


def quiet_thawed_again() -> dict[str, Any]:
    model = _Classifier()
    model.requires_grad_(False)
    model.requires_grad_(True)
    return dict(model=model, inputs=(torch.randn(3, 4),), loss=lambda o: o.mean(), expect=["*"])


def guilty_module_attribute_unfreezes_nothing() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.fc = nn.Linear(3, 3), nn.Linear(3, 2)

        def forward(self, x):
            return self.fc(self.body(x))

    m = N()
    for p in m.parameters():
        p.requires_grad = False
    m.fc.requires_grad = True  # FXG102
    return dict(model=m, inputs=(torch.randn(2, 3),), loss=lambda o: o.sum(), expect=["fc.*"])


def guilty_module_attribute_in_a_method() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.fc, self.tail = nn.Linear(3, 3), nn.Linear(3, 2), nn.Linear(2, 2)

        def freeze_body(self):
            self.requires_grad_(False)
            self.tail.requires_grad_(True)
            self.fc.requires_grad = True  # FXG102

        def forward(self, x):
            return self.tail(self.fc(self.body(x)))

    m = N()
    m.freeze_body()
    return dict(model=m, inputs=(torch.randn(2, 3),), loss=lambda o: o.sum(), expect=["fc.*", "tail.*"])


def guilty_frozen_in_forward() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.fc = nn.Linear(3, 3), nn.Linear(3, 2)

        def forward(self, x):
            for p in self.body.parameters():
                p.requires_grad = False  # FXG102
            return self.fc(self.body(x))

    return dict(model=N(), inputs=(torch.randn(2, 3),), loss=lambda o: o.sum(), expect=["*"])


def guilty_frozen_in_forward_method() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.fc = nn.Linear(3, 3), nn.Linear(3, 2)

        def forward(self, x):
            self.body.requires_grad_(False)  # FXG102
            return self.fc(self.body(x))

    return dict(model=N(), inputs=(torch.randn(2, 3),), loss=lambda o: o.sum())


def guilty_toggle_network() -> dict[str, Any]:
    class Loop:
        def __init__(self, m):
            self.m = m

        def toggle(self, keep):
            for n, p in self.m.named_parameters():
                p.requires_grad = n.startswith(keep)  # FXG102

    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.g, self.d = nn.Linear(3, 3), nn.Linear(3, 1)

        def forward(self, x):
            return self.d(self.g(x))

    m = N()
    Loop(m).toggle("g")
    return dict(model=m, inputs=(torch.randn(2, 3),), loss=lambda o: o.sum(), expect=["*"])


def guilty_require_grad_in_config() -> dict[str, Any]:
    class Norm(nn.Module):
        def __init__(self, d, train=False):
            super().__init__()
            self.g = nn.Parameter(torch.ones(d))
            self.f = nn.Linear(d, d)
            for n, p in self.named_parameters():
                if n == "g":
                    p.requires_grad_(train)  # FXG102

        def forward(self, x):
            return self.f(x) * self.g

    return dict(model=Norm(3), inputs=(torch.randn(2, 3),), loss=lambda o: o.sum(), expect=["g", "f.*"])


def guilty_children_slice() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.c1, self.c2, self.c3 = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 1)
            for i, c in enumerate(self.children()):
                if i < 3:
                    for p in c.parameters():
                        p.requires_grad = False  # FXG102

        def forward(self, x):
            return self.c3(self.c2(self.c1(x)))

    return dict(model=N(), inputs=(torch.randn(2, 3),), loss=lambda o: o.sum(), expect=["c3.*"])
