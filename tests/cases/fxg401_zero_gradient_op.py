"""FXG401: gradients that are zero whatever the data, and gradients that are zero for now."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn


def guilty_activations_rounded_without_straight_through():
    class Quantised(nn.Module):
        def __init__(self, bits):
            super().__init__()
            self.enc, self.dec, self.levels = nn.Linear(4, 4), nn.Linear(4, 4), 2**bits

        def quantise(self, h):
            return torch.round(h.sigmoid() * self.levels) / self.levels  # FXG401

        def forward(self, x):
            return self.dec(self.quantise(self.enc(x)))

    return dict(model=Quantised(3), inputs=(torch.randn(5, 4),), loss=lambda o: o.square().mean())


def guilty_sign_of_scores_in_a_loss_class():
    class Agreement(nn.Module):
        def __init__(self, target):
            super().__init__()
            self.register_buffer("target", target)

        def vote(self, scores):
            return scores.sign()  # FXG401

        def forward(self, out):
            return F.mse_loss(out["value"], self.target) + (self.vote(out["score"]) - self.target.sign()).abs().mean()

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(4, 4)
            self.heads = nn.ModuleDict({"value": nn.Linear(4, 2), "score": nn.Linear(4, 2)})

        def forward(self, x):
            h = self.body(x).tanh()
            return {name: head(h) for name, head in self.heads.items()}

    return dict(model=Net(), inputs=(torch.randn(6, 4),), loss=Agreement(torch.randn(6, 2)))


def guilty_floor_by_rounding_mode():
    class Bins(nn.Module):
        def __init__(self):
            super().__init__()
            self.width = nn.Parameter(torch.tensor(0.37))
            self.out = nn.Linear(1, 1)

        def forward(self, x):
            return self.out(torch.div(x, self.width, rounding_mode="floor"))  # FXG401

    return dict(model=Bins(), inputs=(torch.randn(8, 1),), loss=lambda o: o.square().mean())


def guilty_length_counted_with_ceil():
    class Halting(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.halt = nn.Linear(4, 1), nn.Linear(4, 1)

        def ponder_cost(self, x):
            return sum(torch.ceil(self.halt(x).exp()) for _ in range(2)).mean()  # FXG401

        def forward(self, x):
            return self.fc(x).square().mean() + 0.01 * self.ponder_cost(x)

    return dict(model=Halting(), inputs=(torch.randn(6, 4),), loss=lambda o: o)


def guilty_branch_left_multiplied_by_zero():
    class Debugged(nn.Module):
        def __init__(self):
            super().__init__()
            self.main, self.side = nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 4))

        def forward(self, x):
            return self.main(x) + self.side(x) * 0.0  # FXG401

    return dict(model=Debugged(), inputs=(torch.randn(3, 4),), loss=lambda o: o.square().mean())


def guilty_mask_buffer_is_all_zero():
    class Causal(nn.Module):
        def __init__(self, n):
            super().__init__()
            self.fc, self.mix = nn.Linear(4, 4), nn.Parameter(torch.randn(n, n))
            self.register_buffer("mask", torch.tril(torch.ones(n, n), diagonal=-n))

        def forward(self, x):
            return self.fc(x) + (self.mix * self.mask) @ x  # FXG401

    return dict(model=Causal(3), inputs=(torch.randn(2, 3, 4),), loss=lambda o: o.pow(2).mean())


def guilty_mask_of_positions_compared_wrongly():
    class Windowed(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.local = nn.Linear(4, 4), nn.Linear(4, 4)

        def window(self, n):
            position = torch.arange(n)
            return (position[:, None] - position[None, :]).abs() > n

        def forward(self, x):
            local = self.local(x)
            return self.fc(x) + torch.where(self.window(x.shape[1])[:, :1], local, torch.zeros_like(local))  # FXG401

    return dict(model=Windowed(), inputs=(torch.randn(2, 3, 4),), loss=lambda o: o.square().sum())


def guilty_mask_compared_with_itself():
    class Pairs(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.score = nn.Linear(4, 3), nn.Linear(4, 1)

        def forward(self, x, group):
            different = (group != group).float()
            return self.fc(x).sum() + (self.score(x).squeeze(-1) * different).sum()  # FXG401

    return dict(model=Pairs(), inputs=(torch.randn(5, 4), torch.tensor([0, 0, 1, 1, 2])), loss=lambda o: o)


def guilty_hook_drops_the_gradient_of_a_weight():
    def freeze_rows(gradient):
        keep = torch.zeros(len(gradient), 1)
        return gradient * keep  # FXG401

    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.out = nn.Embedding(6, 4), nn.Linear(4, 2)
            self.table.weight.register_hook(freeze_rows)  # or FXG401

        def forward(self, ids):
            return self.out(self.table(ids))

    return dict(model=Table(), inputs=(torch.randint(0, 6, (3, 4)),), loss=lambda o: o.square().mean())


def guilty_hook_on_an_activation():
    class Reversal(nn.Module):
        def __init__(self, strength=0.0):
            super().__init__()
            self.enc, self.head, self.strength = nn.Linear(4, 4), nn.Linear(4, 2), strength

        def forward(self, x):
            h = self.enc(x).relu()
            h.register_hook(lambda g: -self.strength * g)  # FXG401
            return self.head(h)

    return dict(model=Reversal(), inputs=(torch.randn(6, 4),), loss=lambda o: o.square().mean())


def guilty_module_hook_zeroes_upstream():
    def stop(module, into, out):
        return tuple(g * 0 if g is not None else None for g in into)  # FXG401

    class Stacked(nn.Module):
        def __init__(self):
            super().__init__()
            self.lower, self.upper = nn.Linear(4, 4), nn.Linear(4, 2)
            self.upper.register_full_backward_hook(stop)  # or FXG401

        def forward(self, x):
            return self.upper(self.lower(x).tanh())  # or FXG401

    return dict(model=Stacked(), inputs=(torch.randn(6, 4),), loss=lambda o: o.square().mean())


def guilty_softmax_over_the_single_class():
    class Binary(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 1)

        def forward(self, x):
            return F.softmax(self.fc(x), dim=1)  # FXG401

    return dict(model=Binary(), inputs=(torch.randn(6, 4),), loss=lambda o: (o - torch.rand(6, 1)).square().mean())


def guilty_cross_entropy_of_one_class():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    criterion = nn.CrossEntropyLoss()

    def loss(out):
        return criterion(out, torch.zeros(6, dtype=torch.long))  # FXG401

    return dict(model=model, inputs=(torch.randn(6, 4),), loss=loss)


def guilty_attention_over_one_key():
    class Pool(nn.Module):
        def __init__(self):
            super().__init__()
            self.query, self.key, self.value = (nn.Linear(4, 4) for _ in range(3))
            self.softmax = nn.Softmax(dim=-1)

        def forward(self, x):
            pooled = x.mean(1, keepdim=True)
            weights = self.softmax(self.query(x) @ self.key(pooled).transpose(-1, -2))  # FXG401
            return weights @ self.value(pooled)

    return dict(model=Pool(), inputs=(torch.randn(2, 5, 4),), loss=lambda o: o.square().mean())


def guilty_sampled_without_reparametrisation():
    class Policy(nn.Module):
        def __init__(self):
            super().__init__()
            self.mean, self.keep, self.out = nn.Linear(4, 3), nn.Linear(4, 3), nn.Linear(3, 1)

        def forward(self, x):
            noisy = torch.normal(self.mean(x), 0.5)  # FXG401
            kept = torch.bernoulli(self.keep(x).sigmoid())  # FXG401
            return self.out(noisy * (1 + kept))

    return dict(model=Policy(), inputs=(torch.randn(6, 4),), loss=lambda o: o.square().mean())


def guilty_dropout_of_everything():
    class Noisy(nn.Module):
        def __init__(self, keep=0.0):
            super().__init__()
            self.fc, self.side, self.drop = nn.Linear(4, 2), nn.Linear(4, 2), nn.Dropout(1 - keep)

        def forward(self, x):
            return self.fc(x) + self.drop(self.side(x))  # FXG401

    return dict(model=Noisy(), inputs=(torch.randn(6, 4),), loss=lambda o: o.square().mean())


def guilty_bias_cancels_in_a_ranking_loss():
    class Ranker(nn.Module):
        def __init__(self):
            super().__init__()
            self.score = nn.Linear(4, 1)

        def forward(self, better, worse):
            return self.score(better), self.score(worse)

    def loss(pair):
        return F.softplus(pair[1] - pair[0]).mean()  # FXG401

    return dict(model=Ranker(), inputs=(torch.randn(5, 4), torch.randn(5, 4)), loss=loss)


def guilty_value_overwritten_after_it_was_computed():
    class Slots(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.slot = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            out = self.fc(x)
            extra = self.slot(x)
            extra.zero_()  # FXG401
            return out + extra

    return dict(model=Slots(), inputs=(torch.randn(5, 4),), loss=lambda o: o.square().mean())


def guilty_part_cut_off_after_the_concatenation():
    class Fusion(nn.Module):
        def __init__(self):
            super().__init__()
            self.image, self.text, self.out = nn.Linear(4, 3), nn.Linear(4, 3), nn.Linear(3, 1)

        def forward(self, x):
            both = torch.cat([self.image(x), self.text(x)], dim=-1)  # or FXG401
            return self.out(both[:, :3])  # FXG401

    return dict(model=Fusion(), inputs=(torch.randn(5, 4),), loss=lambda o: o.square().mean())


def guilty_empty_slice_of_auxiliary_outputs():
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.aux = nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, x):
            return self.fc(x), self.aux(x)[len(x) :]  # FXG401

    return dict(model=Deep(), inputs=(torch.randn(5, 4),), loss=lambda o: o[0].square().mean() + o[1].square().sum())


def guilty_mixture_weight_of_zero():
    class Mixture(nn.Module):
        def __init__(self, blend=0.0):
            super().__init__()
            self.student, self.extra, self.blend = nn.Linear(4, 2), nn.Linear(4, 2), blend

        def forward(self, x):
            return torch.lerp(self.student(x), self.extra(x), self.blend)  # FXG401

    return dict(model=Mixture(), inputs=(torch.randn(5, 4),), loss=lambda o: o.square().mean())


def guilty_one_direction_of_a_recurrent_layer():
    class Reader(nn.Module):
        def __init__(self, hidden: int = 4) -> None:
            super().__init__()
            self.hidden = hidden
            self.rnn = nn.LSTM(3, hidden, bidirectional=True, batch_first=True)
            self.out = nn.Linear(hidden, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            states, _ = self.rnn(x)
            return self.out(states[:, -1, : self.hidden])  # FXG401

    return dict(model=Reader(), inputs=(torch.randn(2, 5, 3),), loss=lambda o: o.pow(2).mean())


def guilty_last_direction_of_a_recurrent_layer():
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.GRU(3, 4, bidirectional=True)
            self.out = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            _, last = self.rnn(x)
            return self.out(last[-1])  # FXG401

    return dict(model=Reader(), inputs=(torch.randn(5, 2, 3),), loss=lambda o: o.pow(2).mean())


def guilty_last_step_of_both_directions():
    # Backwards in time the last step is the first: nothing goes through the recurrent weights of that direction.
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(3, 4, bidirectional=True, batch_first=True)
            self.out = nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            states, _ = self.rnn(x)
            return self.out(states[:, -1])  # FXG401

    return dict(model=Reader(), inputs=(torch.randn(2, 5, 3),), loss=lambda o: o.pow(2).mean())


def quiet_both_directions_of_a_recurrent_layer():
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(3, 4, bidirectional=True, batch_first=True)
            self.out = nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            states, _ = self.rnn(x)
            return self.out(states.mean(1))

    return dict(model=Reader(), inputs=(torch.randn(2, 5, 3),), loss=lambda o: o.pow(2).mean())


def quiet_lower_layer_of_two_directions():
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.below, self.rnn = nn.GRU(3, 4, bidirectional=True), nn.GRU(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.rnn(self.below(x)[0])[1][-1]

    return dict(model=Reader(), inputs=(torch.randn(5, 2, 3),), loss=lambda o: o.pow(2).mean())


def quiet_straight_through_round():
    class Quantised(nn.Module):
        def __init__(self):
            super().__init__()
            self.enc, self.dec = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            h = self.enc(x)
            return self.dec(h + (h.round() - h).detach())

    return dict(model=Quantised(), inputs=(torch.randn(5, 4),), loss=lambda o: o.square().mean())


def quiet_units_dead_by_their_bias():
    class Dead(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.side, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 1)
            nn.init.constant_(self.side.bias, -1000.0)

        def forward(self, x):
            return self.out(self.fc(x) + torch.relu(self.side(x)))

    return dict(model=Dead(), inputs=(torch.randn(5, 4),), loss=lambda o: o.square().mean())


def quiet_saturated_sigmoid_gate():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.gate = nn.Linear(4, 4), nn.Linear(4, 4)
            nn.init.constant_(self.gate.bias, 500.0)

        def forward(self, x):
            return self.fc(x) * torch.sigmoid(self.gate(x))

    return dict(model=Gated(), inputs=(torch.randn(5, 4),), loss=lambda o: o.square().mean())


def quiet_lora_starts_at_zero():
    class Lora(nn.Module):
        def __init__(self):
            super().__init__()
            self.base = nn.Linear(4, 4).requires_grad_(False)
            self.a, self.b = nn.Linear(4, 2, bias=False), nn.Linear(2, 4, bias=False)
            nn.init.zeros_(self.b.weight)

        def forward(self, x):
            return self.base(x) + self.b(self.a(x))

    return dict(model=Lora(), inputs=(torch.randn(5, 4),), loss=lambda o: o.square().mean(), expect=["a.*", "b.*"])


def quiet_rezero_gate():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.f, self.alpha = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)), nn.Parameter(torch.zeros(1))

        def forward(self, x):
            return x + self.alpha * self.f(x)

    return dict(model=nn.Sequential(Block(), Block()), inputs=(torch.randn(5, 4),), loss=lambda o: o.square().mean())


def quiet_zero_initialised_last_layer_used_twice():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(4))
            self.up, self.down = nn.Linear(4, 4), nn.Linear(4, 4)
            nn.init.zeros_(self.down.weight)
            nn.init.zeros_(self.down.bias)

        def forward(self, x):
            for _ in range(2):
                x = x + self.scale * self.down(self.up(x).tanh())
            return x

    return dict(model=Residual(), inputs=(torch.randn(5, 4),), loss=lambda o: o.square().mean())


def recurrence_from_a_zero_state():
    class OneStep(nn.Module):
        def __init__(self):
            super().__init__()
            self.x, self.h, self.out = nn.Linear(4, 4), nn.Parameter(torch.randn(4, 4)), nn.Linear(4, 1)

        def forward(self, x):
            state = torch.zeros(len(x), 4)
            return self.out(torch.tanh(self.x(x) + state @ self.h))  # FXG401

    return dict(model=OneStep(), inputs=(torch.randn(5, 4),), loss=lambda o: o.square().mean(), want={"h": "zero"})


def quiet_task_without_samples_in_this_batch():
    class MultiTask(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 1), nn.Linear(4, 1)

        def forward(self, x, task):
            return self.a(x).square() * (task == 0)[:, None] + self.b(x).square() * (task == 1)[:, None]

    return dict(model=MultiTask(), inputs=(torch.randn(4, 4), torch.zeros(4, dtype=torch.long)), loss=lambda o: o.mean())


def quiet_padding_row():
    class Bag(nn.Module):
        def __init__(self):
            super().__init__()
            self.emb, self.out = nn.Embedding(7, 4, padding_idx=0), nn.Linear(4, 2)

        def forward(self, ids):
            return self.out(self.emb(ids).mean(1))

    return dict(model=Bag(), inputs=(torch.tensor([[1, 2, 0], [3, 0, 0]]),), loss=lambda o: o.square().mean())


def quiet_hook_scales_and_clips():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)
            self.fc.weight.register_hook(lambda g: 0.1 * g)
            self.fc.bias.register_hook(lambda g: g.clamp(-1, 1))

        def forward(self, x):
            h = self.fc(x)
            h.register_hook(lambda g: g / g.norm())
            return h

    return dict(model=Scaled(), inputs=(torch.randn(5, 4),), loss=lambda o: o.square().mean())


def quiet_partial_masks_and_dropout():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.v = nn.Linear(4, 4), nn.Linear(4, 4)
            self.register_buffer("mask", torch.tril(torch.ones(3, 3)))

        def forward(self, x):
            weights = (self.q(x) @ x.transpose(-1, -2)).masked_fill(self.mask == 0, float("-inf")).softmax(-1)
            return F.dropout(weights, 0.1) @ self.v(x)

    return dict(model=Masked(), inputs=(torch.randn(2, 3, 4),), loss=lambda o: o.square().mean())


def guilty_loss_weight_tensor_with_a_zero():
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 1), nn.Linear(4, 1)

        def forward(self, x):
            return self.a(x), self.b(x)

    weights = torch.tensor([1.0, 0.0])

    def loss(outs):
        return sum(weights[i] * out.square().mean() for i, out in enumerate(outs))  # FXG101

    return dict(model=Heads(), inputs=(torch.randn(4, 4),), loss=loss)


def guilty_hinge_with_its_sign_turned():
    class Margin(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.energy = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x):
            return self.body(x).square().mean() + F.relu(-1 - self.energy(x).square()).mean()  # FXG401

    return dict(model=Margin(), inputs=(torch.randn(4, 4),), loss=lambda o: o)


def guilty_quantiser_in_a_nested_module_list():
    class Fake(nn.Module):
        def __init__(self, inner, scale):
            super().__init__()
            self.inner, self.scale = inner, scale

        def forward(self, x):
            return self.inner(torch.clamp((x / self.scale).round(), -8, 7) * self.scale)  # FXG401

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(4, 4), *(Fake(nn.Linear(4, 4), 0.1) for _ in range(2))])

        def forward(self, x):
            for layer in self.layers:
                x = layer(x)
            return x

    return dict(model=Net(), inputs=(torch.randn(5, 4),), loss=lambda o: o.square().mean())


def quiet_class_absent_from_the_targets_of_this_batch():
    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.experts = nn.ModuleList(nn.Linear(4, 1) for _ in range(3))

        def forward(self, x):
            return torch.cat([expert(x) for expert in self.experts], -1)

    target = torch.tensor([0, 0, 1, 1])

    def loss(out):
        return sum((out[:, k].square() * (target == k)).sum() for k in range(3)) / len(target)

    return dict(model=Experts(), inputs=(torch.randn(4, 4),), loss=loss)


def quiet_unused_logits_and_frozen_statistics():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.norm, self.head = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 6)

        def forward(self, x):
            return self.head(self.norm(self.fc(x)).relu())[:, :3]

    model = Net().eval()
    return dict(model=model, inputs=(torch.randn(5, 4),), loss=lambda o: F.cross_entropy(o, torch.tensor([0, 1, 2, 0, 1])))


def quiet_expert_that_got_no_token():
    class Moe(nn.Module):
        def __init__(self):
            super().__init__()
            self.experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

        def forward(self, x, route):
            out = torch.zeros_like(x)
            for k, expert in enumerate(self.experts):
                index = (route == k).nonzero().squeeze(-1)
                out = out.index_add(0, index, expert(x[index]))
            return out

    return dict(model=Moe(), inputs=(torch.randn(5, 4), torch.tensor([0, 1, 1, 0, 0])), loss=lambda o: o.square().mean())


def quiet_loss_on_masked_tokens_only():
    class Lm(nn.Module):
        def __init__(self):
            super().__init__()
            self.emb, self.out, self.aux = nn.Embedding(9, 4), nn.Linear(4, 9), nn.Linear(4, 1)

        def forward(self, ids):
            h = self.emb(ids)
            return self.out(h), self.aux(h)[ids == 8].square().sum()

    ids = torch.randint(0, 8, (2, 5))
    return dict(model=Lm(), inputs=(ids,), loss=lambda o: F.cross_entropy(o[0].transpose(1, 2), ids) + o[1])


def guilty_probabilities_summed():
    """Whatever the scores are, their softmax sums to one: from other weights only rounding is left over."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.score = nn.Linear(3, 4)
            nn.init.zeros_(self.score.weight)
            nn.init.zeros_(self.score.bias)

        def forward(self, x):
            return self.score(x).softmax(-1)  # FXG401

    return dict(model=Net(), inputs=(torch.randn(4, 3),), loss=lambda o: o.sum())


