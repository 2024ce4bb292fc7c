"""Cases of FXG101 unused-parameter."""

from __future__ import annotations

import copy
import functools
from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.checkpoint import checkpoint


def guilty_layer_never_called() -> dict[str, Any]:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1 = nn.Linear(4, 8)
            self.fc2 = nn.Linear(8, 8)  # FXG101
            self.out = nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(torch.relu(self.fc1(x)))

    return dict(model=Net(), inputs=(torch.randn(3, 4),), loss=lambda o: o.pow(2).mean())


def guilty_whole_branch_never_called() -> dict[str, Any]:
    class AuxHead(nn.Module):
        def __init__(self, d: int) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(d)
            self.proj = nn.Linear(d, d)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.proj(self.norm(x))

    class Block(nn.Module):
        def __init__(self, d: int) -> None:
            super().__init__()
            self.body = nn.Linear(d, d)
            self.aux = AuxHead(d)  # FXG101

        def forward(self, x: torch.Tensor, with_aux: bool = False) -> torch.Tensor:
            x = x + torch.relu(self.body(x))
            if with_aux:
                x = x + self.aux(x)
            return x

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([Block(4) for _ in range(3)])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for block in self.blocks:
                x = block(x)
            return x

    return dict(model=Net(), inputs=(torch.randn(3, 4),), loss=lambda o: o.pow(2).mean())


def guilty_heads_of_other_tasks() -> dict[str, Any]:
    class MultiTask(nn.Module):
        def __init__(self, tasks: tuple[str, ...]) -> None:
            super().__init__()
            self.trunk = nn.Sequential(nn.Linear(4, 6), nn.ReLU())
            self.heads = nn.ModuleDict({task: nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2)) for task in tasks})  # FXG101

        def forward(self, x: torch.Tensor, task: str) -> torch.Tensor:
            return self.heads[task](self.trunk(x))

    return dict(model=MultiTask(("seg", "depth", "normal")), inputs=(torch.randn(3, 4), "depth"), loss=lambda o: o.pow(2).mean())


def guilty_loop_stops_early() -> dict[str, Any]:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList()
            for _ in range(4):
                self.layers.append(nn.Linear(5, 5))  # FXG101
            self.norm = nn.LayerNorm(5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers[:-1]:
                x = x + torch.tanh(layer(x))
            return self.norm(x)

    return dict(model=nn.Sequential(nn.Linear(3, 5), Encoder()), inputs=(torch.randn(2, 3),), loss=lambda o: o.std())


def guilty_parameter_never_read() -> dict[str, Any]:
    class Attention(nn.Module):
        def __init__(self, d: int) -> None:
            super().__init__()
            self.q, self.k, self.v = nn.Linear(d, d), nn.Linear(d, d), nn.Linear(d, d)
            self.temperature = nn.Parameter(torch.ones(1))  # FXG101

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            weight = torch.softmax(self.q(x) @ self.k(x).transpose(1, 2) / x.shape[-1] ** 0.5, -1)
            return weight @ self.v(x)

    return dict(model=nn.Sequential(Attention(4), nn.Linear(4, 1)), inputs=(torch.randn(2, 3, 4),), loss=lambda o: o.sum())


def guilty_bias_left_out() -> dict[str, Any]:
    class Cosine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(4, 8)
            self.classes = nn.Linear(8, 3)  # FXG101

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.linear(F.normalize(self.embed(x)), F.normalize(self.classes.weight))

    target = torch.tensor([0, 1, 2])
    return dict(model=Cosine(), inputs=(torch.randn(3, 4),), loss=lambda o: F.cross_entropy(o, target))


def guilty_result_thrown_away() -> dict[str, Any]:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 3, padding=1)
            self.refine = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
            self.out = nn.Conv2d(4, 1, 1)

        def forward(self, img: torch.Tensor) -> torch.Tensor:
            x = self.stem(img)
            self.refine(x)  # FXG101
            return self.out(x)

    return dict(model=Net(), inputs=(torch.randn(2, 3, 6, 6),), loss=lambda o: o.abs().mean())


def guilty_overwritten_result() -> dict[str, Any]:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 4)
            self.second = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = torch.relu(self.first(x))  # FXG101
            h = torch.relu(self.second(x))
            return h

    return dict(model=Net(), inputs=(torch.randn(3, 4),), loss=lambda o: o.sum())


