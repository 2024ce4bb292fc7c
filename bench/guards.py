"""What guards cost: a training step of the regenerated module with its checks on and off, in turns, and the
checks by themselves.

    python bench/guards.py [--scale N] [--pairs N] [--threads N] [--device cuda|cpu] [--markdown FILE]

Per model of `bench/models.py`, and of `Guarded` below, which takes all kinds of things for granted: guards,
nodes of the graph, the median step with checks off (CPU time on a CPU), the median ratio of a pair of steps
(on / off; which comes first changes from pair to pair), and the checks themselves. The last column is those
that run before the graph, as a part of the step: on a shared machine it says more than the ratio.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(1, str(Path(__file__).resolve().parent.parent))

from models import MODELS

from fxgrad import fix


class Block(nn.Module):
    """Attention as people write it: sizes compared, numbers kept as attributes, the training flag read."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale, self.rate = heads, (width // heads) ** -0.5, 0.1
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, c = x.shape
        if c % self.heads != 0:
            raise ValueError("the heads do not fit")
        q, k, v = (
            self.qkv(self.norm(x)).view(b, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        )
        weights = (q @ k.transpose(-1, -2) * self.scale).softmax(-1).to(x.dtype)
        weights = nn.functional.dropout(weights, self.rate, self.training)
        return x + self.out((weights @ v).transpose(1, 2).reshape(b, t, c))


class Guarded(nn.Module):
    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.limit = 4096
        self.embed = nn.Embedding(1000, width)
        self.blocks = nn.ModuleList([Block(width, 4) for _ in range(blocks)])

    def forward(
        self, ids: torch.Tensor, mask: torch.Tensor | None = None, reduce: str = "mean"
    ) -> torch.Tensor:
        if ids.dim() != 2 or ids.shape[1] > self.limit:
            raise ValueError("too long")
        h = self.embed(ids)
        for block in self.blocks:
            h = block(h)
        return h.mean() if reduce == "mean" else h.sum()


def guarded(scale: int) -> tuple[nn.Module, tuple[torch.Tensor, ...], Any]:
    return Guarded(64 * scale, 6), (torch.randint(1000, (8 * scale, 32)),), None


Setup = Callable[[int], tuple[nn.Module, tuple[torch.Tensor, ...], Any]]


def row(name: str, make: Setup, scale: int, pairs: int, device: str) -> str:
    """One model's line of the table."""
    torch.manual_seed(0)
    model, inputs, loss = make(scale)
    model, inputs = model.to(device), tuple(t.to(device) for t in inputs)
    module: Any = fix(model, inputs, loss=loss).module

    # CPU time: others use the machine too
    clock = time.perf_counter if device == "cuda" else time.process_time

    def step(enabled: bool) -> float:
        module.guards.enabled = enabled
        start = clock()
        out = module(*inputs)
        (loss(out) if loss is not None else out if out.dim() == 0 else out.sum()).backward()
        if device == "cuda":
            torch.cuda.synchronize()
        return clock() - start

    for _ in range(5):
        step(True), step(False)
    ratios, off = [], []
    for pair in range(pairs):
        first = pair % 2 == 0
        times = {enabled: step(enabled) for enabled in (first, not first)}
        ratios.append(times[True] / times[False])
        off.append(times[False])
    module.guards.enabled = True
    start = clock()
    for _ in range(1000):
        module.guards.check(module, *inputs)
    check = (clock() - start) / 1000
    median = statistics.median(off)
    inside = sum(guard.inside for guard in module.guards)
    counts = f"{len(module.guards)} | {inside} | {len(module.graph.nodes)}"
    return (
        f"| {name} | {counts} | {median * 1e3:.2f} ms | {statistics.median(ratios):.4f} | "
        f"{check * 1e6:.1f} µs | {check / median:.2%} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", choices=["cuda", "cpu"])
    parser.add_argument("--scale", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    where = (
        torch.cuda.get_device_name()
        if options.device == "cuda"
        else platform.processor() or platform.machine()
    )
    lines = [
        f"# Guards, measured\n\n{datetime.date.today()}. Command: `python {' '.join(sys.argv)}`. {where}, "
        f"torch {torch.__version__}, "
        f"Python {platform.python_version()}.\n",
        "| model | guards | inside the graph | nodes | step, checks off | on / off | checks before the graph "
        "| of the step |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, make in {**MODELS, "Guarded": guarded}.items():
        lines.append(row(name, make, options.scale, options.pairs, options.device))
        print(lines[-1], flush=True)
    if options.markdown:
        options.markdown.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
