"""A compiled model and a compiled loss."""

import sys

import torch
from torch import nn

broken = "--broken" in sys.argv


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 1)

    def forward(self, x):
        h = self.a(x).relu()
        if broken:
            h = h.detach()  # FXG103
        return self.b(h)


model = torch.compile(Mlp())
opt = torch.optim.Adam(model.parameters())


@torch.compile
def loss_fn(p, y):
    return ((p - y) ** 2).mean()


for _ in range(3):
    loss = loss_fn(model(torch.randn(8, 4)), torch.randn(8, 1))
    opt.zero_grad()
    loss.backward()
    opt.step()
    print(loss.item())
