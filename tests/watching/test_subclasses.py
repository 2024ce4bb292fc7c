"""A tensor of a subclass that was put around a computed one has no history: FXG108 at the line that made it, in a
script and in a model alike. What keeps the history is quiet."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
import torch

import fxgrad
from fxgrad.watching.script import run_script

CLASSES = """\
import warnings
import torch
from torch import nn
from torch.masked import masked_tensor
from torch.utils._pytree import tree_map

warnings.filterwarnings("ignore")

class Plain(torch.Tensor):
    @staticmethod
    def __new__(cls, data):
        return torch.Tensor._make_subclass(cls, data)  # _make_subclass

class Around(torch.Tensor):
    @staticmethod
    def __new__(cls, data):
        return torch.Tensor._make_wrapper_subclass(cls, data.shape, dtype=data.dtype)  # wrapper
    def __init__(self, data):
        self.inner = data
    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return func(*tree_map(cls.bare, args), **tree_map(cls.bare, kwargs or {}))
    @classmethod
    def bare(cls, item):
        return item.inner if isinstance(item, cls) else item

class Kept(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return Around(x)
    @staticmethod
    def backward(ctx, g):
        return Around.bare(g)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 1)
    def forward(self, x):
        h = self.body(x)
        z = {step}  # here
        return self.head(z).square().mean()

net = Net()
"""
SCRIPT = """
opt = torch.optim.SGD(net.parameters(), 0.1)
for _ in range(2):
    opt.zero_grad()
    net(torch.randn(6, 4)).backward()
    opt.step()
"""
GUILTY = {
    "Plain(h)": "_make_subclass",
    "Around(h)": "wrapper",
    "masked_tensor(h, h > 0).sum(0).get_data()": "here",
    "torch.nested.nested_tensor([h[:2], h[2:]], layout=torch.jagged).sum(1)": "here",
    "torch.nested.nested_tensor([h[:2], h[2:]]).to_padded_tensor(0.0)": "here",
}
QUIET = (
    "Kept.apply(h)",
    "h.as_subclass(Plain).as_subclass(torch.Tensor)",
    "h * masked_tensor(x, x > 0).sum(0).to_tensor(0.0)",
    "torch.nested.as_nested_tensor([h[:2], h[2:]], layout=torch.jagged).to_padded_tensor(0.0)",
    "torch.nested.as_nested_tensor([h[:2], h[2:]]).to_padded_tensor(0.0)",
    "h * torch.nested.nested_tensor([x[:2], x[2:]]).to_padded_tensor(0.0).sum()",
    "h + Plain(x)",
    "h + Around(x).sum(0)",
)


def text_of(step: str) -> str:
    return textwrap.dedent(CLASSES).replace("{step}", step)


def watched(text: str, folder: Path) -> fxgrad.Report:
    script = folder / "train.py"
    script.write_text(text + SCRIPT)
    report, _ = run_script(str(script), [], steps=1)
    assert report is not None
    return report


def analysed(text: str, folder: Path) -> fxgrad.Report:
    path = folder / "model.py"
    path.write_text(text)
    spaces: dict[str, object] = {"__name__": "model"}
    exec(compile(text, str(path), "exec"), spaces)
    return fxgrad.analyze(spaces["net"], (torch.randn(6, 4),))


@pytest.mark.parametrize("look", [watched, analysed])
@pytest.mark.parametrize("step", GUILTY)
def test_what_has_no_history_is_named_where_it_is_made(step, look, tmp_path):
    text = text_of(step)
    found = [f for f in look(text, tmp_path).findings if f.severity == "error"]
    got = [(f.code, text.splitlines()[f.site.line - 1].partition("# ")[2], set(f.parameters)) for f in found]
    assert got == [("FXG108", GUILTY[step], {"body.weight", "body.bias"})] or got == [
        ("FXG108", GUILTY[step], {"net.body.weight", "net.body.bias"})
    ]


@pytest.mark.parametrize("look", [watched, analysed])
@pytest.mark.parametrize("step", QUIET)
def test_what_keeps_its_history_is_quiet(step, look, tmp_path):
    report = look(text_of(step), tmp_path)
    assert [str(f) for f in report.findings if f.severity != "note"] == []
    assert set(report.verdicts.values()) == {"flows"}


def test_the_copy_of_a_parameter_is_of_no_computed_tensor(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(
        "import copy\nimport torch\nfrom torch import nn\nnet = nn.Linear(3, 1)\nmeta = torch.optim.Adam(net.parameters())\n"
        "for _ in range(2):\n    fast = copy.deepcopy(net)\n    inner = torch.optim.SGD(fast.parameters(), 0.1)\n"
        "    fast(torch.randn(4, 3)).square().mean().backward()\n    inner.step()\n"
        "    loss = fast(torch.randn(4, 3)).square().mean()\n    meta.zero_grad()\n    loss.backward()\n    meta.step()\n"
    )
    report, _ = run_script(str(script), [], steps=2)
    assert report is not None
    (found,) = [f for f in report.findings if f.severity == "error"]
    assert found.message.startswith("`copy.deepcopy(net)` copies the numbers of a parameter")
