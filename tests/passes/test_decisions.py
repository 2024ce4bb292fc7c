"""What passed a part of the model by: told from what ran, the same by `analyze` and by a watched script; and where it is not told.

In each program `# use` marks the line that would have used the part, `# by` the line that decided; the expected clause has `{use}` and `{by}`.
"""

from __future__ import annotations

import importlib.util
import textwrap
from pathlib import Path
from types import ModuleType

import pytest
import torch

import fxgrad
from fxgrad.records import Finding
from fxgrad.report import Report
from fxgrad.watching.script import run_script

HEAD = """
import torch
import torch.nn.functional as F
from torch import nn

"""
TAIL = """

def build():
    torch.manual_seed(0)
    return Net()


if __name__ == "__main__":
    model = build()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for step in range(2):
        optimizer.zero_grad()
        model(torch.randn(2, 3)).pow(2).mean().backward()
        optimizer.step()
"""

TOLD = {
    "an argument": (
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.box, self.point = nn.Linear(3, 3), nn.Linear(3, 3)

            def forward(self, x, kind="box"):
                if kind == "box":  # by
                    h = self.box(x)
                else:
                    h = self.point(x)  # use
                return h
        """,
        'used only at line {use}, in the `else` of `if kind == "box"` (line {by}), which was true',
    ),
    "a chain of elif": (
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.box, self.point = nn.Linear(3, 3), nn.Linear(3, 3)
                self.kind = "box"

            def forward(self, x):
                if self.kind == "mask":
                    return x
                elif self.kind == "point":  # by
                    return self.point(x)  # use
                return self.box(x)
        """,
        'used only at line {use}, under `elif self.kind == "point"` (line {by}), which was false',
    ),
    "a flag on one line": (
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.base, self.delta = nn.Linear(3, 3), nn.Linear(3, 3)
                self.merged = True

            def forward(self, x):
                y = self.base(x)
                return y if self.merged else y + self.delta(x)  # use
        """,
        "used only at line {use}, in `y if self.merged else y + self.delta(x)`, where `self.merged` was true",
    ),
    "and": (
        """
        class Net(nn.Module):
            def __init__(self, extra=False):
                super().__init__()
                self.base, self.delta = nn.Linear(3, 3), nn.Linear(3, 3)
                self.extra = extra

            def forward(self, x):
                more = self.extra and self.delta(x)  # use
                return self.base(x) + more
        """,
        "used only at line {use}, in `self.extra and self.delta(x)`, where `self.extra` was false",
    ),
    "or": (
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.base, self.delta = nn.Linear(3, 3), nn.Linear(3, 3)

            def forward(self, x, known=1.0):
                return self.base(x) * (known or self.delta(x))  # use
        """,
        "used only at line {use}, in `known or self.delta(x)`, where `known` was true",
    ),
    "match": (
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.box, self.point = nn.Linear(3, 3), nn.Linear(3, 3)

            def forward(self, x, kind="box"):
                match kind:
                    case "point" | "points":  # by
                        return self.point(x)  # use
                    case _:
                        return self.box(x)
        """,
        'used only at line {use}, under `case "point" | "points"` (line {by}), which did not match',
    ),
    "an early return": (
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.base, self.head = nn.Linear(3, 3), nn.Linear(3, 3)
                self.features_only = True

            def forward(self, x):
                x = self.base(x)
                if self.features_only:  # by
                    return x
                x = F.relu(x)
                return self.head(x)  # use
        """,
        "used only at line {use}, after `return x`, under `if self.features_only` (line {by}), which was true",
    ),
    "continue": (
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.base, self.head = nn.Linear(3, 3), nn.Linear(3, 3)

            def forward(self, x):
                for name in ("a", "b"):
                    x = self.base(x)
                    if name in "abc":  # by
                        continue
                    x = self.head(x)  # use
                return x
        """,
        'used only at line {use}, after `continue`, under `if name in "abc"` (line {by}), which was true',
    ),
    "continue on one line": (
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.base, self.head = nn.Linear(3, 3), nn.Linear(3, 3)

            def forward(self, x):
                for name in ("a", "b"):
                    x = self.base(x)
                    if name in "abc": continue  # by
                    x = self.head(x)  # use
                return x
        """,
        'used only at line {use}, after `continue`, under `if name in "abc"` (line {by}), which was true',
    ),
    "nothing raised": (
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.base, self.spare = nn.Linear(3, 3), nn.Linear(3, 3)

            def forward(self, x):
                try:
                    h = self.base(x)
                except RuntimeError:  # by
                    h = self.spare(x)  # use
                return h
        """,
        "used only at line {use}, under `except RuntimeError` (line {by}), and nothing of the kind was raised",
    ),
    "a while that never ran": (
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.base, self.refine = nn.Linear(3, 3), nn.Linear(3, 3)

            def forward(self, x, steps=0):
                h = self.base(x)
                while steps > 0:  # by
                    h = h + self.refine(h)  # use
                    steps -= 1
                return h
        """,
        "used only at line {use}, in the loop `while steps > 0` (line {by}), which was false",
    ),
    "a loop over nothing": (
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.base, self.refine = nn.Linear(3, 3), nn.Linear(3, 3)
                self.rounds = 0

            def forward(self, x):
                h = self.base(x)
                for _ in range(self.rounds):  # by
                    h = h + self.refine(h)  # use
                return h
        """,
        "used only at line {use}, in the loop `for _ in range(self.rounds)` (line {by}), which had nothing to go through",
    ),
    "a method that nobody calls": (
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.base, self.head = nn.Linear(3, 3), nn.Linear(3, 3)

            def forward(self, x):
                return self.base(x)

            def classify(self, x):  # by
                return self.head(self.base(x))  # use
        """,
        "used only at line {use}, in `classify`, which did not run",
    ),
    "a slice": (
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.convs = nn.ModuleList([nn.Linear(3, 3) for _ in range(4)])

            def forward(self, x):
                for conv in self.convs[:-1]:  # use by
                    x = torch.tanh(conv(x))
                return x
        """,
        "used only in the loop over `self.convs[:-1]` (line {use}), which took 3 of 4",
    ),
    "a method that one branch calls": (
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.base, self.head = nn.Linear(3, 3), nn.Linear(3, 3)

            def decode(self, x):
                return self.head(x)  # use

            def forward(self, x, only=True):
                h = self.base(x)
                return h if only else self.decode(h)  # by
        """,
        "used only at line {use}, in `decode`, called only at line {by}, in `h if only else self.decode(h)`, where `only` was true",
    ),
    "a slice of nothing": (
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.base, self.more = nn.Linear(3, 3), nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
                self.depth = 0

            def forward(self, x):
                x = self.base(x)
                for layer in self.more[: self.depth]:  # use
                    x = layer(x)
                return x
        """,
        "used only in the loop over `self.more[: self.depth]` (line {use}), which had nothing to go through",
    ),
    "zip stops early": (
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.convs = nn.ModuleList([nn.Linear(3, 3) for _ in range(3)])
                self.scales = (1.0, 0.5)

            def forward(self, x):
                for conv, scale in zip(self.convs, self.scales):  # use by
                    x = torch.tanh(conv(x)) * scale
                return x
        """,
        "used only in the loop over `zip(self.convs, self.scales)` (line {use}), which took 2 of 3",
    ),
    "break": (
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.convs = nn.ModuleList([nn.Linear(3, 3) for _ in range(3)])

            def forward(self, x, depth=2):
                for i, conv in enumerate(self.convs):  # use
                    x = conv(x)
                    if i + 1 == depth:  # by
                        break
                return x
        """,
        "used only in the loop over `enumerate(self.convs)` (line {use}), which was left by `break`, under `if i + 1 == depth` (line {by})",
    ),
    "some items are skipped": (
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.convs = nn.ModuleList([nn.Linear(3, 3) for _ in range(4)])

            def forward(self, x):
                for i, conv in enumerate(self.convs):
                    if i != 2:  # by
                        x = conv(x)  # use
                return x
        """,
        "used only at line {use}, under `if i != 2` (line {by}), which was false in its turn",
    ),
    "a comprehension with a condition": (
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.heads = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})

            def forward(self, x, tasks=("a",)):
                return torch.stack([head(x) for name, head in self.heads.items() if name in tasks])  # use
        """,
        "used only at line {use}, in `[head(x) for name, head in self.heads.items() if name in ...`, "
        "where `name in tasks` was false in its turn",
    ),
    "a generator that nobody drained": (
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layers = nn.ModuleList([nn.Linear(3, 3) for _ in range(3)])

            def forward(self, x):
                return next(layer(x) for layer in self.layers)  # use
        """,
        "used only in the loop over `self.layers` (line {use}), which took 1 of 3",
    ),
    "continue for some": (
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.convs = nn.ModuleList([nn.Linear(3, 3) for _ in range(4)])

            def forward(self, x, skipped=(1, 3)):
                for i, conv in enumerate(self.convs):
                    if i in skipped:  # by
                        continue
                    x = x + conv(x)  # use
                return x
        """,
        "used only at line {use}, after `continue`, under `if i in skipped` (line {by}), which was true in its turn",
    ),
    "layers in a dict": (
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.box, self.point = nn.Linear(3, 3), nn.Linear(3, 3)

            def forward(self, x, kind="box"):
                ways = {"box": self.box, "point": self.point}  # use
                return ways[kind](x)  # by
        """,
        "put at line {use} in `ways`, of which `ways[kind]` (line {by}) took only `box`",
    ),
    "a condition in a loop, of one of two blocks": (
        """
        class Block(nn.Module):
            def __init__(self, more):
                super().__init__()
                self.lin, self.extra, self.more = nn.Linear(3, 3), nn.Linear(3, 3), more

            def forward(self, x):
                return self.lin(x) + sum(self.extra(x) if self.more else x for _ in range(2))  # use

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.one, self.two = Block(True), Block(False)

            def forward(self, x):
                return self.two(self.one(x))
        """,
        "used only at line {use}, in `self.extra(x) if self.more else x`, where `self.more` was false",
    ),
    "layers in a dict that is kept": (
        """
        class Net(nn.Module):
            def __init__(self, kind="box"):
                super().__init__()
                self.kind = kind
                self.box, self.point = nn.Linear(3, 3), nn.Linear(3, 3)
                self.ways = dict(box=self.box, point=self.point)  # use

            def forward(self, x):
                return self.ways[self.kind](x)  # by
        """,
        "put at line {use} in `self.ways`, of which `self.ways[self.kind]` (line {by}) took only `box`",
    ),
    "a list of layers, cut": (
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.one, self.two, self.three = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)

            def forward(self, x, depth=2):
                stages = [self.one, self.two, self.three]  # use
                for stage in stages[:depth]:  # by
                    x = stage(x)
                return x
        """,
        "put at line {use} in `stages`, of which `stages[:depth]` (line {by}) hands on, and only `one`, `two` ran",
    ),
    "a key": (
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.heads = nn.ModuleDict({"seg": nn.Linear(3, 3), "depth": nn.Linear(3, 3)})

            def forward(self, x, task="depth"):
                return self.heads[task](x)  # use by
        """,
        "used only through `self.heads[task]` (line {use}), which took only `depth`",
    ),
    "an index": (
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layers = nn.ModuleList([nn.Linear(3, 3) for _ in range(4)])

            def forward(self, x):
                for i in range(0, 4, 2):
                    x = self.layers[i](x)  # use by
                return x
        """,
        "used only through `self.layers[i]` (line {use}), which took only `0`, `2`",
    ),
    "a name put together": (
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                for i in range(3):
                    self.add_module(f"level{i}", nn.Linear(3, 3))

            def forward(self, x):
                for i in range(2):
                    x = getattr(self, f"level{i}")(x)  # use by
                return x
        """,
        'used only through `getattr(self, f"level{{i}}")` (line {use}), which took only `level0`, `level1`',
    ),
    "a parameter": (
        """
        class Net(nn.Module):
            def __init__(self, scaled=False):
                super().__init__()
                self.base = nn.Linear(3, 3)
                self.scaled, self.scale = scaled, nn.Parameter(torch.ones(3))

            def forward(self, x):
                x = self.base(x)
                if self.scaled:  # by
                    x = x * self.scale  # use
                return x
        """,
        "used only at line {use}, under `if self.scaled` (line {by}), which was false",
    ),
    "one of two like modules": (
        """
        class Block(nn.Module):
            def __init__(self, last):
                super().__init__()
                self.body, self.down = nn.Linear(3, 3), nn.Linear(3, 3)
                self.last = last

            def forward(self, x):
                x = self.body(x)
                if not self.last:  # by
                    x = self.down(x)  # use
                return x

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.blocks = nn.ModuleList([Block(False), Block(True)])

            def forward(self, x):
                for block in self.blocks:
                    x = block(x)
                return x
        """,
        "used only at line {use}, under `if not self.last` (line {by}), which was false",
    ),
    "in a function that is given the model": (
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.base, self.aux = nn.Linear(3, 3), nn.Linear(3, 3)

            def forward(self, x):
                return helper(self, x, 0.0)

        def helper(net, x, weight):
            y = net.base(x)
            if weight > 0:  # by
                y = y + weight * net.aux(x)  # use
            return y
        """,
        "used only at line {use}, under `if weight > 0` (line {by}), which was false",
    ),
    "two places": (
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.base, self.norm = nn.Linear(3, 3), nn.LayerNorm(3)
                self.before = self.after = False

            def forward(self, x):
                if self.before:  # by
                    x = self.norm(x)  # use
                x = self.base(x)
                return self.norm(x) if self.after else x
        """,
        "used at line {use}, under `if self.before` (line {by}), which was false, and at line 16, "
        "in `self.norm(x) if self.after else x`, where `self.after` was false",
    ),
}

