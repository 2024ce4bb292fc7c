"""Steps that teach nothing, in whole scripts: all gradients zero, a loss that is NaN, an optimizer that trains nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fxgrad.report import Report
from fxgrad.watching.script import run_script

MARK = re.compile(r"# (FXG\d{3})$", re.MULTILINE)
HEAD = "import torch\nfrom torch import nn\nfrom torch.nn import functional as F\n\ntorch.manual_seed(0)\n"
NET = "net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))\n"
LOOP = """
for step in range(8):
    x = torch.randn(6, 4)
    opt.zero_grad()
    {loss}
    loss.backward()
    opt.step()
"""
SGD = "opt = torch.optim.SGD(net.parameters(), 0.1)\n"


TWO = "other = nn.Linear(4, 1)\nopt = torch.optim.SGD([*net.parameters(), *other.parameters()], 0.1)\n"


def training(loss: str, setup: str = NET + SGD) -> str:
    return setup + LOOP.format(loss=loss)


GUILTY = {
    "the mean of an empty selection": training("loss = net(x)[x[:, 0] > 99].mean()  # FXG401"),
    "an empty slice": training("loss = net(x)[6:].mean()  # FXG401"),
    "the logarithm of what is negative": training("loss = torch.log(net(x) - 100).mean()  # FXG401"),
    "zero divided by zero": training("loss = (net(x) / torch.zeros(1) * torch.zeros(1)).mean()  # FXG401"),
    "a weight of zero on all": training("loss = (net(x).square() * torch.zeros(6, 1)).mean()  # FXG401"),
    "no rows to begin with": training("loss = net(x[6:]).mean() if step < 0 else net(torch.randn(0, 4)).mean()  # FXG401"),
    "a loss times zero": training("loss = 0 * net(x).square().mean()  # FXG101"),
    "one of two losses": training("aux = other(x).log().mean()  # FXG401\n    aux.backward(); loss = net(x).square().mean()", NET + TWO),
    "one of the losses of a loop": training(
        "loss = net(x).square().mean()\n    aux = other(x)[x[:, 0] > 99].mean()  # FXG401\n"
        "    for each in (loss, aux): each.backward(retain_graph=True)",
        NET + TWO,
    ),
    "two layers that start at zero": training(
        "loss = (x.sum(1) - net(x).sum(1)).square().mean()  # FXG401",
        "net = nn.Sequential(nn.Linear(4, 8, bias=False), nn.Linear(8, 1, bias=False))\n[nn.init.zeros_(p) for p in net.parameters()]\n"
        + SGD,
    ),
}
QUIET = {
    "a batch without samples of one kind": training("loss = net(x)[x[:, 0] > 0].mean() if step % 2 else net(x).mean()"),
    "two losses of a loop": training(
        "loss = net(x).square().mean()\n    aux = other(x)[x[:, 0] > 0].mean()\n"
        "    for each in (loss, aux): each.backward(retain_graph=True)",
        NET + TWO,
    ),
    "two losses, each its own": training(
        "aux = other(x).square().log().mean()\n    aux.backward(); loss = net(x).square().mean()", NET + TWO
    ),
    "an update that starts at zero": training(
        "loss = (net(x) + x @ a @ b).square().mean()",
        NET + "a, b = nn.Parameter(torch.randn(4, 2)), nn.Parameter(torch.zeros(2, 1))\n"
        "opt = torch.optim.SGD([*net.parameters(), a, b], 0.1)\n",
    ),
    "a learning rate that warms up from zero": training(
        "loss = (net(x) + x @ a @ b).square().mean(); opt.param_groups[0]['lr'] = 0.01 * max(step - 2, 0)",
        NET + "a, b = nn.Parameter(torch.randn(4, 2)), nn.Parameter(torch.zeros(2, 1))\n"
        "opt = torch.optim.SGD([*net.parameters(), a, b], 0.1)\n",
    ),
    "infinity in the first step": training("loss = net(x).square().mean() * (float('inf') if step < 0 else 1)"),
}


def report_on(folder: Path, text: str) -> Report:
    path = folder / "script.py"
    path.write_text(HEAD + text)
    report, _ = run_script(str(path))
    assert report is not None
    return report


@pytest.mark.parametrize("name", GUILTY)
def test_a_step_that_teaches_nothing_is_an_error(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = GUILTY[name]
    report = report_on(tmp_path, text)
    want = {(m[1], HEAD.count("\n") + text[: m.start()].count("\n") + 1) for m in MARK.finditer(text)}
    assert {(f.code, f.site.line) for f in report.findings if f.severity == "error" and f.site} == want, str(report)


@pytest.mark.parametrize("name", QUIET)
def test_a_step_that_teaches_something_is_none(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    report = report_on(tmp_path, QUIET[name])
    assert [str(f) for f in report.findings if f.severity != "note"] == []


INFINITE = {
    "the logarithm of zero": training("loss = net(x).mul(0).log().mean()  # FXG401"),
    "an exponential": training("loss = torch.exp(net(x).square() + 1e3).mean()  # FXG401"),
    "a division by zero": training("loss = (net(x) / 0.0).abs().mean()  # FXG401"),
    "a constant": training("loss = net(x).mean() + torch.zeros(()).log()  # FXG401"),
}
HALF = """
net = nn.Linear(4, 1).half()
loss = net(torch.ones(6, 4).half()).square().mean() + 10
(loss * 65536.0).backward()
"""


@pytest.mark.parametrize("name", INFINITE)
def test_an_infinite_loss_is_told(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = INFINITE[name]
    report = report_on(tmp_path, text)
    line = HEAD.count("\n") + text[: text.index("# FXG401")].count("\n") + 1
    told = [f for f in report.findings if f.site and (f.code, f.site.line) == ("FXG401", line)]
    assert any(f.severity != "note" and "infinite" in f.message for f in told), str(report)


def test_an_overflow_of_half_precision_is_a_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = report_on(tmp_path, HALF).findings
    assert (found.code, found.severity) == ("FXG401", "note")
    assert "GradScaler" in str(found.fix)


HELD = {
    "data of parameters": "opt = torch.optim.SGD([p.data for p in net.parameters()], 0.1)  # FXG302\n",
    "copies": "opt = torch.optim.SGD([p.detach().clone() for p in net.parameters()], 0.1)  # FXG302\n",
    "a state dict": "opt = torch.optim.Adam(list(net.state_dict().values()))  # FXG302\n",
    "in a class of one's own": (
        "class Plain(torch.optim.SGD):\n    def __init__(self, params):\n        super().__init__([p.data for p in params], 0.1)\n"
        "opt = Plain(net.parameters())  # FXG302\n"
    ),
}
FED = {
    "frozen for the first steps": (
        "opt = torch.optim.SGD(net.parameters(), 0.1)\nnet[0].requires_grad_(False)\nother = torch.optim.SGD(net[0].parameters(), 0.1)\n",
        "loss = net(x).square().mean(); other.step()",
    ),
    "an image": (
        "net.requires_grad_(False)\nz = torch.zeros(4, requires_grad=True)\nopt = torch.optim.Adam([z])\n",
        "loss = net(x + z).mean()",
    ),
}


@pytest.mark.parametrize("name", HELD)
def test_an_optimizer_of_what_gets_no_gradient(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = training("loss = net(x).square().mean(); net.zero_grad()", NET + HELD[name])
    report = report_on(tmp_path, text)
    want = {(m[1], HEAD.count("\n") + text[: m.start()].count("\n") + 1) for m in MARK.finditer(text)}
    assert {(f.code, f.site.line) for f in report.findings if f.severity == "error" and f.site} == want, str(report)


@pytest.mark.parametrize(("held", "said"), [("[:1]", "1 tensor without requires_grad"), ("", "4 tensors without requires_grad")])
def test_what_an_optimizer_holds_in_vain_is_counted(tmp_path: Path, held: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    built = f"opt = torch.optim.SGD([p.data for p in net.parameters()]{held}, 0.1)\n"
    report = report_on(tmp_path, training("loss = net(x).square().mean(); net.zero_grad()", NET + built))
    (found,) = [f for f in report.findings if f.code == "FXG302"]
    assert f"the optimizer holds {said}" in found.message
    assert f"no backward gives {'it' if held else 'them'} a gradient" in found.message


@pytest.mark.parametrize("name", FED)
def test_an_optimizer_that_is_given_gradients(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    setup, loss = FED[name]
    report = report_on(tmp_path, training(loss, NET + setup))
    assert [str(f) for f in report.findings if f.severity != "note"] == []


def test_an_optimizer_of_data_that_is_given_gradients_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (
        NET
        + "flat = [p.data for p in net.parameters()]\nopt = torch.optim.SGD(flat, 0.1)\n"
        + (
            "for step in range(3):\n    net.zero_grad()\n    net(torch.randn(6, 4)).square().mean().backward()\n"
            "    for f, p in zip(flat, net.parameters()):\n        f.grad = p.grad\n    opt.step()\n"
        )
    )
    assert [str(f) for f in report_on(tmp_path, text).findings if f.severity != "note"] == []


CLOSURES = {
    "a decorator": "    @torch.no_grad()\n    def step(self, closure=None):\n        loss = closure()  # FXG104\n{update}",
    "a block": "    def step(self, closure):\n        with torch.no_grad():\n            loss = closure()  # FXG104\n{update}",
    "a keyword and a method": "    @torch.no_grad()\n    def step(self, *, closure):\n        if closure is not None:\n            loss = closure()  # FXG104\n{update}",
}
UPDATE = "        for group in self.param_groups:\n            for p in group['params']:\n                p.data.sub_(0.1 * p.grad)\n        return loss\n"
CLOSED = """
net = nn.Linear(4, 1)
class Sign(torch.optim.Optimizer):
    def __init__(self, params):
        super().__init__(params, {{}})
{step}
opt = Sign(net.parameters())
for step in range(3):
    def closure():
        opt.zero_grad()
        loss = net(torch.randn(5, 4)).square().mean()
        loss.backward()
        return loss
    opt.step(closure=closure)
