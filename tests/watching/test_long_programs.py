"""The report on a long program takes time in proportion to its calls: less than noting them took."""

from __future__ import annotations

import textwrap
import time
from pathlib import Path

import pytest

from fxgrad.report import Report
from fxgrad.trace import ledger
from fxgrad.watching.script import run_script
from fxgrad.watching.session import Session

HEAD = "import torch\nfrom torch import nn\n\ntorch.manual_seed(0)\n"

PROGRAMS = {
    "one optimizer for each layer": """
        layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(120))
        opts = [torch.optim.SGD(layer.parameters(), 0.1) for layer in layers]
        for step in range(3):
            x = torch.randn(5, 4)
            for layer, opt in zip(layers, opts):
                x = layer(x.detach()).tanh()
                opt.zero_grad()
                x.square().mean().backward()
                opt.step()
    """,
    "updates by hand through data": """
        weights = [torch.randn(4, 4, requires_grad=True) for _ in range(700)]
        for step in range(3):
            x = torch.randn(5, 4)
            for w in weights:
                x = (x @ w).tanh()
            x.sum().backward()
            for w in weights:
                w.data.add_(w.grad, alpha=-0.1)
                w.data = w.data.clamp(-1, 1)
                w.grad = None
    """,
    "many backwards before a step": """
        net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        opt = torch.optim.SGD(net.parameters(), 0.1)
        for step in range(2):
            opt.zero_grad()
            for part in range(400):
                net(torch.randn(5, 4)).square().mean().backward()
            for p in net.parameters():
                p.data.clamp_(-1, 1)
            opt.step()
    """,
    "many frozen layers": """
        net = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in range(300)))
        net[:-1].requires_grad_(False)
        opt = torch.optim.SGD(net.parameters(), 0.1)
        for step in range(2):
            opt.zero_grad()
            net(torch.randn(5, 4)).sum().backward()
            opt.step()
    """,
}


def watched(text: str, folder: Path) -> Report:
    script = folder / "train.py"
    script.write_text(HEAD + textwrap.dedent(text))
    report, _ = run_script(str(script))
    assert report is not None
    return report


@pytest.mark.parametrize("name", PROGRAMS)
def test_judging_is_quicker_than_watching(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spent = []
    judged = Session._judged

    def timed(session: Session, error: BaseException | None) -> Report:
        begun = time.process_time()
        report = judged(session, error)
        spent.append(time.process_time() - begun)
        return report

    monkeypatch.setattr(Session, "_judged", timed)
    begun = time.process_time()
    report = watched(PROGRAMS[name], tmp_path)
    whole = time.process_time() - begun
    assert report.ok
    assert sum(spent) < 0.5 * whole


LBFGS = """import torch
from torch import nn

torch.manual_seed(0)
net, spare = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1)), nn.Linear(1, 1)
x = torch.linspace(-1, 1, 32)[:, None]
opt = torch.optim.LBFGS([*net.parameters(), *spare.parameters()], max_iter={most}, line_search_fn="strong_wolfe",
                        tolerance_grad=0, tolerance_change=0)
asked = 0


def closure():
    global asked
    asked += 1
    assert asked < 200
    opt.zero_grad()
    loss = (net(x) - x.sin()).square().mean()
    loss.backward()
    return loss


opt.step(closure)
"""


@pytest.mark.parametrize("most", [3, 20, 100_000])
def test_a_step_that_is_the_whole_training_is_not_waited_for(tmp_path: Path, most: int) -> None:
    path = tmp_path / "script.py"
    path.write_text(LBFGS.format(most=most))
    report, status = run_script(str(path))
    assert report is not None
    assert {name for name, verdict in report.verdicts.items() if verdict == "none"} == {"spare.weight", "spare.bias"}
    assert {(f.code, f.severity) for f in report.findings if f.severity != "note"} == {("FXG101", "error")}


LONG = """
net, spare, target = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 1)
opt = torch.optim.SGD([*net.parameters(), *spare.parameters(), *target.parameters()], 0.1)
for step in range(4):
    for turn in range(20):
        x = net(torch.randn(5, 4)).relu()
    with torch.no_grad():
        lost = spare(x)
    opt.zero_grad()
    target(x + lost).square().mean().backward()
    opt.step()
"""


def test_what_nothing_alive_comes_from_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = watched(LONG, tmp_path).to_dict()
    monkeypatch.setattr(ledger, "LIMIT", 240)
    report = watched(LONG, tmp_path).to_dict()
    assert report["nodes"] < whole["nodes"] - 60
    for part in ("verdicts", "findings", "notes"):
        assert report[part] == whole[part]
    assert report["findings"][0]["code"] == "FXG104"


SECOND = """
net = nn.Linear(4, 4)
for turn in range(20):
    x = net(torch.randn(5, 4)).relu()
loss = x.exp().sum()
loss.backward()
loss.backward()
"""


def test_an_error_about_what_is_no_longer_noted_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "LIMIT", 4)
    report = watched(SECOND, tmp_path)
    assert [(f.code, f.severity) for f in report.findings] == [("FXG201", "error")]
