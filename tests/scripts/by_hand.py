"""Gradient descent by hand: no module, no optimizer."""

import sys

import torch

broken = "--broken" in sys.argv

torch.manual_seed(0)
w = torch.randn(3, requires_grad=True)
b = torch.zeros(1, requires_grad=True)
for step in range(4):
    x = torch.randn(16, 3)
    loss = ((x @ w + b - x.sum(1)) ** 2).mean()
    loss.backward()
    if broken:
        w = w - 0.1 * w.grad  # FXG111
        b = b - 0.1 * b.grad
    else:
        with torch.no_grad():
            w -= 0.1 * w.grad
            b -= 0.1 * b.grad
    w.grad.zero_()
    b.grad.zero_()
    print(step, loss.item())
