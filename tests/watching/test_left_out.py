"""A module with parameters of its own that no optimizer holds: FXG301 where it was written to be trained, nothing where it is only asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from fxgrad.report import Report
from fxgrad.watching.script import run_script

SCRIPT = """import copy
import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)

class Uncertainty(nn.Module):
    def __init__(self):
        super().__init__()
        self.log_var = nn.Parameter(torch.zeros(2))

    def forward(self, losses):
        return sum(torch.exp(-s) * loss + s for s, loss in zip(self.log_var, losses))

class Centers(nn.Module):
    def __init__(self):
        super().__init__()
        self.rows = nn.ParameterList(nn.Parameter(torch.randn(2)) for _ in range(3))

    def forward(self, z):
        return torch.cdist(z, torch.stack(list(self.rows))).amin(1).mean()

class Projected(nn.Module):
    def __init__(self):
        super().__init__()
        self.project = nn.Linear(2, 2)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, z):
        return (self.project(z) * self.scale).square().mean()

class Features(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 4), nn.ReLU())
        self.position = nn.Parameter(torch.randn(4))

    def forward(self, z):
        return self.body(z) + self.position

net = nn.Linear(3, 2)
{setup}
for step in range(4):
    out = net(torch.randn(6, 3))
    {loss}
    {step}