def guilty_second_stream_cut_off_after_the_attention():
    """The last block's queries of the second stream: their rows of the attention are sliced away, some steps after the join."""

    class Joint(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.key = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x, context):
            queries = torch.cat([self.first(x), self.second(context)], 1)
            keys = self.key(torch.cat([x, context], 1))
            mixed = (queries @ keys.transpose(1, 2)).softmax(-1) @ keys
            return mixed[:, : x.shape[1]]  # FXG401

    return dict(model=Joint(), inputs=(torch.randn(2, 3, 4), torch.randn(2, 2, 4)), loss=lambda o: o.pow(2).mean())


def quiet_rectified_unit_off_for_these_inputs():
    class Floor(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.out = nn.Linear(4, 4), nn.Linear(4, 1)
            nn.init.constant_(self.fc.bias, -50.0)

        def forward(self, x):
            return self.out(F.relu(self.fc(x))) + 1

    return dict(model=Floor(), inputs=(torch.randn(3, 4),), loss=lambda o: o.square().mean())


def quiet_annealed_weight_not_yet_raised():
    class Vae(nn.Module):
        def __init__(self):
            super().__init__()
            self.mu, self.log_var, self.out = nn.Linear(4, 2), nn.Linear(4, 2), nn.Linear(2, 4)
            self.register_buffer("beta", torch.tensor(0.1))

        def forward(self, x):
            mu, log_var = self.mu(x), self.log_var(x)
            kl = -0.5 * (1 + log_var - mu.square() - log_var.exp()).mean()
            return F.mse_loss(self.out(mu + torch.randn_like(mu) * (0.5 * log_var).exp()), x) + self.beta * kl

    return dict(model=Vae(), inputs=(torch.randn(3, 4),), loss=lambda o: o)


def quiet_hinge_inside_its_margin():
    class Margin(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 2)
            nn.init.zeros_(self.fc.weight)
            self.fc.bias.data = torch.tensor([9.0, -9.0])

        def forward(self, x):
            return self.fc(x)

    return dict(model=Margin(), inputs=(torch.randn(3, 4),), loss=lambda o: F.multi_margin_loss(o, torch.zeros(3, dtype=torch.long)))


def quiet_clipped_ratio_of_a_first_step():
    """PPO's first step: the ratio is one, the two branches are equal and the gradient is that of one of them."""

    class Policy(nn.Module):
        def __init__(self):
            super().__init__()
            self.pi = nn.Linear(4, 3)

        def forward(self, s):
            return self.pi(s).log_softmax(-1)[:, 0]

    def loss(logp):
        ratio = (logp - logp.detach()).exp()
        advantage = torch.tensor([1.0, -1.0, 0.5])
        return -torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean()

    return dict(model=Policy(), inputs=(torch.randn(3, 4),), loss=loss)


def quiet_floor_beside_the_value_itself():
    class Fraction(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x):
            y = self.fc(x)
            return y - y.floor() + 0.1 * y.sign() * y

    return dict(model=Fraction(), inputs=(torch.randn(3, 4),), loss=lambda o: o.square().mean())


def quiet_softmax_over_one_of_two_heads():
    class Pool(nn.Module):
        def __init__(self):
            super().__init__()
            self.score, self.value = nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, x):
            return (self.score(x).softmax(1) * self.value(x)).sum(1)

    return dict(model=Pool(), inputs=(torch.randn(2, 3, 4),), loss=lambda o: o.square().mean())


