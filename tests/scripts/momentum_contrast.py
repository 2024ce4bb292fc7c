"""Momentum contrast: a key encoder that trails, a queue in a buffer."""

import copy
import sys

import torch
import torch.nn.functional as F
from torch import nn

broken = "--broken" in sys.argv
torch.manual_seed(0)


class MoCo(nn.Module):
    def __init__(self, dim=8, K=32):
        super().__init__()
        self.q = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, dim))
        self.k = copy.deepcopy(self.q)
        for p in self.k.parameters():
            p.requires_grad = False
        self.register_buffer("queue", F.normalize(torch.randn(dim, K), dim=0))
        self.register_buffer("ptr", torch.zeros(1, dtype=torch.long))

    @torch.no_grad()
    def momentum(self):
        for a, b in zip(self.q.parameters(), self.k.parameters(), strict=True):
            b.data = b.data * 0.99 + a.data * 0.01

    @torch.no_grad()
    def enqueue(self, keys):
        p = int(self.ptr)
        self.queue[:, p : p + len(keys)] = keys.T  # FXG201
        self.ptr[0] = (p + len(keys)) % self.queue.shape[1]

    def forward(self, a, b):
        q = F.normalize(self.q(a), dim=1)
        with torch.no_grad():
            self.momentum()
            k = F.normalize(self.k(b), dim=1)
        pos = torch.einsum("nc,nc->n", q, k).unsqueeze(-1)
        neg = torch.einsum("nc,ck->nk", q, self.queue if broken else self.queue.clone().detach())
        logits = torch.cat([pos, neg], 1) / 0.07
        self.enqueue(k)
        return logits, torch.zeros(len(a), dtype=torch.long)


m = MoCo()
opt = torch.optim.SGD(m.parameters(), 0.03, momentum=0.9, weight_decay=1e-4)
sch = torch.optim.lr_scheduler.CosineAnnealingLR(opt, 10)
for _i in range(3):
    x = torch.randn(8, 10)
    logits, labels = m(x + 0.1 * torch.randn_like(x), x)
    loss = F.cross_entropy(logits, labels)
    opt.zero_grad()
    loss.backward()
    opt.step()
    sch.step()
    print(loss.item())
