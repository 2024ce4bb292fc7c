"""A program that computes with `.grad`: the next backward adds to it in place, and that is the line of FXG201."""

from __future__ import annotations

from pathlib import Path

import pytest

from fxgrad.watching.script import run_script

HEAD = "import torch\nfrom torch import nn\ntorch.manual_seed(0)\n"
GUILTY = {
    "a learnt step size": (
        "x = torch.ones(3, requires_grad=True)\nlr = torch.tensor([0.2], requires_grad=True)\ny, total = x, 0\n"
        "for i in range(3):\n    loss = y.pow(2).sum()\n    total = total + loss\n    loss.backward(retain_graph=True)  # FXG201\n"
        "    update = -lr * {x.grad}\n    y = y + update\n"
    ),
    "a penalty on the gradient of another loss": (
        "net = nn.Linear(3, 1)\nscale = nn.Parameter(torch.ones(3))\nx = torch.randn(4, 3, requires_grad=True)\n"
        "net(x).sum().backward()\npenalty = (scale * {x.grad}).norm()\nmain = net(x).pow(2).mean()\n"
        "main.backward()  # FXG201\npenalty.backward()\n"
    ),
    "zeroed in place": (
        "net = nn.Linear(3, 1)\nlr = torch.tensor(0.1, requires_grad=True)\ninner = torch.optim.SGD(net.parameters(), 0.1)\n"
        "net(torch.randn(4, 3)).pow(2).mean().backward()\nloss = (lr * {net.weight.grad}).pow(2).sum()\n"
        "inner.zero_grad(set_to_none=False)  # FXG201\nloss.backward()\n"
    ),
}
QUIET = {
    "dropped before the next": (
        "net = nn.Linear(3, 1)\nlr = torch.tensor(0.1, requires_grad=True)\nopt = torch.optim.SGD([lr], 0.01)\n"
        "for i in range(3):\n    net.zero_grad()\n    net(torch.randn(4, 3)).pow(2).mean().backward()\n"
        "    loss = (lr * net.weight.grad).pow(2).sum()\n    opt.zero_grad()\n    loss.backward()\n    opt.step()\n"
    ),
    "accumulated and logged": (
        "net = nn.Linear(3, 1)\nopt = torch.optim.SGD(net.parameters(), 0.01)\nseen = []\n"
        "for i in range(4):\n    net(torch.randn(4, 3)).pow(2).mean().backward()\n    seen.append(net.weight.grad)\n"
        "    norm = net.weight.grad.norm().item()\n    if i % 2:\n        opt.step()\n        opt.zero_grad()\n"
    ),
    "the gradients of two tasks": (
        "net = nn.Linear(3, 2)\nopt = torch.optim.SGD(net.parameters(), 0.01)\n"
        "for i in range(3):\n    opt.zero_grad()\n    out = net(torch.randn(4, 3))\n    out[:, 0].mean().backward(retain_graph=True)\n"
        "    one = net.weight.grad.clone()\n    out[:, 1].pow(2).mean().backward()\n"
        "    net.weight.grad.add_(one, alpha=0.1)\n    opt.step()\n"
    ),
}


def run(folder: Path, text: str) -> tuple[str, list[tuple[str, int, str]]]:
    (folder / "script.py").write_text(text)
    report, _ = run_script(str(folder / "script.py"))
    assert report is not None
    shown = [f for f in report.findings if f.severity != "note"]
    return str(report), [(f.code, f.site.line if f.site is not None else 0, f.fix.advice if f.fix is not None else "") for f in shown]


@pytest.mark.parametrize("name", GUILTY)
def test_the_line_that_adds_is_named(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = HEAD + GUILTY[name].replace("{", "").replace("}", "")
    said, found = run(tmp_path, text)
    capsys.readouterr()
    line = next(number for number, one in enumerate(text.splitlines(), 1) if "# FXG201" in one)
    assert [(code, at) for code, at, _ in found] == [("FXG201", line)], said
    assert "clone()" in found[0][2]


@pytest.mark.parametrize("name", GUILTY)
def test_a_copy_mends_it(tmp_path: Path, name: str) -> None:
    said, found = run(tmp_path, HEAD + GUILTY[name].replace("{", "").replace("}", ".clone()"))
    assert found == [], said


@pytest.mark.parametrize("name", QUIET)
def test_reading_gradients_is_quiet(tmp_path: Path, name: str) -> None:
    said, found = run(tmp_path, HEAD + QUIET[name])
    assert found == [], said
