"""MAML: an inner loop of gradient steps on functional weights, second derivatives in the outer one."""

import sys

import torch
import torch.nn.functional as F
from torch import nn

broken = "--broken" in sys.argv


class Learner(nn.Module):
    def __init__(self):
        super().__init__()
        self.w1 = nn.Parameter(torch.randn(16, 1) * 0.5)
        self.b1 = nn.Parameter(torch.zeros(16))
        self.w2 = nn.Parameter(torch.randn(1, 16) * 0.5)
        self.b2 = nn.Parameter(torch.zeros(1))

    def forward(self, x, weights):
        w1, b1, w2, b2 = weights
        return F.linear(torch.tanh(F.linear(x, w1, b1)), w2, b2)


def adapt(model, x, y, steps=2, rate=0.05):
    fast = list(model.parameters())
    for _ in range(steps):
        loss = F.mse_loss(model(x, fast), y)
        grads = torch.autograd.grad(loss, fast, create_graph=True)
        if broken:
            fast = [(w - rate * g).detach().requires_grad_() for w, g in zip(fast, grads, strict=True)]  # FXG103
        else:
            fast = [w - rate * g for w, g in zip(fast, grads, strict=True)]
    return fast


def main():
    torch.manual_seed(0)
    meta = Learner()
    optimizer = torch.optim.Adam(meta.parameters(), lr=1e-3)
    for iteration in range(2):
        total = 0.0
        for _ in range(3):
            phase = torch.rand(1) * 3
            x, x_test = torch.rand(5, 1), torch.rand(5, 1)
            fast = adapt(meta, x, torch.sin(x + phase))
            total = total + F.mse_loss(meta(x_test, fast), torch.sin(x_test + phase))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        print(iteration, total.item())


main()
