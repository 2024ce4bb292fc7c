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


def quiet_only_biases_train() -> dict[str, Any]:
    model = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 2))
    for name, p in model.named_parameters():
        p.requires_grad = "bias" in name
    return dict(
        model=model,
        inputs=(torch.randn(3, 4),),
        loss=lambda o: o.square().mean(),
        optimizer=torch.optim.Adam(p for p in model.parameters() if p.requires_grad),
    )


def quiet_soft_prompt_before_a_frozen_network() -> dict[str, Any]:
    class Prompted(nn.Module):
        def __init__(self):
            super().__init__()
            self.emb, self.rnn, self.out = nn.Embedding(7, 4), nn.GRU(4, 4, batch_first=True), nn.Linear(4, 7)
            self.requires_grad_(False)
            self.prompt = nn.Parameter(torch.randn(2, 4))

        def forward(self, ids):
            h = torch.cat([self.prompt.expand(len(ids), -1, -1), self.emb(ids)], 1)
            return self.out(self.rnn(h)[0][:, 2:])

    ids = torch.randint(0, 7, (2, 3))
    return dict(model=Prompted(), inputs=(ids,), loss=lambda o: F.cross_entropy(o.transpose(1, 2), ids))


def quiet_batch_norm_frozen_while_the_rest_trains() -> dict[str, Any]:
    class FrozenNorm(nn.Sequential):
        def train(self, mode=True):
            super().train(mode)
            for module in self.modules():
                if isinstance(module, nn.BatchNorm1d):
                    module.eval()
                    module.weight.requires_grad_(False)
                    module.bias.requires_grad_(False)
            return self

    model = FrozenNorm(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1)).train()
    return dict(model=model, inputs=(torch.randn(5, 4),), loss=lambda o: o.square().mean())


def quiet_magnitude_of_a_weight_norm_fixed() -> dict[str, Any]:
    head = nn.utils.parametrizations.weight_norm(nn.Linear(4, 5, bias=False))
    head.parametrizations.weight.original0.data.fill_(1)
    head.parametrizations.weight.original0.requires_grad = False
    return dict(model=nn.Sequential(nn.Linear(4, 4), nn.GELU(), head), inputs=(torch.randn(3, 4),), loss=lambda o: o.logsumexp(-1).mean())


def quiet_judge_toggled_off_for_the_makers_step() -> dict[str, Any]:
    class Gan(nn.Module):
        def __init__(self):
            super().__init__()
            self.maker, self.judge = nn.Linear(2, 4), nn.Linear(4, 1)

        def forward(self, z):
            return -self.judge(self.maker(z)).mean()

    model = Gan()
    for p in model.judge.parameters():
        p.requires_grad_(False)
    return dict(model=model, inputs=(torch.randn(3, 2),), optimizer=torch.optim.Adam(model.maker.parameters()), expect=["maker.*"])


def quiet_quantised_base_in_integers() -> dict[str, Any]:
    class Int8(nn.Module):
        def __init__(self, rows, columns):
            super().__init__()
            self.weight = nn.Parameter(torch.randint(-127, 127, (rows, columns), dtype=torch.int8), requires_grad=False)
            self.scale = nn.Parameter(torch.full((rows, 1), 0.01))

        def forward(self, x):
            return F.linear(x, self.weight.float() * self.scale)

    return dict(model=nn.Sequential(Int8(6, 4), nn.ReLU(), Int8(2, 6)), inputs=(torch.randn(3, 4),), loss=lambda o: o.square().mean())


def quiet_pruning_mask_kept_as_a_parameter() -> dict[str, Any]:
    class Masked(nn.Linear):
        def __init__(self, *sizes):
            super().__init__(*sizes)
            self.mask = nn.Parameter((torch.rand_like(self.weight) > 0.5).float(), requires_grad=False)

        def forward(self, x):
            return F.linear(x, self.weight * self.mask, self.bias)

    return dict(model=nn.Sequential(Masked(4, 6), nn.Tanh(), Masked(6, 1)), inputs=(torch.randn(5, 4),), loss=lambda o: o.square().mean())


def quiet_stages_thawed_one_by_one() -> dict[str, Any]:
    stages = [nn.Linear(4, 4) for _ in range(3)]
    model = nn.Sequential(*stages)
    for stage in stages:
        stage.requires_grad_(False)
    for stage in reversed(stages[1:]):
        for p in stage.parameters():
            p.requires_grad = True
    trained = [p for p in model.parameters() if p.requires_grad]
    return dict(model=model, inputs=(torch.randn(3, 4),), loss=lambda o: o.square().mean(), optimizer=torch.optim.SGD(trained, 0.1))


