"""What multiplies a layer with zeros in every step is named: a buffer by its name, a tensor of the script by its line. Masks that change are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from fxgrad.report import Report
from fxgrad.watching.script import run_script

HEAD = """import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune

torch.manual_seed(0)

class Net(nn.Module):
    def __init__(self, mask):
        super().__init__()
        self.a, self.b, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 1)
        self.register_buffer("mask", mask)

    def forward(self, x):
        return self.head(self.a(x).relu() + {term})

"""
LOOP = """
opt = torch.optim.SGD(net.parameters(), 0.1)
for step in range({steps}):
    {before}
    opt.zero_grad()
    net(torch.randn(8, 4)).square().mean().backward()
    opt.step()
"""


def whole(net: str, term: str = "self.b(x) * self.mask", before: str = "pass", steps: int = 5) -> str:
    return HEAD.replace("{term}", term) + net + LOOP.replace("{before}", before).replace("{steps}", str(steps))


SCRIPT = (
    "import torch\nfrom torch import nn\ntorch.manual_seed(0)\na, b = nn.Linear(4, 3), nn.Linear(4, 3)\n{setup}\n"
    "opt = torch.optim.Adam([*a.parameters(), *b.parameters()], 1e-2)\nfor step in range(12):\n    x = torch.randn(8, 4)\n    {mask}\n"
    "    loss = a(x).square().mean() + (b(x).square() * valid).sum()\n    opt.zero_grad()\n    loss.backward()\n    opt.step()\n"
)
PACKED = """import torch
from torch import nn
torch.manual_seed(0)
rnn, head = nn.LSTM(3, 4, 2, batch_first=True), nn.Linear(4, 2)
opt = torch.optim.Adam([*rnn.parameters(), *head.parameters()])
for step in range(5):
    x = nn.utils.rnn.pack_padded_sequence(torch.randn(3, 5, 3), torch.tensor([5, 2, 3]), batch_first=True, enforce_sorted=False)
    _, (h, c) = rnn(x)
    loss = nn.functional.cross_entropy(head(h[{layer}]), torch.tensor([0, 1, 0]))
    opt.zero_grad()
    loss.backward()
    opt.step()
"""
# The code that makes it so, what must be said, and whose gradient it is.
GUILTY = {
    "a buffer of zeros": (whole("net = Net(torch.zeros(4))"), "multiplies by `net.mask`", {"net.b.weight", "net.b.bias"}),
    "a buffer that selects nothing": (
        whole("net = Net(torch.ones(4, dtype=torch.bool))", "self.b(x).masked_fill(self.mask, 0.0)"),
        "`net.mask` never selects it",
        {"net.b.weight", "net.b.bias"},
    ),
    "a mask of a pruned weight": (
        whole("net = Net(torch.ones(4))\nprune.custom_from_mask(net.b, 'weight', torch.zeros(4, 4))"),
        "multiplies by `net.b.weight_mask`",
        {"net.b.weight_orig"},
    ),
    "the state of the first layer, of a packed sequence": (
        PACKED.format(layer=0),
        "`h[0]` is all that is used of `rnn(x)`",
        {f"rnn.{kind}_l1" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")},
    ),
    "a tensor made above the loop": (
        SCRIPT.format(setup="valid = torch.zeros(8, 1)", mask="pass"),
        "`b(x).square() * valid` hands on only zeros",
        {"b.weight", "b.bias"},
    ),
}
QUIET = {
    "the state of the last layer, of a packed sequence": PACKED.format(layer=-1),
    "a buffer that a schedule opens": whole("net = Net(torch.zeros(4))", before="net.mask.fill_(max(0, step - 3) / 10)", steps=12),
    "a buffer that is replaced": whole("net = Net(torch.zeros(4))", before="net.mask = torch.full((4,), float(step > 3))", steps=12),
    "a buffer with one place open": whole("net = Net(torch.tensor([0.0, 0.0, 0.0, 1.0]))"),
    "a mask of its own for each batch": SCRIPT.format(setup="", mask="valid = torch.full((8, 1), float(step % 4 == 3))"),
    "a row of a table of masks": SCRIPT.format(setup="table = torch.eye(4)[:, :1]", mask="valid = table[(step + 1) % 4]"),
}


def report_on(folder: Path, text: str) -> Report:
    (folder / "script.py").write_text(text)
    report, _ = run_script(str(folder / "script.py"))
    assert report is not None
    return report


@pytest.mark.parametrize("name", GUILTY)
def test_what_multiplies_with_zeros_is_named(tmp_path: Path, name: str) -> None:
    text, said, names = GUILTY[name]
    report = report_on(tmp_path, text)
    (finding,) = [f for f in report.findings if f.severity != "note"]
    assert (finding.code, finding.severity, set(finding.parameters)) == ("FXG401", "warning", names), str(report)
    assert said in finding.message


@pytest.mark.parametrize("name", QUIET)
def test_a_mask_that_changes_is_quiet(tmp_path: Path, name: str) -> None:
    report = report_on(tmp_path, QUIET[name])
    assert [f for f in report.findings if f.severity != "note"] == [], str(report)
