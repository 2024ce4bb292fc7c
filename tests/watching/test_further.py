"""What takes part in some steps only, who steps when, and what a program's own variables call it: `fxgrad run` on whole scripts."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from fxgrad.report import Report
from fxgrad.watching.script import run_script

MARK = re.compile(r"# (FXG\d{3})$", re.MULTILINE)
HEAD = "import itertools, random\nimport torch\nfrom torch import nn\nfrom torch.nn import functional as F\n\ntorch.manual_seed(0)\nrandom.seed(3)\n"

NET = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleList([nn.Linear(4, 4) for _ in range(4)])
        self.head = nn.Linear(4, 1)

    def forward(self, x, *chosen):
        {body}
        return self.head(x)

net = Net()
opt = torch.optim.Adam(net.parameters())
for step in range(30):
    opt.zero_grad()
    {call}.square().mean().backward()
    opt.step()
"""


def program(body: str, call: str = "net(torch.randn(5, 4))") -> str:
    return NET.format(body=textwrap.indent(textwrap.dedent(body), 8 * " ").strip(), call=call)


QUIET = {
    "a layer dropped by Python's numbers": program("""
        for part in self.parts:
            if random.random() < 0.5:
                continue
            x = x + part(x).relu()
    """),
    "a layer dropped by torch's numbers": program("""
        for part in self.parts:
            if torch.rand(()) < 0.5:
                continue
            x = x + part(x).relu()
    """),
    "experts without tokens": program("""
        chosen = x.sum(1).abs().mul(7).long() % 4
        y = torch.zeros_like(x)
        for number, part in enumerate(self.parts):
            mine = chosen == number
            if mine.any():
                y[mine] = part(x[mine])
        x = y
    """).replace("randn(5, 4)", "randn(2, 4)"),
    "tasks in turns": program("x = self.parts[chosen[0]](x)", "net(torch.randn(5, 4), step % 4)"),
    "a part that joins after a warm-up": program("x = self.parts[chosen[0]](x)", "net(torch.randn(5, 4), step % 4 if step > 3 else 0)"),
    "an auxiliary loss every third step": """
body, head, aux = nn.Linear(4, 4), nn.Linear(4, 1), nn.Linear(4, 2)
opt = torch.optim.SGD([*body.parameters(), *head.parameters(), *aux.parameters()], 0.1)
for step in range(12):
    h = body(torch.randn(5, 4))
    loss = head(h).square().mean()
    if step % 3 == 2:
        loss = loss + aux(h).square().mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
""",
    "an optimizer of all beside one of each": """
maker, critic = nn.Linear(3, 4), nn.ModuleDict({"real": nn.Linear(4, 1), "code": nn.Linear(4, 2)})
each = torch.optim.Adam(maker.parameters()), torch.optim.Adam(critic.parameters())
every = torch.optim.Adam(itertools.chain(maker.parameters(), critic.parameters()))
for step in range(4):
    z = torch.randn(5, 3)
    for opt in each:
        opt.zero_grad()
        critic["real"](maker(z)).square().mean().backward()
        opt.step()
    every.zero_grad()
    critic["code"](maker(z)).square().mean().backward()
    every.step()
""",
    "updates by hand through data, and a copy that is evaluated": """
import copy
model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))
for step in range(3):
    model.zero_grad()
    model(torch.randn(5, 4)).square().mean().backward()
    for p in model.parameters():
        p.data -= 0.1 * p.grad
other = copy.deepcopy(model).eval()
with torch.no_grad():
    print(other(torch.randn(5, 4)).mean().item())
""",
    "a teacher that is only asked": """
model, teacher = nn.Linear(4, 1), nn.Linear(4, 1)
for step in range(3):
    x = torch.randn(5, 4)
    with torch.no_grad():
        aim = teacher(x)
    loss = (model(x) - aim).square().mean()
    model.zero_grad()
    loss.backward()
    with torch.no_grad():
        for p in model.parameters():
            p -= 0.1 * p.grad
""",
}

GUILTY = {
    "never called beside one that is dropped": program("""
        for part in self.parts:
            if random.random() < 0.5:
                continue
            x = x + part(x).relu()
    """).replace("        self.head =", "        self.spare = nn.Linear(2, 2)  # FXG101\n        self.head ="),
    "cut off in every step": program("x = self.parts[chosen[0]](x).detach()  # FXG103", "net(torch.randn(5, 4), step % 4)"),
    "never called where updates are by hand": program("x = self.parts[0](x)")
    .replace("[nn.Linear(4, 4) for _ in range(4)])", "[nn.Linear(4, 4)])\n        self.spare = nn.Linear(2, 2)  # FXG101")
    .replace("opt = torch.optim.Adam(net.parameters())", "")
    .replace("opt.zero_grad()", "net.zero_grad()")
    .replace("opt.step()", "[p.data.sub_(0.1 * p.grad) for p in net.parameters() if p.grad is not None]"),
}


