"""What the user says is meant: ignore comments and `[tool.fxgrad]`."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

import fxgrad

MODEL = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.head = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.encoder(x).detach())COMMENT


model = Net()
inputs = (torch.randn(5, 3),)
"""


def report(folder: Path, *, comment: str = "", table: str = "", expect: Any = None) -> fxgrad.Report:
    file = folder / "net.py"
    file.write_text(MODEL.replace("COMMENT", comment))
    (folder / "pyproject.toml").write_text(table)
    spec = importlib.util.spec_from_file_location(f"intent_{folder.name.replace('-', '_')}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return fxgrad.analyze(module.model, module.inputs, expect=expect)


def codes(found: fxgrad.Report) -> set[str]:
    return {finding.code for finding in found.findings}


def test_without_a_word_the_cut_is_an_error(tmp_path: Path) -> None:
    found = report(tmp_path)
    assert codes(found) == {"FXG103"}
    assert not found.ok


@pytest.mark.parametrize("comment", ["  # fxgrad: ignore[FXG103]", "  # fxgrad: ignore", "  # fxgrad: ignore[FXG1]"])
def test_a_comment_on_the_line_silences(tmp_path: Path, comment: str) -> None:
    found = report(tmp_path, comment=comment)
    assert found.ok
    assert codes(found) == set()


def test_a_comment_that_silences_nothing_is_a_note(tmp_path: Path) -> None:
    found = report(tmp_path, comment="  # fxgrad: ignore[FXG203]")
    assert codes(found) == {"FXG001", "FXG103"}


@pytest.mark.parametrize(
    "setting",
    ['ignore = ["FXG103"]', 'frozen = ["encoder.*"]', 'expect = ["head.*"]', 'per-file-ignores = { "*.py" = ["FXG1"] }'],
)
def test_the_project_silences(tmp_path: Path, setting: str) -> None:
    assert report(tmp_path, table=f"[tool.fxgrad]\n{setting}\n").ok


def test_what_the_caller_expects_goes_before_the_project(tmp_path: Path) -> None:
    assert not report(tmp_path, table='[tool.fxgrad]\nexpect = ["head.*"]\n', expect=["encoder.weight"]).ok


def test_verdicts_stay_what_they_are(tmp_path: Path) -> None:
    assert report(tmp_path, comment="  # fxgrad: ignore").verdicts["encoder.weight"] == "none"


@pytest.mark.parametrize(
    ("table", "word"),
    [
        ("[tool.fxgrad]\nignroe = []\n", "ignroe"),
        ("[tool.fxgrad]\nignore = 3\n", "ignore"),
        ("[", "read"),
        ("tool = 3\n", "tool must be a table"),
        ("[tool]\nfxgrad = []\n", "fxgrad must be a table"),
        (f"deep = {'[' * 20_000}", "nested too deeply"),
        ("deep = " + "{a=" * 20_000, "nested too deeply"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, table: str, word: str) -> None:
    with pytest.raises(fxgrad.InputError, match=word):
        report(tmp_path, table=table)