"""
SGD = "opt = torch.optim.SGD(net.parameters(), 0.1)"
TAKE = "opt.zero_grad(); loss.backward(); opt.step()"
TASKS = "loss = crit([out[:, 0].square().mean(), out[:, 1].abs().mean()])"
MOVED = "; [p.data.sub_(0.1 * p.grad) for p in crit.parameters()]; crit.zero_grad()"

GUILTY = {
    "weights of several losses": (f"crit = Uncertainty()\n{SGD}", TASKS, TAKE),
    "rows of a list": (f"crit = Centers()\n{SGD}", "loss = crit(out)", TAKE),
    "a layer beside a scale": (f"crit = Projected()\n{SGD}", "loss = crit(out)", TAKE),
    "a Parameter of a variable": (f"crit = nn.Parameter(torch.tensor(0.5))\n{SGD}", "loss = (out / crit).square().mean() + crit", TAKE),
    "drawn in place": (f"crit = Uncertainty()\nnn.init.normal_(crit.log_var)\n{SGD}", TASKS, TAKE),
}
QUIET = {
    "held": ("crit = Uncertainty()\nopt = torch.optim.SGD([*net.parameters(), *crit.parameters()], 0.1)", TASKS, TAKE),
    "held by an optimizer of its own": (
        f"crit = Uncertainty()\n{SGD}\nother = torch.optim.SGD(crit.parameters(), 0.1)",
        TASKS,
        TAKE + "\n    if step == 2: other.step()",
    ),
    "updated by hand": (f"crit = Uncertainty()\n{SGD}", TASKS, TAKE + MOVED),
    "updated by hand without gradients": (
        f"crit = Uncertainty()\n{SGD}",
        TASKS,
        TAKE + "\n    with torch.no_grad(): crit.log_var -= 0.1 * crit.log_var.grad; crit.zero_grad()",
    ),
    "frozen": (f"crit = Uncertainty().requires_grad_(False)\n{SGD}", TASKS, TAKE),
    "in evaluation mode": (f"crit = Projected().eval()\n{SGD}", "loss = crit(out)", TAKE),
    "taken over from a state dict": (
        f"crit = Projected()\ncrit.load_state_dict(Projected().state_dict())\n{SGD}",
        "loss = crit(out)",
        TAKE,
    ),
    "a network that features are compared in": (
        f"crit = Features()\n{SGD}",
        "loss = F.mse_loss(crit(out), crit(torch.zeros(6, 2)))",
        TAKE,
    ),
    "a Parameter of a variable, moved by hand": (
        f"tau = nn.Parameter(torch.tensor(0.5))\n{SGD}",
        "loss = (out / tau).square().mean() + tau",
        TAKE + "\n    with torch.no_grad(): tau -= 0.1 * tau.grad; tau.grad = None",
    ),
    "a Parameter of a variable, made in each step": (
        SGD,
        "image = nn.Parameter(torch.randn(6, 2)); loss = (out * image).square().mean()",
        TAKE,
    ),
    "a tensor that is asked for its gradient": (
        f"image = torch.randn(6, 2, requires_grad=True)\n{SGD}",
        "loss = (out * image).square().mean()",
        TAKE,
    ),
    "a variable for the weight of a network that is only asked": (
        f"crit = nn.Linear(2, 1)\nweight = crit.weight\n{SGD}",
        "loss = crit(out).square().mean()",
        TAKE,
    ),
    "layers alone": (f"crit = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))\n{SGD}", "loss = crit(out).mean()", TAKE),
    "an average of another": (
        "crit = Uncertainty()\nslow = copy.deepcopy(crit)\nopt = torch.optim.SGD([*net.parameters(), *crit.parameters()], 0.1)",
        TASKS + " + slow([out.mean()])",
        TAKE + "\n    with torch.no_grad(): [a.lerp_(b, 0.1) for a, b in zip(slow.parameters(), crit.parameters())]",
    ),
    "an input that is made for it": (
        "crit = Projected()\nnet.requires_grad_(False)\nshift = torch.zeros(2, requires_grad=True)\nopt = torch.optim.SGD([shift], 0.1)",
        "loss = crit(out + shift)",
        TAKE,
    ),
    "a copy that a step makes": (f"base = Uncertainty()\n{SGD}", f"crit = copy.deepcopy(base); {TASKS}", TAKE),
    "asked for the gradient of its input": (
        f"crit = Projected()\n{SGD}",
        "seen = out.detach().requires_grad_(); (g,) = torch.autograd.grad(crit(seen), seen); loss = (out * g).mean()",
        TAKE,
    ),
}


def report_on(folder: Path, setup: str, loss: str, step: str) -> Report:
    (folder / "script.py").write_text(SCRIPT.format(setup=setup, loss=loss, step=step))
    report, _ = run_script(str(folder / "script.py"))
    assert report is not None
    return report


@pytest.mark.parametrize("name", GUILTY)
def test_what_was_written_to_be_trained_is_missed(tmp_path: Path, name: str) -> None:
    report = report_on(tmp_path, *GUILTY[name])
    (finding,) = [f for f in report.findings if f.severity != "note"]
    assert (finding.code, finding.severity) == ("FXG301", "warning"), str(report)
    assert finding.site is not None
    line = (tmp_path / "script.py").read_text().splitlines()[finding.site.line - 1]
    assert line == SGD
    assert {name.partition(".")[0] for name in finding.parameters} == {"crit"}


@pytest.mark.parametrize("name", QUIET)
def test_what_is_only_asked_is_quiet(tmp_path: Path, name: str) -> None:
    report = report_on(tmp_path, *QUIET[name])
    assert [f for f in report.findings if f.severity != "note"] == [], str(report)


CRITIC = "crit = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))"
UNMOVED = {
    "layers alone": QUIET["layers alone"],
    "a network that features are compared in": QUIET["a network that features are compared in"],
    "what the trained network goes on from": (
        f"{CRITIC}\nback = nn.Linear(3, 3)\n{SGD}",
        "loss = net(back(torch.randn(6, 3))).square().mean()",
        TAKE,
    ),
}
TOLD_OTHERWISE = {
    "in evaluation mode": (f"{CRITIC}.eval()\n{SGD}", "loss = crit(out).mean()", TAKE),
    "frozen": (f"{CRITIC}.requires_grad_(False)\n{SGD}", "loss = crit(out).mean()", TAKE),
    "loaded": (f"{CRITIC}\ncrit.load_state_dict(copy.deepcopy(crit).state_dict())\n{SGD}", "loss = crit(out).mean()", TAKE),
    "moved by hand": (f"{CRITIC}\n{SGD}", "loss = crit(out).mean()", TAKE + MOVED),
    "its gradients are what is compared": (
        f"{CRITIC}\n{SGD}",
        "gs = torch.autograd.grad(crit(out).mean(), list(crit.parameters()), create_graph=True); loss = sum(g.square().sum() for g in gs)",
        TAKE,
    ),
    "a step alone": (f"{CRITIC}\n{SGD}", "loss = crit(out).mean()", TAKE + "\n    break"),
    "nothing else trains": (
        f"{CRITIC}\nnet.requires_grad_(False)\nshift = torch.zeros(2, requires_grad=True)\nopt = torch.optim.SGD([shift], 0.1)",
        "loss = crit(out + shift).mean()",
        TAKE,
    ),
}


@pytest.mark.parametrize("name", UNMOVED)
def test_a_network_that_nothing_moves_is_noted(tmp_path: Path, name: str) -> None:
    """Nobody can tell a forgotten one from one that is meant to stay."""
    report = report_on(tmp_path, *UNMOVED[name])
    (finding,) = report.findings
    assert (finding.code, finding.severity) == ("FXG301", "note"), str(report)
    assert "nothing moved it" in finding.message
    assert finding.site is not None
    assert (tmp_path / "script.py").read_text().splitlines()[finding.site.line - 1] == SGD
    assert report.ok


@pytest.mark.parametrize("name", TOLD_OTHERWISE)
def test_what_is_set_to_stay_is_not_noted(tmp_path: Path, name: str) -> None:
    report = report_on(tmp_path, *TOLD_OTHERWISE[name])
    assert [f for f in report.findings if f.code == "FXG301"] == [], str(report)
