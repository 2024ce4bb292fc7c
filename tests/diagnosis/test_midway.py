"""A derivative that raises on the way to a loss, in a model and in a script that is watched: what is wrong with its tensor is told, and of
what only comes later nothing."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest
import torch

import fxgrad
from fxgrad.watching.script import run_script

MODEL = """import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.later = nn.Linear(3, 3), nn.Linear(3, 1)

    def forward(self, x):
        h = self.first(x)
{lines}
        return self.later(h + slope).sum()
"""
TRAINED = """
net = Net()
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
for step in range(3):
    loss = net(torch.randn(4, 3))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
"""
PROGRAMS = {
    "detached": ("FXG103", ["y = h.detach()  # here", "slope, = torch.autograd.grad(y.sum(), h, create_graph=True)"]),
    "argmax": ("FXG105", ["y = h.argmax(1).float()  # here", "slope, = torch.autograd.grad(y.sum(), h)"]),
    "without gradients": ("FXG104", ["with torch.no_grad(): y = self.first(x)  # here", "y.sum().backward()", "slope = 0"]),
    "the second": (
        "FXG105",
        ["a, b = h.sum(), h.argmax()  # here", "slope, = torch.autograd.grad([a, b.float()], h)"],
    ),
    "no formula": (
        "FXG105",
        ["y = torch.special.zeta(h.exp() + 1, h.exp())  # here", "slope, = torch.autograd.grad(y.sum(), h)"],
    ),
    "an input that does not require grad": (
        "FXG116",
        ["y = x.sin().sum()  # here", "slope, = torch.autograd.grad(y, x, create_graph=True)"],
    ),
}


def _told(report: fxgrad.Report, name: str) -> None:
    code, lines = PROGRAMS[name]
    expected = next(number for number, line in enumerate(lines, 11) if "# here" in line)
    errors = [finding for finding in report.findings if finding.severity == "error"]
    assert [finding.code for finding in errors] == [code], report
    assert errors[0].site is not None
    assert errors[0].site.line == expected + 1, report
    assert not any("later" in name for finding in report.findings for name in finding.parameters), report
    assert set(report.verdicts.values()) == {"blocked"}


def _text(name: str) -> str:
    return MODEL.format(lines="\n".join(f"        {line}" for line in PROGRAMS[name][1]))


@pytest.mark.parametrize("name", PROGRAMS)
def test_in_a_model(name: str, tmp_path: Path) -> None:
    file = tmp_path / "model.py"
    file.write_text(_text(name))
    space: dict[str, object] = {"__name__": "midway"}
    exec(compile(file.read_text(), str(file), "exec"), space)
    model: torch.nn.Module = space["Net"]()  # type: ignore[operator]
    with pytest.raises(RuntimeError):  # the plain program
        model(torch.randn(4, 3))
    _told(fxgrad.analyze(model, (torch.randn(4, 3),)), name)


@pytest.mark.parametrize("name", PROGRAMS)
def test_in_a_script(name: str, tmp_path: Path) -> None:
    file = tmp_path / "script.py"
    file.write_text(_text(name) + TRAINED)
    with contextlib.redirect_stderr(io.StringIO()):
        report, _ = run_script(str(file))
    assert report is not None
    _told(report, name)


def test_one_that_is_caught_is_nobodys_business() -> None:
    class Tries(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.first(x)
            with contextlib.suppress(RuntimeError):
                torch.autograd.grad(h.detach().sum(), h)
            return h.sum()

    assert fxgrad.analyze(Tries(), (torch.randn(4, 3),)).findings == ()
