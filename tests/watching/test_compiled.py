"""Compiled programs: what `torch.compile` refuses and the same code in eager allows, found by a step as the program has it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fxgrad.watching.script import run_script

MARK = re.compile(r"# (FXG\d{3})$", re.MULTILINE)
SCRIPT = """import torch
from torch import nn

torch.manual_seed(0)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(4, 8), nn.Linear(8, 1)
    def forward(self, x):
        h = self.inner(x).tanh()
        return self.outer(h), h

class Energy(Net):
    def forward(self, x):
        return super().forward(x)[0].sum()

net = {net}
opt = torch.optim.SGD(net.parameters(), 0.1)
{compiled}
for step in range(2):
    x = torch.randn(5, 4, requires_grad=True)
    {loss}
    opt.zero_grad()
    loss.backward()
    opt.step()
"""
PENALTY = "(g,) = torch.autograd.grad(run(x), x, create_graph=True); loss = run(x) + g.square().sum()"
GUILTY = {
    "a gradient penalty": ("Energy()", 'run = torch.compile(net, backend="aot_eager")  # FXG113', PENALTY),
    "a function compiled by decorator": (
        "Energy()",
        '@torch.compile(backend="aot_eager")  # FXG113\ndef run(x):\n    return net(x) * 2',
        PENALTY,
    ),
    "by its own intermediate result": (
        "Net()",
        'run = torch.compile(net, backend="aot_eager")  # FXG113',
        "y, h = run(x); (g,) = torch.autograd.grad(y.sum(), h, create_graph=True); loss = y.mean() + g.mean()",
    ),
}
QUIET = {
    "a gradient penalty in Python": ("Energy()", 'run = torch.compile(net, backend="eager")', PENALTY),
    "a derivative once": (
        "Energy()",
        'run = torch.compile(net, backend="aot_eager")',
        "(g,) = torch.autograd.grad(run(x), x); loss = run(x + 0.1 * g.sign())",
    ),
    "a penalty on another network": (
        "Energy()",
        'other = torch.compile(nn.Linear(4, 4), backend="aot_eager")\nrun = lambda x: net(x)',
        PENALTY + " + other(x.detach()).sum()",
    ),
}


@pytest.mark.parametrize("name", GUILTY)
@pytest.mark.filterwarnings("ignore")
def test_what_compiled_code_refuses_is_named(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    net, compiled, loss = GUILTY[name]
    text = SCRIPT.format(net=net, compiled=compiled, loss=loss)
    (tmp_path / "script.py").write_text(text)
    report, status = run_script(str(tmp_path / "script.py"))
    assert report is not None
    want = {(m[1], text[: m.start()].count("\n") + 1) for m in MARK.finditer(text)}
    assert {(f.code, f.site.line) for f in report.findings if f.severity == "error" and f.site} == want, str(report)
    assert status == 1


@pytest.mark.parametrize("name", QUIET)
@pytest.mark.filterwarnings("ignore")
def test_what_compiled_code_allows_is_no_finding(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    net, compiled, loss = QUIET[name]
    (tmp_path / "script.py").write_text(SCRIPT.format(net=net, compiled=compiled, loss=loss))
    report, status = run_script(str(tmp_path / "script.py"))
    assert report is not None
    assert [str(f) for f in report.findings if f.severity == "error"] == []
    assert status == 0


WHOLE = """import torch
from torch import nn

torch.manual_seed(0)
net = nn.Linear(4, 1)
opt = torch.optim.SGD(net.parameters(), 0.1)

@torch.compile(fullgraph=True, backend="eager")
def run(x):
    y = net(x).tanh()
    {line}
    return y.square().mean()

for step in range({steps}):
    loss = run(torch.randn(5, 4))
    opt.zero_grad()
    loss.backward()
    opt.step()
"""


@pytest.mark.parametrize(
    ("line", "steps", "status", "said"),
    [
        ("if y.sum() > 0: y = y * 2", 2, 1, "Compiled, the next step raised Unsupported: "),
        ("print(y.mean())", 2, 1, "Compiled, the next step raised Unsupported: "),
        ("y = torch.where(y.sum() > 0, y * 2, y)", 2, 0, "and compiled in the one after them"),
        ("print(y.mean())", 1, 0, "whether it is captured whole (fullgraph=True) was not tried"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_is_to_be_captured_whole_runs_compiled_once(
    tmp_path: Path, line: str, steps: int, status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "script.py").write_text(WHOLE.format(line=line, steps=steps))
    report, ended = run_script(str(tmp_path / "script.py"))
    assert report is not None
    assert ended == status
    assert any(said in assumed for assumed in report.assumptions), report.assumptions
    assert report.ok
    assert ("Unsupported" in capsys.readouterr().err) is (status == 1)