def guilty_unpacked_and_forgotten() -> dict[str, Any]:
    class Layer(nn.Module):
        def __init__(self, d: int) -> None:
            super().__init__()
            self.attend = nn.MultiheadAttention(d, 2, batch_first=True)
            self.feed = nn.Sequential(nn.Linear(d, d), nn.GELU(), nn.Linear(d, d))

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            y, weight = self.attend(x, x, x, average_attn_weights=False)
            return x + self.feed(y), weight

    class Student(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([Layer(4) for _ in range(2)])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            maps = []
            for layer in self.layers:
                x, weight = layer(x)  # FXG101
                maps.append(weight)
            return torch.stack(maps)

    torch.manual_seed(0)
    target = torch.rand(2, 2, 2, 3, 3)
    return dict(model=Student(), inputs=(torch.randn(2, 3, 4),), loss=lambda maps: F.mse_loss(maps, target))


def guilty_auxiliary_loss_dropped_in_forward() -> dict[str, Any]:
    class Router(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.Parameter(torch.randn(3, 4, 4))
            self.gate = nn.Linear(4, 3)
            self.balance = nn.Linear(4, 3)

        def balance_loss(self, x: torch.Tensor) -> torch.Tensor:
            share = torch.softmax(self.balance(x), -1).mean(0)
            return (share * share).sum()

        def forward(self, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            weight = torch.softmax(self.gate(x), -1)
            y = torch.einsum("be,edf,bd->bf", weight, self.experts, x)
            aux = 0.01 * self.balance_loss(x)  # or FXG101
            loss = F.mse_loss(y, target)
            self.logged = {"aux": aux.item()}
            return loss  # FXG101

    return dict(model=Router(), inputs=(torch.randn(5, 4), torch.randn(5, 4)))


def guilty_loss_function_returns_one_term() -> dict[str, Any]:
    class Vae(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encode = nn.Linear(6, 4)
            self.quality = nn.Linear(6, 1)
            self.decode = nn.Linear(2, 6)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            mean, _ = self.encode(x).chunk(2, -1)
            return self.decode(mean), self.quality(x)

    def rank_term(quality: torch.Tensor) -> torch.Tensor:
        return F.softplus(-quality).mean()

    def criterion(output: tuple[torch.Tensor, torch.Tensor], x: torch.Tensor, weight: float) -> torch.Tensor:
        recon, quality = output
        loss = F.mse_loss(recon, x)
        rank = rank_term(quality)
        total = loss + weight * rank
        print_to_log(total)
        return loss  # FXG101

    def print_to_log(total: torch.Tensor) -> None:
        float(total.detach())

    x = torch.randn(5, 6)
    return dict(model=Vae(), inputs=(x,), loss=lambda out: criterion(out, x, 0.5))


def guilty_loss_class_sums_some_terms() -> dict[str, Any]:
    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(6, 8)
            self.cls, self.box, self.mask = nn.Linear(8, 3), nn.Linear(8, 4), nn.Linear(8, 5)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            h = F.relu(self.body(x))
            return {"cls": self.cls(h), "box": self.box(h), "mask": self.mask(h)}

    class Criterion(nn.Module):
        def __init__(self, weights: dict[str, float]) -> None:
            super().__init__()
            self.weights = weights

        def terms(self, out: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            return {name: value.pow(2).mean() for name, value in out.items()}

        def forward(self, out: dict[str, torch.Tensor]) -> torch.Tensor:
            terms = self.terms(out)
            return sum(weight * terms[name] for name, weight in self.weights.items())  # FXG101

    return dict(model=Detector(), inputs=(torch.randn(2, 6),), loss=Criterion({"cls": 1.0, "box": 5.0}))


def guilty_output_the_loss_never_reads() -> dict[str, Any]:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            h = self.body(x).relu()
            first = self.a(h)
            second = self.b(h)  # FXG101
            return first, second

    return dict(model=Two(), inputs=(torch.randn(2, 3),), loss=functools.partial(lambda k, out: out[k].sum(), 0))


def guilty_parameter_list_half_used() -> dict[str, Any]:
    class Scales(nn.Module):
        def __init__(self, depth: int) -> None:
            super().__init__()
            self.scales = nn.ParameterList([nn.Parameter(torch.ones(3)) for _ in range(depth)])  # FXG101

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for i in range(0, len(self.scales), 2):
                x = x * self.scales[i]
            return x

    return dict(model=Scales(4), inputs=(torch.randn(2, 3),), loss=lambda o: o.sum())


def guilty_base_class_head() -> dict[str, Any]:
    class Backbone(nn.Module):
        def __init__(self, classes: int = 10) -> None:
            super().__init__()
            self.features = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
            self.fc = nn.Linear(4, classes)  # FXG101

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.features(x))

    class Embedder(Backbone):
        def __init__(self) -> None:
            super().__init__(100)
            self.project = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.normalize(self.project(self.features(x)))

    return dict(model=Embedder(), inputs=(torch.randn(2, 1, 5, 5),), loss=lambda o: o[:, 0].sum())


def guilty_named_by_number() -> dict[str, Any]:
    class Pyramid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for i in range(3):
                self.add_module(f"level{i}", nn.Conv1d(2, 2, 1))  # FXG101
            self.smooth = nn.Conv1d(2, 2, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for i in range(2):
                x = getattr(self, f"level{i}")(x)
            return self.smooth(x)

    return dict(model=Pyramid(), inputs=(torch.randn(1, 2, 5),), loss=lambda o: o.pow(2).sum())


def guilty_library_model_with_a_pooler() -> dict[str, Any]:
    from transformers import BertConfig, BertModel

    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            config = BertConfig(
                vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, max_position_embeddings=16
            )
            self.bert = BertModel(config)
            self.tag = nn.Linear(8, 3)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.tag(self.bert(ids).last_hidden_state)  # FXG101

    return dict(model=Tagger(), inputs=(torch.randint(0, 20, (2, 5)),), loss=lambda o: o.pow(2).mean())


def guilty_part_of_a_library_model() -> dict[str, Any]:
    from transformers import T5Config, T5ForConditionalGeneration

    class Features(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            config = T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, decoder_start_token_id=0)
            self.t5 = T5ForConditionalGeneration(config)  # FXG101
            self.head = nn.Linear(8, 2)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.head(self.t5.encoder(ids).last_hidden_state.mean(1))

    return dict(model=Features(), inputs=(torch.randint(0, 20, (2, 5)),), loss=lambda o: o.pow(2).mean())


def guilty_recurrent_state_not_used() -> dict[str, Any]:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.emb = nn.Embedding(9, 4)
            self.lstm = nn.LSTM(4, 6, batch_first=True)
            self.summary = nn.Linear(6, 6)
            self.vocab = nn.Linear(6, 9)

        def read(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            out, (h, _) = self.lstm(self.emb(ids))
            return out, torch.tanh(self.summary(h[-1]))

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            states, summary = self.read(ids)  # FXG101
            return self.vocab(states)

    target = torch.randint(0, 9, (2, 4))
    return dict(model=Reader(), inputs=(target,), loss=lambda o: F.cross_entropy(o.transpose(1, 2), target))


def guilty_only_the_last_of_many() -> dict[str, Any]:
    class SideOutputs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stages = nn.ModuleList([nn.Conv2d(2, 2, 3, padding=1) for _ in range(3)])
            self.sides = nn.ModuleList([nn.Conv2d(2, 1, 1) for _ in range(3)])

        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            outs = []
            for stage, side in zip(self.stages, self.sides, strict=True):
                x = F.relu(stage(x))
                outs.append(side(x))  # FXG101
            return outs

    return dict(model=SideOutputs(), inputs=(torch.randn(1, 2, 4, 4),), loss=lambda outs: outs[-1].mean())


def quiet_every_head_through_a_loop() -> dict[str, Any]:
    class MultiTask(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = nn.Linear(4, 6)
            self.heads = nn.ModuleDict({name: nn.Linear(6, 1) for name in ("a", "b", "c")})

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            h = torch.relu(self.trunk(x))
            return {name: head(h) for name, head in self.heads.items()}

    return dict(model=MultiTask(), inputs=(torch.randn(3, 4),), loss=lambda out: sum(v.pow(2).mean() for v in out.values()))


def quiet_one_of_two_calls_dropped() -> dict[str, Any]:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.encoder(x + 1)  # a warm-up call
            return self.head(torch.tanh(self.encoder(x)))

    return dict(model=Shared(), inputs=(torch.randn(3, 4),), loss=lambda o: o.pow(2).mean())


def quiet_parameter_used_by_the_loss_alone() -> dict[str, Any]:
    class Centers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(4, 2)
            self.centers = nn.Parameter(torch.randn(3, 2))
            self.log_sigma = nn.Parameter(torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.embed(x)

    class CenterLoss:
        def __init__(self, model: Centers, labels: torch.Tensor) -> None:
            self.model, self.labels = model, labels

        def __call__(self, z: torch.Tensor) -> torch.Tensor:
            distance = (z - self.model.centers[self.labels]).pow(2).sum(-1)
            return (distance * torch.exp(-self.model.log_sigma) + self.model.log_sigma).mean()

    model = Centers()
    return dict(model=model, inputs=(torch.randn(3, 4),), loss=CenterLoss(model, torch.tensor([0, 1, 2])))


def quiet_tied_layer_never_called() -> dict[str, Any]:
    class Lm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.emb = nn.Embedding(7, 4)
            self.mix = nn.GRU(4, 4, batch_first=True)
            self.lm_head = nn.Linear(4, 7, bias=False)
            self.lm_head.weight = self.emb.weight

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return F.linear(self.mix(self.emb(ids))[0], self.emb.weight)

    ids = torch.randint(0, 7, (2, 4))
    return dict(model=Lm(), inputs=(ids,), loss=lambda o: F.cross_entropy(o.transpose(1, 2), ids))


def quiet_auxiliary_loss_kept_on_the_module() -> dict[str, Any]:
    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.score = nn.Linear(4, 3)
            self.noise = nn.Linear(4, 3)
            self.aux: torch.Tensor | None = None

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.aux = F.softplus(self.noise(x)).mean()
            return torch.softmax(self.score(x), -1)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.value = Gate(), nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (self.gate(x) * self.value(x)).sum(-1)

    model = Net()
    return dict(model=model, inputs=(torch.randn(5, 4),), loss=lambda o: o.pow(2).mean() + 0.1 * model.gate.aux)


def quiet_module_inside_a_checkpoint() -> dict[str, Any]:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pre, self.block, self.post = nn.Linear(3, 4), nn.Sequential(nn.Linear(4, 4), nn.GELU()), nn.Linear(4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.pre(x)
            return self.post(checkpoint(lambda t: t + self.block(t), h, use_reentrant=False))

    return dict(model=Net(), inputs=(torch.randn(2, 3),), loss=lambda o: o.sum())


def quiet_functional_call_of_a_template() -> dict[str, Any]:
    class Maml(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.learner = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))
            self.log_lr = nn.Parameter(torch.tensor(-3.0))

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            weights = dict(self.learner.named_parameters())
            inner = F.mse_loss(torch.func.functional_call(self.learner, weights, (x,)), y)
            grads = torch.autograd.grad(inner, list(weights.values()), create_graph=True)
            fast = {k: w - self.log_lr.exp() * g for (k, w), g in zip(weights.items(), grads, strict=True)}
            return F.mse_loss(torch.func.functional_call(self.learner, fast, (x,)), y)

    return dict(model=Maml(), inputs=(torch.randn(4, 3), torch.randn(4, 1)))


def quiet_parametrized_and_hooked() -> dict[str, Any]:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.utils.parametrizations.weight_norm(nn.Conv1d(2, 3, 3, padding=1))
            self.adapter = nn.Linear(5, 5)
            self.conv.register_forward_hook(lambda module, args, out: out + self.adapter(out))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x)

    return dict(model=Net(), inputs=(torch.randn(2, 2, 5),), loss=lambda o: o.pow(2).mean())


def quiet_left_out_of_optimizer_and_loss() -> dict[str, Any]:
    class Agent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.actor, self.critic = nn.Linear(4, 2), nn.Linear(4, 1)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.actor(x), self.critic(x)

    model = Agent()
    return dict(
        model=model,
        inputs=(torch.randn(3, 4),),
        loss=lambda out: -torch.log_softmax(out[0], -1)[:, 0].mean(),
        optimizer=torch.optim.Adam(model.actor.parameters()),
    )


def quiet_expect_names_the_part_that_trains() -> dict[str, Any]:
    class Pretrain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.classifier, self.decoder = nn.Linear(4, 3), nn.Linear(3, 2), nn.Linear(3, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.decoder(torch.relu(self.encoder(x)))

    x = torch.randn(6, 4)
    return dict(model=Pretrain(), inputs=(x,), loss=lambda o: F.mse_loss(o, x), expect=["encoder.*", "decoder.*"])


def quiet_frozen_teacher_never_called() -> dict[str, Any]:
    class Distill(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.student = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
            self.teacher = copy.deepcopy(self.student).requires_grad_(False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.student(x)

    return dict(model=Distill(), inputs=(torch.randn(3, 4),), loss=lambda o: o.sum())


def quiet_dict_output_with_statistics() -> dict[str, Any]:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.gate = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> dict[str, Any]:
            gate = torch.sigmoid(self.gate(x))
            y = self.fc(x) * gate
            return {"loss": y.pow(2).mean(), "open": gate.mean(), "hidden": [y, gate]}

    return dict(model=Net(), inputs=(torch.randn(2, 3),), loss=lambda out: out["loss"])


def guilty_mask_embedding() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.enc = nn.Linear(3, 4)
            self.mask_embed = nn.Parameter(torch.randn(4))  # FXG101

        def _mask(self, h, mask):
            if mask is not None:
                h = torch.where(mask[..., None], self.mask_embed, h)
            return h

        def forward(self, x, mask=None):
            return self._mask(self.enc(x), mask)

    return dict(model=N(), inputs=(torch.randn(2, 5, 3),), loss=lambda o: o.mean())


def guilty_children_cut() -> dict[str, Any]:
    class Res(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(3, 3)
            self.b = nn.Linear(3, 3)
            self.fc = nn.Linear(3, 10)  # or FXG101

        def forward(self, x):
            return self.fc(self.b(self.a(x)))

    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Res()  # FXG101
            self.features = nn.Sequential(*list(self.net.children())[:-1])
            self.head = nn.Linear(3, 2)

        def forward(self, x):
            return self.head(self.features(x))

    return dict(model=N(), inputs=(torch.randn(2, 3),), loss=lambda o: o.mean())


def guilty_setattr() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self, names):
            super().__init__()
            for n in names:
                setattr(self, n, nn.Linear(3, 3))  # FXG101

        def forward(self, x):
            return self.a(x)

    return dict(model=N(["a", "b"]), inputs=(torch.randn(2, 3),), loss=lambda o: o.mean())


def guilty_kept_in_a_cache() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.proj = nn.Linear(3, 3), nn.Linear(3, 3)
            self.cache = {}

        def forward(self, x):
            h = self.body(x)
            self.cache["proj"] = self.proj(h)  # FXG101
            return h

    return dict(model=N(), inputs=(torch.randn(2, 3),), loss=lambda o: o.mean())


def guilty_dataclass_field() -> dict[str, Any]:
    @dataclass
    class Out:
        logits: torch.Tensor
        aux: torch.Tensor

    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x):
            h = self.body(x)
            return Out(logits=self.a(h), aux=self.b(h))  # FXG101

    return dict(model=N(), inputs=(torch.randn(2, 3),), loss=lambda o: o.logits.sum())


def guilty_first_of_the_losses() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x):
            h = self.body(x)
            return self.a(h), self.b(h)

    def crit(o):
        losses = []
        for v in o:
            losses.append(v.pow(2).mean())
        return losses[0]  # FXG101

    return dict(model=N(), inputs=(torch.randn(2, 3),), loss=crit)


def guilty_dict_of_losses() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 2), nn.Linear(3, 2)
            self.criterion = Crit()

        def forward(self, x):
            h = self.body(x)
            return self.criterion(self.a(h), self.b(h))  # or FXG101

    class Crit(nn.Module):
        def forward(self, a, b):
            losses = {"ce": a.pow(2).mean(), "aux": b.abs().mean()}
            return losses  # or FXG101

    return dict(model=N(), inputs=(torch.randn(2, 3),), loss=lambda d: d["ce"])  # FXG101


def guilty_sum_thrown_away() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x):
            h = self.body(x)
            return self.a(h), self.b(h)

    def crit(o):
        loss = o[0].pow(2).mean()
        aux = o[1].abs().mean()
        loss + 0.1 * aux  # FXG101
        return loss

    return dict(model=N(), inputs=(torch.randn(2, 3),), loss=crit)


def guilty_add_without_underscore() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x):
            h = self.body(x)
            y = self.a(h)
            y.add(self.b(h))  # FXG101
            return y

    return dict(model=N(), inputs=(torch.randn(2, 3),), loss=lambda o: o.sum())


def guilty_equals_plus() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x):
            return self.a(x), self.b(x)

    def crit(o):
        loss = o[0].pow(2).mean()
        loss = +o[1].abs().mean()  # FXG101
        return loss

    return dict(model=N(), inputs=(torch.randn(2, 3),), loss=crit)


def guilty_loss_overwritten_in_loop() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.heads = nn.ModuleList([nn.Linear(3, 2) for _ in range(3)])

        def forward(self, x):
            return [h(x) for h in self.heads]

    def crit(o):
        loss = 0.0
        for v in o:
            loss = v.pow(2).mean()  # FXG101
        return loss

    return dict(model=N(), inputs=(torch.randn(2, 3),), loss=crit)


def guilty_scale_not_applied() -> dict[str, Any]:
    class Clip(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 2), nn.Linear(3, 2)
            self.logit_scale = nn.Parameter(torch.ones([]))

        def forward(self, x, y):
            scale = self.logit_scale.exp()  # FXG101
            self.logged = scale.item()
            return self.a(x) @ self.b(y).T

    t = torch.arange(2)
    return dict(model=Clip(), inputs=(torch.randn(2, 3), torch.randn(2, 3)), loss=lambda o: F.cross_entropy(o, t))


def guilty_eval_only() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.main = nn.Linear(3, 2)
            self.aux = nn.Linear(3, 2)  # FXG101

        def forward(self, x):
            if self.training:
                return self.main(x) + self.aux(x)
            return self.main(x)

    return dict(model=N().eval(), inputs=(torch.randn(2, 3),), loss=lambda o: o.sum())


def guilty_parameter_dict() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.ParameterDict({"a": nn.Parameter(torch.ones(3)), "b": nn.Parameter(torch.ones(3))})  # FXG101

        def forward(self, x):
            return x * self.w["a"]

    return dict(model=N(), inputs=(torch.randn(2, 3),), loss=lambda o: o.sum())


def guilty_only_shape_read() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 2)
            self.dummy = nn.Parameter(torch.zeros(1, 2))  # FXG101

        def forward(self, x):
            return self.fc(x).view(-1, self.dummy.shape[1]).to(self.dummy.device, self.dummy.dtype)

    return dict(model=N(), inputs=(torch.randn(2, 3),), loss=lambda o: o.sum())


def guilty_decoder_without_context() -> dict[str, Any]:
    class Dec(nn.Module):
        def __init__(self, d):
            super().__init__()
            self.self_attn = nn.MultiheadAttention(d, 1, batch_first=True)
            self.cross_attn = nn.MultiheadAttention(d, 1, batch_first=True)  # FXG101
            self.norm = nn.LayerNorm(d)

        def forward(self, x, memory=None):
            x = x + self.self_attn(x, x, x)[0]
            if memory is not None:
                x = x + self.cross_attn(x, memory, memory)[0]
            return self.norm(x)

    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(Dec(4) for _ in range(2))
            self.out = nn.Linear(4, 1)

        def forward(self, x, memory):
            for layer in self.layers:
                x = layer(x)
            return self.out(x)

    return dict(model=N(), inputs=(torch.randn(2, 3, 4), torch.randn(2, 3, 4)), loss=lambda o: o.sum())


def guilty_register_parameter() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 3))
            self.register_parameter("bias", nn.Parameter(torch.zeros(3)))  # FXG101

        def forward(self, x):
            return F.linear(x, self.weight)

    return dict(model=N(), inputs=(torch.randn(2, 3),), loss=lambda o: o.sum())


def guilty_hook_replaces_output() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
            self.a.register_forward_hook(lambda m, i, o: i[0] * 2)

        def forward(self, x):
            return self.b(self.a(x))  # FXG101

    return dict(model=N(), inputs=(torch.randn(2, 3),), loss=lambda o: o.sum())


def guilty_no_grad_and_dead() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.key = nn.Linear(3, 3), nn.Linear(3, 3)
            self.register_buffer("queue", torch.zeros(2, 3))

        def forward(self, x):
            with torch.no_grad():
                self.queue.copy_(self.key(x))  # FXG101
            return self.a(x)

    return dict(model=N(), inputs=(torch.randn(2, 3),), loss=lambda o: o.sum())


def guilty_early_return() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.enc = nn.Linear(3, 3)
            self.dec = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))  # FXG101

        def encode(self, x):
            return self.enc(x)

        def forward(self, x, only_encode=True):
            z = self.encode(x)
            if only_encode:
                return z
            return self.dec(z)

    return dict(model=N(), inputs=(torch.randn(2, 3),), loss=lambda o: o.sum())


