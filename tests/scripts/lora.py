"""LoRA: adapters beside frozen layers, one of their two matrices zero at first, so that the other's first gradient is zero."""

import math
import sys

import torch
from torch import nn

broken = "--broken" in sys.argv


class LoRALinear(nn.Module):
    def __init__(self, base, rank=2, alpha=4):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_a = nn.Parameter(torch.empty(rank, base.in_features))
        self.lora_b = nn.Parameter(torch.zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))
        self.scale = alpha / rank

    def forward(self, x):
        update = self.lora_b @ self.lora_a
        if broken:
            update = update.data  # FXG103
        return nn.functional.linear(x, self.base.weight + self.scale * update, self.base.bias)


def adapt(module):
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, LoRALinear(child))
        else:
            adapt(child)
    return module


torch.manual_seed(0)
model = adapt(nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 6)))
head = nn.Linear(6, 2)
trainable = [p for p in [*model.parameters(), *head.parameters()] if p.requires_grad]
optimizer = torch.optim.Adam(trainable, lr=1e-2)
for step in range(3):
    x, y = torch.randn(8, 6), torch.randint(0, 2, (8,))
    loss = nn.functional.cross_entropy(head(model(x)), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(step, loss.item())
