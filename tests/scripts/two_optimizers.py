"""Two optimizers, one for the backbone and one for the head, and an exponential average of the weights beside them."""

import copy
import sys

import torch
from torch import nn

broken = "--broken" in sys.argv


class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(6, 16), nn.ReLU())
        self.head = nn.Linear(16, classes)

    def forward(self, x):
        return self.head(self.backbone(x))


class Trainer:
    def __init__(self):
        self.model = Net(10)
        if not broken:
            self.model.head = nn.Linear(16, 3)
        self.optimizers = [
            torch.optim.SGD(self.model.backbone.parameters(), lr=1e-3),
            torch.optim.SGD(self.model.head.parameters(), lr=1e-2),
        ]
        if broken:
            self.model.head = nn.Linear(16, 3)  # FXG302
        self.average = copy.deepcopy(self.model)

    def step(self, x, y):
        loss = nn.functional.cross_entropy(self.model(x), y)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(self.average.parameters(), self.model.parameters(), strict=True):
                slow.mul_(0.9).add_(fast, alpha=0.1)
        return loss.item()


torch.manual_seed(0)
trainer = Trainer()
for step in range(3):
    print(step, trainer.step(torch.randn(8, 6), torch.randint(0, 3, (8,))))