def quiet_moe_with_all_experts() -> dict[str, Any]:
    class Moe(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate = nn.Linear(3, 2)
            self.experts = nn.ModuleList([nn.Linear(3, 3) for _ in range(2)])

        def forward(self, x):
            w = self.gate(x).softmax(-1)
            out = torch.zeros_like(x)
            for i, e in enumerate(self.experts):
                out = out + w[:, i : i + 1] * e(x)
            return out

    return dict(model=Moe(), inputs=(torch.randn(8, 3),), loss=lambda o: o.pow(2).sum())


def quiet_losses_gathered_in_a_registry() -> dict[str, Any]:
    losses = []

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.probe = nn.Linear(3, 3), nn.Linear(3, 1)

        def forward(self, x):
            y = self.fc(x).tanh()
            losses.append(self.probe(y).pow(2).mean())
            return y

    def crit(o):
        total = o.pow(2).mean() + sum(losses)
        losses.clear()
        return total

    return dict(model=nn.Sequential(Layer(), Layer()), inputs=(torch.randn(2, 3),), loss=crit)


def quiet_expand_and_ignore() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.out = nn.LSTM(3, 4, num_layers=2, bidirectional=True, batch_first=True), nn.Linear(8, 1)

        def forward(self, x):
            y, (h, c) = self.lstm(x)
            return self.out(torch.cat([h[-1], h[-2]], -1))

    return dict(model=N(), inputs=(torch.randn(2, 5, 3),), loss=lambda o: o.pow(2).sum())


def quiet_attention_weights_unused() -> dict[str, Any]:
    class N(nn.Module):
        def __init__(self):
            super().__init__()
            self.att = nn.MultiheadAttention(4, 2, batch_first=True)

        def forward(self, x):
            y, w = self.att(x, x, x)
            return y

    return dict(model=N(), inputs=(torch.randn(2, 3, 4),), loss=lambda o: o.pow(2).sum())


def quiet_decoder_is_the_encoder_transposed() -> dict[str, Any]:
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.bias = nn.Linear(4, 2), nn.Parameter(torch.zeros(4))

        def forward(self, x):
            return F.linear(self.encoder(x).tanh(), self.encoder.weight.t(), self.bias)

    x = torch.randn(3, 4)
    return dict(model=Tied(), inputs=(x,), loss=lambda o: F.mse_loss(o, x))


def quiet_methods_instead_of_forward() -> dict[str, Any]:
    class Vae(nn.Module):
        def __init__(self):
            super().__init__()
            self.mu, self.log_var, self.out = nn.Linear(4, 2), nn.Linear(4, 2), nn.Linear(2, 4)

        def encode(self, x):
            return self.mu(x), self.log_var(x)

        def decode(self, z):
            return self.out(z)

    class Pipeline(nn.Module):
        def __init__(self):
            super().__init__()
            self.vae = Vae()

        def forward(self, x):
            mu, log_var = self.vae.encode(x)
            z = mu + torch.randn_like(mu) * (0.5 * log_var).exp()
            return F.mse_loss(self.vae.decode(z), x) - 0.5 * (1 + log_var - mu.square() - log_var.exp()).mean()

    return dict(model=Pipeline(), inputs=(torch.randn(3, 4),))


def quiet_weights_of_a_module_never_called() -> dict[str, Any]:
    class Modulated(nn.Module):
        def __init__(self):
            super().__init__()
            self.style, self.conv = nn.Linear(3, 2), nn.Conv1d(2, 4, 3, padding=1)

        def forward(self, x, w):
            weight = self.conv.weight[None] * self.style(w)[:, None, :, None]
            weight = weight * torch.rsqrt(weight.square().sum((2, 3), keepdim=True) + 1e-8)
            b, c, n = x.shape
            y = F.conv1d(x.reshape(1, b * c, n), weight.flatten(0, 1), groups=b, padding=1)
            return y.view(b, 4, n) + self.conv.bias[:, None]

    return dict(model=Modulated(), inputs=(torch.randn(2, 2, 5), torch.randn(2, 3)), loss=lambda o: o.pow(3).mean())


def quiet_layers_found_by_getattr() -> dict[str, Any]:
    class Numbered(nn.Module):
        def __init__(self, depth):
            super().__init__()
            self.depth = depth
            for i in range(depth):
                setattr(self, f"layer{i}", nn.Linear(3, 3))

        def forward(self, x):
            for i in range(self.depth):
                x = getattr(self, f"layer{i}")(x).relu() + x
            return x

    return dict(model=Numbered(3), inputs=(torch.randn(2, 3),), loss=lambda o: o.square().mean())


def quiet_head_reached_only_by_the_weight_decay() -> dict[str, Any]:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.spare = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x):
            return self.body(x)

    model = Net()
    return dict(
        model=model,
        inputs=(torch.randn(2, 3),),
        loss=lambda o: o.square().mean() + 1e-3 * sum(p.square().sum() for p in model.parameters()),
    )


