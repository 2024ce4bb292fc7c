"""Whole programs from a seed: a hierarchy of modules, its inputs and its loss, as text that is compiled and can be read when one fails.

A hidden state of shape (rows, 8) goes through a few pieces, each a line or some in `__init__` and in `forward`. Every piece maps such a state
to another, so each sequence of them is a program. Kinds: layers, in-place writes, views, cuts, Functions, checkpoints, recurrent nets,
transforms, control flow, state, draws, hooks, threads, other tensor types. Eager may refuse a program, in forward or in backward: that is its
answer, too.
"""

from __future__ import annotations

import linecache
import random
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

WIDTH = 8
ROWS = 3


@dataclass(frozen=True, slots=True)
class Piece:
    """What stands in `__init__` and in `forward`; `N` is the piece's number."""

    kind: str
    made: tuple[str, ...]
    done: tuple[str, ...]


def piece(kind: str, made: str, done: str) -> Piece:
    return Piece(kind, tuple(filter(None, made.split("; "))), tuple(done.split("\n")))


LINEAR = "self.lN = nn.Linear(8, 8)"
PIECES = (
    piece("layers", LINEAR, "h = torch.tanh(self.lN(h))"),
    piece("layers", LINEAR, "h = h + F.gelu(self.lN(h))"),
    piece("layers", LINEAR + "; self.nN = nn.LayerNorm(8)", "h = self.nN(self.lN(h))"),
    piece("layers", "self.nN = nn.BatchNorm1d(8)", "h = self.nN(h)"),
    piece("layers", LINEAR + "; self.dN = nn.Dropout(0.3)", "h = self.dN(self.lN(h))"),
    piece("layers", "self.eN = nn.Embedding(5, 8)", "h = h + self.eN(h.detach().argmax(1) % 5)"),
    piece("layers", "self.cN = nn.Conv1d(1, 1, 3, padding=1)", "h = self.cN(h.unsqueeze(1)).squeeze(1)"),
    piece("layers", "self.aN = nn.MultiheadAttention(8, 2, batch_first=True)", "h = h + self.aN(h[None], h[None], h[None])[0][0]"),
    piece("layers", "self.pN = nn.ParameterList([nn.Parameter(torch.rand(8)) for _ in range(2)])", "for p in self.pN:\n    h = h * p"),
    piece("layers", "self.pN = nn.ParameterDict({'a': torch.rand(8), 'b': torch.rand(8)})", "h = h * self.pN['a']"),
    piece("layers", "self.lN = nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))", "h = self.lN(h)"),
    piece("layers", LINEAR + "; self.kN = nn.Linear(8, 8); self.kN.weight = self.lN.weight", "h = self.kN(torch.relu(self.lN(h)))"),
    piece("layers", LINEAR + "; self.lN.requires_grad_(False)", "h = self.lN(h)"),
    piece("layers", LINEAR + "; self.unN = nn.Linear(8, 8)", "h = self.lN(h)"),
    piece("writes", LINEAR, "h = self.lN(h)\nh.relu_()"),
    piece("writes", LINEAR, "h = torch.sigmoid(self.lN(h))\nh.mul_(2)"),
    piece("writes", LINEAR, "h = torch.relu(self.lN(h))\nh += 1"),
    piece("writes", LINEAR + "; self.sN = nn.Parameter(torch.rand(8))", "h = self.lN(h) * self.sN\nh.add_(h.detach())"),
    piece("writes", "", "h = h.exp()\nh.clamp_(max=3.0)"),
    piece("writes", "", "h = h.clone()\nh.masked_fill_(h > 1, 0.5)"),
    piece("writes", LINEAR, "h = F.leaky_relu(self.lN(h), 0.1, inplace=True)"),
    piece("writes", LINEAR, "o = torch.empty_like(h)\nwith torch.no_grad():\n    torch.mul(h, 2, out=o)\nh = self.lN(h) + o"),
    piece("views", LINEAR, "h = self.lN(h)\nh[:, 1:3] += 1"),
    piece("views", LINEAR, "h = torch.tanh(self.lN(h))\nh[0] = 0.0"),
    piece("views", LINEAR, "h = torch.sigmoid(self.lN(h))\nh[:, ::2].mul_(h[:, 1::2])"),
    piece("views", LINEAR, "h = self.lN(h)\nh.t().add_(1)"),
    piece("views", "", "h = h.clone()\nv = h.view(-1)\nv[::3].mul_(0.5)\nh = h * v.sum()"),
    piece("views", LINEAR, "a, b = self.lN(h).chunk(2, 1)\nh = torch.cat([a * torch.sigmoid(b), b], 1)"),
    piece("views", LINEAR, "h = self.lN(h)\nh.select(1, 0).copy_(h.select(1, 1))"),
    piece("views", LINEAR, "h = self.lN(h)\nh.diagonal().zero_()"),
    piece("views", "", "h = h.clone()\nh[h > 0] = 0.1"),
    piece("views", LINEAR, "m = torch.zeros(h.size(0), 8)\nm[:, 2:5] = self.lN(h)[:, :3]\nh = h + m"),
    piece("cuts", LINEAR, "h = h + self.lN(h).detach()"),
    piece("cuts", LINEAR, "with torch.no_grad():\n    t = self.lN(h)\nh = h - t"),
    piece("cuts", LINEAR, "h = h + (self.lN(h) > 0).float()"),
    piece("cuts", LINEAR, "h = h + torch.from_numpy(self.lN(h).detach().numpy())"),
    piece("cuts", LINEAR, "h = h * float(self.lN(h).detach().mean())"),
    piece("cuts", LINEAR, "h = h * (self.lN(h).detach().abs().max().item() + 1)"),
    piece("cuts", LINEAR, "h = h + torch.tensor(self.lN(h).tolist())"),
    piece("functions", LINEAR, "h = Double.apply(self.lN(h))"),
    piece("functions", LINEAR, "h = Straight.apply(self.lN(h))"),
    piece("functions", LINEAR, "h = h + Stop.apply(self.lN(h))"),
    piece("functions", LINEAR, "h = InPlace.apply(self.lN(h))"),
    piece("checkpoints", LINEAR, "h = checkpoint(self.lN, h, use_reentrant=False)"),
    piece("checkpoints", LINEAR, "h = checkpoint(lambda t: torch.tanh(self.lN(t)), h, use_reentrant=True)"),
    piece("checkpoints", "self.qN = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU())", "h = checkpoint(self.qN, h, use_reentrant=False)"),
    piece("recurrent", "self.rN = nn.LSTM(8, 8)", "h = self.rN(h.unsqueeze(1))[0].squeeze(1)"),
    piece("recurrent", "self.rN = nn.GRUCell(8, 8)", "s = torch.zeros_like(h)\nfor _ in range(2):\n    s = self.rN(h, s)\nh = s"),
    piece("transforms", LINEAR, "h = torch.vmap(lambda r: torch.sin(r) * 2)(self.lN(h))"),
    piece("transforms", LINEAR, "h = h + torch.func.grad(lambda t: (t ** 3).sum())(self.lN(h))"),
    piece("transforms", LINEAR, "h = torch.func.functional_call(self.lN, {k: v * 2 for k, v in self.lN.named_parameters()}, (h,))"),
    piece("transforms", LINEAR, "g, = torch.autograd.grad(self.lN(h).sum(), self.lN.weight, create_graph=True)\nh = h @ g"),
    piece("control", LINEAR, "if h.sum() > 0:\n    h = self.lN(h)"),
    piece("control", LINEAR, "for i in range(h.shape[0]):\n    h = h + self.lN(h[i])"),
    piece("control", LINEAR, "h = torch.stack([self.lN(r) for r in h])"),
    piece("control", LINEAR, "h = self.lN(h) if self.training else h"),
    piece("control", LINEAR, "h = self.lN(h) if h.shape[0] > 2 else h * 2"),
    piece("control", LINEAR, "try:\n    h = self.lN(h) + torch.rand(h.shape[0] + 1, 8)\nexcept RuntimeError:\n    h = self.lN(h) - 1"),
    piece("control", LINEAR, "h = h + sum(self.lN(part).sum() for part in h.split(2))"),
    piece("state", LINEAR + "; self.register_buffer('countN', torch.zeros(()))", "self.countN += 1\nh = self.lN(h) / (self.countN + 1)"),
    piece("state", "self.register_buffer('meanN', torch.zeros(8))", "self.meanN.mul_(0.9).add_(h.detach().mean(0), alpha=0.1)\nh = h - self.meanN"),
    piece("state", "self.register_buffer('seenN', torch.zeros(8))", "self.seenN = h.detach().amax(0)\nh = h / (self.seenN.abs() + 1)"),
    piece("state", LINEAR + "; self.callsN = 0", "self.callsN += 1\nh = self.lN(h) * self.callsN"),
    piece("state", LINEAR, "self.lastN = h\nh = self.lN(self.lastN)"),
    piece("state", LINEAR + "; self.cacheN = {}", "if 'h' not in self.cacheN:\n    self.cacheN['h'] = 2.0\nh = self.lN(h) * self.cacheN['h']"),
    piece("draws", LINEAR, "h = self.lN(h) + torch.rand_like(h)"),
    piece("draws", LINEAR, "h = self.lN(h) * (1 + random.random())"),
    piece("draws", LINEAR, "h = self.lN(h) * float(np.random.rand())"),
    piece("draws", LINEAR, "h = self.lN(h)[torch.randperm(h.shape[0])]"),
    piece("draws", LINEAR, "h = F.gumbel_softmax(self.lN(h), hard=True)"),
    piece("hooks", LINEAR + "; self.lN.register_forward_hook(lambda m, a, o: o * 2)", "h = self.lN(h)"),
    piece("hooks", LINEAR + "; self.lN.register_full_backward_hook(lambda m, i, o: tuple(None if t is None else t * 2 for t in i))", "h = self.lN(h)"),
    piece("hooks", LINEAR, "h = self.lN(h)\nif h.requires_grad:\n    h.register_hook(lambda g: g * 3)"),
    piece("hooks", LINEAR, "h = self.lN(h)\nif h.requires_grad:\n    h.register_hook(torch.zeros_like)"),
    piece("hooks", LINEAR + "; self.lN.weight.register_hook(lambda g: g.clamp(-1, 1))", "h = self.lN(h)"),
    piece("hooks", LINEAR, "with torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t):\n    h = torch.tanh(self.lN(h))"),
    piece("threads", LINEAR, "got = []\nt = threading.Thread(target=lambda: got.append(threading.get_ident()))\nt.start()\nt.join()\nh = self.lN(h) * len(got)"),
    piece("threads", LINEAR, "with ThreadPoolExecutor(1) as pool:\n    h = pool.submit(lambda t: torch.tanh(self.lN(t)), h).result()"),
    piece("types", LINEAR, "h = self.lN(h)\nh = h + torch.fft.ifft(torch.fft.fft(h) * 2).real"),
    piece("types", LINEAR, "h = self.lN(h.double().float())"),
    piece("types", LINEAR, "with torch.autocast('cpu', dtype=torch.bfloat16):\n    t = self.lN(h)\nh = h + t.float()"),
    piece("types", LINEAR, "h = torch.sparse.mm(torch.eye(h.shape[0]).to_sparse(), self.lN(h))"),
    piece("types", LINEAR, "h = torch.view_as_real(torch.view_as_complex(self.lN(h).reshape(-1, 4, 2)) * 1j).reshape(-1, 8)"),
    piece("types", LINEAR, "h = self.lN(h).expand(2, -1, -1).sum(0)"),
    piece("gathers", LINEAR, "h = self.lN(h).gather(1, torch.arange(8).flip(0).expand(h.shape[0], 8))"),
    piece("gathers", LINEAR, "h = torch.zeros_like(h).index_add(1, torch.arange(8) % 4, self.lN(h))"),
    piece("gathers", LINEAR, "h = self.lN(h).cumsum(1).sort(1).values"),
    piece("gathers", LINEAR, "t = self.lN(h).topk(3, 1)\nh = h + t.values.sum(1, keepdim=True)"),
    piece("gathers", LINEAR, "h = torch.where(h > 0, self.lN(h), h)"),
)  # fmt: skip
LOSSES = (
    "o.sum()",
    "o.square().mean()",
    "F.mse_loss(o, torch.ones_like(o))",
    "F.cross_entropy(o, torch.arange(len(o)) % 8)",
    "-(o.detach() * o).mean()",
)
HEAD = """
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint


class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, g):
        return 2 * ctx.saved_tensors[0] * g


class Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.sign()

    @staticmethod
    def backward(ctx, g):
        return g


class Stop(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, g):
        return None


class InPlace(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.mark_dirty(x)
        return x.mul_(2)

    @staticmethod
    def backward(ctx, g):
        return 2 * g

"""


