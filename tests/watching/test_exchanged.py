"""An optimizer over one network and gradients on another: one FXG301 that names both; copies that a step makes are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from fxgrad.passes.rules.fxg301_optimizer_misses_parameter import UNMOVED
from fxgrad.report import Report
from fxgrad.watching.script import run_script

SCRIPT = """import copy
import torch
from torch import nn

torch.manual_seed(0)

def build():
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))

net = build()
{setup}
for step in range(5):
    x = torch.randn(6, 4)
    {loss}
    opt.zero_grad()
    loss.backward()
    opt.step()
"""
SGD = "opt = torch.optim.SGD(net.parameters(), 0.1)"
OTHER = "loss = other(x).square().mean()"
GUILTY = {
    "a new network": (f"{SGD}\nother = build()", OTHER),
    "a copy made before": (f"other = copy.deepcopy(net)\n{SGD}", OTHER),
    "weights taken over": (f"{SGD}\nother = build()\nother.load_state_dict(net.state_dict())", OTHER),
    "evaluated before": (f"{SGD}\nother = copy.deepcopy(net)\nwith torch.no_grad(): net(torch.randn(2, 4))", OTHER),
    "the average of the network": (
        "other = net\nnet = copy.deepcopy(other)\n" + SGD,
        OTHER + "\n    with torch.no_grad(): [a.lerp_(p, 0.1) for a, p in zip(net.parameters(), other.parameters())]",
    ),
}
NONE = {
    "a copy made in each step": (SGD, f"other = copy.deepcopy(net); {OTHER}"),
    "a network of other shapes": (f"{SGD}\nother = nn.Linear(4, 1)", OTHER),
    "a network that the loss is computed from": (
        f"{SGD}\nother = build()",
        "loss = other(x).square().mean() + net(x).detach().mean()",
    ),
}


def report_on(folder: Path, setup: str, loss: str) -> Report:
    (folder / "script.py").write_text(SCRIPT.format(setup=setup, loss=loss))
    report, _ = run_script(str(folder / "script.py"))
    assert report is not None
    return report


@pytest.mark.parametrize("name", GUILTY)
def test_the_network_that_trains_is_named(tmp_path: Path, name: str) -> None:
    report = report_on(tmp_path, *GUILTY[name])
    found = [f for f in report.findings if f.severity != "note"]
    assert [(f.code, f.severity) for f in found] == [("FXG301", "error")], str(report)
    assert found[0].fix is not None
    assert "`other.parameters()`" in found[0].fix.advice


@pytest.mark.parametrize("name", NONE)
def test_other_causes_stay_theirs(tmp_path: Path, name: str) -> None:
    report = report_on(tmp_path, *NONE[name])
    # that nothing moves `other` is true, and is no exchange
    assert {f.kind for f in report.findings if f.code == "FXG301"} <= {UNMOVED}, str(report)
    assert not report.ok


@pytest.mark.parametrize("order", ["first", "second"])
def test_two_networks_that_train_in_turn_are_quiet(tmp_path: Path, order: str) -> None:
    setup = "other = build()\none = torch.optim.SGD(net.parameters(), 0.1)\ntwo = torch.optim.SGD(other.parameters(), 0.1)"
    turn = f"turn, opt = (net, one) if step {'<' if order == 'first' else '>'} 2 else (other, two); loss = turn(x).mean()"
    assert report_on(tmp_path, setup, turn).ok
