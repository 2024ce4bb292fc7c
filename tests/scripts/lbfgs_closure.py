"""LBFGS with a closure, a module and a parameter of its own."""

import sys

import torch
from torch import nn

broken = "--broken" in sys.argv
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1))
scale = nn.Parameter(torch.ones(()))
x = torch.rand(32, 2)
y = x.prod(1, keepdim=True)
opt = torch.optim.LBFGS([*net.parameters(), scale], lr=0.5, max_iter=5, line_search_fn="strong_wolfe")


def closure():
    opt.zero_grad()
    out = net(x) * (scale.item() if broken else scale)  # FXG107
    loss = nn.functional.mse_loss(out, y)
    loss.backward()
    return loss


for _i in range(3):
    print(opt.step(closure).item())
