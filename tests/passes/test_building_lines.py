"""Which line built a module of torch's that a container calls: in the file of the script, and in a file beside it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """import torch
from library.nets import build

net = build()
opt = torch.optim.SGD(net.parameters(), 0.1)
for step in range(2):
    loss = net(torch.randn(3, 4)).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
"""
SEQUENTIAL = """from torch import nn

def small():
    return nn.Sequential(nn.Linear(4, 6), nn.Sigmoid(), nn.ReLU(inplace=True), nn.Linear(6, 1))

def build():
    return nn.Sequential(
        nn.Linear(4, 8),
        nn.Sigmoid(),
        nn.ReLU(inplace=True),  # HERE
        nn.Linear(8, 1),
    )
"""
LOOP = """from torch import nn

def build():
    layers = []
    for wide in (8, 8):
        layers += [nn.LazyLinear(wide), nn.Sigmoid(), nn.ReLU(True)]  # HERE
    return nn.Sequential(*layers, nn.Linear(8, 1), nn.ReLU(inplace=False))
"""
UNKNOWN = LOOP + "\ndef other():\n    return nn.ReLU(inplace=True)\n"


def said(folder: Path, text: str) -> str:
    """The first line of the one finding. In a process of its own: files that others have imported do not count."""
    (folder / "library").mkdir()
    (folder / "library" / "__init__.py").write_text("")
    (folder / "library" / "nets.py").write_text(text)
    (folder / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "fxgrad", "run", "script.py"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    out = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False).stdout
    (line,) = [line for line in out.splitlines() if " FXG201 " in line and "[error]" in line]
    return line


@pytest.mark.parametrize("text", [SEQUENTIAL, LOOP], ids=["in one call", "in a loop"])
def test_the_line_of_an_imported_file(tmp_path: Path, text: str) -> None:
    line = text[: text.index("# HERE")].count("\n") + 1
    found = said(tmp_path, text)
    assert found.startswith(f"library/nets.py:{line}:")
    assert "] `nn.ReLU(" in found


def test_one_of_several_lines_is_not_guessed(tmp_path: Path) -> None:
    found = said(tmp_path, UNKNOWN)
    assert found.startswith("script.py:7:")
    assert "`net.5` (ReLU) overwrites the 3x8 tensor that `net.4` (Sigmoid) saved for backward" in found