"""


@pytest.mark.parametrize("name", CLOSURES)
def test_a_closure_called_where_gradients_are_off(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = CLOSED.format(step=CLOSURES[name].format(update=UPDATE))
    report = report_on(tmp_path, text)
    want = {(m[1], HEAD.count("\n") + text[: m.start()].count("\n") + 1) for m in MARK.finditer(text)}
    assert {(f.code, f.site.line) for f in report.findings if f.severity == "error" and f.site} == want, str(report)
    mended = text.replace("loss = closure()  # FXG104", "loss = torch.enable_grad()(closure)()")
    assert report_on(tmp_path, mended).ok


TWO = """
code, critic = nn.Linear(3, 2), nn.Linear(2, 1)
critics = torch.optim.SGD(critic.parameters(), lr=0.1)
codes = torch.optim.SGD(code.parameters(), lr=0.1)
for step in range(24):
    critics.zero_grad()
    critic(code(torch.randn(6, 3)).detach()).square().mean().backward()
    critics.step()
    {then}
"""


def holders(report: Report) -> list[tuple[int, tuple[str, ...]]]:
    return [(f.site.line, f.parameters) for f in report.findings if f.code == "FXG303" and f.site]


def test_an_optimizer_whose_turn_has_not_come_holds_nothing_in_vain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    later = TWO.format(then="if step == 20: critic(code(torch.randn(6, 3))).mean().backward(); codes.step()")
    assert holders(report_on(tmp_path, later)) == []


def test_what_is_held_in_vain_is_said_of_the_optimizer_that_holds_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = report_on(tmp_path, TWO.format(then="code(torch.randn(6, 3)).detach(); codes.step()"))
    assert holders(report) == [(HEAD.count("\n") + 4, ("code.weight", "code.bias"))]


ENERGY = """
spare = nn.Linear(2, 2)
opt = torch.optim.Adam([{held}])
for step in range(4):
    x = torch.randn(6, 4, requires_grad=True)
    opt.zero_grad()
    torch.autograd.grad(net(x).sum(), x, create_graph=True)[0].square().mean().backward()
    opt.step()