def quiet_control_copy_with_zero_layers() -> dict[str, Any]:
    class Control(nn.Module):
        def __init__(self):
            super().__init__()
            self.locked = nn.Linear(4, 4)
            self.trained = copy.deepcopy(self.locked)
            self.locked.requires_grad_(False)
            self.join = nn.Linear(4, 4)
            nn.init.constant_(self.join.weight, 0.1)

        def forward(self, x, hint):
            return self.locked(x) + self.join(self.trained(x + hint))

    return dict(model=Control(), inputs=(torch.randn(3, 4), torch.randn(3, 4)), loss=lambda o: o.square().mean())


def quiet_reservoir_with_a_trained_readout() -> dict[str, Any]:
    class Echo(nn.Module):
        def __init__(self):
            super().__init__()
            self.reservoir = nn.RNN(3, 8, batch_first=True)
            for name in [name for name, _ in self.reservoir.named_parameters()]:
                getattr(self.reservoir, name).requires_grad_(False)
            self.read = nn.Linear(8, 1)

        def forward(self, x):
            return self.read(self.reservoir(x)[0])

    return dict(model=Echo(), inputs=(torch.randn(2, 4, 3),), loss=lambda o: o.square().mean())


def quiet_sine_positions_given_to_an_embedding() -> dict[str, Any]:
    class Positions(nn.Module):
        def __init__(self):
            super().__init__()
            angle = torch.arange(6.0)[:, None] * torch.tensor([1.0, 0.1])
            self.positions = nn.Embedding.from_pretrained(torch.cat([angle.sin(), angle.cos()], 1), freeze=True)
            self.fc = nn.Linear(4, 2)

        def forward(self, x):
            return self.fc(x + self.positions(torch.arange(x.shape[1])))

    return dict(model=Positions(), inputs=(torch.randn(2, 5, 4),), loss=lambda o: o.square().mean())


def quiet_perceptual_loss_with_a_frozen_network() -> dict[str, Any]:
    class Perceptual(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = nn.Sequential(nn.Conv1d(1, 2, 3), nn.ReLU(), nn.Conv1d(2, 2, 3)).eval()
            for p in self.parameters():
                p.requires_grad = False

        def forward(self, made):
            return F.l1_loss(self.features(made), self.features(torch.ones_like(made)))

    return dict(model=nn.Conv1d(1, 1, 3, padding=1), inputs=(torch.randn(2, 1, 8),), loss=Perceptual())


def quiet_frozen_in_forward_for_the_gradient_of_the_input() -> dict[str, Any]:
    """The weights are frozen for an inner question and thawed again before the outer one."""

    class Attacked(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))

        def forward(self, x):
            self.net.requires_grad_(False)
            near = x.clone().requires_grad_(True)
            (g,) = torch.autograd.grad(self.net(near).sum(), near)
            self.net.requires_grad_(True)
            return self.net(x + 0.1 * g.sign()).square().mean()

    return dict(model=Attacked(), inputs=(torch.randn(3, 4),))


def guilty_constants_of_which_a_loss_is_made() -> dict[str, Any]:
    class Binned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bins = nn.Parameter(torch.arange(4.0), requires_grad=False)  # FXG102

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(1 - (x.unsqueeze(-1) - self.bins).abs())

    return dict(model=Binned(), inputs=(torch.randn(3, 4),), loss=lambda o: o.sum())


def guilty_all_frozen_after_it_was_built() -> dict[str, Any]:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.scale * x

    model = Scaled()
    model.scale.requires_grad = False  # FXG102
    return dict(model=model, inputs=(torch.randn(3, 4),))


def quiet_layer_of_constants() -> dict[str, Any]:
    class Binned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bins = nn.Parameter(torch.arange(4.0), requires_grad=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(1 - (x.unsqueeze(-1) - self.bins).abs())

    return dict(model=Binned(), inputs=(torch.randn(3, 4),))


def quiet_layer_of_constants_below() -> dict[str, Any]:
    class Positions(nn.Module):
        def __init__(self, length: int) -> None:
            super().__init__()
            self.sines = nn.Parameter(torch.zeros(length, 4), requires_grad=False)
            nn.init.uniform_(self.sines)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.sines[: x.shape[1]]

    return dict(model=nn.Sequential(Positions(8), nn.Flatten()), inputs=(torch.randn(3, 5, 4),))


def quiet_constants_of_a_base_class() -> dict[str, Any]:
    class Windowed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.window: nn.Parameter = nn.Parameter(torch.hann_window(4), False)

    class Framed(Windowed):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.fft.rfft(x * self.window).abs()

    return dict(model=Framed(), inputs=(torch.randn(3, 4),))


def quiet_constants_beside_what_is_trained() -> dict[str, Any]:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean = nn.Parameter(torch.zeros(4), requires_grad=False)
            self.lin = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.lin(x - self.mean)

    return dict(model=Scaled(), inputs=(torch.randn(3, 4),), loss=lambda o: o.square().mean())
