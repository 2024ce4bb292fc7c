"""FXG203: writes that autograd does not know of, and writes that are none of its business."""

from __future__ import annotations

import copy

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


def guilty_activation_scaled_after_it_was_saved():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 4)

        @staticmethod
        def damp(h):
            h.data.mul_(0.5)  # FXG203
            return h

        def forward(self, x):
            h = torch.tanh(self.up(x))
            return self.down(self.damp(h))

    return dict(model=Gated(), inputs=(torch.randn(3, 4),), loss=lambda o: o.square().mean())


def guilty_weight_masked_in_forward():
    class SparseLinear(nn.Linear):
        def __init__(self, *args):
            super().__init__(*args)
            self.register_buffer("mask", (torch.rand(5, 4) > 0.5).float())

        def forward(self, x):
            self.weight.data.mul_(self.mask)  # FXG203
            return super().forward(x)

    return dict(model=nn.Sequential(SparseLinear(4, 5), nn.ReLU(), nn.Linear(5, 1)), inputs=(torch.randn(3, 4),), loss=lambda o: o.sum())


def guilty_weight_data_replaced_by_masked_one():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(2, 3, 3)
            self.register_buffer("mask", torch.tensor([1.0, 1.0, 0.0]))

        def forward(self, x):
            self.conv.weight.data = self.conv.weight.data * self.mask  # FXG203
            return self.conv(x)

    return dict(model=Masked(), inputs=(torch.randn(1, 2, 6),), loss=lambda o: o.square().sum())


def guilty_softmax_edited_through_numpy():
    class Sparse(nn.Module):
        def __init__(self):
            super().__init__()
            self.q = nn.Linear(4, 4)

        def forward(self, x):
            weights = (self.q(x) @ x.T).softmax(-1)
            table = weights.detach().numpy()  # or FXG203
            table[table < 0.3] = 0.0  # FXG203
            return weights @ x

    return dict(model=Sparse(), inputs=(torch.randn(3, 4),), loss=lambda o: o.square().sum())


