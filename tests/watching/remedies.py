"""Broken programs beside their mended versions, and the two questions about them: is the right thing said, and does what is said mend it?

A mended program runs for real, without fxgrad: every parameter ends with a gradient that is not zero, and no two steps have the same loss.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fxgrad.report import Report
from fxgrad.watching.script import run_script

HEAD = "import torch\nfrom torch import nn\nfrom torch.nn import functional as F\ntorch.manual_seed(0)\nlosses = []\n"
MARK = re.compile(r"# (FXG\d{3})$")


@dataclass(frozen=True)
class Program:
    """`text`: its guilty line is marked. `said`: pieces of the finding, `never`: what it must not advise. `mended`: edits that follow it."""

    text: str
    said: tuple[str, ...]
    mended: tuple[tuple[str, str], ...]
    never: tuple[str, ...] = ("retain_graph",)


def write(folder: Path, text: str) -> tuple[str, str]:
    path = folder / "script.py"
    path.write_text(HEAD + text)
    return str(path), HEAD + text


def errors(report: Report | None) -> list[Any]:
    assert report is not None
    return [finding for finding in report.findings if finding.severity == "error"]


def check_said(program: Program, folder: Path) -> None:
    """The one error: its code and line, what it says and what it does not advise."""
    path, text = write(folder, program.text)
    report, status = run_script(path)
    (finding,) = errors(report)
    (want,) = [(m[1], n) for n, line in enumerate(text.splitlines(), 1) if (m := MARK.search(line))]
    advice = finding.fix.advice
    assert (finding.code, finding.site.line) == want, finding
    assert [piece for piece in program.said if piece not in f"{finding.message}; {advice}"] == [], f"{finding.message}; {advice}"
    assert [word for word in program.never if word in advice] == []
    assert status == 1


def check_mended(program: Program, folder: Path) -> None:
    """The advice, followed: everything trains, and the report has nothing left to say."""
    text = program.text
    for old, new in program.mended:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path, text = write(folder, text)
    space: dict[str, Any] = {"__name__": "mended"}
    exec(compile(text, path, "exec"), space)
    assert len(set(space["losses"])) == len(space["losses"]) == 3
    trained = trainable(space)
    assert trained
    assert [key for key, tensor in trained.items() if tensor.grad is None or not tensor.grad.any()] == []
    report, _ = run_script(path, steps=2)
    assert errors(report) == []


def trainable(space: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The parameters of every module in the namespace, and the leaves that stand there by themselves and are no data."""
    found: dict[str, torch.Tensor] = {}
    for name, value in space.items():
        if isinstance(value, nn.Module):
            found.update((f"{name}.{inner}", parameter) for inner, parameter in value.named_parameters())
        elif isinstance(value, torch.Tensor) and value.is_leaf and value.requires_grad and name != "x":
            found[name] = value
    return found
