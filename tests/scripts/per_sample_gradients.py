"""Clipped gradients per sample (DP-SGD): `torch.func` computes them, and they are put on the parameters by hand."""

import sys

import torch
from torch import nn
from torch.func import functional_call, grad, vmap

broken = "--broken" in sys.argv

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
optimizer = torch.optim.SGD(model.parameters(), 0.1)


def loss_of(parameters, x, y):
    return (functional_call(model, parameters, (x[None],)) - y).pow(2).mean()


for step in range(4):
    x, y = torch.randn(16, 4), torch.randn(16)
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    each = vmap(grad(loss_of), in_dims=(None, 0, 0))(parameters, x, y)
    norms = torch.stack([g.flatten(1).norm(dim=1) for g in each.values()]).norm(dim=0)
    factor = (1 / norms).clamp(max=1)
    for name, parameter in model.named_parameters():
        clipped = torch.einsum("b,b...->...", factor, each[name]) / len(x)
        if not broken:
            parameter.grad = clipped
    optimizer.step()  # FXG205
    print(step, norms.mean().item())