def guilty_numpy_helper_clips_in_place():
    def clip(array):
        np.clip(array, -0.1, 0.1, out=array)  # or FXG203

    class Clipped(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.out = nn.Linear(4, 4), nn.Linear(4, 1)

        def forward(self, x):
            h = self.fc(x)
            clip(h.data.numpy())  # FXG203
            return self.out(h)

    return dict(model=Clipped(), inputs=(torch.randn(3, 4),), loss=lambda o: o.sum())


def guilty_manual_sgd_through_data_before_backward():
    class Agent(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 1)

        def learn(self, loss):
            grads = torch.autograd.grad(loss, list(self.parameters()), retain_graph=True)
            for p, g in zip(self.parameters(), grads, strict=True):
                p.data.sub_(0.1 * g)  # FXG203

        def forward(self, x):
            y = self.second(self.first(x).tanh())
            self.learn(y.square().mean())
            return y.mean()

    return dict(model=Agent(), inputs=(torch.randn(4, 3),), loss=lambda o: o)


def guilty_average_swapped_in_before_backward():
    class Averaged(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.conv = nn.Conv1d(2, 2, 1), nn.Conv1d(2, 2, 3)
            self.average = copy.deepcopy(self.conv).requires_grad_(False)
            with torch.no_grad():
                self.average.weight.add_(1.0)

        def swap(self):
            for p, a in zip(self.conv.parameters(), self.average.parameters(), strict=True):
                p.data, a.data = a.data, p.data  # FXG203

        def forward(self, x):
            y = self.conv(self.stem(x))
            self.swap()
            return y

    return dict(model=Averaged(), inputs=(torch.randn(1, 2, 6),), loss=lambda o: o.square().sum(), expect=["stem.*", "conv.*"])


def guilty_detached_alias_masked():
    class Dropper(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.out = nn.Linear(4, 4), nn.Linear(4, 1)

        def forward(self, x):
            h = self.fc(x)
            h.detach()[:, 0] = 0  # FXG203
            return self.out(h)

    return dict(model=Dropper(), inputs=(torch.randn(3, 4),), loss=lambda o: o.sum())


def guilty_activation_clamped_under_no_grad():
    class Quantised(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.out = nn.Linear(4, 4), nn.Linear(4, 1)

        def forward(self, x):
            h = self.fc(x)
            with torch.no_grad():
                h.clamp_(0, 1)  # FXG203
            return self.out(h)

    return dict(model=Quantised(), inputs=(torch.randn(3, 4),), loss=lambda o: o.sum())


def guilty_fused_step_between_forward_and_backward():
    class Gan(nn.Module):
        def __init__(self):
            super().__init__()
            self.g, self.d = nn.Linear(2, 3), nn.Linear(3, 1)
            self.opt_d = torch.optim.SGD(self.d.parameters(), 0.5, fused=True)

        def forward(self, z):
            score = self.d(torch.tanh(self.g(z)))
            score.square().mean().backward(retain_graph=True)
            self.opt_d.step()  # FXG203
            return -score.mean()

    return dict(model=Gan(), inputs=(torch.randn(4, 2),), loss=lambda o: o)


def quiet_target_average_through_data():
    class Momentum(nn.Module):
        def __init__(self):
            super().__init__()
            self.online = nn.Linear(4, 4)
            self.target = copy.deepcopy(self.online)
            for p in self.target.parameters():
                p.requires_grad = False
            self.predictor = nn.Linear(4, 4)

        def forward(self, x):
            loss = F.mse_loss(self.predictor(self.online(x)), self.target(x))
            for t, o in zip(self.target.parameters(), self.online.parameters(), strict=True):
                t.data = t.data * 0.99 + o.data * 0.01
                t.data.mul_(0.99).add_(o.data, alpha=0.01)
            return loss

    return dict(model=Momentum(), inputs=(torch.randn(3, 4),), loss=lambda o: o, expect=["online.*", "predictor.*"])


def quiet_initialisation_through_data():
    class Init(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 2)
            self.fc.weight.data.normal_(0, 0.02)
            self.fc.bias.data.zero_()
            self.apply(self.reset)

        @staticmethod
        def reset(module):
            if isinstance(module, nn.Linear):
                module.weight.data[0] = 0.1

        def forward(self, x):
            return self.fc(x)

    return dict(model=Init(), inputs=(torch.randn(3, 4),), loss=lambda o: o.sum())


def quiet_data_dependent_start_of_a_scale():
    class ActNorm(nn.Module):
        def __init__(self):
            super().__init__()
            self.loc, self.scale = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.ones(4))
            self.register_buffer("started", torch.tensor(0))

        def forward(self, x):
            if self.started == 0:
                self.loc.data.copy_(-x.mean(0))
                self.scale.data.copy_(1 / (x.std(0) + 1e-6))
                self.started.fill_(1)
            return self.scale * (x + self.loc)

    return dict(model=nn.Sequential(nn.Linear(4, 4), ActNorm()), inputs=(torch.randn(5, 4),), loss=lambda o: o.pow(4).sum())


def quiet_weights_clipped_after_the_step():
    class Critic(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 1)

        def clip(self):
            for p in self.parameters():
                p.data.clamp_(-0.01, 0.01)

        def forward(self, x):
            return self.fc(x)

    model = Critic()
    optimizer = torch.optim.RMSprop(model.parameters(), 1e-3)
    model(torch.randn(3, 4)).mean().backward()
    optimizer.step()
    model.clip()
    model.zero_grad()
    return dict(model=model, inputs=(torch.randn(3, 4),), loss=lambda o: o.mean(), optimizer=optimizer)


def quiet_numpy_only_reads():
    class Logged(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.history = nn.Linear(4, 4), []

        def forward(self, x):
            h = torch.sigmoid(self.fc(x))
            self.history.append(float(np.sort(h.detach().numpy(), axis=0).mean()))
            return h

    return dict(model=Logged(), inputs=(torch.randn(3, 4),), loss=lambda o: o.sum())


def quiet_numpy_copy_is_written():
    class Visual(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            h = torch.sigmoid(self.fc(x))
            picture = h.detach().numpy().copy()
            picture[0] = 0
            self.picture = picture
            return h

    return dict(model=Visual(), inputs=(torch.randn(3, 4),), loss=lambda o: o.sum())


def quiet_buffer_written_through_data():
    class Whiten(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)
            self.register_buffer("mean", torch.zeros(4))

        def forward(self, x):
            h = self.fc(x)
            self.mean.data.mul_(0.9).add_(0.1 * h.detach().mean(0))
            return (h - self.mean.clone()).square()

    return dict(model=Whiten(), inputs=(torch.randn(3, 4),), loss=lambda o: o.sum())


def quiet_data_written_where_nothing_was_saved():
    class Monitor(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            h = self.fc(x)
            y = h * 2
            h.data.zero_()
            return y

    return dict(model=Monitor(), inputs=(torch.randn(3, 4),), loss=lambda o: o.sum())


def quiet_gradients_clipped_through_data():
    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 1)

        def forward(self, x):
            self.fc(x).mean().backward()
            for p in self.parameters():
                p.grad.data.clamp_(-1, 1)
                p.grad = None
            x.requires_grad = False
            return self.fc(x)

    return dict(model=Inner(), inputs=(torch.randn(3, 4),), loss=lambda o: o.sum())


def quiet_centre_replaced_by_that_of_the_batch():
    class Centred(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.centre = nn.Linear(4, 4), nn.Parameter(torch.rand(4))

        def forward(self, x):
            y = x - self.centre
            self.centre.data = x.mean(0)
            return self.fc(y) + self.centre * x

    return dict(model=Centred(), inputs=(torch.randn(3, 4),), loss=lambda o: o.sum())


def quiet_weights_disturbed_and_given_back():
    class Sharpness(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1))

        def forward(self, x):
            weights = list(self.net.parameters())
            slopes = torch.autograd.grad(self.net(x).square().mean(), weights)
            before = [w.data.clone() for w in weights]
            for w, g in zip(weights, slopes, strict=True):
                w.data.add_(g, alpha=0.05)
            with torch.no_grad():
                sharp = self.net(x).square().mean()
            for w, old in zip(weights, before, strict=True):
                w.data = old
            return self.net(x).square().mean() * (1 + sharp)

    return dict(model=Sharpness(), inputs=(torch.randn(3, 4),), loss=lambda o: o)


def quiet_average_swapped_in_for_the_target_and_out_again():
    class Averaged(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 3)
            self.average = [p.detach() * 0.9 for p in self.fc.parameters()]

        def forward(self, x):
            mine = [p.detach().clone() for p in self.fc.parameters()]
            for p, a in zip(self.fc.parameters(), self.average, strict=True):
                p.data.copy_(a)
            with torch.no_grad():
                goal = self.fc(x).softmax(-1)
            for p, m in zip(self.fc.parameters(), mine, strict=True):
                p.data.copy_(m)
            return F.cross_entropy(self.fc(x), goal)

    return dict(model=Averaged(), inputs=(torch.randn(3, 4),), loss=lambda o: o)


def quiet_noisy_pass_measured_and_undone():
    class Robust(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 2))

        @torch.no_grad()
        def sensitivity(self, x):
            clean, backup = x @ self.weight, self.weight.data.clone()
            self.weight.data.mul_(1 + 0.1 * torch.randn_like(backup))
            moved = (x @ self.weight - clean).norm()
            self.weight.data.copy_(backup)
            return moved

        def forward(self, x):
            return (x @ self.weight).square().mean() / (1 + self.sensitivity(x))

    return dict(model=Robust(), inputs=(torch.randn(3, 4),), loss=lambda o: o)


def quiet_memory_made_contiguous_through_data():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.cells = nn.ModuleList(nn.Linear(3, 3) for _ in range(2))

        def forward(self, x):
            for cell in self.cells:
                cell.weight.data = cell.weight.data.contiguous().clone()
            for cell in self.cells:
                x = cell(x).tanh()
            return x

    return dict(model=Flat(), inputs=(torch.randn(2, 3),), loss=lambda o: o.square().mean())


def quiet_mask_kept_up_after_the_step():
    class Pruned(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 3)
            self.register_buffer("mask", (torch.rand(3, 4) > 0.5).float())

        def forward(self, x):
            return self.fc(x)

    model = Pruned()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randn(2, 4)).square().mean().backward()
        optimizer.step()
        model.fc.weight.data.mul_(model.mask)
    optimizer.zero_grad()
    return dict(model=model, inputs=(torch.randn(2, 4),), loss=lambda o: o.square().mean(), optimizer=optimizer)


def quiet_token_memory_written_under_no_grad():
    class Bank(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 3)
            self.register_buffer("bank", F.normalize(torch.randn(6, 3), dim=1))

        def forward(self, x, index):
            z = F.normalize(self.fc(x), dim=1)
            logits = z @ self.bank.clone().T
            self.bank.data[index] = F.normalize(0.5 * self.bank[index] + 0.5 * z.data, dim=1)
            return F.cross_entropy(logits, index)

    return dict(model=Bank(), inputs=(torch.randn(2, 4), torch.tensor([1, 4])), loss=lambda o: o)


def guilty_copy_given_back_was_taken_after_the_write():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 2))

        def forward(self, x):
            self.weight.data.mul_(2)  # FXG203
            backup = self.weight.data.clone()
            self.weight.data.copy_(backup)
            return x @ self.weight

    return dict(model=Masked(), inputs=(torch.randn(3, 4),), loss=lambda o: o.square().mean())


def guilty_product_written_by_an_operator_that_counts_no_write():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(6))

        def forward(self, a, b):
            room = torch.ones(6)
            scaled = self.scale * room
            torch.kron(a, b, out=room)  # FXG203
            return (scaled * room).sum()

    return dict(model=Scaled(), inputs=(torch.randn(2), torch.randn(3)), loss=lambda o: o)


