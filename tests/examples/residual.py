"""A training step that dies: "one of the variables needed for gradient computation has been modified by an inplace operation"."""

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        out = self.relu(self.conv1(x))
        out = self.relu(self.conv2(out))
        out += x  # writes into what ReLU saved for backward
        return out


model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), Block(8), Block(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
example_inputs = (torch.randn(2, 3, 8, 8),)


def loss(logits):
    return F.cross_entropy(logits, torch.tensor([0, 1]))
