"""Parameters that forward replaces, seen in whole scripts: one cause, one code."""

from __future__ import annotations

from pathlib import Path

import pytest

from fxgrad.watching.script import run_script

SCRIPT = """import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.one = nn.Parameter(torch.ones(4))
        self.many = nn.ParameterList([nn.Parameter(torch.ones(4)) for _ in range(2)])
        self.named = nn.ParameterDict({key: nn.Parameter(torch.ones(4)) for key in "ab"})
        self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
    def forward(self, x):
        x = self.layer(x)
        kept = {}
        for i, key in enumerate("ab"):
            {body}
            x = self.layers[i](x * self.many[i] * self.named[key])
        return x * self.one

net = Net()
opt = torch.optim.SGD(net.parameters(), 0.1)
for step in range(3):
    loss = net(torch.randn(5, 4)).square().mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
"""
LINE = 16
MANY, NAMED, FIRST = ["many.0", "many.1"], ["named.a", "named.b"], ["layers.0.bias", "layers.0.weight"]

GUILTY = {
    "an item of a list": ("self.many[i] = self.many[i] * 0.9", "FXG111", MANY),
    "an item of a list, as a Parameter": ("self.many[i] = nn.Parameter(self.many[i] * 0.9)", "FXG111", MANY),
    "an item of a dictionary": ("self.named[key] = self.named[key] * 0.9", "FXG111", NAMED),
    "one item of a list": ("self.many[0] = self.many[0] * 0.9", "FXG111", MANY[:1]),
    "fresh numbers for an item": ("self.many[1] = torch.rand(4)", "FXG111", MANY[1:]),
    "by a variable": ("w = nn.Parameter(self.one * 0.9); self.one = w", "FXG111", ["one"]),
    "an attribute": ("self.one = nn.Parameter(self.one * 0.9)", "FXG111", ["one"]),
    "a layer of a list": ("self.layers[0] = nn.Linear(4, 4)", "FXG110", FIRST),
}
QUIET = {
    "a list of tensors": "kept[key] = self.many[i] * 0.9",
    "a tensor put beside": "self.last = self.many[i] * 0.9",
    "an item that is written past autograd": "self.many[i].data = self.many[i].data * 0.9",
    "the same item": "self.many[i] = self.many[i]",
    "the same layer": "self.layers[i] = self.layers[i]",
}


@pytest.mark.parametrize("name", GUILTY)
@pytest.mark.filterwarnings("ignore")
def test_one_cause_one_code(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    body, code, names = GUILTY[name]
    path = tmp_path / "script.py"
    path.write_text(SCRIPT.replace("{body}", body))
    report, _ = run_script(str(path))
    assert report is not None
    found = [f for f in report.findings if f.severity != "note"]
    assert [(f.code, f.site.line if f.site else 0) for f in found] == [(code, LINE)], str(report)
    assert sorted(found[0].parameters) == [f"net.{name}" for name in names]
    assert "again" not in found[0].message
    capsys.readouterr()


@pytest.mark.parametrize("name", QUIET)
@pytest.mark.filterwarnings("ignore")
def test_what_replaces_none_is_no_error(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT.replace("{body}", QUIET[name]))
    report, _ = run_script(str(path))
    assert report is not None
    assert [f for f in report.findings if f.severity == "error"] == [], str(report)
    capsys.readouterr()
