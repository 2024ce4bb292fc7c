"""A number that left torch and was computed with before it came back (`math.exp(scale) * x`), in whole scripts: FXG107 where the number left, and
nothing of the kind for numbers that were only looked at."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fxgrad.report import Report
from fxgrad.watching.script import run_script

MARK = re.compile(r"# (FXG\d{3})$", re.MULTILINE)
SCRIPT = """import math
import torch
from torch import nn

torch.manual_seed(0)
gate, net = nn.Linear(3, 1), nn.Linear(3, 1)
factor = 1 / math.sqrt(3)
opt = torch.optim.SGD([*gate.parameters(), *net.parameters()], 0.1)
for step in range(3):
    x = torch.randn(4, 3)
    out, open_ = net(x), gate(x).mean()
    {loss}
    opt.zero_grad()
    loss.backward()
    opt.step()
"""
LEFT = {
    "math's own function": "loss = out.square().mean() * math.exp(open_)  # FXG107",
    "float and arithmetic": "loss = out.square().mean() * (1.0 + 2 * float(open_))  # FXG107",
    "a sum of items": "loss = out.square().mean() + 0.4 * sum(l.item() for l in [open_])  # FXG107",
    "before the rest of the statement": "loss = max(open_.item(), 0.1) ** 2 * out.square().mean()  # FXG107",
    "into an old constructor": "loss = (out * torch.Tensor([open_.item(), 1.0])).square().mean()  # FXG107",
    "into an old constructor of integers": "loss = (out * torch.LongTensor([int(open_.item()), 2])).square().mean()  # FXG107",
    "a size": "n = 1 + int(open_ * 0)  # FXG107\n    loss = out[:n].square().mean()",
    "what decides a count": "n = int(open_ * 0)  # FXG107\n    for _ in range(n + 1):\n        out = out * 2\n    loss = out.square().mean()",
    "by one variable and another": (
        "p = open_.item()  # FXG107\n    q = [p, 1 / (1 + p * p)]\n    loss = nn.functional.dropout(out, q[1]).square().mean()"
    ),
    "returned by a function": (
        "def count(t):\n        n = int(t * 0) + 1  # FXG107\n        return n\n    m = count(open_)\n    loss = out[:m].square().mean()"
    ),
    "and made a leaf at once": "g = nn.Parameter(torch.tensor(open_.item()))  # FXG107\n    loss = (out * g).square().mean()",
    "and made a leaf on the next line": (
        "g = torch.tensor(open_.item())  # FXG107\n    g = torch.autograd.Variable(g, requires_grad=True)\n    loss = (out * g).square().mean()"
    ),
    "over several lines": "loss = (\n        (open_.item() + 1.5)  # FXG107\n        * out.square().mean()\n    )",
}
LOOKED_AT = {
    "printed before another number": "seen = open_.item(); loss = (out * factor).square().mean()",
    "printed before a literal": "seen = open_.item(); loss = out.square().mean() * 0.5",
    "printed after it": "loss = (out * factor).square().mean(); seen = open_.item()",
    "returned by a function around all": (
        "def part(t):\n        n = int(t * 0)\n        loss = out.square().mean()\n        return loss, n\n    loss, n = part(open_)"
    ),
    "an integer that is printed": "n = int(open_); print(n); loss = out.square().mean()",
    "an integer whose variable is another by then": "n = int(open_)\n    n = 2\n    loss = out[:n].square().mean()",
    "kept before data of another list": ("kept = []; kept.append(open_.item()); loss = (out * torch.tensor([3, 4])).square().mean()"),
    "looked at beside a literal": "loss = out.square().mean() * (0.5 if open_.item() > 9 else 0.25)",
}


def watched(folder: Path, loss: str) -> tuple[Report, str]:
    script = folder / "script.py"
    text = SCRIPT.format(loss=loss)
    script.write_text(text)
    report, _ = run_script(str(script))
    assert report is not None
    return report, text


@pytest.mark.parametrize("loss", LEFT.values(), ids=LEFT)
def test_the_line_where_the_number_left(loss: str, tmp_path: Path) -> None:
    report, text = watched(tmp_path, loss)
    errors = {(f.code, f.site.line if f.site else 0) for f in report.findings if f.severity == "error"}
    (mark,) = MARK.finditer(text)
    assert errors == {("FXG107", text.count("\n", 0, mark.start()) + 1)}


@pytest.mark.parametrize("loss", LOOKED_AT.values(), ids=LOOKED_AT)
def test_a_number_that_is_only_looked_at(loss: str, tmp_path: Path) -> None:
    report, _ = watched(tmp_path, loss)
    assert "FXG107" not in {f.code for f in (*report.findings, *report.notes)}


def test_both_lines_that_make_a_leaf_of_a_number_are_in_the_advice(tmp_path: Path) -> None:
    report, _ = watched(tmp_path, LEFT["and made a leaf on the next line"])
    (found,) = [one for one in report.findings if one.severity == "error"]
    assert "`torch.tensor(...)` around it and the `torch.autograd.Variable(g, requires_grad=True)` (line 13)" in found.fix.advice


def test_a_number_that_a_function_returns_is_not_left_out_of_its_return(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import torch\nfrom torch import nn\n"
        "def error(out, y):\n    found = (out.squeeze() - y).abs().mean().item()\n    return found\n"
        "def train(net, side, optimizer):\n    total = 0.0\n    for _ in range(3):\n"
        "        x, y = torch.randn(8, 4), torch.randn(8)\n        total += error(side(x), y)\n"
        "        loss = (net(x).squeeze() - y).square().mean()\n"
        "        optimizer.zero_grad(); loss.backward(); optimizer.step()\n    return total\n"
        "net, side = nn.Linear(4, 1), nn.Linear(4, 1)\n"
        "print(train(net, side, torch.optim.SGD([*net.parameters(), *side.parameters()], lr=0.1)))\n"
    )
    report, _ = run_script(str(script))
    assert report is not None
    (found,) = [one for one in report.findings if one.severity == "error"]
    assert found.code == "FXG101"
    assert found.message.startswith("nothing on the way to the loss uses what `side` computed")
