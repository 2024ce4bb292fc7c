"""Processes that part: `layer` (the last rank leaves one out), `data` (a branch on data), `dies`, `exits`, `killed`. DistributedDataParallel."""

import os
import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

what = sys.argv[1]
dist.init_process_group("gloo")
rank, last = dist.get_rank(), dist.get_rank() == dist.get_world_size() - 1


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 8)
        self.extra = nn.Linear(8, 8)  # left out by some
        self.head = nn.Linear(8, 1)

    def forward(self, x):
        h = self.body(x).tanh()
        if what == "layer" and last:
            return self.head(h)
        if what == "data" and x.mean() > 0:  # parts them
            return self.head(h)
        if what == "dies" and last:
            raise KeyError("sample 17")  # dies
        if what == "exits" and last:
            sys.exit(3)
        if what == "killed" and last:
            os._exit(9)
        return self.head(self.extra(h))


torch.manual_seed(0)
model = DistributedDataParallel(Net())
optimizer = torch.optim.SGD(model.parameters(), 0.1)
for _ in range(3):
    optimizer.zero_grad()
    x = torch.rand(3, 4) * (1 if rank % 2 else -1)
    model(x).square().mean().backward()
    optimizer.step()
dist.destroy_process_group()