"""


@pytest.mark.parametrize(
    ("held", "want"),
    [
        ("*net.parameters()", "leave out of the optimizer"),
        ("*net.parameters(), *spare.parameters()", "mend what cuts the gradient"),
    ],
)
def test_nothing_is_cut_where_a_derivative_has_a_constant(tmp_path: Path, held: str, want: str) -> None:
    report = report_on(tmp_path, NET + ENERGY.format(held=held))
    (note,) = [f for f in report.findings if f.code == "FXG303"]
    assert "net.2.bias" in note.parameters
    assert note.fix is not None
    assert note.fix.advice.startswith(want)


def test_a_cleared_gradient_and_a_step_too_early_are_told_of_their_own_parameters(tmp_path: Path) -> None:
    report = report_on(
        tmp_path,
        "a, b = nn.Linear(4, 4), nn.Linear(4, 1)\n"
        "one, two = torch.optim.SGD(a.parameters(), 0.1), torch.optim.SGD(b.parameters(), 0.1)\n"
        "for step in range(3):\n"
        "    x = torch.randn(8, 4)\n"
        "    a(x).square().mean().backward()\n"
        "    one.zero_grad()\n"
        "    one.step()\n"
        "    loss = b(x).square().mean()\n"
        "    two.step()\n"
        "    two.zero_grad()\n"
        "    loss.backward()\n",
    )
    told = {(f.code, f.site.line if f.site else 0): f for f in report.findings if f.severity == "error"}
    assert set(told) == {("FXG303", 11), ("FXG205", 14)}, str(report)
    assert set(told["FXG303", 11].parameters) == {"a.weight", "a.bias"}
    assert "but those of an earlier step" in told["FXG205", 14].message


ZEROED = {
    "a limit of 0 for the norm": "nn.utils.clip_grad_norm_(net.parameters(), 0)",
    "a limit of 0 for the values": "nn.utils.clip_grad_value_(net.parameters(), 0.0)",
    "a mask": "for p in net.parameters(): p.grad.mul_(mask)",
    "another gradient": "for p in net.parameters(): p.grad = p.grad * mask",
}
LEFT = {
    "a limit": "nn.utils.clip_grad_norm_(net.parameters(), 1.0)",
    "a mask of one layer": "for p in net[0].parameters(): p.grad.mul_(mask)",
    "a mask of ones": "for p in net.parameters(): p.grad.mul_(mask + 1)",
    "another gradient": "for p in net.parameters(): p.grad = p.grad * 0.5",
    "nothing": "pass",
}
CLIPPED = """import torch
from torch import nn
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
opt = torch.optim.SGD(net.parameters(), lr=0.1)
mask = torch.zeros(1)
for step in range(3):
    loss = net(torch.randn(4, 3)).square().mean()
    opt.zero_grad()
    loss.backward()
    {between}
    opt.step()