def report_on(folder: Path, text: str) -> Report:
    path = folder / "script.py"
    path.write_text(HEAD + text)
    report, _ = run_script(str(path))
    assert report is not None
    return report


@pytest.mark.parametrize("name", QUIET)
def test_what_takes_its_turn_is_no_fault(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    report = report_on(tmp_path, QUIET[name])
    assert [str(f) for f in report.findings if f.severity != "note"] == []
    assert set(report.verdicts.values()) == {"flows"}


@pytest.mark.parametrize("name", GUILTY)
def test_what_never_takes_part_is_found(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = GUILTY[name]
    report = report_on(tmp_path, text)
    want = {(m[1], HEAD.count("\n") + text[: m.start()].count("\n") + 1) for m in MARK.finditer(text)}
    assert {(f.code, f.site.line) for f in report.findings if f.severity == "error" and f.site} == want, str(report)


def test_names_are_those_of_the_callers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = """
class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(4, 1)
        self.optimizer = torch.optim.Adam(self.parameters())
    def learn(self, x):
        self.optimizer.zero_grad()
        self.body(x).square().mean().backward()
        self.optimizer.step()

class Agent:
    def __init__(self):
        self._policy = Policy()

def main():
    actor, agent = Policy(), Agent()
    for _ in range(3):
        actor.learn(torch.randn(5, 4))
        agent._policy.learn(torch.randn(5, 4))

main()
"""
    names = {name.rpartition(".body.")[0] for name in report_on(tmp_path, text).verdicts}
    assert names == {"actor", "agent._policy"}


SOLVER = """class Reversed(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner
    def forward(self, t, x):
        return -self.inner(-t, x)

class Field(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin, self.gain = nn.Linear(3, 3), nn.Parameter(torch.ones(()))
    def forward(self, t, x):
        return self.gain * self.lin(x).tanh()

def solve(given, x):
    func = Reversed(given)
    for t in torch.linspace(0, 1, 4):
        x = x + 0.1 * func(t, x)
    return x

def check():
    field = Field()
    solve(field, solve(field, torch.ones(2, 3))).sum().backward()

check()
"""


def test_what_a_solver_makes_around_a_model_is_not_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert set(report_on(tmp_path, SOLVER).verdicts) == {"field.gain", "field.lin.weight", "field.lin.bias"}


@pytest.mark.parametrize("call", ["solve(field, torch.zeros(2, 3))", "field(0, torch.zeros(2, 3)).sum().item()"])
def test_a_model_that_is_asked_after_the_last_backward_does_not_train(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], call: str
) -> None:
    report = report_on(tmp_path, f"{SOLVER}field = Field()\n{call}\n")
    assert [str(f) for f in report.findings] == []
    assert set(report.verdicts.values()) == {"flows"}


def test_a_model_that_was_asked_before_it_is_to_train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = report_on(tmp_path, SOLVER.replace("\ncheck()", "\nother = Field()\nsolve(other, torch.zeros(2, 3))\ncheck()"))
    assert {f.code for f in report.findings if f.severity == "error"} == {"FXG101"}


def test_a_model_that_only_its_methods_hold_is_called_by_its_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = """
class TinyNet(nn.Linear):
    def fit(self):
        opt = torch.optim.Adam(self.parameters())
        for _ in range(2):
            self(torch.randn(5, 4)).square().mean().backward()
            opt.step()

TinyNet(4, 1).fit()
"""
    assert set(report_on(tmp_path, text).verdicts) == {"tiny_net.weight", "tiny_net.bias"}


def test_workers_that_load_data_are_not_watched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = """
from torch.overrides import _get_current_function_mode_stack
class Data(torch.utils.data.Dataset):
    def __len__(self):
        return 8
    def __getitem__(self, index):
        seen = len(_get_current_function_mode_stack()) + ("fxgrad" in nn.Module.__call__.__code__.co_filename)
        return torch.randn(3), float(seen)
net = nn.Linear(3, 1)
opt = torch.optim.SGD(net.parameters(), 0.1)
for x, seen in torch.utils.data.DataLoader(Data(), batch_size=4, num_workers=1, multiprocessing_context="fork"):
    print("seen", seen.sum().item())
    net(x).sum().backward()
    opt.step()
"""
    report_on(tmp_path, text)
    assert capsys.readouterr().out.splitlines() == ["seen 0.0", "seen 0.0"]


def test_an_error_in_a_further_step_is_told_to_be_unexplained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = program("x = self.parts[0](x)").replace("opt.step()", "opt.step()\n    if step == 4:\n        torch.zeros(()).backward()")
    report = report_on(tmp_path, text)
    assert {f.code for f in report.findings if f.severity == "error"} == {"FXG101"}
    assert any("died of a gradient error" in said for said in report.assumptions)


def test_the_branch_that_changed_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = QUIET["a layer dropped by torch's numbers"]
    report = report_on(tmp_path, text)
    (note,) = [f for f in report.notes if f.code == "FXG115"]
    assert note.site is not None
    assert "torch.rand(()) < 0.5" in (HEAD + text).splitlines()[note.site.line - 1]
