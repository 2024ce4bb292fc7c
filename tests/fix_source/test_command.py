"""`fxgrad fix` on the command line: what it prints, what it writes, and its exit status, for each kind of fix."""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fxgrad.cli import main
from fxgrad.fix_source import mend
from fxgrad.fix_source.trials.server import Server

HEAD = "import torch\nfrom torch import nn\nfrom torch.utils.checkpoint import checkpoint\n\n\n"
TAIL = "\n\ndef example_inputs():\n    torch.manual_seed(0)\n    return (torch.randn(3, 4),)\n"

NET = (
    HEAD
    + """\
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc = nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)
        {init}

    {above}
    def encode(self, x):
        return self.enc(x)

    def forward(self, x):
        {forward}
"""
    + TAIL
)


def net(forward: str, init: str = "self.n = 1", above: str = "") -> str:
    """A model file; `forward` is the text of its forward, further lines at their own indent."""
    return NET.format(init=init, above=above or "# no decorator", forward=forward.replace("\n", "\n        "))


OPTIMIZER = """\
model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
model[1] = nn.Linear(4, 2)  # the new head
example_inputs = (torch.ones(3, 4),)


def loss(out):
    return out.square().mean()
"""

# Changes numbers or intent: the program, the lines that change, and what is said of it.
UNSAFE: dict[str, tuple[str, str, str]] = {
    "detach": (
        net("h = self.encode(x).detach()  # why?\nreturn self.head(h)"),
        "-h = self.encode(x).detach()  # why?\n+h = self.encode(x)  # why?",
        "FXG103 [unsafe] drops the detach",
    ),
    "no_grad": (
        net("with torch.no_grad():\n    h = self.encode(x)\n    # a comment\n    h = torch.relu(h)\n\nreturn self.head(h)"),
        "-with torch.no_grad():\n-    h = self.encode(x)\n-    # a comment\n-    h = torch.relu(h)\n"
        "+h = self.encode(x)\n+# a comment\n+h = torch.relu(h)",
        "FXG104 [unsafe] unwraps the block",
    ),
    "no_grad_decorator": (
        net("return self.head(self.encode(x))", above="@torch.no_grad()"),
        "-    @torch.no_grad()",
        "FXG104 [unsafe] drops the decorator",
    ),
    "parameter": (
        net("return self.head(self.encode(x) * self.scale)", init="self.scale = torch.ones(4, requires_grad=True)"),
        "-self.scale = torch.ones(4, requires_grad=True)\n+self.scale = nn.Parameter(torch.ones(4))",
        "FXG109 [unsafe] makes it a Parameter",
    ),
    "buffer": (
        net("y = self.head(self.encode(x @ self.mix))\nself.mix = self.mix * 0.9\nreturn y", init="self.mix = torch.randn(4, 4)  # drifts"),
        '-self.mix = torch.randn(4, 4)  # drifts\n+self.register_buffer("mix", torch.randn(4, 4))  # drifts',
        "FXG109 [unsafe] makes it a buffer",
    ),
    "module_list": (
        net("x = self.encode(x)\nfor layer in self.layers:\n    x = layer(x)\nreturn self.head(x)", init="self.layers = [nn.Linear(4, 4)]"),
        "-self.layers = [nn.Linear(4, 4)]\n+self.layers = nn.ModuleList([nn.Linear(4, 4)])",
        "FXG110 [unsafe] makes it an nn.ModuleList",
    ),
    "module_dict_of_lists": (
        net('return self.head(self.encode(self.parts["a"][0](x)))', init='self.parts = {"a": [nn.Linear(4, 4)]}'),
        '-self.parts = {"a": [nn.Linear(4, 4)]}\n+self.parts = nn.ModuleDict({"a": nn.ModuleList([nn.Linear(4, 4)])})',
        "FXG110 [unsafe] makes it an nn.ModuleDict",
    ),
    "reentrant": (
        net("return self.head(checkpoint(self.encode, x, use_reentrant=True))"),
        "-return self.head(checkpoint(self.encode, x, use_reentrant=True))\n+return self.head(checkpoint(self.encode, x, use_reentrant=False))",
        "FXG114 [unsafe] checkpoints without reentrance",
    ),
    "into_the_parameter": (
        net("h = self.head.bias\nh += self.encode(x).mean() * 0.5\nreturn self.head(x) + h"),
        "-h += self.encode(x).mean() * 0.5\n+h = h + self.encode(x).mean() * 0.5",
        "FXG202 [unsafe] `+=` out of place",
    ),
    "optimizer": (
        HEAD + OPTIMIZER,
        "+model[1] = nn.Linear(4, 2)  # the new head\n optimizer = torch.optim.SGD(model.parameters(), lr=0.1)\n-model[1] = nn.Linear(4, 2)  # the new head",
        "FXG302 [unsafe] builds the optimizer later",
    ),
    "stack": (
        net("y = self.head(self.encode(x))\nreturn torch.tensor([y.sum(), y.mean()], requires_grad=True)"),
        "-return torch.tensor([y.sum(), y.mean()], requires_grad=True)\n+return torch.stack([y.sum(), y.mean()])",
        "FXG108 [unsafe] stacks the tensors",
    ),
}

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], server: Server) -> Run:
    """`fxgrad fix net.py ...`: exit status, stdout and stderr. The process for trials is one for all tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fxgrad.fix_source.mend", functools.partial(mend, server=server))

    def run_line(*argv: str) -> tuple[int, str, str]:
        status = main(["fix", "net.py", *argv])
        out, err = capsys.readouterr()
        return status, out, err

    return run_line


def changed(diff: str) -> str:
    """The removed and added lines, less their indent; the one between them where lines were moved."""
    lines = diff.splitlines()[3:]
    first = next(i for i, line in enumerate(lines) if line[0] in "+-")
    last = max(i for i, line in enumerate(lines) if line[0] in "+-")
    kept = lines[first : last + 1]
    inner = min(
        (len(line) - 1 - len(line[1:].lstrip()) for line in kept if line[1:].strip() and not line[1:].strip().startswith("@")), default=0
    )
    return "\n".join(line[0] + line[1 + inner :] for line in kept)


@pytest.mark.parametrize("name", UNSAFE)
def test_what_changes_numbers_needs_to_be_allowed(name: str, tmp_path: Path, run: Run) -> None:
    text, lines, said = UNSAFE[name]
    file = tmp_path / "net.py"
    file.write_text(text)
    status, out, err = run()
    assert (status, out) == (0 if name == "buffer" else 1, "")  # a warning, an error
    assert " not fixed (--unsafe-fixes would): " in err
    assert err.endswith("Fixed 0, remaining 1.\n")

    status, out, err = run("--unsafe-fixes", "--diff")
    assert status == 1
    assert changed(out) == lines
    assert out.splitlines()[2].endswith(f"@@ {said.split()[0]} unsafe")
    assert said in err
    assert err.endswith("Fixed 1, remaining 0.\n")
    assert file.read_text() == text

    status, out, err = run("--unsafe-fixes", "--write")
    assert (status, out) == (0, "")
    assert err.endswith(f"wrote {file}\n")
    assert run("--unsafe-fixes") == (0, "", "Fixed 0, remaining 0.\n")


TWO = net("h = self.encode(x).detach()\nz = torch.exp(self.head(h))\nz += 1\nreturn z")


def test_a_diff_counts_what_it_does_not_mend(tmp_path: Path, run: Run) -> None:
    (tmp_path / "net.py").write_text(TWO)
    status, out, err = run("--diff")
    assert (status, changed(out)) == (1, "-z += 1\n+z = z + 1")
    assert "FXG103 not fixed (--unsafe-fixes would): " in err
    assert err.endswith("Fixed 1, remaining 1.\n")
    assert "  head.weight: blocked -> flows\n" in err
    status, out, err = run("--write")
    assert (status, out) == (1, "")  # an error is left
    status, out, err = run()
    assert (status, out) == (1, "")  # nothing to show, and still an error


def test_select_and_ignore_choose_what_is_mended_and_counted(tmp_path: Path, run: Run) -> None:
    (tmp_path / "net.py").write_text(TWO)
    status, out, err = run("--unsafe-fixes", "--select", "FXG1")
    assert (status, changed(out)) == (1, "-h = self.encode(x).detach()\n+h = self.encode(x)")
    assert err.endswith("Fixed 1, remaining 0.\n")
    status, out, err = run("--unsafe-fixes", "--ignore", "FXG103")
    assert (status, changed(out)) == (1, "-z += 1\n+z = z + 1")
    assert run("--ignore", "FXG1,FXG2")[:2] == (0, "")
    assert run("--select", "FXG9") == (2, "", "fxgrad: error: there is no rule FXG9 (`fxgrad rules` lists them)\n")


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_git_apply_takes_what_is_printed(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two files of which one lies in a folder, and a text that is not ASCII."""
    (tmp_path / "my parts").mkdir()
    (tmp_path / "my parts" / "größe.py").write_text("def größer(t):\n\tt.add_(1)  # größer\n\treturn t\n", encoding="utf-8")
    text = 'import sys\nsys.path.insert(0, "my parts")\nfrom größe import größer\n' + net(
        "z = torch.exp(self.head(self.encode(x)))\nz *= 2\nreturn größer(torch.sigmoid(z))"
    )
    (tmp_path / "net.py").write_text(text, encoding="utf-8")
    status, out, err = run()
    assert (status, err.splitlines()[-1]) == (1, "Fixed 2, remaining 0.")
    subprocess.run(["git", "apply", "-"], cwd=tmp_path, input=out.encode(), check=True)
    assert "t = t.add(1)  # größer" in (tmp_path / "my parts" / "größe.py").read_text(encoding="utf-8")
    assert run() == (0, "", "Fixed 0, remaining 0.\n")


