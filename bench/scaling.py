"""How time grows with the size of a program: trace, observe, regenerate, analyze and print, from 1,000 to
50,000 graph nodes.

Prints a table of seconds and, per stage, the exponent of growth to the largest size from the first that takes
20 ms (1.0 is linear). CPU time of this process, one thread, no garbage collection in between: a figure of the
algorithm, not of the machine's load. `size` is the number of graph nodes, or of parameters where that is what
grows.

    python bench/scaling.py [--sizes 1000 10000 50000] [--programs chain writes ...] [--markdown FILE]
"""

from __future__ import annotations

import argparse
import gc
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch import nn

import fxgrad
from fxgrad.fix_graph.regenerate import regenerate
from fxgrad.program.program import program
from fxgrad.trace.experiment import Experiment
from fxgrad.trace.facts import observe
from fxgrad.trace.run import run

STAGES = ("trace", "observe", "regenerate", "analyze", "print")
FELT = 0.02  # seconds: below, a stage is all constant cost


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
        # a call, two parameters and a sum each
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(steps // 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = x + 0.01 * layer(x)  # past a plain stack of them the gradient would vanish
        return x


class Rows(Program):
    """A buffer filled row by row."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = x.new_zeros(self.steps // 4, 4)
        for i in range(self.steps // 4):
            out[i] = self.layer(x)[0]
        return out


class Numbers(Program):
    """A running sum of numbers read off data, used at every step: the origin of the last one is all the
    others."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, total = self.layer(x), 0.0
        for _ in range(self.steps // 5):
            total = total + y.mean().item()
            y = y + 1e-3 * total
        return y


class Sizes(Program):
    """The same with sizes, which stay symbolic."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, total = self.layer(x), 0
        for _ in range(self.steps):
            total = total + y.shape[0]
            y = y + 1e-6 * total
        return y


class Unused(Layers):
    """Thousands of parameters that get no gradient."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers[0](x)


class Cut(Layers):
    """Thousands of parameters behind one cut."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers[0](super().forward(x).detach())


class Cuts(Layers):
    """A cut behind every layer."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers[1:]:
            x = x + layer(x).detach()
        return self.layers[0](x)


class Zeros(Layers):
    """A gradient of zeros at every parameter."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = x + layer(x).round()
        return x


class Overwritten(Program):
    """Backward raises: each value that it needs was overwritten."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(x)
        for _ in range(self.steps // 2):
            y = y.sigmoid()
            y += 1
        return y


PROGRAMS: dict[str, type[nn.Module]] = {
    cls.__name__.lower(): cls
    for cls in (
        Chain,
        Writes,
        Views,
        Fan,
        Layers,
        Rows,
        Numbers,
        Sizes,
        Unused,
        Cut,
        Cuts,
        Zeros,
        Overwritten,
    )
}


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
    found["trace"], result = seconds(lambda: run(target, Experiment("real")))
    found["observe"], _ = seconds(lambda: observe(result))
    found["regenerate"], _ = seconds(lambda: regenerate(result))
    found["analyze"], report = seconds(lambda: fxgrad.analyze(model, inputs))
    found["print"], _ = seconds(lambda: str(report))
    return max(len(result.recorder.graph.nodes), len(report.parameters)), found


def exponent(rows: list[tuple[int, dict[str, float]]], stage: str) -> str:
    """Growth of one stage from the first size at which it is felt to the last."""
    felt = [(size, found[stage]) for size, found in rows if found[stage] >= FELT]
    if len(felt) < 2:
        return "-"
    return f"{math.log(felt[-1][1] / felt[0][1]) / math.log(felt[-1][0] / felt[0][0]):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10000, 50000])
    parser.add_argument("--programs", nargs="+", default=list(PROGRAMS), choices=list(PROGRAMS))
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    fxgrad.analyze(Chain(10), (torch.randn(2, 4),))  # what is loaded at the first use is not growth
    lines: list[list[Any]] = []
    for name in options.programs:
        rows = [measure(PROGRAMS[name], steps) for steps in options.sizes]
        table: list[list[Any]] = [[name, size, *(round(found[s], 3) for s in STAGES)] for size, found in rows]
        table.append([name, "exponent", *(exponent(rows, s) for s in STAGES)])
        print(tabulate(table, headers=["program", "size", *STAGES]), "\n", flush=True)
        lines += table
    if options.markdown:
        text = tabulate(lines, headers=["program", "size", *STAGES], tablefmt="github")
        options.markdown.write_text(
            f"# Growth with size\n\nCPU seconds, `python bench/scaling.py`, torch {torch.__version__}.\n"
            "\n"
            f"{text}\n"
        )


if __name__ == "__main__":
    main()