def quiet_named_tuple_of_which_all_is_used() -> dict[str, Any]:
    Output = namedtuple("Output", "start end")

    class Span(nn.Module):
        def __init__(self):
            super().__init__()
            self.start, self.end = nn.Linear(4, 1), nn.Linear(4, 1)

        def forward(self, x):
            return Output(self.start(x).squeeze(-1), self.end(x).squeeze(-1))

    at = torch.tensor([0, 2])
    return dict(model=Span(), inputs=(torch.randn(2, 3, 4),), loss=lambda o: F.cross_entropy(o.start, at) + F.cross_entropy(o.end, at))


def quiet_features_taken_by_a_hook_into_the_loss() -> dict[str, Any]:
    taken = {}

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.probe = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), nn.Linear(4, 1)
            self.body[1].register_forward_hook(lambda module, args, out: taken.update(middle=out))

        def forward(self, x):
            return self.body(x)

    model = Net()
    return dict(
        model=model, inputs=(torch.randn(3, 4),), loss=lambda o: o.square().mean() + model.probe(taken.pop("middle")).square().mean()
    )


def quiet_task_weights_learned_in_the_loss() -> dict[str, Any]:
    class Tasks(nn.Module):
        def __init__(self):
            super().__init__()
            self.trunk = nn.Linear(4, 4)
            self.heads = nn.ModuleList(nn.Linear(4, 1) for _ in range(2))
            self.log_vars = nn.Parameter(torch.zeros(2))

        def forward(self, x):
            h = self.trunk(x).relu()
            return [head(h) for head in self.heads], self.log_vars

    def loss(out):
        predictions, s = out
        return sum((-s[i]).exp() * p.square().mean() + s[i] for i, p in enumerate(predictions))

    return dict(model=Tasks(), inputs=(torch.randn(3, 4),), loss=loss)


