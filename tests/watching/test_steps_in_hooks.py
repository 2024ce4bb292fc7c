"""Optimizers that step inside backward, in hooks on gradients: as backward ends the gradients are gone, and all has trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import fxgrad
from fxgrad.trace.gradients import looked_at_first
from fxgrad.watching.script import run_script

HEAD = "import torch\nfrom torch import nn\ntorch.manual_seed(0)\n"
LOOP = """
for step in range({steps}):
    loss = net(torch.randn(8, 4)).pow(2).mean()
    loss.backward()
    print(step)
"""
AN_OPTIMIZER_EACH = """
net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
optimizers = {p: torch.optim.Adam([p]) for p in net.parameters()}
def step_and_clear(p):
    optimizers[p].step()
    optimizers[p].zero_grad()
for p in net.parameters():
    p.register_post_accumulate_grad_hook(step_and_clear)
"""
BY_HAND = """
net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
def update_and_clear(p):
    with torch.no_grad():
        p.add_(p.grad, alpha=-0.1)
        p.grad = None
for p in net.parameters():
    p.register_post_accumulate_grad_hook(update_and_clear)
"""
TWO_WAYS = """
net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
spare, later = nn.Linear(3, 3), nn.Linear(3, 3)
within = {p: torch.optim.SGD([p], 0.1) for p in [*net[0].parameters(), *later.parameters()]}
beside = torch.optim.Adam([*net[2].parameters(), *spare.parameters()])
def step_and_clear(p):
    within[p].step()
    within[p].zero_grad()
for p in within:
    p.register_post_accumulate_grad_hook(step_and_clear)
for step in range(4):
    loss = net(torch.randn(8, 4)).pow(2).mean()
    loss.backward()
    beside.step()
    beside.zero_grad()
"""


def watched(folder: Path, text: str) -> tuple[fxgrad.Report, int]:
    (folder / "script.py").write_text(HEAD + text)
    report, status = run_script(str(folder / "script.py"))
    assert report is not None
    return report, status


@pytest.mark.parametrize("text", [AN_OPTIMIZER_EACH, BY_HAND], ids=["optimizers", "by hand"])
def test_what_a_hook_uses_and_clears_is_a_gradient(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    report, status = watched(tmp_path, text + LOOP.format(steps=4))
    capsys.readouterr()
    assert set(report.verdicts.values()) == {"flows"}
    assert (report.findings, status) == ((), 0)


def test_the_watch_ends_though_no_step_is_seen_outside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    watched(tmp_path, AN_OPTIMIZER_EACH + LOOP.format(steps=50))
    assert capsys.readouterr().out.splitlines() == ["0", "1"]


def test_each_optimizer_answers_for_what_it_holds(tmp_path: Path) -> None:
    """And of those that have not stepped nothing is known: their turn may be to come."""
    report, _ = watched(tmp_path, TWO_WAYS)
    trained = {name: verdict for name, verdict in report.verdicts.items() if name.startswith("net.")}
    assert set(trained.values()) == {"flows"}
    (finding,) = [f for f in report.findings if f.code == "FXG303"]
    assert finding.parameters == ("spare.weight", "spare.bias")
    assert finding.site is not None
    assert "torch.optim.Adam" in (HEAD + TWO_WAYS).splitlines()[finding.site.line - 1]


def test_the_first_look_comes_before_the_programs_hooks_and_leaves_them_as_they_were() -> None:
    layer, seen = nn.Linear(2, 1), []

    def clear(parameter: torch.Tensor) -> None:
        parameter.grad = None

    layer.weight.register_post_accumulate_grad_hook(clear)
    before = dict(layer.weight._post_accumulate_grad_hooks)
    handle = looked_at_first(layer.weight, lambda parameter: seen.append(parameter.grad is not None))
    layer(torch.ones(1, 2)).sum().backward()
    assert handle is not None
    handle.remove()
    assert seen == [True]
    assert layer.weight.grad is None
    assert dict(layer.weight._post_accumulate_grad_hooks) == before
    assert looked_at_first(layer.bias, clear) is None


TAKING = """
net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
optimizer, kept = torch.optim.SGD(net.parameters(), 0.1), {{}}
def hook(p):
    norm = p.grad.norm()
    {hook}
for p in net.parameters():
    p.register_post_accumulate_grad_hook(hook)
for step in range(4):
    optimizer.zero_grad()
    loss = net(torch.randn(8, 4)).pow(2).mean()
    loss.backward()
    {after}
    optimizer.step()
"""
TAKEN = {
    "dropped": ("p.grad = None", "error", "leaves no gradient"),
    "made zeros": ("p.grad.zero_()", "error", "leaves only zeros"),
    "multiplied by nothing": ("p.grad *= 0", "error", "leaves only zeros"),
    "written over": ("p.grad[:] = 0", "error", "leaves only zeros"),
    "of some": ("if p.ndim == 1: p.grad = None", "warning", "does not train them"),
}
USED = {
    "through .data": ("p.data.add_(p.grad, alpha=-0.1); p.grad = None", "pass"),
    "in no_grad": ("p.data = p.data - 0.1 * p.grad; p.grad = None", "pass"),
    "kept, and put back": ("kept[p] = p.grad; p.grad = None", "for p in kept: p.grad = kept[p]"),
    "put in its place": ("p.grad = p.grad.clamp(-1, 1)", "pass"),
    "looked at": ("kept[p] = norm", "pass"),
}


@pytest.mark.parametrize("name", TAKEN)
def test_a_hook_that_takes_the_gradient_away(name: str, tmp_path: Path) -> None:
    hook, severity, words = TAKEN[name]
    report, _ = watched(tmp_path, TAKING.format(hook=hook, after="pass"))
    (found,) = report.findings
    assert (found.code, found.severity, found.site and found.site.line) == ("FXG303", severity, 9)
    assert "this hook" in found.message
    assert words in found.message
    assert len(found.parameters) == (2 if severity == "warning" else 4)


@pytest.mark.parametrize("name", USED)
def test_a_hook_that_uses_the_gradient_takes_none_away(name: str, tmp_path: Path) -> None:
    hook, after = USED[name]
    report, status = watched(tmp_path, TAKING.format(hook=hook, after=after))
    assert set(report.verdicts.values()) == {"flows"}
    assert (report.findings, status) == ((), 0)


def test_a_complex_parameter_that_is_updated_in_its_hook_has_trained(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        HEAD + "p = nn.Parameter(torch.randn(3, dtype=torch.complex64))\n"
        "def update_and_clear(p):\n    with torch.no_grad(): p.sub_(0.1 * p.grad)\n    p.grad = None\n"
        "p.register_post_accumulate_grad_hook(update_and_clear)\n"
        "optimizer = torch.optim.SGD([p], lr=0.1)\n"
        "for step in range(3):\n    p.abs().square().sum().backward()\n    optimizer.step()\n"
    )
    report, status = run_script(str(tmp_path / "script.py"))
    assert report is not None
    assert (status, report.findings) == (0, ())
    assert not any("ended early" in line for line in report.assumptions), report
