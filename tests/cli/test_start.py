"""What starts without torch: the import, the commands that only say something, and pytest with the plugin."""

from __future__ import annotations

import ast
import inspect
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import fxgrad
from fxgrad.cli.arguments import FORMATS
from fxgrad.cli.main import COMMANDS
from fxgrad.cli.rulebook import entries
from fxgrad.passes import RULES
from fxgrad.report import FORMATS as MODULES

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "numpy", "rich", "tabulate", "fxgrad.passes", "fxgrad.report")


def loaded(code: str, tmp_path: Path, *arguments: str) -> str:
    """Those of `HEAVY` that are there when some code has run in a process of its own."""
    tell = f"\nimport sys\nsys.stderr.write(' '.join(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code + tell, *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0
    return done.stderr


@pytest.mark.parametrize(
    "line",
    [
        ["--version"],
        ["--help"],
        ["rules"],
        ["explain", "FXG103"],
        ["explain", "detatched-path"],
        ["explain", "element 0 of tensors does not require grad and does not have a grad_fn"],
        ["explain", "nothing that anybody knows"],
        ["completion", "bash"],
        ["report", "--fast"],
        *([command.name, "--help"] for command in COMMANDS),
    ],
    ids=" ".join,
)
def test_a_command_that_only_says_something_loads_no_torch(line: list[str], tmp_path: Path) -> None:
    code = "import contextlib, os, sys; from fxgrad.cli import main\nwith contextlib.redirect_stderr(open(os.devnull, 'w')): main(sys.argv[1:])"
    assert loaded(code, tmp_path, *line) == ""


@pytest.mark.parametrize(
    "code", ["import fxgrad", "import fxgrad; dir(fxgrad); fxgrad.__version__; fxgrad.__all__", "import fxgrad.pytest_plugin"]
)
def test_the_import_loads_no_torch(code: str, tmp_path: Path) -> None:
    assert loaded(code, tmp_path) == ""


def test_a_name_loads_what_it_needs(tmp_path: Path) -> None:
    assert "torch" in loaded("import fxgrad; fxgrad.analyze", tmp_path)


def test_a_room_is_there_with_all_that_hangs_in_it(tmp_path: Path) -> None:
    code = "import fxgrad; assert fxgrad.passes.rewrites.out_of_place.OutOfPlace is fxgrad.OutOfPlace"
    assert "torch" in loaded(code, tmp_path)


def test_pytest_starts_without_torch_where_nothing_uses_it(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        f"import sys\n\n\ndef test_it():\n    assert not [name for name in {HEAVY!r} if name in sys.modules]\n"
    )
    line = [sys.executable, "-m", "pytest", "-q", "-p", "fxgrad.pytest_plugin", "test_it.py"]
    alone = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(line, cwd=tmp_path, env=alone, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout


# ------------------------------------------------------------------------------------------------------------ the module's names


def test_all_names_are_there() -> None:
    names: dict[str, object] = {}
    exec("from fxgrad import *", names)
    assert set(names) - {"__builtins__"} == set(fxgrad.__all__)
    assert set(fxgrad.__all__) <= set(dir(fxgrad))


def test_the_names_that_a_type_checker_sees_are_those_that_are_loaded() -> None:
    tree = ast.parse(inspect.getsource(fxgrad))
    (block,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    seen = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == fxgrad._HOME
    assert set(seen) == set(fxgrad.__all__)


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="module 'fxgrad' has no attribute 'analyse'"):
        fxgrad.analyse  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("name", ["analyze", "fix", "benchmark", "watch", "Report", "Watch", "FixResult", "GuardError"])
def test_a_name_is_pickled_by_where_it_is(name: str) -> None:
    value = getattr(fxgrad, name)
    assert pickle.loads(pickle.dumps(value)) is value


# ------------------------------------------------------------------------------------------------------------ what is read, not imported


def test_rules_that_are_read_are_those_that_run() -> None:
    read = [(rule.code, rule.name, rule.severity, rule.documentation) for rule in entries()]
    assert read == [(rule.CODE, rule.NAME, rule.SEVERITY, inspect.getdoc(rule)) for rule in RULES]


def test_formats_that_are_named_are_those_that_render() -> None:
    assert tuple(FORMATS) == tuple(MODULES)