def quiet_deep_supervision_of_every_stage() -> dict[str, Any]:
    class Stages(nn.Module):
        def __init__(self):
            super().__init__()
            self.stages = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
            self.exits = nn.ModuleList(nn.Linear(4, 2) for _ in range(3))

        def forward(self, x):
            for stage, leave in zip(self.stages, self.exits, strict=True):
                x = stage(x).tanh()
                yield leave(x)

    return dict(model=Stages(), inputs=(torch.randn(3, 4),), loss=lambda outs: sum(o.logsumexp(-1).mean() for o in outs))


def quiet_one_layer_listed_three_times() -> dict[str, Any]:
    class Universal(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(4, 4)] * 3)
            self.out = nn.Linear(4, 1)

        def forward(self, x):
            return self.out(functools.reduce(lambda h, layer: h + layer(h).tanh(), self.layers[:2], x))

    return dict(model=Universal(), inputs=(torch.randn(3, 4),), loss=lambda o: o.square().mean())


def quiet_conditional_random_field() -> dict[str, Any]:
    class Crf(nn.Module):
        def __init__(self, tags):
            super().__init__()
            self.emit = nn.Linear(4, tags)
            self.start, self.end = nn.Parameter(torch.zeros(tags)), nn.Parameter(torch.zeros(tags))
            self.transitions = nn.Parameter(torch.randn(tags, tags))

        def forward(self, x, tags):
            e = self.emit(x)
            score, alpha = self.start[tags[0]] + e[0, tags[0]], self.start + e[0]
            for t in range(1, len(x)):
                score = score + self.transitions[tags[t - 1], tags[t]] + e[t, tags[t]]
                alpha = torch.logsumexp(alpha[:, None] + self.transitions + e[t], 0)
            return torch.logsumexp(alpha + self.end, 0) - score - self.end[tags[-1]]

    return dict(model=Crf(3), inputs=(torch.randn(4, 4), torch.tensor([0, 2, 1, 1])))


