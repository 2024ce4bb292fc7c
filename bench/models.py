"""Models that write in place as published code does, for the benchmark of rewriting. `MODELS` makes each with
its inputs and loss.

Some run as they are written (ResNet, U-Net, DenseNet), the others raise in backward. Every size is an
argument: the small ones fit a CPU test, `scale=4` a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


def convolution(i: int, o: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU(inplace=True))


class Residual(nn.Module):
    """torchvision's basic block: ReLU in place, the sum in place."""

    def __init__(self, i: int, o: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o)
        self.conv2, self.bn2 = nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)
        self.relu = nn.ReLU(inplace=True)
        self.down = (
            nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))
            if stride > 1 or i != o
            else None
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        identity = x if self.down is None else self.down(x)
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += identity
        return self.relu(out)


class ResNet(nn.Module):
    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.stem = convolution(3, width)
        stages = [(width, width, 1), (width, 2 * width, 2), (2 * width, 4 * width, 2)]
        layers = [
            Residual(i if b == 0 else o, o, s if b == 0 else 1) for i, o, s in stages for b in range(blocks)
        ]
        self.body, self.head = nn.Sequential(*layers), nn.Linear(4 * width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.stem(x)).mean((2, 3)))


class UNet(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        w = [width, 2 * width, 4 * width]
        self.down = nn.ModuleList([convolution(3, w[0]), convolution(w[0], w[1]), convolution(w[1], w[2])])
        self.up = nn.ModuleList([nn.ConvTranspose2d(w[2], w[1], 2, 2), nn.ConvTranspose2d(w[1], w[0], 2, 2)])
        self.merge = nn.ModuleList([convolution(2 * w[1], w[1]), convolution(2 * w[0], w[0])])
        self.out = nn.Conv2d(w[0], 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.down[0](x)
        b = self.down[1](F.max_pool2d(a, 2))
        c = self.down[2](F.max_pool2d(b, 2))
        c = self.merge[0](torch.cat([F.relu(self.up[0](c), inplace=True), b], 1))
        return self.out(self.merge[1](torch.cat([F.relu(self.up[1](c), inplace=True), a], 1)))


class DenseLayer(nn.Module):
    def __init__(self, i: int, growth: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(i), nn.Conv2d(i, growth, 3, 1, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.conv(F.relu(self.norm(x), inplace=True))], 1)


class DenseNet(nn.Module):
    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, 2, 1)
        self.body = nn.Sequential(*(DenseLayer(width + k * width // 2, width // 2) for k in range(layers)))
        self.head = nn.Linear(width + layers * (width // 2), 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.stem(x)).mean((2, 3)))


class ScaledBlock(nn.Module):
    """A normaliser-free block: squeeze-excite gate and residual gain are applied in place, to what they were
    computed from."""

    def __init__(self, width: int, alpha: float = 0.2) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(width, width, 3, 1, 1), nn.Conv2d(width, width, 3, 1, 1)
        self.gate, self.gain, self.alpha = nn.Linear(width, width), nn.Parameter(torch.ones(())), alpha

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.conv2(F.silu(self.conv1(x)))
        gate = torch.sigmoid(self.gate(out.mean((2, 3))))
        gate.mul_(2)
        out = out * gate[:, :, None, None]
        out.mul_(self.gain).mul_(self.alpha)
        return out + x


class NFNet(nn.Module):
    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, 2, 1)
        self.body, self.head = (
            nn.Sequential(*(ScaledBlock(width) for _ in range(blocks))),
            nn.Linear(width, 10),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.stem(x)).mean((2, 3)))


class SlotRNN(nn.Module):
    """A recurrent net that writes each state into a slot and reads the last slot back."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner, self.outer, self.head = (
            nn.Linear(width, width),
            nn.Linear(width, width),
            nn.Linear(width, 10),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states = x.new_zeros(x.shape[1] + 1, x.shape[0], x.shape[2])
        for t in range(x.shape[1]):
            states[t + 1] = torch.tanh(self.inner(x[:, t]) + self.outer(states[t]))
        return self.head(states[1:].mean(0))


class Block(nn.Module):
    """A transformer block that masks scores in place, and the weights after softmax as well."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.ReLU(inplace=True), nn.Linear(4 * width, width)
        )

    def forward(self, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        b, n, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-1, -2) * (d // self.heads) ** -0.5
        scores.masked_fill_(~keep, -1e4)
        weights = torch.softmax(scores, -1)
        weights.masked_fill_(~keep, 0.0)
        x = x + self.out((weights @ v).transpose(1, 2).reshape(b, n, d))
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.blocks, self.head = (
            nn.ModuleList([Block(width, heads) for _ in range(layers)]),
            nn.Linear(width, 10),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        keep = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
        for block in self.blocks:
            x = block(x, keep)
        return self.head(x.mean(1))


def cross_entropy(out: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(out, torch.arange(out.shape[0], device=out.device) % out.shape[1])


def square(out: torch.Tensor) -> torch.Tensor:
    return out.square().mean()


Made = tuple[nn.Module, tuple[torch.Tensor, ...], Callable[[Any], torch.Tensor]]

MODELS: dict[str, Callable[[int], Made]] = {
    "ResNet, ReLU(inplace=True)": lambda s: (
        ResNet(16 * s, 2),
        (torch.randn(4 * s, 3, 32, 32),),
        cross_entropy,
    ),
    "U-Net": lambda s: (UNet(8 * s), (torch.randn(2 * s, 3, 32 * s, 32 * s),), square),
    "DenseNet-like": lambda s: (DenseNet(16 * s, 6), (torch.randn(4 * s, 3, 32, 32),), cross_entropy),
    "NFNet-like, in-place scaling": lambda s: (
        NFNet(16 * s, 4),
        (torch.randn(4 * s, 3, 32, 32),),
        cross_entropy,
    ),
    "RNN that fills slots": lambda s: (SlotRNN(64 * s), (torch.randn(8 * s, 32, 64 * s),), cross_entropy),
    "Transformer, in-place masking": lambda s: (
        Transformer(64 * s, 4, 2),
        (torch.randn(4 * s, 32 * s, 64 * s),),
        cross_entropy,
    ),
}