def text_of(seed: int) -> str:
    """The program's text: blocks of pieces, one inside another, and a `Net` of them."""
    draw = random.Random(seed)
    blocks = draw.randint(1, 3)
    parts = [HEAD]
    for number in range(blocks):
        name = "Net" if number == blocks - 1 else f"Block{number}"
        parts.append(_module(draw, name, f"Block{number - 1}" if number else ""))
    parts.append(f"\ndef loss(o):\n    return {draw.choice(LOSSES)}\n")
    return "\n".join(parts)


def kinds_of(seed: int) -> set[str]:
    """The kinds of the program's pieces."""
    text = text_of(seed)
    return {line.partition("# ")[2] for line in text.splitlines() if "# " in line}


def _module(draw: random.Random, name: str, inner: str) -> str:
    made, done = [], []
    count = draw.randint(1, 4)
    place = draw.randrange(count) if inner else -1
    for number in range(count):
        if number == place:
            made.append(f"self.inner = {inner}()")
            done.append(draw.choice(["h = self.inner(h)", "h = h + self.inner(h)", "h = checkpoint(self.inner, h, use_reentrant=False)"]))
        one = draw.choice(PIECES)
        made += [_numbered(line, number) for line in one.made]
        lines = [_numbered(line, number) for line in one.done]
        done += [f"{lines[0]}  # {one.kind}", *lines[1:]]
    body = "".join(f"        {line}\n" for line in ["super().__init__()", *made])
    forward = "".join(f"        {line}\n" for line in [*done, "return h"])
    return f"\nclass {name}(nn.Module):\n    def __init__(self):\n{body}\n    def forward(self, h):\n{forward}\n"


def _numbered(line: str, number: int) -> str:
    """`self.lN` of the third piece is `self.l2`."""
    words = line.split("self.")
    for position in range(1, len(words)):
        end = next((k for k, c in enumerate(words[position]) if not (c.isalnum() or c == "_")), len(words[position]))
        word = words[position][:end]
        if word.endswith("N"):
            words[position] = word[:-1] + str(number) + words[position][end:]
    return "self.".join(words).replace("N')", f"{number}')").replace("N',", f"{number}',")


@dataclass(frozen=True, slots=True)
class Whole:
    """A program that can be built again and again: the module's class, its loss, and inputs of any number of rows."""

    text: str
    namespace: dict[str, Any]

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        model: nn.Module = self.namespace["Net"]()
        return model

    def loss(self, output: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = self.namespace["loss"](output)
        return loss

    @staticmethod
    def inputs(number: int, rows: int = ROWS) -> tuple[torch.Tensor]:
        return (torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(number)),)


def whole(seed: int) -> Whole:
    """The program of a seed."""
    text = text_of(seed)
    file = f"<whole program {seed}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    namespace: dict[str, Any] = {"__name__": f"whole_{seed}"}
    exec(compile(text, file, "exec"), namespace)
    return Whole(text, namespace)
