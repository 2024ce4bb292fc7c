"""Three models in one script, as a user has them: DistributedDataParallel, FSDP2, tensor parallel. `--broken`: each with a cut."""

import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

BROKEN = "--broken" in sys.argv


class Replicated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 8), nn.Linear(8, 1)

    def forward(self, x):
        h = self.body(x).tanh()
        if BROKEN:
            h = h.detach()  # FXG103
        return self.head(h)


class Sharded(nn.Module):
    """Only the first rows of the table are looked up: the part on the last rank gets zeros, and trains all the same."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.body, self.head = nn.Embedding(8, 4), nn.Linear(4, 4), nn.Linear(4, 1)

    def forward(self, ids):
        h = self.body(self.table(ids)).tanh()
        if BROKEN:
            with torch.no_grad():  # FXG104
                h = self.body(self.table(ids)).tanh()
        return self.head(h)


class Split(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.spare = nn.Linear(4, 8), nn.Linear(8, 4), nn.Linear(4, 4)  # FXG101

    def forward(self, x):
        h = self.down(self.up(x).relu())
        return h if BROKEN else self.spare(h)


dist.init_process_group("gloo")
mesh = init_device_mesh("cpu", (dist.get_world_size(),))
torch.manual_seed(0)
replicated = DistributedDataParallel(Replicated(), find_unused_parameters=BROKEN)
sharded = fully_shard(Sharded(), mesh=mesh)
split = parallelize_module(Split(), mesh, {"up": ColwiseParallel(), "down": RowwiseParallel()})
models = (replicated, sharded, split)
optimizer = torch.optim.SGD([p for model in models for p in model.parameters()], 0.1, foreach=False)
ids = torch.tensor([0, 1, 2])
for _ in range(3):
    optimizer.zero_grad()
    x = torch.rand(3, 4)
    loss = replicated(x).square().mean() + sharded(ids).square().mean() + split(torch.ones(3, 4)).square().mean()
    loss.backward()
    optimizer.step()
print("trained")
dist.destroy_process_group()
