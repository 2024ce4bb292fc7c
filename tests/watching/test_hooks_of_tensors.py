"""A hook on an activation that makes zeros is told at its line; one that looks on is not, whatever the step beside it hands on."""

from __future__ import annotations

from pathlib import Path

import pytest

from fxgrad.records import Finding
from fxgrad.watching.script import run_script

SCRIPT = """import torch
import torch.nn.functional as F
from torch import nn
torch.manual_seed(0)
first, last = nn.Linear(4, 4), nn.Linear(4, 1)
optimizer = torch.optim.SGD([*first.parameters(), *last.parameters()], 0.1)
def looks(gradient):
    kept = gradient.norm()
def scales(gradient):
    return 0.0 * gradient
for step in range(8):
    hidden = {hidden}
    {hook}
    loss = last({used}).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
"""
PLAIN = dict(hidden="first(torch.randn(8, 4))", used="hidden")
OFF = dict(hidden="first(torch.randn(8, 4)) - 1000", used="F.relu(hidden)")
ZEROS = {
    "a lambda": (PLAIN, "hidden.register_hook(lambda g: g.clamp(0, 0))"),
    "a function": (PLAIN, "hidden.register_hook(scales)"),
    "the second of two": (PLAIN, "hidden.register_hook(looks); hidden.register_hook(scales)"),
    "a mask that depends on data": (PLAIN, "hidden.register_hook(lambda g, h=hidden.detach(): g * (h > 100))"),
    "before a step that is flat": (dict(PLAIN, used="F.relu(hidden)"), "hidden.register_hook(torch.zeros_like)"),
}
QUIET = {
    "looks": (PLAIN, "hidden.register_hook(looks)"),
    "limits": (PLAIN, "hidden.register_hook(lambda g: g.clamp(-1, 1))"),
    "taken off again": (PLAIN, "hidden.register_hook(scales).remove()"),
    "masks some": (PLAIN, "hidden.register_hook(lambda g: g * torch.tensor([1.0, 0.0, 1.0, 1.0]))"),
}


def found(folder: Path, program: dict[str, str], hook: str) -> list[Finding]:
    script = folder / "script.py"
    script.write_text(SCRIPT.format(**program, hook=hook))
    report, _ = run_script(str(script))
    assert report is not None
    return [*report.findings, *report.notes]


@pytest.mark.parametrize("name", ZEROS)
def test_a_hook_that_makes_zeros_is_told_at_its_line(name: str, tmp_path: Path) -> None:
    one = next(f for f in found(tmp_path, *ZEROS[name]) if "first.weight" in f.parameters)
    assert (one.code, one.severity, one.site and one.site.line) == ("FXG401", "error", 13)
    # what a hook will do with other data nobody has seen
    assert "hands on zeros" in one.message
    assert one.message.endswith("is zero in each step that was watched")


@pytest.mark.parametrize("name", QUIET)
def test_a_hook_that_leaves_something_is_quiet(name: str, tmp_path: Path) -> None:
    assert found(tmp_path, *QUIET[name]) == []


def test_what_is_off_is_told_and_not_the_hook_before_it(tmp_path: Path) -> None:
    """Of the weights that a script has nobody knows what others would do."""
    one = next(f for f in found(tmp_path, OFF, "hidden.register_hook(looks)") if "first.weight" in f.parameters)
    assert (one.code, one.severity, one.site and one.site.line) == ("FXG401", "warning", 14)
    assert "in each step that was watched" in one.message
    assert "whatever the weights are" not in one.message
    assert "always" not in one.message