def quiet_stochastic_depth_that_kept_this_block():
    class Block(nn.Module):
        def __init__(self, keep):
            super().__init__()
            self.f, self.keep = nn.Linear(4, 4), keep

        def forward(self, x):
            mask = torch.bernoulli(torch.full((len(x), 1), self.keep)) / self.keep
            return x + mask * self.f(x)

    return dict(model=nn.Sequential(Block(0.9), Block(0.9)), inputs=(torch.randn(6, 4),), loss=lambda o: o.square().mean())


def quiet_zero_tensor_added_to_keep_the_graph():
    """The usual trick for DistributedDataParallel, with a factor read from the data."""

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.text, self.image = nn.Linear(4, 2), nn.Linear(3, 2)

        def forward(self, text, image, has_image):
            return self.text(text) + self.image(image) * has_image[:, None]

    return dict(
        model=Both(), inputs=(torch.randn(3, 4), torch.zeros(3, 3), torch.tensor([0.0, 0.0, 0.0])), loss=lambda o: o.square().mean()
    )


def quiet_layer_scale_of_a_millionth():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.f, self.gamma = nn.Linear(4, 4), nn.Parameter(torch.full((4,), 1e-6))

        def forward(self, x):
            return x + self.gamma * self.f(x)

    return dict(model=Scaled(), inputs=(torch.randn(3, 4),), loss=lambda o: o.square().mean())