# Programs of which a part is unused as well, and where nothing more can be told.
UNTOLD = {
    "used nowhere": """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.base, self.spare = nn.Linear(3, 3), nn.Linear(3, 3)

            def forward(self, x, flag=False):
                if flag:
                    x = x + 1
                return self.base(x)
    """,
    "only built and asked about": """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.base, self.spare = nn.Linear(3, 3), nn.Linear(3, 3)
                self.reset()

            def reset(self):
                if self.spare is not None:
                    nn.init.zeros_(self.spare.bias)

            def freeze(self, flag=False):
                if flag:
                    self.spare.requires_grad_(False)

            def forward(self, x):
                if isinstance(self.spare, nn.Linear) and self.spare is not None:
                    return self.base(x)
                return x
    """,
    "the same name in another class": """
        class Other(nn.Module):
            def __init__(self):
                super().__init__()
                self.spare = nn.Linear(3, 3)

            def forward(self, x, flag=True):
                if flag:
                    return x
                return self.spare(x)

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.base, self.spare = nn.Linear(3, 3), nn.Linear(3, 3)
                self.other = Other()
                del self.other.spare

            def forward(self, x):
                return self.base(self.other(x))
    """,
    "a name that only the run knows": """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.base, self.spare = nn.Linear(3, 3), nn.Linear(3, 3)

            def forward(self, x, name="base"):
                return getattr(self, name)(x)
    """,
    "the loop takes a copy of the list": """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layers = nn.ModuleList([nn.Linear(3, 3) for _ in range(3)])

            def forward(self, x):
                order = [0, 1]
                picked = [self.layers, order]
                for i in picked[1]:
                    x = picked[0][i](x)
                return x
    """,
    "a kept item on a line that did not run": """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.box, self.point = nn.Linear(3, 3), nn.Linear(3, 3)
                self.ways = dict(box=self.box, point=self.point)

            def forward(self, x, more=False):
                x = self.box(x)
                if more:
                    x = self.ways["point"](x)
                return x
    """,
    "a loop that ends in two ways": """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layers = nn.ModuleList([nn.Linear(3, 3) for _ in range(4)])

            def forward(self, x, first=1, second=2):
                for i, layer in enumerate(self.layers):
                    if i != first:
                        if i != second:
                            x = layer(x)
                return x
    """,
}


