"""Of several models of a script without an optimizer, which are meant to train."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from fxgrad.report import Report
from fxgrad.watching.script import run_script

HEAD = """import torch
from torch import nn

torch.manual_seed(0)
a, b = nn.Linear(4, 3), nn.Linear(4, 3)
x, y = torch.randn(8, 4), torch.randint(3, (8,))
crit = nn.CrossEntropyLoss()
"""
UPDATE = """
    with torch.no_grad():
        for p in {}.parameters():
            if p.grad is not None:
                p -= 0.1 * p.grad
                p.grad = None
"""


def watched(text: str, folder: Path) -> Report:
    script = folder / "train.py"
    script.write_text(HEAD + textwrap.dedent(text).lstrip())
    report, _ = run_script(str(script))
    assert report is not None
    return report


FORGOTTEN = {
    "before the backward of the other": """
        loss_a, loss_b = crit(a(x), y), crit(b(x), y)
        loss_a.backward()
        """,
    "after it": """
        crit(a(x), y).backward()
        loss_b = crit(b(x), y)
        """,
    "after it, printed, and its gradient is asked for": """
        crit(a(x), y).backward()
        loss_b = crit(b(x), y)
        print(loss_b.item(), b.weight.grad)
        """,
    "in a loop that updates by hand": """
        for step in range(4):
            crit(a(x), y).backward()
            loss_b = crit(b(x), y)
        """
    + UPDATE.format("a").replace("\n", "\n        "),
    "in a loop that asks for both": """
        for step in range(4):
            loss_a, loss_b = crit(a(x), y), crit(b(x), y)
            loss_a.backward()
            print(loss_a.item(), loss_b.item())
            with torch.no_grad():
                for p in [*a.parameters(), *b.parameters()]:
                    if p.grad is not None:
                        p -= 0.1 * p.grad
                        p.grad = None
        """,
    "at the line that made the other's": """
        for number, net in enumerate([a, b]):
            loss = crit(net(x), y)
            if not number:
                (loss * 0.5).backward()
        """,
    "of the first of several samples": """
        crit(a(x), y).backward()
        loss_b = nn.functional.cross_entropy(b(x), y, reduction="none")[0]
        """,
    "which the model returns beside its scores": """
        class Scored(nn.Module):
            def __init__(self):
                super().__init__()
                self.lin = b
            def forward(self, x, y):
                scores = self.lin(x)
                return crit(scores, y), scores
        net = Scored()
        del b
        crit(a(x), y).backward()
        loss_b, scores = net(x, y)
        """,
    "beside an accuracy": """
        crit(a(x), y).backward()
        scores = b(x)
        print((scores.argmax(1) == y).float().mean())
        loss_b = crit(scores, y)
        """,
    "summed over a loop": """
        crit(a(x), y).backward()
        total = 0.0
        for step in range(4):
            total = total + crit(b(x), y)
        """,
    "of features that are not used": """
        head = nn.Linear(3, 3)
        of_a, of_b = a(x), b(x)
        crit(head(of_a), y).backward()
        """,
}

QUIET = {
    "a simulation whose last time nobody reads": """
        class Field(nn.Module):
            def __init__(self):
                super().__init__()
                self.speed = nn.Parameter(torch.ones(1))
            def forward(self, state):
                return -self.speed * state
        crit(a(x), y).backward()
        field, state, path = Field(), torch.ones(1), []
        for step in range(5):
            state = state + 0.1 * field(state)
            end = state / field.speed
            path.append(state)
        print(torch.stack(path).detach().numpy())
        """,
    "a solver whose steps are as long as an error says": """
        class Field(nn.Module):
            def __init__(self):
                super().__init__()
                self.start, self.speed = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.ones(3))
            def forward(self, state):
                return -self.speed * state
        def change(field, time, state):
            return field(state)
        def solve(field, state, times):
            begin = times[0]
            for step in range(3):
                slope = change(field, times[0], state)
                length = 0.1 / (1 + slope.square().mean())
                state = state + length * slope
                begin = begin + length
            return state, begin
        crit(a(x), y).backward()
        field, state, path = Field(), torch.ones(3), []
        begin = field.start
        for stage in range(2):
            state, end = solve(field, state, torch.cat([begin.reshape(-1), torch.ones(1)]))
            begin = end
            path.append(state)
        print(torch.stack(path).detach().numpy())
        """,
    "a term that the model makes beside what it returns": """
        class Penalised(nn.Module):
            def __init__(self):
                super().__init__()
                self.lin = b
            def forward(self, x):
                hidden = self.lin(x)
                self.penalty = hidden.square().mean()
                return hidden
        crit(a(x), y).backward()
        print(Penalised()(x).argmax(1))
        """,
    "a term that the model returns beside what is shown, before": """
        class Penalised(nn.Module):
            def __init__(self):
                super().__init__()
                self.lin = b
            def forward(self, x):
                hidden = self.lin(x)
                return hidden, hidden.square().mean()
        hidden, penalty = Penalised()(x)
        print(hidden.detach().numpy())
        crit(a(x), y).backward()
        """,
    "the largest, of which the place is shown": """
        crit(a(x), y).backward()
        largest, where = b(x).flatten().max(0)
        print(where)
        """,
    "a score that is saved": """
        import io
        crit(a(x), y).backward()
        torch.save({"score": crit(b(x), y)}, io.BytesIO())
        """,
    "a baseline, before": """
        print("baseline", crit(b(x), y).item())
        crit(a(x), y).backward()
        """,
    "a baseline, before and after": """
        print(f"baseline {crit(b(x), y):.3f}")
        crit(a(x), y).backward()
        print("baseline", crit(b(x), y))
        """,
    "a score that decides": """
        better = crit(b(x), y) < 0.1
        crit(a(x), y).backward()
        print(bool(better))
        """,
    "a target of what is updated by hand": """
        for step in range(4):
            aim = b(x)
            (a(x) - aim.detach()).square().mean().backward()
        """
    + UPDATE.format("a").replace("\n", "\n        "),
    "an average of what is updated by hand": """
        for step in range(4):
            (a(x) - b(x).detach()).square().mean().backward()
        """
    + UPDATE.format("a").replace("\n", "\n        ")
    + """
            with torch.no_grad():
                for slow, fast in zip(b.parameters(), a.parameters()):
                    slow.lerp_(fast, 0.1)
        """,
    "a solver whose function looks at no time": """
        class Field(nn.Module):
            def __init__(self):
                super().__init__()
                self.start, self.speed = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.ones(3))
            def forward(self, t, state):
                place, mass = state
                return self.speed * place, torch.zeros_like(mass)
        def solve(field, state, mass=None):
            t = field.start * 1
            for step in range(3):
                t = t + 0.1
                mass = state.sum() * 0.5
                change, _ = field(t, (state, mass))
                state = state + 0.1 * change
            return state
        crit(a(x), y).backward()
        print(solve(Field(), torch.ones(8, 3)).detach().numpy())
        """,
    "parts of which not all are looked at": """
        crit(a(x), y).backward()
        whole = b(x).sum(0).exp()
        parts = [whole[i] for i in range(3)]
        print((parts[0] * parts[1]).item())
        """,
    "a solver whose function is given an element of the times": """
        class Field(nn.Module):
            def __init__(self):
                super().__init__()
                self.end, self.speed = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(3))
            def forward(self, state):
                return self.speed * state
        def change(field, time, state):
            return field(state)
        crit(a(x), y).backward()
        field, state = Field(), torch.ones(8, 3)
        times = torch.linspace(0, 1, 4) * field.end
        for number in range(4):
            state = state + 0.1 * change(field, times[number], state)
        print(state.detach().numpy())
        """,
    "agreement of two": """
        crit(a(x), y).backward()
        assert not torch.allclose(crit(b(x), y), torch.zeros(()))
        """,
    "both": """
        crit(a(x), y).backward()
        crit(b(x), y).backward()
        """,
}


@pytest.mark.parametrize("name", FORGOTTEN)
def test_a_backward_that_was_forgotten_is_told(name: str, tmp_path: Path) -> None:
    report = watched(FORGOTTEN[name], tmp_path)
    errors = [(f.code, f.parameters) for f in report.findings if f.severity == "error"]
    missed = ("net.lin.weight", "net.lin.bias") if "net = " in FORGOTTEN[name] else ("b.weight", "b.bias")
    assert errors == [("FXG101", missed)], str(report)


@pytest.mark.parametrize("name", QUIET)
def test_a_model_that_is_only_evaluated_is_not_blamed(name: str, tmp_path: Path) -> None:
    report = watched(QUIET[name], tmp_path)
    assert report.ok, str(report)


def test_a_gradient_that_is_looked_at_is_not_made_of_the_number_before(tmp_path: Path) -> None:
    text = """
        loss_a, loss_b = crit(a(x), y), crit(b(x), y)
        loss_a.backward()
        print(loss_b.item())
        scaled = 0.1 * a.weight.grad
        crit(a(x), y).backward(inputs=list(a.parameters()))
        print(b.weight.grad, scaled)
        """
    assert [f.code for f in watched(text, tmp_path).findings if f.severity == "error"] == ["FXG101"]
