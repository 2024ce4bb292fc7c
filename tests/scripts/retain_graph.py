"""Two losses on one graph, two optimizers, a backward each."""

import sys

import torch
import torch.nn.functional as F
from torch import nn

broken = "--broken" in sys.argv


class AE(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc = nn.Sequential(nn.Linear(10, 6), nn.ReLU(inplace=True), nn.Linear(6, 3))
        self.dec = nn.Sequential(nn.Linear(3, 6), nn.ReLU(inplace=True), nn.Linear(6, 10))
        self.cls = nn.Linear(3, 2)

    def forward(self, x):
        z = self.enc(x)
        return self.dec(z), self.cls(z)


m = AE()
opt1 = torch.optim.SGD([*m.enc.parameters(), *m.dec.parameters()], 0.1)
opt2 = torch.optim.SGD(m.cls.parameters(), 0.1)
sched = torch.optim.lr_scheduler.StepLR(opt1, 1)
for step in range(3):
    x, y = torch.randn(4, 10), torch.randint(0, 2, (4,))
    rec, logit = m(x)
    l1, l2 = F.mse_loss(rec, x), F.cross_entropy(logit, y)
    opt1.zero_grad()
    opt2.zero_grad()
    if broken:
        l1.backward(retain_graph=True)
        opt1.step()  # FXG205
        l2.backward()
        opt2.step()
    else:
        l1.backward(retain_graph=True)
        l2.backward()
        opt1.step()
        opt2.step()
    sched.step()
    print(step, l1.item(), l2.item())
