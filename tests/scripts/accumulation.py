"""Gradient accumulation: one step for every four small batches."""

import sys

import torch
from torch import nn

broken = "--broken" in sys.argv
ACCUMULATE = 4

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Dropout(0.1), nn.Linear(16, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
optimizer.zero_grad()
for i in range(3 * ACCUMULATE):
    x = torch.randn(4, 6)
    loss = (model(x) - x.sum(1, keepdim=True)).abs().mean() / ACCUMULATE
    loss.backward()
    if broken:
        optimizer.zero_grad()  # FXG303
    if (i + 1) % ACCUMULATE == 0:
        optimizer.step()
        optimizer.zero_grad()
        print(i, loss.item() * ACCUMULATE)