def quiet_gradient_below_the_smallest_number():
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(*(nn.Linear(3, 3) for _ in range(4)))
            for layer in self.layers:
                layer.weight.data.mul_(1e-13)

        def forward(self, x):
            return self.layers(x)

    return dict(model=Deep(), inputs=(torch.randn(2, 3),), loss=lambda o: o.square().mean())


def quiet_token_type_of_one_kind_only():
    class Bert(nn.Module):
        def __init__(self):
            super().__init__()
            self.word, self.kind, self.position = nn.Embedding(9, 4), nn.Embedding(2, 4), nn.Embedding(8, 4)
            self.out = nn.Linear(4, 9)

        def forward(self, ids):
            h = self.word(ids) + self.kind(torch.zeros_like(ids)) + self.position.weight[: ids.shape[1]]
            return self.out(h)

    ids = torch.randint(0, 9, (2, 3))
    return dict(model=Bert(), inputs=(ids,), loss=lambda o: F.cross_entropy(o.transpose(1, 2), ids))


def quiet_all_tokens_masked_for_one_sample():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attend = nn.MultiheadAttention(4, 2, batch_first=True)

        def forward(self, x, padding):
            return self.attend(x, x, x, key_padding_mask=padding)[0] * ~padding[..., None]

    padding = torch.tensor([[False, False, True], [False, True, True]])
    return dict(model=Attention(), inputs=(torch.randn(2, 3, 4), padding), loss=lambda o: o.square().mean())


