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
