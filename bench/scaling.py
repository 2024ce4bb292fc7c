"""How time grows with the number of graph nodes: trace, observe, regenerate and analyze on programs of 1,000 to 10,000 steps.

Prints a table of seconds and, per stage, the exponent of growth between the smallest and the largest size (1.0 is linear). CPU time of
this process, one thread, no garbage collection in between: a figure of the algorithm, not of the machine's load.

    python bench/scaling.py [--sizes 1000 2000 5000 10000] [--programs chain writes views fan layers]
"""

from __future__ import annotations

import argparse
import gc
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from tabulate import tabulate
from torch import nn

import fxgrad
from fxgrad.facts import observe
from fxgrad.regenerate import regenerate
from fxgrad.trace import program, run

STAGES = ("trace", "observe", "regenerate", "analyze")


class Program(nn.Module):
    """One layer and a loop of `steps` turns around it."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.steps = steps


class Chain(Program):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(x)
        for _ in range(self.steps):
            y = y * 1.0001
        return y


class Writes(Program):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(x) + 0
        for _ in range(self.steps // 2):
            y.add_(1)
            y[0].mul_(0.5)
        return y


class Views(Program):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(x).repeat(1, self.steps // 4)
        parts = [y[:, i] for i in range(self.steps // 4)]
        return torch.stack([part.sin().cos().exp() for part in parts])


class Fan(Program):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([self.layer(x) for _ in range(self.steps)])


class Layers(nn.Module):
    def __init__(self, steps: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(steps // 4))  # a call, two parameters and a sum each

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = x + 0.01 * layer(x)  # past a plain stack of them the gradient would vanish
        return x


PROGRAMS: dict[str, type[nn.Module]] = {"chain": Chain, "writes": Writes, "views": Views, "fan": Fan, "layers": Layers}


def seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of one call, and its result."""
    gc.collect()
    gc.disable()
    start = time.process_time()
    try:
        result = call()
        return time.process_time() - start, result
    finally:
        gc.enable()


def measure(kind: type[nn.Module], steps: int) -> tuple[int, dict[str, float]]:
    """Graph nodes, and CPU seconds by stage."""
    model, inputs = kind(steps), (torch.randn(2, 4),)
    target = program(model, inputs, None)
    found = {}
    found["trace"], result = seconds(lambda: run(target, values="real"))
    found["observe"], _ = seconds(lambda: observe(result))
    found["regenerate"], _ = seconds(lambda: regenerate(result))
    found["analyze"], _ = seconds(lambda: fxgrad.analyze(model, inputs))
    return len(result.recorder.graph.nodes), found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 2000, 5000, 10000])
    parser.add_argument("--programs", nargs="+", default=list(PROGRAMS), choices=list(PROGRAMS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    fxgrad.analyze(Chain(10), (torch.randn(2, 4),))  # what is loaded at the first use is not growth
    for name in options.programs:
        rows = [measure(PROGRAMS[name], steps) for steps in options.sizes]
        (few, first), (many, last) = rows[0], rows[-1]
        growth = [math.log(last[s] / first[s]) / math.log(many / few) for s in STAGES]
        table = [[nodes, *(round(found[s], 3) for s in STAGES)] for nodes, found in rows]
        print(f"\n{name}")
        print(tabulate([*table, ["exponent", *(round(g, 2) for g in growth)]], headers=["nodes", *STAGES]))


if __name__ == "__main__":
    main()
