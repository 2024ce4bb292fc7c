"""Modules that TorchScript compiled: they run on after an analysis as before it, and what cannot be seen inside is said."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import fxgrad
from fxgrad.program.infer import infer_inputs

SOURCE = """
import torch
from torch import nn


class Gate(torch.jit.ScriptModule):
    def __init__(self, width: int, most: float) -> None:
        super().__init__()
        self.body = nn.Linear(width, width)
        self.most = most

    @torch.jit.script_method
    def forward(self, x):
        if torch.gt(x.abs().sum(), torch.ones(1) * self.most).item():  # decides
            return x
        return x + self.body(x) * torch.tensor(2.0)


class Net(nn.Module):
    def __init__(self, most: float = -1.0) -> None:
        super().__init__()
        self.stem, self.gate = nn.Linear(12, 12), Gate(12, most)

    def forward(self, x):
        return self.gate(self.stem(x))
"""

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script")


@pytest.fixture
def program(tmp_path: Path) -> Path:
    file = tmp_path / "gated.py"
    file.write_text(SOURCE)
    return file


def built(file: Path, most: float) -> nn.Module:
    space: dict[str, object] = {"__name__": "gated"}
    exec(compile(file.read_text(), file, "exec"), space)
    made = space["Net"](most)  # type: ignore[operator]
    assert isinstance(made, nn.Module)
    return made


def test_it_runs_after_guesses_and_analyses_as_before(program: Path) -> None:
    model, x = built(program, 1e6), torch.randn(2, 12)
    inputs, _ = infer_inputs(model)
    for _ in range(3):
        assert fxgrad.analyze(model, inputs.args).ok
    want = model.stem(x) + model.gate.body(model.stem(x)) * 2  # type: ignore[operator, union-attr]
    for _ in range(3):
        torch.testing.assert_close(model(x), want)


def test_a_cut_inside_is_said_to_be_out_of_sight(program: Path) -> None:
    (finding,) = fxgrad.analyze(built(program, -1.0), (torch.randn(2, 12),)).findings
    assert (finding.code, set(finding.parameters)) == ("FXG105", {"gate.body.weight", "gate.body.bias"})
    assert "inside `gate` is TorchScript, whose lines cannot be followed" in finding.message
    assert "PYTORCH_JIT=0" in str(finding.fix)


def test_without_compiling_its_line_is_named(program: Path) -> None:
    command = [sys.executable, "-m", "fxgrad", "report", "gated.py:Net", "--format", "concise"]
    done = subprocess.run(command, cwd=program.parent, capture_output=True, text=True, env={**os.environ, "PYTORCH_JIT": "0"})
    line = next(n for n, text in enumerate(SOURCE.splitlines(), 1) if text.endswith("# decides"))
    assert f"gated.py:{line}:" in done.stdout, done.stdout + done.stderr
    assert "FXG115" in done.stdout
