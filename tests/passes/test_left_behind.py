"""Why a result that was computed is not in the loss: told from what ran, the same by `analyze` and by a watched script; and where it is not told.

In each program `# use` marks the line that has the result or would have read it, `# by` the line that decided; the expected clause has
`{use}` and `{by}`.
"""

from __future__ import annotations

import importlib.util
import textwrap
from pathlib import Path

import pytest
import torch

import fxgrad
from fxgrad.records import Finding
from fxgrad.watching.script import run_script

HEAD = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 1), nn.Linear(3, 1), nn.Linear(3, 1)

    def forward(self, x):
{forward}


"""
TAIL = """

if __name__ == "__main__":
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for step in range(2):
        optimizer.zero_grad()
        criterion(model(torch.randn(2, 3))).backward()
        optimizer.step()
"""
DICT = 'return {"a": self.a(x), "b": self.b(x), "c": self.c(x)}'

TOLD = {
    "a branch that would have added it": (
        "return self.a(x) + self.b(x), self.c(x)",
        """
        AUX = False

        def criterion(out):
            main, aux = out[0].pow(2).mean(), out[1].abs().mean()
            extra = out[1].abs().mean()
            if AUX:  # by
                return main + extra  # use
            return main
        """,
        "`extra` is used only at line {use}, under `if AUX` (line {by}), which was false",
    ),
    "the keys of a setting": (
        DICT,
        """
        WEIGHTS = {"a": 1.0, "b": 2.0}

        def criterion(out):
            losses = {}
            losses["a"] = out["a"].pow(2).mean()
            losses["b"] = out["b"].pow(2).mean()
            losses["c"] = out["c"].exp().mean()  # use
            total = 0
            for key, weight in WEIGHTS.items():  # by
                total = total + weight * losses[key]
            return total
        """,
        "it is put in `losses` at line {use}, of which `WEIGHTS.items()` (line {by}) takes others",
    ),
    "a slice of terms": (
        "return [self.a(x), self.b(x), self.c(x)]",
        """
        def criterion(outs):
            terms = [out.pow(2).mean() for out in outs]  # use
            return sum(terms[:-1])  # by
        """,
        "it is put in `terms` at line {use}, of which `terms[:-1]` (line {by}) takes others",
    ),
    "a test in a comprehension": (
        DICT,
        """
        ACTIVE = {"a", "b"}

        def criterion(out):
            terms = [out["a"].pow(2).mean(), out["b"].pow(2).mean(), out["c"].exp().mean()]  # use
            return sum(terms[i] for i, name in enumerate("abc") if name in ACTIVE)  # by
        """,
        "it is put in `terms` at line {use}, of which `name in ACTIVE` (line {by}) takes others",
    ),
    "other constants": (
        DICT,
        """
        def criterion(out):
            first = out["a"].pow(2).mean() + out["b"].pow(2).mean()
            last = out["c"].exp().mean()
            losses = {"main": first, "last": last}  # use
            return losses["main"]  # by
        """,
        'it is put in `losses` at line {use}, of which `losses["main"]` (line {by}) takes others',
    ),
    "the keys of what a function returned": (
        "out = heads(self, x)\nreturn out['a'] + out['b']  # by",
        """
        def heads(net, x):
            return {"a": net.a(x), "b": net.b(x), "c": net.c(x)}

        def criterion(out):
            return out.pow(2).mean()
        """,
        "of `out` `out['a']` (line {by}) and `out['b']` (line {by}) take others than `'c'`",
    ),
    "a line that writes over it": (
        "return self.a(x) + self.b(x), self.c(x)",
        """
        WARM = True

        def criterion(out):
            main = out[0].pow(2).mean()
            loss = main + out[1].abs().mean()
            if WARM:  # by
                loss = main
            return loss
        """,
        "this line runs under `if WARM` (line {by}), which was true",
    ),
}

UNTOLD = {
    "it is taken out, and not added": (
        DICT,
        """
        def criterion(out):
            losses = {"main": out["a"].sum() + out["b"].sum(), "last": out["c"].exp().mean()}
            last = losses["last"]
            return losses["main"]
        """,
    ),
    "all are taken out, to be logged": (
        DICT,
        """
        def criterion(out):
            losses = {"main": out["a"].sum() + out["b"].sum(), "last": out["c"].exp().mean()}
            shown = [float(losses[key]) for key in ("main", "last")]
            return losses["main"] + 0 * shown[0]
        """,
    ),
    "a line that always writes over it": (
        "return self.a(x) + self.b(x), self.c(x)",
        """
        def criterion(out):
            loss = out[0].sum() + out[1].abs().mean()
            loss = out[0].sum()
            return loss
        """,
    ),
}


def finding(folder: Path, forward: str, body: str, way: str, capsys: pytest.CaptureFixture[str]) -> tuple[Path, Finding]:
    path = folder / "program.py"
    path.write_text(HEAD.format(forward=textwrap.indent(forward, 8 * " ")) + textwrap.dedent(body).strip() + "\n" + TAIL)
    if way == "run":
        report, _ = run_script(str(path))
        capsys.readouterr()
        assert report is not None
    else:
        spec = importlib.util.spec_from_file_location("left_behind_program", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        report = fxgrad.analyze(module.Net(), (torch.randn(2, 3),), loss=module.criterion)
    (found,) = [f for f in report.findings if f.code == "FXG101"]
    assert {name.removeprefix("model.") for name in found.parameters} == {"c.weight", "c.bias"}
    return path, found


@pytest.mark.parametrize("way", ["analyze", "run"])
@pytest.mark.parametrize("name", TOLD)
def test_why_it_was_left_behind_is_told(name: str, way: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forward, body, want = TOLD[name]
    path, found = finding(tmp_path, forward, body, way, capsys)
    marked = {text.rpartition("# ")[2]: number for number, text in enumerate(path.read_text().splitlines(), 1) if "# " in text}
    assert found.message.partition("; ")[2] == want.format(use=marked.get("use"), by=marked["by"])
    assert found.path[-2].site is not None
    assert found.path[-2].site.line == marked["by"]


@pytest.mark.parametrize("way", ["analyze", "run"])
@pytest.mark.parametrize("name", UNTOLD)
def test_what_does_not_show_is_not_told(name: str, way: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, found = finding(tmp_path, *UNTOLD[name], way, capsys)
    assert "; " not in found.message
