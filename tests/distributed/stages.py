"""A pipeline of one stage a rank; `--broken`: the last stage cuts a layer off."""

import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.pipelining import PipelineStage, ScheduleGPipe

dist.init_process_group("gloo")
rank, size = dist.get_rank(), dist.get_world_size()


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        h = self.a(x).tanh()
        if "--broken" in sys.argv and rank == size - 1:
            return h + self.b(h).detach()  # FXG103
        return h + self.b(h)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({str(i): Block() for i in range(size)})

    def forward(self, x):
        for layer in self.layers.values():
            x = layer(x)
        return x


torch.manual_seed(0)
net = Net()
for other in set(range(size)) - {rank}:
    del net.layers[str(other)]
schedule = ScheduleGPipe(PipelineStage(net, rank, size, torch.device("cpu")), n_microbatches=2, loss_fn=nn.functional.mse_loss)
optimizer = torch.optim.SGD(net.parameters(), 0.1)
for _ in range(3):
    optimizer.zero_grad()
    if rank == 0:
        schedule.step(torch.rand(4, 4))
    elif rank == size - 1:
        schedule.step(target=torch.rand(4, 4), losses=[])
    else:
        schedule.step()
    optimizer.step()
dist.destroy_process_group()
