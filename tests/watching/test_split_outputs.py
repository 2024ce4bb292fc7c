"""FSDP2 learns of a backward by the tensors that a split module returns: hidden in an object, nothing trains, and an error says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from fxgrad.watching.script import run_script

SCRIPT = """import torch, torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

if not dist.is_initialized():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
torch.manual_seed(0)

class Box:
    def __init__(self, value):
        self.value = value

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.spread = nn.Linear(4, 1), nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return {returned}

net = Net()
fully_shard(net, mesh=init_device_mesh("cpu", (1,)))
opt = torch.optim.Adam(net.parameters())
for step in range(4):
    {before}
    opt.zero_grad()
    out = net(torch.randn(3, 4))
    loss = {loss}
    loss.backward()
    opt.step()
"""
NORMAL = dict(
    returned="torch.distributions.Normal(self.body(x), self.spread.exp(), validate_args=False)",
    loss="-out.log_prob(torch.zeros(3, 1)).mean()",
)
GUILTY = {
    "a distribution": (NORMAL, 28, "in the `Normal` that is returned here"),
    "an object": (dict(returned="Box(self.body(x) * self.spread.exp())", loss="out.value.square().mean()"), 28, "`Box`"),
}
QUIET = {
    "a tensor": dict(returned="self.body(x) * self.spread.exp()", loss="out.square().mean()"),
    "a dictionary": dict(
        returned='{"mean": self.body(x), "spread": self.spread.exp()}', loss='(out["mean"] * out["spread"]).square().mean()'
    ),
    "a distribution made outside": dict(
        returned="self.body(x), self.spread.exp()",
        loss="-torch.distributions.Normal(*out, validate_args=False).log_prob(torch.zeros(3, 1)).mean()",
    ),
}


def text(parts: dict[str, str], before: str = "pass") -> str:
    return SCRIPT.replace("{returned}", parts["returned"]).replace("{loss}", parts["loss"]).replace("{before}", before)


@pytest.mark.parametrize("name", GUILTY)
@pytest.mark.filterwarnings("ignore")
def test_what_hides_its_tensors_trains_nothing(name: str, tmp_path: Path) -> None:
    parts, line, said = GUILTY[name]
    (tmp_path / "script.py").write_text(text(parts))
    report, status = run_script(str(tmp_path / "script.py"))
    assert report is not None
    (finding,) = [f for f in report.findings if f.severity == "error"]
    assert (finding.code, finding.site and finding.site.line) == ("FXG303", line), str(report)
    assert said in finding.message
    assert set(finding.parameters) == {"net.spread", "net.body.weight", "net.body.bias"}
    assert status == 1


@pytest.mark.filterwarnings("ignore")
def test_gradients_that_are_never_shared_reach_no_step(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(text(QUIET["a tensor"], "net.set_requires_gradient_sync(False)"))
    report, _ = run_script(str(tmp_path / "script.py"))
    assert report is not None
    (finding,) = [f for f in report.findings if f.severity == "error"]
    assert finding.code == "FXG303", str(report)
    assert finding.fix is not None
    assert "set_requires_gradient_sync(True)" in finding.fix.advice


@pytest.mark.parametrize("name", QUIET)
@pytest.mark.filterwarnings("ignore")
def test_what_shows_its_tensors_trains(name: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(text(QUIET[name]))
    report, status = run_script(str(tmp_path / "script.py"))
    assert report is not None
    assert set(report.verdicts.values()) == {"flows"}, str(report)
    assert [f for f in report.findings if f.severity != "note"] == [], str(report)
    assert status == 0
