"""A training bug as it is met: the auxiliary head trains, the encoder behind it silently does not."""

import torch
import torch.nn.functional as F
from torch import nn


class Speaker(nn.Module):
    def __init__(self, features: int = 40, hidden: int = 64, speakers: int = 10) -> None:
        super().__init__()
        self.encoder = nn.GRU(features, hidden, batch_first=True)
        self.project = nn.Linear(hidden, hidden)
        self.gate = nn.Linear(hidden, hidden)
        self.classify = nn.Linear(hidden, speakers)
        self.unused = nn.Linear(hidden, 2)

    def embed(self, audio):
        states, _ = self.encoder(audio)
        return F.normalize(self.project(states.mean(1)), dim=-1)

    def forward(self, audio):
        embedding = self.embed(audio).detach()
        gated = embedding * torch.sigmoid(self.gate(embedding))
        return self.classify(gated)


model = Speaker()
example_inputs = (torch.randn(4, 20, 40),)


def loss(logits):
    return F.cross_entropy(logits, torch.tensor([0, 1, 2, 3]))