"""


@pytest.mark.parametrize("name", ZEROED)
def test_gradients_made_zeros_before_the_step(tmp_path: Path, name: str) -> None:
    path = tmp_path / "script.py"
    path.write_text(CLIPPED.format(between=ZEROED[name]))
    report, status = run_script(str(path))
    assert report is not None
    found = [f for f in report.findings if f.severity == "error"]
    assert [(f.code, f.site.line if f.site else 0) for f in found] == [("FXG303", 11)], str(report)
    assert "made zeros here, after backward (line 10) and before the step (line 12)" in found[0].message
    assert set(report.verdicts.values()) == {"zero"}
    assert status == 1


@pytest.mark.parametrize("name", LEFT)
def test_gradients_that_are_left(tmp_path: Path, name: str) -> None:
    path = tmp_path / "script.py"
    path.write_text(CLIPPED.format(between=LEFT[name]))
    report, status = run_script(str(path))
    assert report is not None
    assert [f for f in report.findings if f.severity == "error"] == [], str(report)
    assert status == 0


@pytest.mark.parametrize(
    ("inputs", "want"),
    [
        ("net[2].parameters()", "(script.py:11) leaves them out"),
        ("[net[2].weight, net[2].bias]", "(script.py:11) leaves them out"),
        ("net.parameters()", ""),
    ],
)
def test_what_a_backward_leaves_out_is_not_cut(tmp_path: Path, inputs: str, want: str) -> None:
    path = tmp_path / "script.py"
    text = CLIPPED.format(between="pass").replace("loss.backward()\n    pass", f"pass\n    loss.backward(inputs=list({inputs}))")
    path.write_text(text)
    report, status = run_script(str(path))
    assert report is not None
    found = [f for f in (*report.findings, *report.notes) if f.code == "FXG303"]
    assert [want in f.fix.advice for f in found if f.fix] == [True] * bool(want)
    assert status == 0