def quiet_room_written_before_it_is_saved():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(6))

        def forward(self, a, b):
            room = torch.empty(6)
            torch.kron(a, b, out=room)
            return (self.scale * room).sum()

    return dict(model=Scaled(), inputs=(torch.randn(2), torch.randn(3)), loss=lambda o: o)


def quiet_room_written_again_with_what_was_there():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(6))

        def forward(self, a, b):
            room = torch.kron(a, b)
            scaled = self.scale * room
            torch.kron(a, b, out=room)
            return scaled.sum()

    return dict(model=Scaled(), inputs=(torch.randn(2), torch.randn(3)), loss=lambda o: o)


def guilty_input_kept_on_ctx_is_written_afterwards():
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.x = x
            return x * x

        @staticmethod
        def backward(ctx, grad):
            return 2 * ctx.x * grad

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = nn.Linear(4, 4), nn.Linear(4, 1)

        def forward(self, x):
            h = self.up(x)
            squared = Square.apply(h)
            h.mul_(0.5)  # FXG203
            return self.down(squared) + h.sum()

    return dict(model=Net(), inputs=(torch.randn(3, 4),), loss=lambda o: o.sum())


def guilty_result_kept_in_a_list_is_written_afterwards():
    class Exp(torch.autograd.Function):
        @staticmethod
        def forward(x, scale):
            return (x * scale).exp()

        @staticmethod
        def setup_context(context, inputs, output):
            context.kept = [output, inputs[1]]

        @staticmethod
        def backward(context, grad):
            result, scale = context.kept
            return grad * result * scale, None

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            y = Exp.apply(self.fc(x), 0.5)
            y.mul_(2)  # FXG203
            return y

    return dict(model=Net(), inputs=(torch.randn(3, 4),), loss=lambda o: o.sum())


