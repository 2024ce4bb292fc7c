"""A class may have methods of its own under the names that `nn.Module` lists what is registered by: neither the
script that is watched nor the analysis calls them. And a write that is found late tells nothing of when it was.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

import fxgrad
from fxgrad.report import Report
from fxgrad.torch_api import registry
from fxgrad.watching.script import run_script

OWN = {
    "a list": "def parameters(self): return [self.r]",
    "with an argument": "def parameters(self, groups): return groups",
    "no options": "def named_parameters(self): return {'r': self.r}.items()",
    "modules": "def named_modules(self): return [('l', self.l)]",
    "a property": "parameters = property(lambda self: [self.r])",
}
SCRIPT = """\
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.r, self.l, self.spare = nn.Parameter(torch.rand(3)), nn.Linear(3, 3), nn.Linear(2, 2)
    {own}
    def forward(self, x):
        return self.l(x) * self.r

net = Net()
optimizer = torch.optim.SGD([net.r, net.l.weight, net.l.bias], lr=0.1)
for _ in range(2):
    loss = net(torch.randn(4, 3)).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
"""
WANT = {"r": "flows", "l.weight": "flows", "l.bias": "flows", "spare.weight": "none", "spare.bias": "none"}


def watched(text: str, folder: Path) -> Report:
    script = folder / "train.py"
    script.write_text(text)
    report, _ = run_script(str(script))
    assert report is not None
    return report


@pytest.mark.parametrize("own", OWN)
def test_a_class_may_list_its_parameters_itself(own: str, tmp_path: Path) -> None:
    assert {name.removeprefix("net."): said for name, said in watched(SCRIPT.format(own=OWN[own]), tmp_path).verdicts.items()} == WANT
    names: dict[str, type[nn.Module]] = {}
    exec(SCRIPT.format(own=OWN[own]).partition("net = ")[0], names)
    assert fxgrad.analyze(names["Net"](), (torch.randn(4, 3),)).verdicts == WANT


def test_the_registry_is_what_torch_lists() -> None:
    layer = nn.Linear(3, 3)
    net = nn.Sequential(layer, nn.BatchNorm1d(3), nn.Sequential(layer, nn.ReLU()))
    net[2][0].bias = None
    for once in (True, False):
        assert [*registry.named_parameters(net, remove_duplicate=once)] == [*net.named_parameters(remove_duplicate=once)]
        assert [*registry.named_modules(net, remove_duplicate=once)] == [*net.named_modules(remove_duplicate=once)]
        assert [n for n, _ in registry.named_buffers(net, remove_duplicate=once)] == [
            n for n, _ in net.named_buffers(remove_duplicate=once)
        ]


LATE = """\
import torch
from torch import nn

unseen = torch._C.DisableTorchFunction
w, v = nn.Parameter(torch.rand(3)), nn.Parameter(torch.rand(3))
optimizer = torch.optim.SGD([v], lr=0.1)
for _ in range(3):
    {body}
    loss = (h * v).sum() + (w + v).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
"""
WRITE, USE, SEEN = "with torch.no_grad(), unseen(): w.sub_(0.1)", "with unseen(): h = w + 1", "h = w + 1"


@pytest.mark.parametrize(("first", "then", "codes"), [(WRITE, USE, []), (WRITE, SEEN, []), (SEEN, WRITE, ["FXG205"])])
def test_a_write_that_is_found_late(first: str, then: str, codes: list[str], tmp_path: Path) -> None:
    report = watched(LATE.format(body=textwrap.indent(f"{first}\n{then}", "    ").strip()), tmp_path)
    assert [finding.code for finding in report.findings if finding.severity != "note"] == codes