def quiet_cosine_schedule_at_its_first_step():
    class Diffusion(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(5, 4)
            self.register_buffer("alpha", torch.tensor([math.cos(t / 10) for t in range(4)]))

        def forward(self, x, t):
            a = self.alpha[t][:, None]
            noise = torch.randn_like(x)
            noisy = a * x + (1 - a.square()).sqrt() * noise
            return F.mse_loss(self.net(torch.cat([noisy, t[:, None].float()], 1)), noise)

    return dict(model=Diffusion(), inputs=(torch.randn(3, 4), torch.tensor([0, 0, 0])), loss=lambda o: o)


def quiet_max_pooling_hides_a_branch():
    class Maxout(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 2), nn.Linear(4, 2)
            nn.init.constant_(self.b.bias, -30.0)

        def forward(self, x):
            return torch.maximum(self.a(x), self.b(x))

    return dict(model=Maxout(), inputs=(torch.randn(3, 4),), loss=lambda o: o.square().mean())


def quiet_only_the_new_word_is_trained_and_absent_here():
    """Textual inversion: a hook lets the gradient of one row through."""

    class Text(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.out = nn.Embedding(6, 3), nn.Linear(3, 2)
            new = torch.zeros(6, 1)
            new[5] = 1
            self.words.weight.register_hook(lambda g: g * new)

        def forward(self, ids):
            return self.out(self.words(ids))

    return dict(model=Text(), inputs=(torch.tensor([1, 2]),), loss=lambda o: o.square().mean())


def quiet_sparse_experts_chosen_by_index_with_a_masking_hook():
    class Experts(nn.Module):
        def __init__(self, trained):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 3, 3))
            self.register_buffer("trained", torch.arange(4) >= trained)
            self.weight.register_hook(lambda g: torch.where(self.trained[:, None, None], g, torch.zeros_like(g)))

        def forward(self, x, kind):
            return torch.einsum("bi,bij->bj", x, self.weight.index_select(0, kind))

    return dict(model=Experts(3), inputs=(torch.randn(2, 3), torch.tensor([0, 1])), loss=lambda o: o.square().mean())
