"""A Transformer whose blocks are checkpointed: on a frozen embedding the reentrant kind records nothing."""

import argparse

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=2)
parser.add_argument("--broken", action="store_true")
options = parser.parse_args()


class Model(nn.Module):
    def __init__(self, vocabulary=20, width=16):
        super().__init__()
        self.embed = nn.Embedding.from_pretrained(torch.randn(vocabulary, width), freeze=True)
        layer = dict(d_model=width, nhead=2, dim_feedforward=32, dropout=0.1, batch_first=True)
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(**layer) for _ in range(2))
        self.head = nn.Linear(width, vocabulary)

    def forward(self, ids):
        h = self.embed(ids)
        for block in self.blocks:
            h = checkpoint(block, h, use_reentrant=options.broken)  # FXG114
        return self.head(h)


torch.manual_seed(0)
model = Model()
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
for step in range(options.steps):
    ids = torch.randint(0, 20, (2, 7))
    logits = model(ids[:, :-1])
    loss = nn.functional.cross_entropy(logits.reshape(-1, 20), ids[:, 1:].reshape(-1))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(step, loss.item())
