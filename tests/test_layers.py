"""The import direction: no module imports a layer above its own, `passes` has one name, only the top prints or exits.

Read from the source text with `ast`, so imports inside functions and under `TYPE_CHECKING` count too. Imports by a
computed name are not seen.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# The longest matching name decides: `passes.rules` places `passes.rules.detached_path` too. "" is fxgrad/__init__.py.
LAYERS = {
    "records": 0,
    "errors": 1,
    "progress": 1,
    "source": 1,
    "version": 1,
    "calls": 2,
    "codegen": 2,
    "intercept": 2,
    "interrupts": 1,
    "leaves": 2,
    "memo": 2,
    "observations": 2,
    "reads": 2,
    "namespaces": 2,
    "nudges": 2,
    "recorder": 2,
    "regenerate": 2,
    "regions": 2,
    "scopes": 2,
    "sites": 2,
    "standins": 2,
    "switches": 2,
    "symbols": 2,
    "trace": 2,
    "transforms": 2,
    "tree": 2,
    "undo": 2,
    "world": 2,
    "integrations": 9,
    "mend.worker": 9,
    "watch": 8,
    "watching": 8,
    "mend": 8,
    "lenient": 2,
    "facts": 3,
    "passes.analyses": 4,
    "passes": 5,
    "passes.rewrites": 5,
    "passes.rules": 5,
    "check": 6,
    "decisions": 6,
    "divergence": 6,
    "explore": 6,
    "intent": 6,
    "lazy": 6,
    "hidden": 6,
    "leaks": 6,
    "fix": 6,
    "timing": 6,
    "verify": 6,
    "report": 7,
    "repair": 8,
    "": 8,
    "api": 8,
    "infer": 8,
    "load": 8,
    "__main__": 9,
    "commands": 9,
    "cli": 9,
    "pytest_plugin": 9,
    "run": 9,
}
TOP = max(LAYERS.values())
EXIT_CALLS = frozenset({"print", "exit", "quit", "sys.exit", "os._exit", "SystemExit"})


def module_files(root: Path) -> dict[str, Path]:
    """Every module of the package by its name without `fxgrad.`; passes/ is read at the top, not by the symlink."""
    files: dict[str, Path] = {}
    for folder in ("fxgrad", "passes"):
        for file in sorted((root / folder).rglob("*.py")):
            parts = file.relative_to(root).with_suffix("").parts
            name = ".".join(part for part in parts if part != "__init__").removeprefix("fxgrad").removeprefix(".")
            if folder == "passes" or not name.startswith("passes"):
                files[name] = file
    return files


def layer(module: str) -> int | None:
    """The layer of a module, None if no entry of the table places it."""
    name = module
    while name not in LAYERS and "." in name:
        name = name.rpartition(".")[0]
    # `passes` places only passes/__init__.py: a module beside it belongs to a folder or gets an entry.
    return None if name == "passes" != module else LAYERS.get(name)


def imported(tree: ast.Module, module: str, is_package: bool, known: frozenset[str]) -> Iterator[tuple[int, str]]:
    """(line, module of fxgrad) for each import of fxgrad; `from fxgrad.x import y` is `x.y` where that is a module."""
    package = f"fxgrad.{module}".rstrip(".").split(".")
    package = package if is_package else package[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                if name.name.split(".")[0] == "fxgrad":
                    yield node.lineno, name.name.partition(".")[2]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*above, *filter(None, [node.module])])
            if origin.split(".")[0] != "fxgrad":
                continue
            base = origin.partition(".")[2]
            for name in node.names:
                inner = f"{base}.{name.name}".lstrip(".")
                yield node.lineno, inner if inner in known else base


def upward_imports(source: str, module: str, is_package: bool, known: frozenset[str]) -> list[str]:
    """A line of text for each import of a higher layer."""
    own = layer(module)
    assert own is not None, f"{module}: add it to LAYERS in {Path(__file__).name}"
    found = []
    for line, target in imported(ast.parse(source), module, is_package, known):
        above = layer(target)
        assert above is not None, f"{module} imports {target}: add it to LAYERS in {Path(__file__).name}"
        if above > own:
            found.append(f"{module}:{line}: layer {own} imports {target or 'fxgrad'} of layer {above}")
    return found


def bare_passes_imports(source: str) -> list[int]:
    """Lines that import passes/ by its folder name."""
    imports: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imports += [(node.lineno, name.name) for name in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            imports.append((node.lineno, node.module or ""))
    return [line for line, name in imports if name.split(".")[0] == "passes"]


def exit_calls(source: str) -> list[int]:
    """Lines that print or end the process."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [call.lineno for call in calls if ast.unparse(call.func) in EXIT_CALLS]


