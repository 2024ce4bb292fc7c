"""What a backward left on some parameters, and a `zero_grad()` drops before the step that others have gradients for: a
warning at that line. Losses that are meant for others alone are quiet."""

from __future__ import annotations

from pathlib import Path

import pytest

from fxgrad.report import Report
from fxgrad.watching.script import run_script

HEAD = """import torch
import torch.nn.functional as F
from torch import nn
torch.manual_seed(0)
body, one, two = nn.Linear(4, 4), nn.Linear(4, 1), nn.Linear(4, 1)
x, y = torch.randn(8, 4), torch.randn(8, 1)
"""
ALL = "opt = torch.optim.Adam([*body.parameters(), *one.parameters(), *two.parameters()])\n"
DROPPED = {
    "two losses, one zero_grad between": ALL
    + """for _ in range(2):
    h = body(x)
    F.mse_loss(one(h.detach()), y).backward()  # one
    opt.zero_grad()  # here
    F.mse_loss(two(h), y).backward()
    opt.step()
""",
    "in functions": ALL
    + """def warm():
    F.mse_loss(one(x), y).backward()  # one
def train():
    loss = F.mse_loss(two(body(x)), y)
    opt.zero_grad()  # here
    loss.backward()
for _ in range(3):
    warm()
    train()
    opt.step()
""",
    "a shared body gets the gradient of the second alone": ALL
    + """for _ in range(2):
    F.mse_loss(one(body(x)), y).backward()  # one
    opt.zero_grad(set_to_none=False)  # here
    F.mse_loss(two(body(x)), y).backward()
    opt.step()
""",
}
QUIET = {
    "accumulated": ALL
    + """for _ in range(2):
    opt.zero_grad()
    F.mse_loss(one(body(x)), y).backward()
    F.mse_loss(two(body(x)), y).backward()
    opt.step()
""",
    "each loss with a step of its own": ALL
    + """for _ in range(2):
    for head in (one, two):
        opt.zero_grad()
        F.mse_loss(head(body(x)), y).backward()
        opt.step()
""",
    "the gradients that a generator's loss leaves on the critic": """opt_g = torch.optim.Adam(body.parameters())
opt_d = torch.optim.Adam(one.parameters())
for _ in range(2):
    opt_g.zero_grad()
    one(body(x)).mean().backward()
    opt_g.step()
    opt_d.zero_grad()
    (one(x) - one(body(x).detach())).mean().backward()
    opt_d.step()
""",
    "two optimizers share a body": """opt_1 = torch.optim.Adam([*body.parameters(), *one.parameters()])
opt_2 = torch.optim.Adam([*body.parameters(), *two.parameters()])
for _ in range(2):
    opt_1.zero_grad()
    F.mse_loss(one(body(x)), y).backward()
    opt_1.step()
    opt_2.zero_grad()
    F.mse_loss(two(body(x).detach()), y).backward()
    opt_2.step()
""",
    "the last layer is held for the first epoch": ALL
    + """for _ in range(2):
    opt.zero_grad()
    (F.mse_loss(one(body(x)), y) + F.mse_loss(two(body(x)), y)).backward()
    for p in two.parameters():
        p.grad = None
    opt.step()
""",
    "zero_grad behind the step": ALL
    + """for _ in range(2):
    (F.mse_loss(one(body(x)), y) + F.mse_loss(two(body(x)), y)).backward()
    opt.step()
    opt.zero_grad()
""",
}


def watched(text: str, folder: Path) -> Report:
    script = folder / "train.py"
    script.write_text(text)
    report, _ = run_script(str(script))
    assert report is not None
    return report


@pytest.mark.parametrize("program", DROPPED.values(), ids=DROPPED)
def test_what_is_dropped_before_the_step_is_named_where_it_is(program: str, tmp_path: Path) -> None:
    text = HEAD + program
    (found,) = [f for f in watched(text, tmp_path).findings if f.severity != "note"]
    lines = text.splitlines()
    assert found.site is not None
    assert (found.code, found.severity, lines[found.site.line - 1].partition("# ")[2]) == ("FXG303", "warning", "here")
    assert found.parameters == ("one.weight", "one.bias")
    walk = next(i for i, line in enumerate(lines, 1) if line.endswith("# one"))
    assert f"backward (line {walk}) left" in found.message


@pytest.mark.parametrize("program", QUIET.values(), ids=QUIET)
def test_what_is_meant_for_others_is_quiet(program: str, tmp_path: Path) -> None:
    assert [f for f in watched(HEAD + program, tmp_path).findings if f.severity != "note"] == []
