"""Networks that are frozen for another's turn: the line that left one frozen is named, and no line of a library."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fxgrad.report import Report
from fxgrad.watching.script import run_script

MARK = re.compile(r"# (FXG\d{3})$", re.MULTILINE)
SCRIPT = """import torch
from torch import nn

torch.manual_seed(0)
maker, critic = nn.Linear(3, 4), nn.Linear(4, 1)
first, second = torch.optim.Adam(maker.parameters()), torch.optim.Adam(critic.parameters())

def toggle(net, on):
    for p in net.parameters():
        p.requires_grad = on

for step in range(4):
    {before}
    loss = critic(maker(torch.randn(5, 3))).square().mean()
    first.zero_grad()
    loss.backward()
    first.step()
    {between}
    loss = (critic(maker(torch.randn(5, 3)).detach()) - critic(torch.randn(5, 4))).square().mean()
    second.zero_grad()
    loss.backward()
    second.step()
    {after}
"""
GUILTY = {
    "never unfrozen": ("critic.requires_grad_(False)  # FXG102", "pass", "pass"),
    "by one parameter after the other": ("[p.requires_grad_(False) for p in critic.parameters()]  # FXG102", "pass", "pass"),
    "the wrong one is unfrozen": ("critic.requires_grad_(False)  # FXG102", "maker.requires_grad_(True)", "pass"),
}
QUIET = {
    "unfrozen by a call": ("critic.requires_grad_(False)", "critic.requires_grad_(True)", "pass"),
    "toggled by a function": ("toggle(critic, False)", "toggle(critic, True)", "pass"),
    "each in its turn": ("toggle(critic, False)", "toggle(critic, True); toggle(maker, False)", "toggle(maker, True)"),
}


def report_on(folder: Path, turns: tuple[str, str, str]) -> tuple[Report, str]:
    text = SCRIPT.format(before=turns[0], between=turns[1], after=turns[2])
    (folder / "script.py").write_text(text)
    report, _ = run_script(str(folder / "script.py"))
    assert report is not None
    return report, text


@pytest.mark.parametrize("name", GUILTY)
def test_what_was_left_frozen_is_named(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    report, text = report_on(tmp_path, GUILTY[name])
    want = {(m[1], text[: m.start()].count("\n") + 1) for m in MARK.finditer(text)}
    assert {(f.code, f.site.line) for f in report.findings if f.severity == "error" and f.site} == want, str(report)


@pytest.mark.parametrize("name", QUIET)
def test_what_is_unfrozen_again_is_no_finding(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    report, _ = report_on(tmp_path, QUIET[name])
    assert [str(f) for f in report.findings if f.severity != "note"] == []


def test_of_one_module_each_parameter_stands_where_it_was_frozen(tmp_path: Path) -> None:
    """A scale that its class freezes, and the rest of the teacher that a loop does."""
    text = """
import torch
from torch import nn

class Norm(nn.Module):
    def __init__(self):
        super().__init__()
        self.g, self.v = nn.Parameter(torch.ones(3)), nn.Parameter(torch.randn(3))
        self.g.requires_grad = False  # in the class

    def forward(self, x):
        return x * self.g * self.v

student, teacher = Norm(), Norm()
for p in teacher.parameters():
    p.requires_grad = False  # in the loop
optimizer = torch.optim.SGD([student.v], 0.1)
for step in range(3):
    x = torch.randn(4, 3)
    loss = (student(x) - teacher(x)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
"""
    path = tmp_path / "script.py"
    path.write_text(text)
    report, _ = run_script(str(path))
    assert report is not None
    found = {f.parameters: text.splitlines()[f.site.line - 1].partition("# ")[2] for f in report.findings if f.site is not None}
    assert found == {("student.g", "teacher.g"): "in the class", ("teacher.v",): "in the loop"}


@pytest.mark.parametrize("freeze", ["for p in net.parameters(): p.requires_grad = False", "net.requires_grad_(False)"])
def test_all_frozen_after_a_step_stands_where_it_was_frozen(tmp_path: Path, freeze: str) -> None:
    (tmp_path / "script.py").write_text(
        "import torch\nfrom torch import nn\nnet = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))\n"
        "opt = torch.optim.SGD(net.parameters(), 0.1)\nfor epoch in range(3):\n    if epoch == 1:\n"
        f"        {freeze}\n"
        "    loss = net(torch.randn(5, 4)).square().mean()\n    opt.zero_grad()\n    loss.backward()\n    opt.step()\n"
    )
    report, _ = run_script(str(tmp_path / "script.py"))
    assert report is not None
    assert [(f.code, f.site and f.site.line) for f in report.findings if f.severity == "error"] == [("FXG102", 7)], str(report)