def written(folder: Path, body: str) -> Path:
    path = folder / "program.py"
    path.write_text(HEAD + textwrap.dedent(body).strip() + "\n" + TAIL)
    return path


def loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("decision_program", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def judged(path: Path, way: str, capsys: pytest.CaptureFixture[str]) -> Report:
    if way == "run":
        report, _ = run_script(str(path))
        capsys.readouterr()
        assert report is not None
        return report
    return fxgrad.analyze(loaded(path).build(), (torch.randn(2, 3),), loss=lambda out: out.pow(2).mean())


def unused(path: Path, way: str, capsys: pytest.CaptureFixture[str]) -> Finding:
    (finding,) = [f for f in judged(path, way, capsys).findings if f.code == "FXG101"]
    return finding


def line(path: Path, mark: str) -> int:
    return next(
        (n for n, text in enumerate(path.read_text().splitlines(), 1) if "#" in text and mark in text.rpartition("#")[2].split()), 0
    )


@pytest.mark.parametrize("way", ["analyze", "run"])
@pytest.mark.parametrize("name", TOLD)
def test_what_passed_it_by_is_told(name: str, way: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body, want = TOLD[name]
    path = written(tmp_path, body)
    finding = unused(path, way, capsys)
    use, by = line(path, "use"), line(path, "by")
    assert finding.message.partition("; ")[2] == want.format(use=use, by=by)
    (step,) = [step for step in finding.path if step.cut]
    assert step.site is not None
    assert step.site.line == (by or use)


@pytest.mark.parametrize("way", ["analyze", "run"])
@pytest.mark.parametrize("name", UNTOLD)
def test_what_is_not_known_is_not_told(name: str, way: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finding = unused(written(tmp_path, UNTOLD[name]), way, capsys)
    assert "; " not in finding.message
    assert not [step for step in finding.path if step.cut and step.site]


@pytest.mark.parametrize("way", ["analyze", "run"])
def test_a_result_that_one_branch_reads(way: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.base, self.norm = nn.Linear(3, 3), nn.LayerNorm(3)
                self.normed = False

            def forward(self, x):
                h = self.base(x)
                n = self.norm(h)
                return n if self.normed else h  # use
    """
    path = written(tmp_path, body)
    said = unused(path, way, capsys).message.partition("; ")[2]
    assert said == f"`n` is used only at line {line(path, 'use')}, in `n if self.normed else h`, where `self.normed` was false"


@pytest.mark.parametrize("last", ["return h + 0 * n.detach()", "n = h\n                return n", "return h"])
def test_a_result_that_no_branch_decides_on(last: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = f"""
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.base, self.norm = nn.Linear(3, 3), nn.LayerNorm(3)

            def forward(self, x):
                h = self.base(x)
                n = self.norm(h)
                {last}
    """
    report = judged(written(tmp_path, body), "analyze", capsys)
    assert not [f for f in report.findings if "; " in f.message]


def test_a_parameter_that_the_constructor_alone_reads() -> None:
    class Classes(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.new = torch.nn.Parameter(torch.randn(1, 3))
            self.register_buffer("full", torch.cat([torch.randn(2, 3), self.new.data]))
            self.out = torch.nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(x @ self.full.t())

    (finding,) = [f for f in fxgrad.analyze(Classes(), (torch.randn(2, 3),)).findings if f.code == "FXG101"]
    number = next(n for n, text in enumerate(Path(__file__).read_text().splitlines(), 1) if "self.new.data]))" in text)
    assert finding.message.endswith(f"; used only at line {number}, where `full` is computed once")


REPLACED = {
    "a layer": (
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc, self.out = nn.Linear(3, 3), nn.Linear(3, 3)

            def forward(self, x):
                self.fc = nn.Linear(x.shape[-1], 3)  # by
                return self.out(self.fc(x))
        """,
        "FXG110",
        {"fc.weight", "fc.bias"},
    ),
    "a parameter": (
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.weight = nn.Parameter(torch.randn(3, 3))
                self.register_buffer("mask", torch.tensor([1.0, 0.0, 1.0]))

            def forward(self, x):
                self.weight = nn.Parameter(self.weight * self.mask)  # by
                return x @ self.weight
        """,
        "FXG111",
        {"weight"},
    ),
    "a parameter of a part": (
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = nn.Linear(3, 3)

            def forward(self, x):
                self.fc.weight = nn.Parameter(self.fc.weight / self.fc.weight.norm())  # by
                return self.fc(x)
        """,
        "FXG111",
        {"fc.weight"},
    ),
}
KEPT = {
    "a parameter made before": """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.weight = nn.Parameter(torch.randn(3, 3) / 3)
                self.weight = nn.Parameter(self.weight.detach().clone())

            def forward(self, x):
                return x @ self.weight
    """,
    "a tensor of its own name": """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.weight = nn.Parameter(torch.randn(3, 3))

            def forward(self, x):
                self.scaled = self.weight * 2
                return x @ self.scaled
    """,
    "a parametrized layer": """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))

            def forward(self, x):
                return self.fc(x)
    """,
}


@pytest.mark.parametrize("way", ["analyze", "run"])
@pytest.mark.parametrize("name", REPLACED)
def test_a_name_stands_for_the_registered_parameter(name: str, way: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The one that an optimizer holds gets no gradient, whatever forward puts in its place; one finding says so."""
    body, code, starved = REPLACED[name]
    path = written(tmp_path, body)
    report = judged(path, way, capsys)
    assert {n.removeprefix("model.") for n, verdict in report.verdicts.items() if verdict == "none"} == starved
    (finding,) = [f for f in report.findings if f.severity != "note"]
    assert finding.site is not None
    assert (finding.code, finding.site.line) == (code, line(path, "by"))


@pytest.mark.parametrize("way", ["analyze", "run"])
@pytest.mark.parametrize("name", KEPT)
def test_what_is_not_replaced_in_forward_is_quiet(name: str, way: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = judged(written(tmp_path, KEPT[name]), way, capsys)
    assert set(report.verdicts.values()) == {"flows"}
    assert not [f for f in report.findings if f.severity != "note"]