def quiet_margin_head_called_with_the_labels() -> dict[str, Any]:
    class ArcFace(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.prototypes = nn.Linear(4, 3), nn.Parameter(torch.randn(5, 3))

        def criterion(self, z, y):
            cosine = F.linear(F.normalize(z), F.normalize(self.prototypes)).clamp(-0.999, 0.999)
            margin = F.one_hot(y, 5) * 0.3
            return F.cross_entropy(8 * torch.cos(cosine.acos() + margin), y)

        def forward(self, x):
            return self.embed(x)

    model, y = ArcFace(), torch.tensor([0, 3, 4])
    return dict(model=model, inputs=(torch.randn(3, 4),), loss=lambda z: model.criterion(z, y))


def quiet_flow_with_a_log_determinant() -> dict[str, Any]:
    class Coupling(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale, self.shift, self.log_gain = nn.Linear(2, 2), nn.Linear(2, 2), nn.Parameter(torch.zeros(4))

        def forward(self, x):
            a, b = (x * self.log_gain.exp()).chunk(2, -1)
            s = self.scale(a).tanh()
            return torch.cat([a, b * s.exp() + self.shift(a)], -1), s.sum(-1) + self.log_gain.sum()

    return dict(model=Coupling(), inputs=(torch.randn(3, 4),), loss=lambda out: (0.5 * out[0].square().sum(-1) - out[1]).mean())


def quiet_wrapper_that_hands_on_by_getattr() -> dict[str, Any]:
    class Wrapper(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def __getattr__(self, name):
            try:
                return super().__getattr__(name)
            except AttributeError:
                return getattr(self.inner, name)

        def forward(self, x):
            return self.head(self.body(x).relu())

    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 1)

    return dict(model=Wrapper(Inner()), inputs=(torch.randn(3, 4),), loss=lambda o: o.square().mean())


def quiet_packed_sequences() -> dict[str, Any]:
    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.out = nn.LSTM(3, 4, bidirectional=True, batch_first=True), nn.Linear(8, 2)

        def forward(self, x, lengths):
            packed, _ = self.rnn(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
            return self.out(pad_packed_sequence(packed, batch_first=True)[0])

    return dict(model=Tagger(), inputs=(torch.randn(2, 4, 3), torch.tensor([2, 4])), loss=lambda o: o.square().mean())


def quiet_scalar_mix_of_all_hidden_layers() -> dict[str, Any]:
    class Elmo(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(3, 3) for _ in range(3))
            self.mix = nn.ParameterList([nn.Parameter(torch.zeros(1)) for _ in range(3)])
            self.gamma = nn.Parameter(torch.ones(1))

        def forward(self, x):
            states = []
            for layer in self.layers:
                states.append(x := layer(x).tanh())
            weights = torch.cat(list(self.mix)).softmax(0)
            return self.gamma * sum(w * h for w, h in zip(weights, states, strict=True))

    return dict(model=Elmo(), inputs=(torch.randn(2, 3),), loss=lambda o: o.square().mean())


def quiet_temperature_of_a_contrastive_loss() -> dict[str, Any]:
    class Clip(nn.Module):
        def __init__(self):
            super().__init__()
            self.text, self.image = nn.Embedding(9, 4), nn.Linear(5, 4, bias=False)
            self.logit_scale = nn.Parameter(torch.ones([]) * 2)

        def forward(self, ids, pixels):
            t, i = F.normalize(self.text(ids).mean(1)), F.normalize(self.image(pixels))
            logits = self.logit_scale.exp() * t @ i.T
            return logits, logits.T

    goal = torch.arange(3)
    return dict(
        model=Clip(),
        inputs=(torch.randint(0, 9, (3, 2)), torch.randn(3, 5)),
        loss=lambda out: sum(F.cross_entropy(logits, goal) for logits in out) / 2,
    )


def quiet_learned_null_condition() -> dict[str, Any]:
    class Guided(nn.Module):
        def __init__(self):
            super().__init__()
            self.null, self.condition, self.net = nn.Parameter(torch.zeros(4)), nn.Embedding(5, 4), nn.Linear(8, 4)

        def forward(self, x, label, drop):
            c = torch.where(drop[:, None], self.null, self.condition(label))
            return self.net(torch.cat([x, c], -1))

    drop = torch.tensor([True, False, False])
    return dict(model=Guided(), inputs=(torch.randn(3, 4), torch.tensor([1, 2, 4]), drop), loss=lambda o: o.square().mean())


def quiet_parametrization_with_parameters_of_its_own() -> dict[str, Any]:
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.log_scale = nn.Parameter(torch.zeros(3, 1))

        def forward(self, weight):
            return weight * self.log_scale.exp()

    layer = nn.Linear(4, 3)
    parametrize.register_parametrization(layer, "weight", Scaled())
    return dict(model=nn.Sequential(layer, nn.Tanh()), inputs=(torch.randn(2, 4),), loss=lambda o: o.square().mean())


def quiet_ensemble_under_vmap() -> dict[str, Any]:
    class Ensemble(nn.Module):
        def __init__(self):
            super().__init__()
            self.members = nn.ModuleList(nn.Linear(4, 2) for _ in range(3))
            self.__dict__["template"] = copy.deepcopy(self.members[0]).to("meta")

        def forward(self, x):
            stacked = {k: torch.stack([dict(m.named_parameters())[k] for m in self.members]) for k in ("weight", "bias")}
            return torch.vmap(lambda params: torch.func.functional_call(self.template, params, (x,)))(stacked)

    return dict(model=Ensemble(), inputs=(torch.randn(3, 4),), loss=lambda o: o.square().mean())


def quiet_initial_state_is_learned() -> dict[str, Any]:
    class Learned(nn.Module):
        def __init__(self):
            super().__init__()
            self.h0 = nn.Parameter(torch.zeros(1, 1, 4))
            self.gru, self.out = nn.GRU(3, 4), nn.Linear(4, 2)

        def forward(self, x):
            _, h = self.gru(x, self.h0.repeat(1, x.shape[1], 1))
            return self.out(h[-1])

    return dict(model=Learned(), inputs=(torch.randn(4, 2, 3),), loss=lambda o: o.square().mean())


def quiet_tree_folded_by_recursion() -> dict[str, Any]:
    class Tree(nn.Module):
        def __init__(self):
            super().__init__()
            self.leaf, self.join = nn.Embedding(6, 3), nn.Bilinear(3, 3, 3)

        def forward(self, tree):
            if isinstance(tree, int):
                return self.leaf.weight[tree]
            left, right = (self(branch) for branch in tree)
            return self.join(left, right).tanh()

    return dict(model=Tree(), inputs=(((0, (1, 2)), (3, 4)),), loss=lambda o: o.square().sum())


def quiet_dataclass_output_with_a_loss_inside() -> dict[str, Any]:
    @dataclass
    class Output:
        loss: Any
        logits: Any

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x, labels):
            logits = self.head(self.body(x).relu())
            return Output(F.cross_entropy(logits, labels), logits)

    return dict(model=Model(), inputs=(torch.randn(3, 4), torch.tensor([0, 1, 2])), loss=lambda out: out.loss)


def quiet_lookup_of_branches_by_a_string() -> dict[str, Any]:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.down, self.up = nn.Linear(4, 2), nn.Linear(2, 4)
            self.ways = {"down": self.down, "up": self.up.forward}

        def forward(self, x):
            for way in "down up down".split():
                x = self.ways[way](x).tanh()
            return x

    return dict(model=Net(), inputs=(torch.randn(3, 4),), loss=lambda o: o.square().mean())


def quiet_sparse_graph_convolution() -> dict[str, Any]:
    class Gcn(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.self_loop = nn.Parameter(torch.randn(3, 2)), nn.Parameter(torch.tensor(1.0))

        def forward(self, x, edges):
            a = torch.sparse_coo_tensor(edges, torch.ones(edges.shape[1]), (4, 4))
            h = x @ self.weight
            return torch.sparse.mm(a, h) + self.self_loop * h

    return dict(model=Gcn(), inputs=(torch.randn(4, 3), torch.tensor([[0, 1, 2], [1, 2, 3]])), loss=lambda o: o.square().mean())


def quiet_pretraining_head_replaced_by_identity() -> dict[str, Any]:
    class Backbone(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv1d(1, 3, 3), nn.Linear(3, 10)

        def forward(self, x):
            return self.fc(self.conv(x).mean(-1))

    backbone = Backbone()
    backbone.fc = nn.Identity()
    return dict(model=nn.Sequential(backbone, nn.Linear(3, 2)), inputs=(torch.randn(2, 1, 6),), loss=lambda o: o.square().mean())


def quiet_loss_read_through_a_closure_cell() -> dict[str, Any]:
    total = 0.0

    class Capsule(nn.Module):
        def __init__(self):
            super().__init__()
            self.main, self.side = nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, x):
            nonlocal total
            total = self.side(x).square().mean()
            return self.main(x)

    return dict(model=Capsule(), inputs=(torch.randn(3, 4),), loss=lambda o: o.square().mean() + total)


def quiet_routing_weights_detached_but_for_the_last_round() -> dict[str, Any]:
    class Routing(nn.Module):
        def __init__(self):
            super().__init__()
            self.votes = nn.Parameter(torch.randn(3, 2, 4, 4) * 0.3)

        def forward(self, x):
            u = torch.einsum("bic,ijcd->bijd", x, self.votes)
            stopped, b = u.detach(), x.new_zeros(*u.shape[:3])
            for last in (False, True):
                c = b.softmax(-1)
                v = F.normalize((c[..., None] * (u if last else stopped)).sum(1), dim=-1)
                b = b + (stopped * v.detach()[:, None]).sum(-1)
            return v

    return dict(model=Routing(), inputs=(torch.randn(2, 3, 4),), loss=lambda o: o.sum().square())


def quiet_second_copy_shares_its_parameters() -> dict[str, Any]:
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.left = nn.Linear(3, 3)
            self.right = copy.copy(self.left)

        def forward(self, x):
            return self.left(x).tanh()

    return dict(model=Pair(), inputs=(torch.randn(2, 3),), loss=lambda o: o.square().mean())


def guilty_only_its_shape_lent() -> dict[str, Any]:
    class Lent(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.gate = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            gate = self.gate(x)  # FXG101
            return self.fc(x) * torch.ones_like(gate)

    return dict(model=Lent(), inputs=(torch.randn(2, 3),), loss=lambda o: o.sum())


def guilty_network_that_drops_out_of_the_derivative() -> dict[str, Any]:
    class Forces(nn.Module):
        def __init__(self):
            super().__init__()
            self.pairs, self.charge = nn.Linear(3, 3), nn.Linear(2, 1)
            self.out = nn.Linear(3, 1, bias=False)

        def forward(self, x, kind):
            x = x.clone().requires_grad_()
            energy = self.out(self.pairs(x).tanh()) + self.charge(kind)
            return torch.autograd.grad(energy.sum(), x, create_graph=True)[0]  # FXG101

    return dict(model=Forces(), inputs=(torch.randn(4, 3), torch.randn(4, 2)), loss=lambda o: o.square().mean())


def quiet_average_that_is_only_evaluated() -> dict[str, Any]:
    class Diffusion(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(4, 6), nn.SiLU(), nn.Linear(6, 4))
            self.ema_net = copy.deepcopy(self.net)

        def after_step(self):
            for slow, fast in zip(self.ema_net.parameters(), self.net.parameters(), strict=True):
                slow.data.mul_(0.999).add_(fast.data, alpha=0.001)

        def forward(self, x):
            noise = torch.randn_like(x)
            return F.mse_loss(self.net(x + noise), noise)

    return dict(model=Diffusion(), inputs=(torch.randn(3, 4),))


def quiet_stochastic_weight_average_kept_inside() -> dict[str, Any]:
    class Swa(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(4, 2)
            self.best = torch.optim.swa_utils.AveragedModel(self.net)

        def forward(self, x):
            return self.net(x) if self.training else self.best(x)

    return dict(model=Swa(), inputs=(torch.randn(3, 4),), loss=lambda o: o.square().mean())


def quiet_sampler_accumulated_by_a_helper() -> dict[str, Any]:
    def accumulate(average, source, decay=0.999):
        ours, theirs = dict(average.named_parameters()), dict(source.named_parameters())
        for k in ours:
            ours[k].data.mul_(decay).add_(theirs[k].data, alpha=1 - decay)

    class StyleGan(nn.Module):
        def __init__(self):
            super().__init__()
            self.g, self.g_sample, self.d = nn.Linear(2, 4), nn.Linear(2, 4), nn.Linear(4, 1)

        def forward(self, z):
            return F.softplus(-self.d(self.g(z))).mean()

    model = StyleGan()
    accumulate(model.g_sample, model.g, 0)
    return dict(model=model, inputs=(torch.randn(3, 2),))


def quiet_slow_weights_of_a_lookahead() -> dict[str, Any]:
    class Lookahead(nn.Module):
        def __init__(self):
            super().__init__()
            self.fast, self.slow = nn.Linear(4, 2), nn.Linear(4, 2)

        @torch.no_grad()
        def interpolate(self):
            for s, (_, f) in zip(self.slow.parameters(), self.fast.named_parameters(), strict=True):
                s += 0.5 * (f - s)

        def forward(self, x):
            return self.fast(x)

    return dict(model=Lookahead(), inputs=(torch.randn(3, 4),), loss=lambda o: o.square().mean())


def quiet_old_policy_that_only_acts() -> dict[str, Any]:
    class Ppo(nn.Module):
        def __init__(self):
            super().__init__()
            self.policy, self.acting = nn.Linear(4, 3), nn.Linear(4, 3)

        def finish(self):
            self.acting.load_state_dict(self.policy.state_dict())

        def forward(self, s, action, old):
            logp = self.policy(s).log_softmax(-1).gather(1, action[:, None]).squeeze(1)
            return -((logp - old).exp() * torch.arange(3.0)).mean()

    return dict(model=Ppo(), inputs=(torch.randn(3, 4), torch.tensor([0, 1, 2]), torch.randn(3)))


def quiet_best_weights_so_far() -> dict[str, Any]:
    class Keeper(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(4, 2)
            self.best, self.score = copy.deepcopy(self.net), 0.0

        def keep(self, score):
            if score > self.score:
                self.score = score
                self.best.load_state_dict(self.net.state_dict())

        def forward(self, x):
            return self.net(x)

    return dict(model=Keeper(), inputs=(torch.randn(3, 4),), loss=lambda o: o.square().mean())
