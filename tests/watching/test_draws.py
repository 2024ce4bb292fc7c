"""Layers that a random draw passes by in a script of few steps: FXG115, a warning, and no unused parameter."""

from __future__ import annotations

from pathlib import Path

import pytest

from fxgrad.watching.script import run_script

SCRIPT = """import random
import numpy as np
import torch
from torch import nn

torch.manual_seed(0); random.seed(0); np.random.seed(0)
NEVER = 1e-9

def skips(p):
    return np.random.rand() > p

class Net(nn.Module):
    def __init__(self, use=False):
        super().__init__()
        self.use, self.p = use, NEVER
        self.rng = random.Random(0)
        self.stem, self.extra, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 1)
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(6))

    def forward(self, x, p=NEVER):
        x = self.stem(x)
        for layer in self.layers:
            {loop}
        {rest}
        return self.out(x)

net = Net()
opt = torch.optim.SGD(net.parameters(), 0.1)
for step in range(1):
    opt.zero_grad()
    net(torch.randn(5, 4)).square().mean().backward()
    opt.step()
"""
ALL, USES = "x = layer(x)", "x = self.extra(x)"
DRAWN = {
    "a draw of Python's": (ALL, f"if random.random() < NEVER: {USES}", "if random.random() < NEVER"),
    "a draw of torch's, in a name": (
        ALL,
        f"drop = torch.rand(1).item()\n        if self.training and drop < p: {USES}",
        "if self.training and drop < p",
    ),
    "a draw of NumPy's, and an early return": (
        ALL,
        f"if np.random.binomial(1, self.p) == 0: return self.out(x)\n        {USES}",
        "if np.random.binomial(1, self.p) == 0",
    ),
    "a generator of its own": (ALL, f"if self.rng.random() < NEVER: {USES}", "if self.rng.random() < NEVER"),
    "a function that draws": (ALL, "x = x if skips(p) else self.extra(x)", "x if skips(p) else self.extra(x)"),
    "layers dropped one by one": (
        f"if random.random() > NEVER: continue\n            {ALL}",
        USES,
        "if random.random() > NEVER",
    ),
    "a layer chosen": ("pass", f"x = random.choice(self.layers)(x)\n        {USES}", "random.choice(self.layers)"),
    "layers sampled by index": (
        "pass",
        f"for i in random.sample(range(6), 2): x = self.layers[i](x)\n        {USES}",
        "self.layers[i]",
    ),
}
NOT_DRAWN = {
    "a flag before the draw": (ALL, f"if self.use and random.random() < 0.5: {USES}"),
    "a flag after the draw": (ALL, f"if random.random() > NEVER and self.use: {USES}"),
    "a flag around the draw": (ALL, f"if self.use:\n            if random.random() < 0.5: {USES}"),
    "a draw elsewhere": (ALL, "if random.random() < 0.5: x = x * 2"),
    "noise added to data": (ALL, f"h = x + torch.randn(4)\n        if h.mean() > 1e9: {USES}"),
    "noise like the data": (ALL, f"if (x + torch.rand_like(x)).mean() > 1e9: {USES}"),
    "data": (ALL, f"if x.mean() > 1e9: {USES}"),
}


@pytest.mark.parametrize("name", DRAWN)
def test_what_a_draw_passed_by_is_a_warning_at_the_draw(tmp_path: Path, name: str) -> None:
    loop, rest, label = DRAWN[name]
    (tmp_path / "script.py").write_text(SCRIPT.format(loop=loop, rest=rest))
    report, status = run_script(str(tmp_path / "script.py"))
    assert report is not None
    found = [f for f in report.findings if f.severity != "note"]
    assert [(f.code, f.severity) for f in found] == [("FXG115", "warning")], str(report)
    assert any(step.label == label and step.cut for step in found[0].path), found[0].path
    assert status == 0


@pytest.mark.parametrize("name", NOT_DRAWN)
def test_what_something_else_passed_by_is_unused(tmp_path: Path, name: str) -> None:
    loop, rest = NOT_DRAWN[name]
    (tmp_path / "script.py").write_text(SCRIPT.format(loop=loop, rest=rest))
    report, status = run_script(str(tmp_path / "script.py"))
    assert report is not None
    assert [(f.code, f.severity) for f in report.findings if f.severity != "note"] == [("FXG101", "error")], str(report)
    assert status == 1