def test_a_file_that_changes_meanwhile_is_not_written(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    file = tmp_path / "net.py"
    file.write_text(TWO)

    def slowly(*args: Any, **kwargs: Any) -> Any:
        result = mend(*args, server=server, **kwargs)
        file.write_text(TWO + "# mine\n")
        return result

    monkeypatch.setattr("fxgrad.fix_source.mend", slowly)
    status, out, err = run("--write")
    assert (status, out) == (2, "")
    assert (
        err.splitlines()[-1]
        == "fxgrad: error: net.py:1: the file changed while it was being mended; nothing was written to it (run the same command again)"
    )
    assert file.read_text() == TWO + "# mine\n"


def test_an_installed_package_is_left_alone_and_its_graph_offered(tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    package = tmp_path / "site-packages"
    package.mkdir()
    (package / "layers_of_others.py").write_text("import torch\n\ndef scaled(x):\n    y = torch.exp(x)\n    y *= 2\n    return y\n")
    text = 'import sys\nsys.path.insert(0, "site-packages")\nfrom layers_of_others import scaled\n' + net(
        "return scaled(self.head(self.encode(x)))"
    )
    (tmp_path / "net.py").write_text(text)
    status, out, err = run()
    assert (status, out) == (1, "")
    assert "FXG201 not fixed: " in err
    assert "belongs to an installed package; the graph can be mended instead: fxgrad.fix, or --module DIR" in err
    assert run("--module", "mended")[0] == 0