def quiet_what_is_kept_on_ctx_is_asked_for_its_shape():
    class Padded(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, room):
            ctx.x, ctx.room = x, room
            return torch.cat([x, room])

        @staticmethod
        def backward(ctx, grad):
            return grad[: ctx.x.shape[0]].to(ctx.x.dtype), None

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            h, room = self.fc(x), torch.zeros(1, 4)
            y = Padded.apply(h, room)
            h.mul_(2)
            room.fill_(1)
            return y

    return dict(model=Net(), inputs=(torch.randn(3, 4),), loss=lambda o: o.square().sum())


def quiet_copy_kept_on_ctx():
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.x = x.clone()
            return x * x

        @staticmethod
        def backward(ctx, grad):
            return 2 * ctx.x * grad

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = nn.Linear(4, 4), nn.Linear(4, 1)

        def forward(self, x):
            h = self.up(x)
            h.mul_(0.5)
            squared = Square.apply(h)
            h.mul_(0.5)
            return self.down(squared) + h.sum()

    return dict(model=Net(), inputs=(torch.randn(3, 4),), loss=lambda o: o.sum())


def guilty_branch_added_through_data():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.branch, self.head = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 1)

        def forward(self, x):
            h = self.body(x).tanh()
            h.data.add_(self.branch(x))  # FXG203
            return self.head(h)

    return dict(model=Residual(), inputs=(torch.randn(4, 3),), loss=lambda o: o.square().mean())


def guilty_gate_added_to_the_data_of_what_nothing_saved():
    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.shift, self.head = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 1)

        def forward(self, x):
            h = self.body(x)
            h.data += self.shift(x)  # FXG203
            return self.head(h)

    return dict(model=Shifted(), inputs=(torch.randn(4, 3),), loss=lambda o: o.square().mean())


def quiet_frozen_layer_written_into_fresh_memory_through_data():
    class Stored(nn.Module):
        def __init__(self):
            super().__init__()
            self.code, self.head = nn.Linear(3, 2).requires_grad_(False), nn.Linear(4, 1)

        def forward(self, x):
            memory = x.new_zeros(len(x), 4)
            memory.data[:, :2] += self.code(x)
            return self.head(memory)

    return dict(model=Stored(), inputs=(torch.randn(4, 3),), loss=lambda o: o.square().mean())


def quiet_branch_added_before_the_data_is_read():
    class Logged(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.branch = nn.Linear(3, 3), nn.Linear(3, 3)
            self.register_buffer("seen", torch.zeros(3))

        def forward(self, x):
            h = self.body(x).tanh()
            h = h + self.branch(x)
            self.seen.data.add_(h.data.mean(0))
            return h

    return dict(model=Logged(), inputs=(torch.randn(4, 3),), loss=lambda o: o.square().mean())
