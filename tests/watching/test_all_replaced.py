"""An optimizer of which nothing is the model's any more: every parameter was replaced after it was made."""

from __future__ import annotations

from pathlib import Path

import pytest

from fxgrad.watching.script import run_script

SCRIPT = """import copy
import torch, torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

if not dist.is_initialized():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
{before}
opt = torch.optim.Adam({held})
{after}
for step in range(3):
    opt.zero_grad()
    loss = net({x}).square().mean()
    loss.backward()
    opt.step()
"""
SPLIT = 'fully_shard(net, mesh=init_device_mesh("cpu", (1,)))'
HELD, X = "net.parameters()", "torch.randn(3, 4)"
GUILTY = {
    "copied": dict(before="", held=HELD, after="net = copy.deepcopy(net)", x=X),
    "split by FSDP2": dict(before="", held=HELD, after=SPLIT, x=X),
}
QUIET = {
    "copied before": dict(before="net = copy.deepcopy(net)", held=HELD, after="", x=X),
    "split before": dict(before=SPLIT, held=HELD, after="", x=X),
    "an image": dict(before="image = torch.randn(3, 4, requires_grad=True)", held="[image]", after="", x="image"),
    "a latent code": dict(before='codes = {"z": nn.Parameter(torch.randn(3, 4))}', held="codes.values()", after="", x='codes["z"] * 2'),
}


@pytest.mark.parametrize("name", GUILTY)
@pytest.mark.filterwarnings("ignore")
def test_nothing_that_the_optimizer_holds_is_trained(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "script.py").write_text(SCRIPT.format(**GUILTY[name]))
    report, status = run_script(str(tmp_path / "script.py"))
    assert report is not None
    assert set(report.verdicts.values()) == {"flows"}
    assert [(f.code, f.severity, f.site and f.site.line) for f in report.findings] == [("FXG302", "error", 13)]
    assert status == 1


@pytest.mark.parametrize("name", QUIET)
@pytest.mark.filterwarnings("ignore")
def test_what_the_optimizer_holds_is_trained(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "script.py").write_text(SCRIPT.format(**QUIET[name]))
    report, status = run_script(str(tmp_path / "script.py"))
    assert report is not None
    assert (report.findings, status) == ((), 0)
