"""Gradients switched off for all that follows: of several such statements of a script the one that ran is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fxgrad.watching.script import run_script

HEAD = """\
import torch
from torch import nn

def evaluate(net, x):
    torch.set_grad_enabled(False)
    result = net(x)
    torch.set_grad_enabled(True)
    return result

def never(net):
    torch.set_grad_enabled(False)

net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
x = torch.randn(4, 3)
"""
STEP = "loss = net(x).sum()\nloss.backward()\n"
OFF = {
    "in a function": "def prepare():\n    torch.set_grad_enabled(False)  # here\nprepare()\n" + STEP,
    "by torch's own name": "torch._C._set_grad_enabled(False)  # here\n" + STEP,
    "after an evaluation": "evaluate(net, x)\ntorch.set_grad_enabled(mode=False)  # here\n" + STEP,
    "where a region stood before": "with torch.no_grad():\n    net(x)\ntorch.set_grad_enabled(False)  # here\n" + STEP,
    "within a region": "torch.set_grad_enabled(False)  # here\nwith torch.no_grad():\n    net(x)\n" + STEP,
    "a region after an evaluation": "evaluate(net, x)\nwith torch.no_grad():  # here\n    loss = net(x).sum()\nloss.backward()\n",
    "a decorator after an evaluation": (
        "evaluate(net, x)\n@torch.no_grad()  # here\ndef step():\n    return net(x).sum()\nloss = step()\nloss.backward()\n"
    ),
    "as turns change": (
        "for turn in range(3):\n    evaluate(net, x)\n    with torch.no_grad():\n        net(x)\ntorch.set_grad_enabled(False)  # here\n"
        + STEP
    ),
}


@pytest.mark.parametrize("name", OFF)
def test_the_statement_that_ran(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "script.py"
    path.write_text(HEAD + OFF[name])
    with torch.enable_grad():  # the script leaves its mode behind
        report, _ = run_script(str(path))
    assert report is not None
    (want,) = [number for number, line in enumerate(path.read_text().splitlines(), 1) if line.endswith("# here")]
    assert [f.site and f.site.line for f in report.findings if f.code == "FXG104"] == [want]
