"""FXG201: in-place operations that destroy what backward saved, and in-place operations that are harmless."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint


def guilty_relu_module_inplace_after_sigmoid():
    class Gate(nn.Module):
        def __init__(self, c):
            super().__init__()
            self.squeeze = nn.Conv2d(c, c, 1)
            self.act = nn.ReLU(inplace=True)

        def forward(self, x):
            gate = torch.sigmoid(self.squeeze(x.mean((2, 3), keepdim=True)))
            return x * self.act(gate)  # FXG201

    model = nn.Sequential(nn.Conv2d(3, 4, 3), Gate(4), nn.Flatten(), nn.LazyLinear(2))
    x = torch.randn(2, 3, 6, 6)
    model(x)
    return dict(model=model, inputs=(x,), loss=lambda o: F.cross_entropy(o, torch.tensor([0, 1])))


def guilty_functional_relu_inplace_flag_in_helper():
    def squash(t):
        return F.leaky_relu(t, 0.1, inplace=True)  # FXG201

    class Cell(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(5, 5), nn.Linear(5, 5)

        def forward(self, x):
            h = torch.tanh(self.a(x))
            return self.b(squash(h)) + h

    return dict(model=Cell(), inputs=(torch.randn(3, 5),), loss=lambda o: o.square().mean())


def guilty_output_table_filled_in_a_loop():
    class Rnn(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.Linear(6, 6)

        def step(self, x, h):
            return torch.tanh(self.cell(x + h))

        def forward(self, x):
            out = torch.zeros(x.shape[0] + 1, x.shape[1], 6)
            for t in range(x.shape[0]):
                out[t + 1] = self.step(x[t], out[t]) * out[t].cos()  # FXG201
            return out[1:]

    return dict(model=Rnn(), inputs=(torch.randn(4, 2, 6),), loss=lambda o: o.mean())


def guilty_view_of_softmax_scaled():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k = nn.Linear(8, 8), nn.Linear(8, 8)

        @staticmethod
        def drop_first(weights):
            head = weights.narrow(-1, 0, 1)
            head.mul_(0.5)  # FXG201

        def forward(self, x):
            weights = (self.q(x) @ self.k(x).transpose(-1, -2)).softmax(-1)
            self.drop_first(weights)
            return weights @ x

    return dict(model=Attention(), inputs=(torch.randn(2, 3, 8),), loss=lambda o: o.pow(2).sum())


def guilty_loss_normalises_its_argument():
    class Contrastive(nn.Module):
        def forward(self, pair):
            a, b = pair
            similarity = (a * b).sum(-1)
            a /= a.norm(dim=-1, keepdim=True)  # FXG201
            return 1 - similarity.mean() + a.mean()

    class Twin(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(4, 4)

        def forward(self, x, y):
            return self.body(x), self.body(y)

    return dict(model=Twin(), inputs=(torch.randn(3, 4), torch.randn(3, 4)), loss=Contrastive())


def guilty_custom_function_saved_its_output():
    class Swish(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            y = x * torch.sigmoid(x)
            ctx.save_for_backward(x, y)
            return y

        @staticmethod
        def backward(ctx, g):
            x, y = ctx.saved_tensors
            s = torch.sigmoid(x)
            return g * (y + s * (1 - y))

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.inp, self.out = nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, x):
            h = Swish.apply(self.inp(x))
            h += 0.1 * torch.randn_like(h)  # FXG201
            return self.out(h)

    return dict(model=Block(), inputs=(torch.randn(3, 4),), loss=lambda o: o.sum())


def guilty_setitem_masks_exponentials():
    class Scores(nn.Module):
        def __init__(self):
            super().__init__()
            self.score = nn.Linear(5, 5)

        def forward(self, x, mask):
            e = torch.exp(self.score(x))
            e[mask] = 0  # FXG201
            return e / e.sum(-1, keepdim=True)

    mask = torch.tensor([[True, False, False, False, False]] * 3)
    return dict(model=Scores(), inputs=(torch.randn(3, 5), mask), loss=lambda o: (o * o).sum())


def guilty_out_argument_reuses_a_saved_buffer():
    class Mixer(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(4))
            self.register_buffer("scratch", torch.zeros(3, 4))

        def forward(self, x):
            with torch.no_grad():
                torch.mul(x, 2.0, out=self.scratch)
            first = self.w * self.scratch
            with torch.no_grad():
                torch.mul(x, 3.0, out=self.scratch)  # FXG201
            return first + self.w * self.scratch

    return dict(model=Mixer(), inputs=(torch.randn(3, 4),), loss=lambda o: o.square().sum())


def guilty_foreach_scales_saved_activations():
    class Multi(nn.Module):
        def __init__(self):
            super().__init__()
            self.heads = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

        def forward(self, x):
            outs = [torch.sigmoid(head(x)) for head in self.heads]
            torch._foreach_mul_(outs, 0.5)  # FXG201
            return sum(outs)

    return dict(model=Multi(), inputs=(torch.randn(2, 4),), loss=lambda o: o.sum())


def guilty_ema_codebook_after_lookup():
    class Quantizer(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("codes", torch.randn(6, 4))

        @torch.no_grad()
        def update(self, z, index):
            hot = F.one_hot(index, 6).to(z.dtype)
            self.codes.lerp_(hot.T @ z, 0.01)  # FXG201

        def forward(self, z):
            distance = (z[:, None] - self.codes).square().sum(-1)
            soft = (z @ self.codes.T).softmax(-1)
            self.update(z, distance.argmin(-1))
            return soft @ self.codes

    class Vq(nn.Module):
        def __init__(self):
            super().__init__()
            self.enc, self.vq, self.dec = nn.Linear(5, 4), Quantizer(), nn.Linear(4, 5)

        def forward(self, x):
            return self.dec(self.vq(self.enc(x)))

    x = torch.randn(7, 5)
    return dict(model=Vq(), inputs=(x,), loss=lambda o: F.mse_loss(o, x))


def guilty_memory_bank_queue_in_loss():
    class Moco:
        def __init__(self, dim, size=8):
            self.queue, self.ptr = F.normalize(torch.randn(size, dim), dim=1), 0

        def enqueue(self, keys):
            with torch.no_grad():
                self.queue[self.ptr : self.ptr + len(keys)] = keys  # FXG201
            self.ptr = (self.ptr + len(keys)) % len(self.queue)

        def __call__(self, q):
            logits = q @ self.queue.T
            self.enqueue(q.detach())
            return F.cross_entropy(logits, torch.arange(len(q)))

    return dict(model=nn.Linear(3, 4), inputs=(torch.randn(4, 3),), loss=Moco(4))


def guilty_hidden_state_kept_between_batches():
    class Tracker(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.out = nn.GRUCell(3, 4), nn.Linear(4, 1)
            self.state = {"h": torch.zeros(2, 4)}

        def forward(self, x):
            self.state["h"] = self.cell(x, self.state["h"])  # FXG201
            return self.out(self.state["h"])

    model = Tracker()
    model(torch.randn(2, 3)).sum().backward()
    model.zero_grad()
    return dict(model=model, inputs=(torch.randn(2, 3),), loss=lambda o: o.sum())


def guilty_running_buffer_keeps_history():
    class Whiten(nn.Module):
        def __init__(self):
            super().__init__()
            self.proj = nn.Linear(4, 4)
            self.register_buffer("mean", torch.zeros(4))

        def forward(self, x):
            h = self.proj(x)
            self.mean = 0.9 * self.mean + 0.1 * h.mean(0)  # FXG201
            return h - self.mean

    model = Whiten()
    model(torch.randn(5, 4)).square().sum().backward()
    model.zero_grad()
    return dict(model=model, inputs=(torch.randn(5, 4),), loss=lambda o: o.square().sum())


def guilty_discriminator_backward_frees_the_generator():
    class Gan(nn.Module):
        def __init__(self):
            super().__init__()
            self.g, self.d = nn.Linear(2, 4), nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))

        def train_d(self, real, fake):
            loss = F.softplus(self.d(fake)).mean() + F.softplus(-self.d(real)).mean()
            loss.backward()  # FXG201

        def forward(self, z, real):
            fake = torch.tanh(self.g(z))
            self.train_d(real, fake)
            return F.softplus(-self.d(fake)).mean()

    return dict(model=Gan(), inputs=(torch.randn(3, 2), torch.randn(3, 4)), loss=lambda o: o)


def guilty_cached_features_of_first_step():
    class Cached(nn.Module):
        def __init__(self):
            super().__init__()
            self.enc, self.head, self.cache = nn.Linear(3, 3), nn.Linear(3, 1), []

        def forward(self, x):
            if not self.cache:
                self.cache.append(torch.sigmoid(self.enc(x)))
            return self.head(self.cache[0])  # FXG201

    model, x = Cached(), torch.randn(4, 3)
    model(x).sum().backward()
    model.zero_grad()
    return dict(model=model, inputs=(x,), loss=lambda o: o.sum())


def guilty_two_savers_one_writer():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.out = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            h = torch.tanh(self.fc(x))
            y = self.out(h)
            z = h.sin()
            h.clamp_(-0.5, 0.5)  # FXG201
            return y + z + h

    return dict(model=Twice(), inputs=(torch.randn(2, 4),), loss=lambda o: o.sum())


def guilty_write_in_forward_hook():
    def halve(module, args, output, scale):
        output.mul_(scale)  # FXG201

    model = nn.Sequential(nn.Linear(4, 4), nn.Sigmoid(), nn.Linear(4, 2))
    model[1].register_forward_hook(partial(halve, scale=0.5))
    return dict(model=model, inputs=(torch.randn(2, 4),), loss=lambda o: o.sum())


def guilty_inherited_residual_add():
    class Base(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(4, 4)

        def forward(self, x):
            out = self.transform(self.body(x))
            out += x  # FXG201
            return {"out": out}

    class Gelu(Base):
        def transform(self, h):
            return h.sigmoid()

    return dict(model=Gelu(), inputs=(torch.randn(2, 4),), loss=lambda o: o["out"].sum())


def guilty_inner_gradient_of_overwritten_value():
    class Penalty(nn.Module):
        def __init__(self):
            super().__init__()
            self.critic = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))

        def forward(self, x):
            x = x.clone().requires_grad_()
            h = self.critic[1](self.critic[0](x))
            score = self.critic[2](h)
            h.zero_()  # FXG201
            (g,) = torch.autograd.grad(score.sum(), x, create_graph=True)
            return score.mean() + (g.norm(dim=1) - 1).square().mean()

    return dict(model=Penalty(), inputs=(torch.randn(4, 3),), loss=lambda o: o)


def quiet_add_after_multiplication_by_constant():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            y = 2 * self.fc(x)
            y += 1
            y *= 3
            return y

    return dict(model=Scale(), inputs=(torch.randn(2, 4),), loss=lambda o: o.sum())


def quiet_relu_inplace_after_convolution_and_norm():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3), nn.Hardtanh(inplace=True), nn.Flatten()
    )
    return dict(model=model, inputs=(torch.randn(2, 3, 8, 8),), loss=lambda o: o.square().mean())


def quiet_residual_add_before_relu():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn, self.relu = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True)

        def forward(self, x):
            out = self.bn(self.conv(x))
            out += x
            return self.relu(out)

    return dict(model=nn.Sequential(Block(), Block()), inputs=(torch.randn(2, 4, 5, 5),), loss=lambda o: o.mean())


def quiet_masked_fill_of_scores_before_softmax():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.qk = nn.Linear(4, 8)

        def forward(self, x):
            q, k = self.qk(x).chunk(2, -1)
            scores = q @ k.transpose(-1, -2)
            scores.masked_fill_(torch.triu(torch.ones(3, 3), 1).bool(), float("-inf"))
            return scores.softmax(-1) @ x

    return dict(model=Attention(), inputs=(torch.randn(2, 3, 4),), loss=lambda o: o.sum())


def quiet_table_filled_row_by_row():
    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.Linear(4, 4)

        def forward(self, x):
            out, h = torch.zeros(3, 2, 4), torch.zeros(2, 4)
            for t in range(3):
                h = torch.tanh(self.cell(x[t] + h))
                out[t] = h
            return out

    return dict(model=Rows(), inputs=(torch.randn(3, 2, 4),), loss=lambda o: o.mean())


def quiet_codebook_updated_before_lookup():
    class Quantizer(nn.Module):
        def __init__(self):
            super().__init__()
            self.enc = nn.Linear(5, 4)
            self.register_buffer("codes", torch.randn(6, 4))

        def forward(self, x):
            z = self.enc(x)
            with torch.no_grad():
                index = torch.cdist(z, self.codes).argmin(-1)
                self.codes.lerp_(F.one_hot(index, 6).to(z.dtype).T @ z, 0.01)
            return (z @ self.codes.clone().T).softmax(-1)

    return dict(model=Quantizer(), inputs=(torch.randn(7, 5),), loss=lambda o: o[:, 0].sum())


def quiet_queue_clone_as_in_moco():
    class Moco:
        def __init__(self):
            self.queue = F.normalize(torch.randn(8, 4), dim=1)

        def __call__(self, q):
            logits = q @ self.queue.clone().detach().T
            with torch.no_grad():
                self.queue[:4] = q
            return F.cross_entropy(logits, torch.arange(4))

    return dict(model=nn.Linear(3, 4), inputs=(torch.randn(4, 3),), loss=Moco())


def quiet_saved_by_a_branch_that_the_loss_ignores():
    class Monitor(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.out = nn.Linear(4, 4), nn.Linear(4, 1)

        def forward(self, x):
            h = self.fc(x)
            self.energy = h.exp().sum()
            h += 1
            return self.out(h)

    return dict(model=Monitor(), inputs=(torch.randn(2, 4),), loss=lambda o: o.sum())


def quiet_hidden_state_detached_between_batches():
    class Rnn(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.hidden = nn.LSTM(3, 4), None

        def forward(self, x):
            if self.hidden is not None:
                self.hidden = tuple(h.detach() for h in self.hidden)
            y, self.hidden = self.rnn(x, self.hidden)
            return y

    model = Rnn()
    model(torch.randn(3, 2, 3)).sum().backward()
    model.zero_grad()
    return dict(model=model, inputs=(torch.randn(3, 2, 3),), loss=lambda o: o.sum())


def quiet_retained_graph_used_twice_without_a_write():
    class Penalised(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 1)

        def forward(self, x):
            score = self.fc(x).tanh()
            score.sum().backward(retain_graph=True)
            self.fc.zero_grad()
            return score.mean()

    return dict(model=Penalised(), inputs=(torch.randn(4, 3),), loss=lambda o: o)


def quiet_dropout_and_layer_norm_edited_after():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.fc, self.drop = nn.LayerNorm(4), nn.Linear(4, 4), nn.Dropout(0.5, inplace=True)

        def forward(self, x):
            h = self.drop(self.fc(self.norm(x)))
            h.add_(x).div_(2)
            return h

    return dict(model=Block(), inputs=(torch.randn(2, 4),), loss=lambda o: o.sum())


def guilty_inplace_module_of_a_sequential():
    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(4, 4)
            self.gate = nn.Sequential(
                nn.Linear(4, 4),
                nn.Sigmoid(),
                nn.Dropout(0.5, inplace=True),  # FXG201
            )

        def forward(self, x):
            return self.body(x) * self.gate(x)

    return dict(model=Gate(), inputs=(torch.randn(3, 4),), loss=lambda o: o.sum())


def guilty_bare_sequential():
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.ELU(inplace=True), nn.Linear(4, 1))  # FXG201
    return dict(model=model, inputs=(torch.randn(3, 4),), loss=lambda o: o.sum())


def guilty_yolo_boxes_decoded_in_place():
    class Detect(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 5, 1)
            self.register_buffer("anchor", torch.rand(2) + 0.5)

        def forward(self, x):
            y = self.conv(x).permute(0, 2, 3, 1).sigmoid()
            y[..., 0:2] = y[..., 0:2] * 2 - 0.5  # FXG201
            y[..., 2:4] = (y[..., 2:4] * 2) ** 2 * self.anchor  # or FXG201
            return y

    return dict(model=Detect(), inputs=(torch.randn(1, 3, 4, 4),), loss=lambda o: o.square().mean())


def guilty_messages_summed_into_the_features():
    class Conv(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin, self.att = nn.Linear(4, 4), nn.Linear(4, 1)

        def forward(self, x, edge):
            h = self.lin(x)
            message = h[edge[0]] * self.att(h).sigmoid()[edge[0]]
            h.index_add_(0, edge[1], message)  # FXG201
            return h

    class Gnn(nn.Module):
        def __init__(self):
            super().__init__()
            self.convs = nn.ModuleList(Conv() for _ in range(2))

        def forward(self, x, edge):
            for conv in self.convs:
                x = conv(x, edge)
            return x

    edge = torch.tensor([[0, 1, 2], [1, 2, 0]])
    return dict(model=Gnn(), inputs=(torch.randn(3, 4), edge), loss=lambda o: o.square().mean())


def guilty_hidden_state_kept_with_retained_graph():
    class Tracker(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.out, self.h = nn.GRUCell(3, 4), nn.Linear(4, 1), None

        def forward(self, x):
            self.h = self.cell(x, self.h)  # FXG201
            return self.out(self.h)

    model = Tracker()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randn(2, 3)).sum().backward(retain_graph=True)
    optimizer.step()
    model.zero_grad()
    return dict(model=model, inputs=(torch.randn(2, 3),), loss=lambda o: o.sum(), optimizer=optimizer)


def guilty_regulariser_computed_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))
    penalty = sum(p.square().sum() for p in model.parameters())

    def loss(out):
        return out.square().mean() + 0.01 * penalty  # FXG201

    loss(model(torch.randn(3, 4))).backward()
    model.zero_grad()
    return dict(model=model, inputs=(torch.randn(3, 4),), loss=loss)


def guilty_noisy_weights_used_by_two_losses():
    class TwoLosses(nn.Module):
        def __init__(self):
            super().__init__()
            self.enc, self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 1), nn.Linear(4, 1)

        def forward(self, x):
            z = torch.exp(self.enc(x))
            first, second = self.a(z).square().mean(), self.b(z).square().mean()
            first.backward()  # FXG201
            second.backward()
            return first + second

    return dict(model=TwoLosses(), inputs=(torch.randn(3, 4),), loss=lambda o: o)


def guilty_normalised_weight_computed_once_in_init():
    class Cosine(nn.Module):
        def __init__(self):
            super().__init__()
            self.raw = nn.Parameter(torch.randn(3, 4))
            self.directions = F.normalize(self.raw, dim=1)  # FXG201

        def forward(self, x):
            return x @ self.directions.T

    model, x = Cosine(), torch.randn(5, 4)
    model(x).square().mean().backward()
    model.zero_grad()
    return dict(model=model, inputs=(x,), loss=lambda o: o.square().mean())


def quiet_softmax_input_shifted_in_place():
    class Stable(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x):
            z = self.fc(x)
            z -= z.detach().amax(-1, keepdim=True)
            e = z.exp()
            return e / e.sum(-1, keepdim=True)

    return dict(model=Stable(), inputs=(torch.randn(2, 4),), loss=lambda o: o[:, 0].sum())


def quiet_sigmoid_of_a_copy_edited():
    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            gate = self.fc(x).sigmoid()
            shown = gate.clone()
            shown[shown < 0.5] = 0
            return gate * shown

    return dict(model=Gate(), inputs=(torch.randn(2, 4),), loss=lambda o: o.sum())


def quiet_key_value_cache_of_a_decoder():
    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv, self.out = nn.Linear(4, 12), nn.Linear(4, 4)

        def forward(self, x):
            keys, values, outs = [], [], []
            for token in x.unbind(1):
                q, k, v = self.qkv(token).chunk(3, -1)
                keys.append(k)
                values.append(v)
                weights = torch.einsum("bd,btd->bt", q, torch.stack(keys, 1)).softmax(-1)
                outs.append(self.out(torch.einsum("bt,btd->bd", weights, torch.stack(values, 1))))
            return torch.stack(outs, 1)

    return dict(model=Decoder(), inputs=(torch.randn(2, 3, 4),), loss=lambda o: o.square().mean())


def quiet_cache_tensor_written_then_read_whole():
    class Cache(nn.Module):
        def __init__(self):
            super().__init__()
            self.k = nn.Linear(4, 4)

        def forward(self, x):
            cache = x.new_zeros(len(x), 6, 4)
            for t in range(3):
                cache[:, t] = self.k(x[:, t])
            return cache[:, :3].sum(1).tanh()

    return dict(model=Cache(), inputs=(torch.randn(2, 3, 4),), loss=lambda o: o.mean())


def quiet_momentum_statistics_after_they_were_cloned():
    class Norm(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)
            self.register_buffer("var", torch.ones(4))

        def forward(self, x):
            h = self.fc(x)
            out = h / (self.var + 1e-5).sqrt()
            with torch.no_grad():
                self.var.lerp_(h.var(0), 0.1)
            return out

    return dict(model=Norm(), inputs=(torch.randn(5, 4),), loss=lambda o: o.square().mean())


def quiet_optimizer_steps_on_the_critic_before_a_fresh_forward():
    class Gan(nn.Module):
        def __init__(self):
            super().__init__()
            self.g, self.d = nn.Linear(2, 4), nn.Linear(4, 1)
            self.optimizer = torch.optim.Adam(self.d.parameters(), 1e-3)

        def forward(self, z, real):
            for _ in range(2):
                self.optimizer.zero_grad()
                fake = self.g(z).detach()
                (F.softplus(self.d(fake)).mean() + F.softplus(-self.d(real)).mean()).backward()
                self.optimizer.step()
            return F.softplus(-self.d(self.g(z))).mean()

    return dict(model=Gan(), inputs=(torch.randn(3, 2), torch.randn(3, 4)), loss=lambda o: o)


def quiet_leaky_relu_in_place_after_a_linear_layer():
    class Leaky(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            h = F.leaky_relu(self.a(x), 0.2, inplace=True)
            return F.elu(self.b(h), inplace=True)

    return dict(model=Leaky(), inputs=(torch.randn(2, 4),), loss=lambda o: o.square().mean())


def quiet_exponential_scaled_by_itself_out_of_place_first():
    class Scores(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            e = self.fc(x).exp()
            e = e * 1.0
            e /= 1 + e.detach().sum(-1, keepdim=True)
            return e

    return dict(model=Scores(), inputs=(torch.randn(2, 4),), loss=lambda o: o.sum())


def quiet_noise_and_clamp_on_a_sum():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            y = self.fc(x) + x
            y.add_(torch.randn_like(y), alpha=0.1)
            y.clamp_(-2, 2)
            return y

    return dict(model=Noisy(), inputs=(torch.randn(2, 4),), loss=lambda o: o.square().sum())


def quiet_heads_written_into_slices_of_an_empty_tensor():
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.heads = nn.ModuleList(nn.Linear(4, 2) for _ in range(3))

        def forward(self, x):
            out = torch.empty(len(x), 6)
            for i, head in enumerate(self.heads):
                out[:, 2 * i : 2 * i + 2] = head(x)
            return out.tanh()

    return dict(model=Heads(), inputs=(torch.randn(2, 4),), loss=lambda o: o.square().mean())


def quiet_scatter_of_messages_into_fresh_zeros():
    class Graph(nn.Module):
        def __init__(self):
            super().__init__()
            self.message, self.update = nn.Linear(3, 3), nn.GRUCell(3, 3)

        def forward(self, x, edges):
            for _ in range(2):
                incoming = torch.zeros_like(x).index_add_(0, edges[1], self.message(x)[edges[0]])
                x = self.update(incoming, x)
            return x

    return dict(model=Graph(), inputs=(torch.randn(4, 3), torch.tensor([[0, 1, 2], [1, 2, 3]])), loss=lambda o: o.square().mean())


def quiet_in_place_inside_a_checkpoint():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 4), nn.Dropout(0.2, inplace=True))

        def forward(self, x):
            h = checkpoint(self.block, x, use_reentrant=False)
            h += x
            return h

    return dict(model=Net(), inputs=(torch.randn(2, 4),), loss=lambda o: o.square().mean())


def quiet_gradient_scaled_in_place_by_a_hook():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 1)

        def forward(self, x):
            h = self.a(x).tanh()
            h.register_hook(lambda g: g.clone().mul_(0.5))
            return self.b(h)

    return dict(model=Scaled(), inputs=(torch.randn(2, 4),), loss=lambda o: o.square().mean())


def quiet_unused_values_of_a_topk_overwritten():
    class Topk(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 6)

        def forward(self, x):
            y = self.fc(x)
            values, index = y.topk(3, -1)
            values.mul_(0.5)
            return values + index.ne(0)

    return dict(model=Topk(), inputs=(torch.randn(2, 4),), loss=lambda o: o.square().mean())


def quiet_mask_written_before_it_is_used():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            mask = torch.ones_like(x)
            mask[:, 1] = 0
            mask.div_(mask.mean())
            return self.fc(x * mask) * mask

    return dict(model=Masked(), inputs=(torch.randn(2, 4),), loss=lambda o: o.square().mean())


def quiet_running_sum_of_scan_steps():
    class Ssm(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Parameter(torch.rand(4)), nn.Linear(3, 4)

        def forward(self, x):
            state, outs = torch.zeros(len(x), 4), []
            for u in x.unbind(1):
                state = state * self.a
                state += self.b(u)
                outs.append(state.clone())
            return torch.stack(outs, 1)

    return dict(model=Ssm(), inputs=(torch.randn(2, 4, 3),), loss=lambda o: o.square().mean())


def quiet_gates_of_one_projection_activated_in_place():
    class Lstm(nn.Module):
        def __init__(self):
            super().__init__()
            self.gates = nn.Linear(7, 16)

        def forward(self, x, h, c):
            i, f, g, o = torch.unsafe_chunk(self.gates(torch.cat([x, h], -1)), 4, -1)
            i, f, g, o = i.sigmoid_(), f.sigmoid_(), g.tanh_(), o.sigmoid_()
            c = f * c + i * g
            return o * c.tanh()

    return dict(model=Lstm(), inputs=(torch.randn(2, 3), torch.randn(2, 4), torch.randn(2, 4)), loss=lambda o: o.square().mean())


def quiet_label_tensor_edited_after_the_loss():
    class Smoothing:
        def __init__(self):
            self.target = torch.tensor([0, 1, 2])

        def __call__(self, logits):
            goal = F.one_hot(self.target, 3).float()
            goal.mul_(0.9).add_(0.1 / 3)
            value = -(goal * logits.log_softmax(-1)).sum(-1).mean()
            self.target = (self.target + 1) % 3
            return value

    return dict(model=nn.Linear(4, 3), inputs=(torch.randn(3, 4),), loss=Smoothing())


def quiet_double_backward_through_an_in_place_activation():
    class Critic(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(3, 6), nn.LeakyReLU(0.2, inplace=True), nn.Linear(6, 1, bias=False))

        def forward(self, x):
            x = x.clone().requires_grad_()
            score = self.net(x)
            (slope,) = torch.autograd.grad(score.sum(), x, create_graph=True)
            return score.square().mean() + (slope.norm(dim=1) - 1).square().mean()

    return dict(model=Critic(), inputs=(torch.randn(4, 3),), loss=lambda o: o)


def quiet_foreach_on_gradients_of_an_inner_loss():
    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x):
            weights = list(self.fc.parameters())
            slopes = list(torch.autograd.grad(self.fc(x).square().mean(), weights))
            torch._foreach_mul_(slopes, 0.1)
            return self.fc(x).square().mean() + 0.1 * sum((w * s).sum() for w, s in zip(weights, slopes, strict=True))

    return dict(model=Inner(), inputs=(torch.randn(4, 3),), loss=lambda o: o)
