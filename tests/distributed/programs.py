"""Models for two processes: some leave parameters out of backward, some only seem to. Imported by the test and by the workers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

WIDTH = 4


class Base(nn.Module):
    """A body, a layer that a program may leave out, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.extra, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 1)


class Healthy(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.extra(self.body(x).tanh()))


class NeverCalled(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).tanh())


class ResultUnread(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.body(x).tanh()
        self.extra(h)
        return self.head(h)


class Detached(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.body(x).tanh()
        return self.head(h + self.extra(h).detach())


class Frozen(Base):
    """DistributedDataParallel does not wait for what asks for no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.extra.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).tanh())


class TimesZero(Base):
    """A gradient of zeros is a gradient."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.body(x).tanh()
        return self.head(h) + 0.0 * self.extra(h).sum()


class Drop(torch.autograd.Function):
    """Hands on nothing to its second input."""

    @staticmethod
    def forward(ctx: Any, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a + b

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:  # type: ignore[override]
        return grad, None


class LostOnTheWay(Base):
    """Backward arrives at the parameter, with no gradient in hand."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.body(x).tanh()
        return self.head(Drop.apply(h, self.extra(h)))


class Checkpointed(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.body(x).tanh()
        return self.head(checkpoint(self.extra, h, use_reentrant=False))


class Branching(Base):
    """What the data says decides whether a layer takes part."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.body(x).tanh()
        if x.mean() > 0:
            h = self.extra(h)
        return self.head(h)


class TiedAndUnused(Base):
    """A layer left out whose weight takes part elsewhere: only its bias is missed."""

    def __init__(self) -> None:
        super().__init__()
        self.extra.weight = self.body.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).tanh())


class Dying(Base):
    """Backward raises until the write is out of place."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.body(x).tanh()
        h += self.extra(x)
        return self.head(h)


PROGRAMS = (Healthy, NeverCalled, ResultUnread, Detached, Frozen, TimesZero, LostOnTheWay, Checkpointed, TiedAndUnused)


def data(rank: int, sign: float = 1.0) -> torch.Tensor:
    """A process's half of the batch; `sign` decides the branch of `Branching`, the same way on both."""
    return sign * torch.rand(3, WIDTH, generator=torch.Generator().manual_seed(rank), dtype=torch.float64)


def loss_of(out: torch.Tensor) -> torch.Tensor:
    return (out - 1).square().mean()


def build(kind: type[Base]) -> Base:
    torch.manual_seed(0)
    return kind().double()
