"""Parameters replaced after the optimizer was built, seen in whole scripts: the call that replaced them is named, and no library's line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fxgrad.report import Report
from fxgrad.source.sites import is_user_code
from fxgrad.watching.script import run_script

MARK = re.compile(r"# (FXG\d{3})$", re.MULTILINE)
SCRIPT = """import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

torch.manual_seed(0)
net = nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 1))
{before}
opt = torch.optim.SGD(net.parameters(), 0.1)
{after}
for step in range(3):
    opt.zero_grad()
    net(torch.randn(5, 2, 8)).square().mean().backward()
    opt.step()
"""

GUILTY = {
    "weight norm": ("", "nn.utils.weight_norm(net[0])  # FXG302"),
    "weight norm as a parametrization": ("", "parametrizations.weight_norm(net[3])  # FXG302"),
    "weight norm taken off": ("nn.utils.weight_norm(net[0])", "nn.utils.remove_weight_norm(net[0])  # FXG302"),
    "another layer": ("", "net[3] = nn.Linear(24, 1)  # FXG302"),
}
QUIET = {
    "weight norm before": ("nn.utils.weight_norm(net[0])", ""),
    "spectral norm keeps the parameter": ("", "nn.utils.spectral_norm(net[3])"),
    "pruning keeps the parameter": ("", 'prune.l1_unstructured(net[0], "weight", 0.3)'),
    "casting keeps the parameters": ("", "net.double().float()"),
}


def report_on(folder: Path, before: str, after: str) -> Report:
    path = folder / "script.py"
    path.write_text(SCRIPT.format(before=before, after=after))
    report, _ = run_script(str(path))
    assert report is not None
    return report


@pytest.mark.parametrize("name", GUILTY)
@pytest.mark.filterwarnings("ignore")
def test_what_replaced_them_is_named(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = GUILTY[name]
    report = report_on(tmp_path, before, after)
    found = [f for f in report.findings if f.severity != "note"]
    assert [(f.code, f.site.line if f.site else 0) for f in found] == [("FXG302", 9)], str(report)


@pytest.mark.parametrize("name", QUIET)
@pytest.mark.filterwarnings("ignore")
def test_what_keeps_them_is_no_finding(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    report = report_on(tmp_path, *QUIET[name])
    assert [str(f) for f in report.findings if f.severity != "note"] == []
    assert set(report.verdicts.values()) == {"flows"}


def test_a_backport_of_the_standard_library_is_no_users_code() -> None:
    import typing_extensions

    assert not is_user_code(str(typing_extensions.__file__))


LEAVES = """import copy
import torch
from torch import nn
from torch.func import functional_call, stack_module_state

torch.manual_seed(0)
nets = [nn.Linear(4, 2) for _ in range(3)]
{made}  # FXG103
opt = torch.optim.SGD({held}, 0.1)
for step in range(3):
    opt.zero_grad()
    {loss}.square().mean().backward()
    opt.step()
"""
STACKED = (
    "params, buffers = stack_module_state(nets)",
    "torch.vmap(lambda p, b, x: functional_call(nets[0], (p, b), (x,)), (0, 0, None))(params, buffers, torch.randn(5, 4))",
)
COPIED = (
    "params = {name: p.detach().clone().requires_grad_() for name, p in nets[0].named_parameters()}",
    "functional_call(nets[0], params, (torch.randn(5, 4),))",
)


@pytest.mark.parametrize(("made", "loss"), [STACKED, COPIED], ids=["stacked", "copied"])
def test_advice_for_leaves_of_their_own_trains(tmp_path: Path, made: str, loss: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "script.py"
    path.write_text(LEAVES.format(made=made, held="[p for net in nets for p in net.parameters()]", loss=loss))
    report, _ = run_script(str(path))
    assert report is not None
    (finding,) = [f for f in report.findings if f.code == "FXG103"]
    assert (finding.severity, finding.site and finding.site.line) == ("error", 8)
    assert finding.fix is not None
    assert finding.fix.advice.startswith("give the optimizer what")
    path.write_text(LEAVES.format(made=made, held="params.values()", loss=loss))
    report, _ = run_script(str(path))
    assert report is not None
    assert [str(f) for f in report.findings if f.severity != "note"] == []
    assert "flows" in report.verdicts.values()