MODULES = module_files(ROOT)
NAMES = frozenset(MODULES)
SOURCES = [file for folder in ("fxgrad", "passes", "tests", "bench") for file in sorted((ROOT / folder).rglob("*.py"))]


@pytest.mark.parametrize("module", list(MODULES), ids=lambda name: name or "fxgrad")
def test_module_is_in_the_table(module: str) -> None:
    assert layer(module) is not None, f"{MODULES[module]} is in no layer: add it to LAYERS in {Path(__file__).name}"


@pytest.mark.parametrize("module", list(MODULES), ids=lambda name: name or "fxgrad")
def test_module_imports_nothing_above_it(module: str) -> None:
    file = MODULES[module]
    assert upward_imports(file.read_text(), module, file.name == "__init__.py", NAMES) == []


@pytest.mark.parametrize("module", [name for name in MODULES if layer(name) != TOP], ids=lambda name: name or "fxgrad")
def test_module_below_the_top_neither_prints_nor_exits(module: str) -> None:
    assert exit_calls(MODULES[module].read_text()) == []


def test_passes_is_never_imported_by_its_folder_name() -> None:
    got = [f"{file}:{line}" for file in SOURCES for line in bare_passes_imports(file.read_text())]
    assert got == []


# The checks themselves: each must see what it is there for, or the tests above could not fail.


@pytest.mark.parametrize(
    ("module", "source", "count"),
    [
        ("records", "import fxgrad.errors", 1),
        ("facts", "from fxgrad.trace import record", 0),
        ("trace", "def f():\n    from fxgrad.facts import Facts", 1),
        ("trace", "from .facts import Facts", 1),
        ("trace", "from . import facts, records", 1),
        ("trace", "import fxgrad", 1),
        ("trace", "from fxgrad import analyze", 1),
        ("passes.analyses.cuts", "from fxgrad.passes import rules", 1),
        ("passes.analyses.cuts", "from ..rules import detached", 1),
        ("passes.rules.detached", "from fxgrad.passes.analyses.cuts import analyse", 0),
        ("report.table", "from ..check import check", 0),
        ("report.table", "from fxgrad.api import analyze", 1),
        ("cli", "import fxgrad\nfrom fxgrad import load", 0),
    ],
)
def test_upward_imports(module: str, source: str, count: int) -> None:
    known = frozenset({*LAYERS, "passes.analyses.cuts", "passes.rules.detached", "report.table"})
    assert len(upward_imports(source, module, False, known)) == count


def test_upward_imports_from_a_package_resolve_inside_it() -> None:
    assert upward_imports("from .rules import x", "passes.analyses", True, NAMES | {"passes.analyses.rules"}) == []


def test_a_module_outside_the_table_has_no_layer() -> None:
    assert [layer("helpers"), layer("passes.helpers")] == [None, None]


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("import passes", [1]),
        ("import os\nfrom passes.rules import x", [2]),
        ("import fxgrad.passes\nfrom .passes import x", []),
    ],
)
def test_bare_passes_imports(source: str, lines: list[int]) -> None:
    assert bare_passes_imports(source) == lines


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("print(1)", [1]),
        ("import sys\nsys.exit(2)", [2]),
        ("raise SystemExit(1)", [1]),
        ("pprint(1)\nconsole.print(1)", []),
    ],
)
def test_exit_calls(source: str, lines: list[int]) -> None:
    assert exit_calls(source) == lines
