"""FXG202: writes that autograd refuses (into leaves, into views it cannot follow), and writes it follows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


def guilty_parameter_scaled_in_forward():
    class Prototype(nn.Module):
        def __init__(self):
            super().__init__()
            self.centers = nn.Parameter(torch.randn(3, 4))

        def forward(self, x):
            self.centers /= self.centers.norm(dim=1, keepdim=True)  # FXG202
            return x @ self.centers.T

    return dict(model=Prototype(), inputs=(torch.randn(2, 4),), loss=lambda o: o.sum())


def guilty_padding_row_zeroed_through_setitem():
    def clear(table, index):
        table.weight[index] = 0.0  # FXG202

    class Bag(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.out = nn.Embedding(6, 4), nn.Linear(4, 2)

        def forward(self, ids):
            clear(self.table, 0)
            return self.out(self.table(ids).mean(1))

    return dict(model=Bag(), inputs=(torch.randint(0, 6, (2, 3)),), loss=lambda o: o.square().mean())


def guilty_lazy_init_through_a_view_in_a_loop():
    class Gates(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.LSTMCell(3, 3) for _ in range(2))
            self.started = False

        def open_forget_gates(self):
            for layer in self.layers:
                layer.bias_ih.chunk(4)[1].fill_(1.0)  # FXG202

        def forward(self, x):
            if not self.started:
                self.open_forget_gates()
                self.started = True
            h = self.layers[0](x)
            return self.layers[1](h[0], h)[0]

    return dict(model=Gates(), inputs=(torch.randn(2, 3),), loss=lambda o: o.sum())


def guilty_adversarial_input_stepped_in_place():
    class Robust(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(4, 2)

        def forward(self, x):
            x = x.detach().requires_grad_()
            (g,) = torch.autograd.grad(self.net(x).sum(), x)
            x += 0.1 * g.sign()  # FXG202
            return self.net(x)

    return dict(model=Robust(), inputs=(torch.randn(3, 4),), loss=lambda o: o.sum())


def guilty_split_halves_edited():
    class Coupling(nn.Module):
        def __init__(self):
            super().__init__()
            self.pre, self.scale = nn.Linear(4, 4), nn.Linear(2, 2)

        def forward(self, x):
            a, b = self.pre(x).split(2, dim=-1)
            b.mul_(self.scale(a).exp())  # FXG202
            return torch.cat([a, b], -1)

    return dict(model=Coupling(), inputs=(torch.randn(3, 4),), loss=lambda o: o.sum())


def guilty_rows_of_an_iterated_tensor():
    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            rows = self.fc(x)
            for i, row in enumerate(rows):
                row *= i + 1  # FXG202
            return rows

    return dict(model=Rows(), inputs=(torch.randn(3, 4),), loss=lambda o: o.sum())


def guilty_view_made_without_gradients():
    class Cached(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            h = self.fc(x)
            with torch.no_grad():
                first = h[:, :2]
            first.add_(1)  # FXG202
            return h

    return dict(model=Cached(), inputs=(torch.randn(3, 4),), loss=lambda o: o.sum())


def guilty_expanded_prototype_edited():
    class Expand(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 1)

        def forward(self, x):
            weights = self.fc(x).expand(-1, 3)
            weights[:, 0] += 1
            weights.clamp_(min=0)  # FXG202
            return weights * x[:, :3]

    return dict(model=Expand(), inputs=(torch.randn(3, 4),), loss=lambda o: o.sum())


def guilty_function_view_output_scaled():
    class Scale(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.view(x.shape)

        @staticmethod
        def backward(ctx, g):
            return 0.1 * g

    class Slow(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.act = nn.Linear(4, 4), nn.ReLU(inplace=True)

        def forward(self, x):
            return self.act(Scale.apply(self.fc(x)))  # FXG202

    return dict(model=Slow(), inputs=(torch.randn(3, 4),), loss=lambda o: o.sum())


def guilty_out_argument_with_gradients():
    class Buffer(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)
            self.register_buffer("result", torch.empty(3, 4))

        def forward(self, x):
            return torch.tanh(self.fc(x), out=self.result)  # FXG202

    return dict(model=Buffer(), inputs=(torch.randn(3, 4),), loss=lambda o: o.sum())


def guilty_weights_clipped_by_the_loss():
    class Wasserstein(nn.Module):
        def __init__(self, critic):
            super().__init__()
            self.critic = [critic]

        def forward(self, score):
            for p in self.critic[0].parameters():
                p.clamp_(-0.01, 0.01)  # FXG202
            return score.mean()

    model = nn.Linear(3, 1)
    return dict(model=model, inputs=(torch.randn(3, 3),), loss=Wasserstein(model))


def quiet_initialisation_under_no_grad():
    class Prior(nn.Module):
        def __init__(self):
            super().__init__()
            self.out = nn.Linear(3, 6)
            with torch.no_grad():
                self.out.bias.view(2, -1)[:, 0] += 4.0
                self.out.weight[0].zero_()
            nn.init.orthogonal_(self.out.weight)

        def forward(self, x):
            return self.out(x)

    return dict(model=Prior(), inputs=(torch.randn(2, 3),), loss=lambda o: o.sum())


def quiet_lazy_data_dependent_init():
    class ActNorm(nn.Module):
        def __init__(self):
            super().__init__()
            self.loc, self.log_scale = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(4))
            self.ready = False

        def forward(self, x):
            if not self.ready:
                with torch.no_grad():
                    self.loc.copy_(-x.mean(0))
                    self.log_scale.copy_(-x.std(0).log())
                self.ready = True
            return (x + self.loc) * self.log_scale.exp()

    return dict(model=nn.Sequential(nn.Linear(4, 4), ActNorm()), inputs=(torch.randn(5, 4),), loss=lambda o: o.pow(4).sum())


def quiet_clone_of_a_parameter_edited():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 3))

        def forward(self, x):
            w = self.weight.clone()
            w[torch.eye(3, dtype=torch.bool)] = 0
            w.mul_(2)
            return x @ w

    return dict(model=Masked(), inputs=(torch.randn(2, 3),), loss=lambda o: o.sum())


def quiet_slice_of_an_activation_edited():
    class Boxes(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 6)

        def forward(self, x):
            y = self.head(x)
            y[:, :2] += 0.5
            y[:, 2:4].mul_(2)
            return y

    return dict(model=Boxes(), inputs=(torch.randn(2, 4),), loss=lambda o: o.sum())


def quiet_detached_input_edited():
    class Noise(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, x):
            noisy = x.clone()
            noisy += 0.1 * torch.randn_like(noisy)
            return F.relu(self.fc(noisy), inplace=True) + 1

    return dict(model=Noise(), inputs=(torch.randn(2, 4),), loss=lambda o: o.sum())


def quiet_chunks_rebound_not_written():
    class Glu(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 8)

        def forward(self, x):
            a, b = self.fc(x).chunk(2, -1)
            a = a * 0.5
            b = b.sigmoid()
            a *= b
            return a

    return dict(model=Glu(), inputs=(torch.randn(2, 4),), loss=lambda o: o.sum())


def guilty_state_chunks_detached_in_place():
    class Truncated(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.out = nn.Linear(4, 8), nn.Linear(4, 1)

        def forward(self, x):
            h, c = self.fc(x).chunk(2, -1)
            c.detach_()  # FXG202
            return self.out(h * c)

    return dict(model=Truncated(), inputs=(torch.randn(3, 4),), loss=lambda o: o.sum())


def guilty_shifted_sum_over_itself():
    class Smooth(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            h = self.fc(x).flatten()
            h[1:] += h[:-1]  # FXG202
            return h

    return dict(model=Smooth(), inputs=(torch.randn(3, 4),), loss=lambda o: o.sum())


def quiet_rows_of_a_parameter_replaced_by_index_put():
    class Patched(nn.Module):
        def __init__(self):
            super().__init__()
            self.emb, self.extra = nn.Embedding(6, 3), nn.Parameter(torch.randn(2, 3))

        def forward(self, ids):
            table = self.emb.weight.index_put((torch.tensor([4, 5]),), self.extra)
            return table[ids]

    return dict(model=Patched(), inputs=(torch.tensor([1, 4, 5]),), loss=lambda o: o.square().mean())


def quiet_embedding_padding_row_zeroed_before_training():
    class Text(nn.Module):
        def __init__(self):
            super().__init__()
            self.emb, self.out = nn.Embedding(5, 3, padding_idx=0), nn.Linear(3, 2)
            self.reset()

        @torch.no_grad()
        def reset(self):
            self.emb.weight.uniform_(-0.1, 0.1)
            self.emb.weight[self.emb.padding_idx].fill_(0)

        def forward(self, ids):
            return self.out(self.emb(ids).sum(1))

    return dict(model=Text(), inputs=(torch.tensor([[1, 2, 0], [3, 0, 0]]),), loss=lambda o: o.square().mean())


def quiet_leaf_made_to_require_grad_after_the_write():
    class Attack(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1))

        def forward(self, x):
            delta = torch.empty_like(x)
            delta.uniform_(-0.1, 0.1)
            delta.requires_grad_()
            (g,) = torch.autograd.grad(self.net(x + delta).sum(), delta)
            with torch.no_grad():
                delta += 0.05 * g.sign()
                delta.clamp_(-0.1, 0.1)
            return self.net(x + delta.detach()).square().mean()

    return dict(model=Attack(), inputs=(torch.randn(3, 4),), loss=lambda o: o)


def quiet_gradient_field_of_a_leaf_written():
    class Reset(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x):
            self.fc(x).sum().backward()
            for p in self.parameters():
                p.grad.zero_()
            return self.fc(x)

    return dict(model=Reset(), inputs=(torch.randn(4, 3),), loss=lambda o: o.square().mean())


def quiet_spectral_vector_of_a_weight_updated():
    class Power(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 4))
            self.register_buffer("u", F.normalize(torch.randn(3), dim=0))

        def forward(self, x):
            with torch.no_grad():
                v = F.normalize(self.weight.T @ self.u, dim=0)
                F.normalize(self.weight @ v, dim=0, out=self.u)
            sigma = self.u.clone() @ self.weight @ v
            return F.linear(x, self.weight / sigma)

    return dict(model=Power(), inputs=(torch.randn(2, 4),), loss=lambda o: o.square().mean())


def quiet_columns_of_stacked_outputs_edited():
    class Columns(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleList(nn.Linear(3, 2) for _ in range(2))

        def forward(self, x):
            y = torch.stack([part(x) for part in self.parts], 1)
            first = y[:, 0]
            first += 1
            y.select(1, 1).neg_()
            y.diagonal(dim1=1, dim2=2).mul_(0.5)
            return y

    return dict(model=Columns(), inputs=(torch.randn(2, 3),), loss=lambda o: o.square().mean())


def quiet_unbind_read_and_the_whole_written():
    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, x):
            y = self.fc(x)
            total = sum(row.sum() for row in y.unbind(0))
            y = y.clone()
            y[0] = 0
            return y.sum() + total.tanh()

    return dict(model=Rows(), inputs=(torch.randn(2, 3),), loss=lambda o: o)


def quiet_low_rank_update_merged_under_no_grad():
    class Lora(nn.Module):
        def __init__(self):
            super().__init__()
            self.base = nn.Linear(4, 3).requires_grad_(False)
            self.a, self.b = nn.Parameter(torch.randn(2, 4)), nn.Parameter(torch.zeros(3, 2))
            self.merged = True

        def unmerge(self):
            if self.merged:
                self.base.weight -= (self.b @ self.a).detach()
                self.merged = False

        def forward(self, x):
            self.unmerge()
            return self.base(x) + F.linear(x, self.b @ self.a)

    model = Lora()
    with torch.no_grad():
        model.b.normal_()
    return dict(model=model, inputs=(torch.randn(2, 4),), loss=lambda o: o.square().mean())


def quiet_expanded_bias_copied_before_the_write():
    class Bias(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(4))

        def forward(self, x):
            out = self.bias.expand(len(x), -1).contiguous()
            out.addcmul_(x, x, value=0.5)
            return out

    return dict(model=nn.Sequential(nn.Linear(3, 4), Bias()), inputs=(torch.randn(2, 3),), loss=lambda o: o.square().mean())


def quiet_parameter_inside_a_list_rebound_by_plus():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.terms = nn.ParameterList(nn.Parameter(torch.randn(3)) for _ in range(3))

        def forward(self, x):
            total = self.terms[0]
            for term in self.terms[1:]:
                total = total + term
            total += 1
            return x * total

    return dict(model=Sum(), inputs=(torch.randn(2, 3),), loss=lambda o: o.square().mean())


def guilty_clamped_under_a_mark_of_the_profiler():
    class Marked(nn.Module):
        def __init__(self):
            super().__init__()
            self.temperature, self.fc = nn.Parameter(torch.ones(1)), nn.Linear(4, 2)

        def forward(self, x):
            with torch.profiler.record_function("scale"):
                self.temperature.clamp_(0.1, 10.0)  # FXG202
                return self.fc(x) / self.temperature

    return dict(model=Marked(), inputs=(torch.randn(3, 4),), loss=lambda o: o.square().mean())


def quiet_a_computed_one_clamped_under_a_mark_of_the_profiler():
    class Marked(nn.Module):
        def __init__(self):
            super().__init__()
            self.temperature, self.fc = nn.Parameter(torch.ones(1)), nn.Linear(4, 2)

        def forward(self, x):
            with torch.profiler.record_function("scale"):
                scale = (self.temperature * 2).clamp_(0.1, 10.0)
                return self.fc(x) / scale

    return dict(model=Marked(), inputs=(torch.randn(3, 4),), loss=lambda o: o.square().mean())
