"""Calls that repeat without gradients are not noted one by one, and what a report says of them is the same."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from fxgrad.report import Report
from fxgrad.watching.script import run_script

HEAD = """import torch
from torch import nn

torch.manual_seed(0)
one, two, head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 1)
opt = torch.optim.SGD([*one.parameters(), *two.parameters(), *head.parameters()], 0.1)
"""


def watched(text: str, folder: Path) -> tuple[Report, str]:
    script = folder / "train.py"
    script.write_text(HEAD + textwrap.dedent(text) + "opt.zero_grad()\nloss.backward()\nopt.step()\n")
    report, _ = run_script(str(script))
    assert report is not None
    return report, script.read_text()


ROLLOUTS = {
    "a policy": """
        x, seen = torch.zeros(4), []
        with torch.no_grad():
            for turn in range(TURNS):
                x = torch.tanh(0.9 * x + two(one(x)) + torch.randn(4))
                seen.append(x)
        loss = head(torch.stack(seen)).sum() + one(x).sum() + two(x).sum()
    """,
    "a buffer": """
        x, rows = torch.zeros(4), torch.zeros(TURNS, 4)
        with torch.no_grad():
            for turn in range(TURNS):
                x = two(one(x)).clamp(-1, 1)
                rows[turn] = x
                x += 1
        loss = head(rows).sum() + one(x).sum() + two(x).sum()
    """,
    "data": """
        x = torch.zeros(4)
        for turn in range(TURNS):
            x = x * 0.9 + 0.1
            if turn % 2:
                total = x.sum().item()
        loss = head(two(one(x))).sum()
    """,
}


@pytest.mark.parametrize("name", ROLLOUTS)
def test_notes_do_not_grow_with_turns(name: str, tmp_path: Path) -> None:
    few, many = (watched(ROLLOUTS[name].replace("TURNS", n), tmp_path)[0] for n in ("60", "240"))
    assert few.ok
    assert many.ok
    assert few.to_dict()["nodes"] == many.to_dict()["nodes"]


GUILTY = {
    "what joins after many turns": """
        x = torch.ones(4)
        with torch.no_grad():  # FXG104 one two
            for turn in range(60):
                if turn < 40:
                    x = one(x).tanh()
                else:
                    x = two(x).tanh()
        loss = head(x).sum()
    """,
    "what is cut elsewhere after many turns": """
        for turn in range(60):
            if turn < 40:
                with torch.no_grad():
                    x = one(torch.ones(4)).tanh()
            else:
                x = one(torch.ones(4)).tanh().detach()  # FXG103 one
            x = x * 0.5
        loss = head(x).sum() + two(x).sum()
    """,
    "the layer itself is cut, elsewhere after many turns": """
        given = torch.ones(4)
        for turn in range(60):
            if turn < 40:
                with torch.no_grad():
                    x = one(given)
            else:
                x = one(given).detach()  # FXG103 one
            x = x * 0.5
        loss = head(x).sum() + two(x).sum()
    """,
    "a write that joins after many": """
        rows = torch.zeros(60, 4)
        last = rows[55]
        with torch.no_grad():  # FXG104 one
            for turn in range(60):
                rows[turn] = torch.randn(4)
                if turn == 55:
                    rows[turn] = one(torch.ones(4))
        loss = head(last).sum() + two(last).sum()
    """,
    "a view that is older than the write": """
        for turn in range(60):
            made = torch.zeros(4)
            seen = made.view(2, 2)
            with torch.no_grad():  # FXG104 one
                made.copy_(torch.ones(4) if turn < 40 else one(torch.ones(4)))
        loss = head(seen.view(4)).sum() + two(seen.view(4)).sum()
    """,
    "a number that leaves every turn": """
        found = []
        with torch.no_grad():  # FXG104 one
            for turn in range(60):
                found.append(one(torch.randn(4)).sum().item())  # FXG107 one
        x = torch.tensor(found)[-4:]
        loss = head(x).sum() + two(x).sum()
    """,
    "a leaf that is made of a result": """
        x = torch.zeros(4)
        with torch.no_grad():  # FXG104 one
            for turn in range(60):
                x = one(x).tanh()
        made = nn.Parameter(x)  # FXG108 one
        loss = head(made).sum() + two(made).sum()
    """,
    "a layer that gets a hook after many turns": """
        x = torch.ones(4)
        with torch.no_grad():  # FXG104 one
            for turn in range(60):
                if turn == 40:
                    two.register_forward_hook(lambda module, args, out: out + one(args[0]))
                x = two(x).tanh()
        loss = head(x).sum() + two(x.detach()).sum()
        for hook in list(two._forward_hooks):
            del two._forward_hooks[hook]
        loss = head(x).sum() + two(x.detach()).sum()
    """,
    "a hook of every layer after many turns": """
        x = torch.ones(4)
        with torch.no_grad():  # FXG104 one
            for turn in range(60):
                if turn == 40:
                    hook = nn.modules.module.register_module_forward_hook(lambda module, args, out: out + one.weight.sum())
                x = two(x).tanh()
        hook.remove()
        loss = head(x).sum() + two(x.detach()).sum()
    """,
}


@pytest.mark.parametrize("name", GUILTY)
def test_what_happens_after_many_turns_is_said(name: str, tmp_path: Path) -> None:
    report, text = watched(GUILTY[name], tmp_path)
    want = {(number, *mark.split()) for number, line in enumerate(text.splitlines(), 1) for mark in re.findall(r"# (FXG.*)", line)}
    errors = [f for f in report.findings if f.severity == "error" and f.site is not None]
    found = {(f.site.line, f.code, *sorted({p.split(".")[0] for p in f.parameters})) for f in errors if f.site}
    assert found == want


def test_a_tensor_is_not_kept(tmp_path: Path) -> None:
    report, _ = watched(
        """
        import weakref
        with torch.no_grad():
            for turn in range(60):
                x = torch.ones(4)
                alive, y = weakref.ref(x), x * 2
        del x
        assert alive() is None
        loss = head(two(one(torch.ones(4)))).sum()
        """,
        tmp_path,
    )
    assert report.ok


def test_a_callable_without_a_hash_is_watched(tmp_path: Path) -> None:
    report, _ = watched(
        """
        class Twice:
            __hash__ = None
            inside = False

            def __call__(self, x):
                if self.inside:
                    return x * 2
                self.inside = True
                return torch.overrides.handle_torch_function(self, (x,), x)

        twice = Twice()
        loss = head(two(one(twice(torch.ones(4))))).sum()
        """,
        tmp_path,
    )
    assert report.ok
    assert set(report.verdicts.values()) == {"flows"}
