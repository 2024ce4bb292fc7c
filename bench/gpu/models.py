"""Seven models as people train them, each with writes in place; three of them raise in backward as they are
written.

`MODELS` makes each with its inputs and loss, at full size for a GPU or, `tiny`, at a size that a test on a
CPU can take. Nothing is downloaded and no package but torch is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

Made = tuple[nn.Module, tuple[torch.Tensor, ...], Callable[[Any], torch.Tensor]]


# --------------------------------------------------------------------------- ResNet-50: runs as it is written


class Bottleneck(nn.Module):
    def __init__(self, i: int, width: int, stride: int) -> None:
        super().__init__()
        o = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(i, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, o, 1, bias=False), nn.BatchNorm2d(o)
        self.relu = nn.ReLU(inplace=True)
        self.down = (
            nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))
            if stride > 1 or i != o
            else None
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += x if self.down is None else self.down(x)
        return self.relu(out)


class ResNet(nn.Module):
    def __init__(self, width: int, blocks: tuple[int, ...], classes: int) -> None:
        super().__init__()
        stem = (
            nn.Conv2d(3, width, 7, 2, 3, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        )
        layers: list[nn.Module] = list(stem)
        channels = width
        for stage, count in enumerate(blocks):
            for block in range(count):
                layers.append(Bottleneck(channels, width << stage, 2 if stage and not block else 1))
                channels = 4 * (width << stage)
        self.body, self.head = nn.Sequential(*layers), nn.Linear(channels, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).mean((2, 3)))


# ---------------------------------------------------------------------------- ConvNeXt: runs as it is written


class ConvNeXtBlock(nn.Module):
    """The layer scale and the drop path are applied in place."""

    def __init__(self, width: int, drop: float = 0.1) -> None:
        super().__init__()
        self.depthwise, self.norm = (
            nn.Conv2d(width, width, 7, padding=3, groups=width),
            nn.LayerNorm(width, eps=1e-6),
        )
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale, self.drop = nn.Parameter(1e-2 * torch.ones(width)), drop

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        out = self.down(F.gelu(self.up(out)))
        out.mul_(self.scale)
        if self.training:
            keep = out.new_empty(out.shape[0], 1, 1, 1).bernoulli_(1 - self.drop).div_(1 - self.drop)
            out = out * keep
        out = out.permute(0, 3, 1, 2)
        out += x
        return out


class ConvNeXt(nn.Module):
    def __init__(self, width: int, blocks: tuple[int, ...], classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, 4)]
        for stage, count in enumerate(blocks):
            if stage:
                layers.append(nn.Conv2d(width << (stage - 1), width << stage, 2, 2))
            layers += [ConvNeXtBlock(width << stage) for _ in range(count)]
        self.body, self.head = nn.Sequential(*layers), nn.Linear(width << (len(blocks) - 1), classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).mean((2, 3)))


# ------------------------------------------------------------------------------- U-Net: runs as it is written


def double(i: int, o: int) -> nn.Sequential:
    pair = ((i, o), (o, o))
    layers = [
        (nn.Conv2d(a, b, 3, 1, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU(inplace=True)) for a, b in pair
    ]
    return nn.Sequential(*layers[0], *layers[1])


class UNet(nn.Module):
    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        widths = [width << level for level in range(depth)]
        self.down = nn.ModuleList(double(i, o) for i, o in zip([3, *widths], widths, strict=False))
        pairs = [(widths[level], widths[level - 1]) for level in range(depth - 1, 0, -1)]
        self.up = nn.ModuleList(nn.ConvTranspose2d(i, o, 2, 2) for i, o in pairs)
        self.merge = nn.ModuleList(double(2 * o, o) for _, o in pairs)
        self.out = nn.Conv2d(width, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat([F.relu(up(x), inplace=True), skips.pop()], 1))
        return self.out(x)


# ------------------------------------------- ViT-B: raises, softmax saved the weights that are gated in place


class ViTBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.gate = nn.Parameter(torch.ones(heads, 1, 1))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        weights = torch.softmax(q @ k.transpose(-1, -2) * (d // self.heads) ** -0.5, -1)
        weights *= self.gate
        x = x + self.out((weights @ v).transpose(1, 2).reshape(b, n, d))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class ViT(nn.Module):
    def __init__(self, width: int, heads: int, layers: int, image: int, patch: int, classes: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(0.02 * torch.randn(1, (image // patch) ** 2 + 1, width))
        self.blocks = nn.Sequential(*(ViTBlock(width, heads) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1)
        x += self.position
        return self.head(self.norm(self.blocks(x))[:, 0])


# ------------------------- Llama blocks: raises, the norm saved the residual stream that is added to in place


class RMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5))


class LlamaBlock(nn.Module):
    def __init__(self, width: int, heads: int, groups: int, hidden: int) -> None:
        super().__init__()
        self.heads, self.groups, size = heads, groups, width // heads
        self.q, self.o = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.k, self.v = (
            nn.Linear(width, groups * size, bias=False),
            nn.Linear(width, groups * size, bias=False),
        )
        self.gate, self.up = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        self.norm1, self.norm2 = RMSNorm(width), RMSNorm(width)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        b, n, d = x.shape
        h = self.norm1(x)
        q = rotated(self.q(h).view(b, n, self.heads, -1).transpose(1, 2), cos, sin)
        k = rotated(self.k(h).view(b, n, self.groups, -1).transpose(1, 2), cos, sin)
        v = self.v(h).view(b, n, self.groups, -1).transpose(1, 2)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x += self.o(attended.transpose(1, 2).reshape(b, n, d))
        h = self.norm2(x)
        x += self.down(F.silu(self.gate(h)) * self.up(h))
        return x


def rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Llama(nn.Module):
    def __init__(
        self, tokens: int, width: int, heads: int, groups: int, hidden: int, layers: int, length: int
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        self.blocks = nn.ModuleList(LlamaBlock(width, heads, groups, hidden) for _ in range(layers))
        self.norm, self.head = RMSNorm(width), nn.Linear(width, tokens, bias=False)
        size = width // heads // 2
        angles = torch.outer(torch.arange(length).float(), 10000.0 ** (-torch.arange(size).float() / size))
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x, self.cos[: ids.shape[1]], self.sin[: ids.shape[1]])
        return self.head(self.norm(x))


# --------------------------------------------- LSTM: raises, sigmoid saved the gate that is added to in place


class Tagger(nn.Module):
    """A recurrent tagger: `nn.LSTM` (cuDNN's on a GPU), its outputs gated and masked in place."""

    def __init__(self, tokens: int, width: int, layers: int, tags: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        self.lstm = nn.LSTM(width, width, layers, batch_first=True)
        self.gate, self.head = nn.Linear(width, width), nn.Linear(width, tags)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        h, _ = self.lstm(self.embedding(ids))
        gate = torch.sigmoid(self.gate(h))
        gate += 1
        h = h * gate
        h.masked_fill_((ids == 0)[..., None], 0.0)
        return self.head(h)


# ---------------------------------------------------------------------------- GAN step: runs as it is written


class GanStep(nn.Module):
    """Both losses of a DCGAN from one batch of pictures and noise."""

    def __init__(self, noise: int, width: int) -> None:
        super().__init__()
        sizes = [8 * width, 4 * width, 2 * width, width]
        layers: list[nn.Module] = [nn.ConvTranspose2d(noise, sizes[0], 4, 1, 0, bias=False)]
        for i, o in zip(sizes, sizes[1:], strict=False):
            layers += [
                nn.BatchNorm2d(i),
                nn.ReLU(inplace=True),
                nn.ConvTranspose2d(i, o, 4, 2, 1, bias=False),
            ]
        layers += [
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(width, 3, 4, 2, 1, bias=False),
            nn.Tanh(),
        ]
        self.generator = nn.Sequential(*layers)
        layers = [nn.Conv2d(3, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True)]
        for o, i in zip(sizes[-2::-1], sizes[:0:-1], strict=True):
            layers += [
                nn.Conv2d(i, o, 4, 2, 1, bias=False),
                nn.BatchNorm2d(o),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        self.critic = nn.Sequential(*layers, nn.Conv2d(sizes[0], 1, 4, 1, 0, bias=False))

    def forward(self, real: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        fake = self.generator(noise)
        told = F.softplus(-self.critic(real)).mean() + F.softplus(self.critic(fake.detach())).mean()
        fooled = F.softplus(-self.critic(fake))
        fooled.mul_(0.5)
        return told + fooled.mean()


# ------------------------------------------------------------------------------------------------ with inputs


def cross_entropy(out: torch.Tensor) -> torch.Tensor:
    flat = out.flatten(0, -2).float()
    return F.cross_entropy(flat, torch.arange(flat.shape[0], device=out.device) % flat.shape[1])


def square(out: torch.Tensor) -> torch.Tensor:
    return out.square().mean()


def itself(out: torch.Tensor) -> torch.Tensor:
    return out


def _resnet(tiny: bool) -> Made:
    model = ResNet(8, (1, 1), 10) if tiny else ResNet(64, (3, 4, 6, 3), 1000)
    return model, (torch.randn(2, 3, 32, 32) if tiny else torch.randn(64, 3, 224, 224),), cross_entropy


def _convnext(tiny: bool) -> Made:
    model = ConvNeXt(8, (1, 1), 10) if tiny else ConvNeXt(96, (3, 3, 9, 3), 1000)
    return model, (torch.randn(2, 3, 32, 32) if tiny else torch.randn(64, 3, 224, 224),), cross_entropy


def _unet(tiny: bool) -> Made:
    model = UNet(4, 2) if tiny else UNet(64, 5)
    return model, (torch.randn(1, 3, 16, 16) if tiny else torch.randn(8, 3, 256, 256),), square


def _vit(tiny: bool) -> Made:
    model = ViT(16, 2, 2, 16, 8, 10) if tiny else ViT(768, 12, 12, 224, 16, 1000)
    return model, (torch.randn(2, 3, 16, 16) if tiny else torch.randn(64, 3, 224, 224),), cross_entropy


def _llama(tiny: bool) -> Made:
    model = Llama(64, 32, 4, 2, 64, 2, 16) if tiny else Llama(32000, 2048, 32, 8, 8192, 16, 1024)
    ids = torch.randint(0, 64, (2, 8)) if tiny else torch.randint(0, 32000, (2, 1024))
    return model.bfloat16(), (ids,), cross_entropy


def _lstm(tiny: bool) -> Made:
    model = Tagger(50, 16, 1, 5) if tiny else Tagger(20000, 1024, 2, 50)
    return (
        model,
        (torch.randint(0, 50, (2, 6)) if tiny else torch.randint(0, 20000, (64, 128)),),
        cross_entropy,
    )


def _gan(tiny: bool) -> Made:
    model, n = (GanStep(4, 4), 2) if tiny else (GanStep(100, 64), 128)
    return model, (torch.randn(n, 3, 64, 64), torch.randn(n, 4 if tiny else 100, 1, 1)), itself


MODELS: dict[str, Callable[[bool], Made]] = {
    "ResNet-50": _resnet,
    "ConvNeXt-T": _convnext,
    "U-Net": _unet,
    "ViT-B/16": _vit,
    "Llama blocks, 1B, bf16": _llama,
    "LSTM tagger": _lstm,
    "GAN step": _gan,
}
BREAKING = ("ViT-B/16", "Llama blocks, 1B, bf16", "LSTM tagger")
