"""The house: rooms on floors, lower never imports higher, no circle of files, `passes` has one name, only the top prints or exits, `Any` is rare, no function is tangled.

Read from the source text with `ast`, so imports inside functions and under `TYPE_CHECKING` count too. Imports by a
computed name are not seen. Complexity is radon's, of the `dev` extra: unlike ruff's it counts boolean operators and
comprehensions.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# From the ground up. Rooms of one floor never import each other. "" is fxgrad/__init__.py.
FLOORS: tuple[frozenset[str], ...] = (
    frozenset({"records"}),
    frozenset({"source", "torch_api"}),
    frozenset({"world"}),
    frozenset({"passes", "program"}),
    frozenset({"trace", "report"}),
    frozenset({"diagnosis", "fix_graph"}),
    frozenset({"watching", "fix_source"}),
    frozenset({"api", "cli", "integrations"}),
    frozenset({"", "__main__"}),
    frozenset({"pytest_plugin"}),
)
FILES_AT_THE_TOP = frozenset({"__init__.py", "__main__.py", "api.py", "pytest_plugin.py"})
TOP = frozenset({"cli", "integrations", "__main__", "pytest_plugin"})
WORKER = "fix_source.trials.worker"  # a process of its own
MOST_WAYS = 15  # complexity of a function
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


def room(module: str) -> str:
    return module.partition(".")[0]


def floor(module: str) -> int | None:
    """The floor of a module's room, None if no floor has that room."""
    return next((number for number, rooms in enumerate(FLOORS, 1) if room(module) in rooms), None)


def imported(tree: ast.Module, module: str, is_package: bool, known: Iterable[str]) -> Iterator[tuple[int, str]]:
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


def imports_of(source: str, module: str, is_package: bool, known: Iterable[str]) -> list[tuple[int, str]]:
    return list(imported(ast.parse(source), module, is_package, known))


def climbs(module: str, target: str) -> bool:
    """Whether an import leads up, or to another room of the same floor."""
    own, above = floor(module), floor(target)
    assert own is not None, f"{module} is in no room of FLOORS"
    assert above is not None, f"{module} imports {target}, which is in no room of FLOORS"
    return room(module) != room(target) and above >= own


def circles(graph: Mapping[str, Iterable[str]]) -> set[frozenset[str]]:
    """The sets of modules that all reach each other (Tarjan's algorithm), of two or more."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    open_: list[str] = []
    found: set[frozenset[str]] = set()

    def visit(module: str) -> None:
        number[module] = low[module] = len(number)
        open_.append(module)
        for target in graph.get(module, ()):
            if target not in number:
                visit(target)
                low[module] = min(low[module], low[target])
            elif target in open_:
                low[module] = min(low[module], number[target])
        if low[module] == number[module]:
            start = open_.index(module)
            if len(open_) - start > 1:
                found.add(frozenset(open_[start:]))
            del open_[start:]

    for module in graph:
        if module not in number:
            visit(module)
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


def any_per_thousand(sources: Iterable[str]) -> float:
    """How often the word `Any` stands in a thousand lines."""
    texts = list(sources)
    return 1000 * sum(len(re.findall(r"\bAny\b", text)) for text in texts) / sum(text.count("\n") for text in texts)


def tangled(source: str) -> list[tuple[int, str, int]]:
    """(line, name, complexity) of each function and method that has more ways through it than a reader can follow."""
    visitor = pytest.importorskip("radon.visitors").ComplexityVisitor.from_code(source)
    functions = [*visitor.functions, *(method for found in visitor.classes for method in found.methods)]
    return [(found.lineno, found.fullname, found.complexity) for found in functions if found.complexity > MOST_WAYS]


MODULES = module_files(ROOT)
IMPORTS = {module: imports_of(file.read_text(), module, file.name == "__init__.py", MODULES) for module, file in MODULES.items()}
SOURCES = [file for folder in ("fxgrad", "passes", "tests", "bench") for file in sorted((ROOT / folder).rglob("*.py"))]
BELOW_THE_TOP = [module for module in MODULES if room(module) not in TOP and module != WORKER]


def test_every_module_is_in_a_room() -> None:
    assert [module for module in MODULES if floor(module) is None] == []


def test_only_these_files_lie_outside_the_rooms() -> None:
    assert {file.name for file in (ROOT / "fxgrad").glob("*.py")} <= FILES_AT_THE_TOP


@pytest.mark.parametrize("module", list(MODULES), ids=lambda name: name or "fxgrad")
def test_module_imports_nothing_above_it(module: str) -> None:
    assert [(line, target) for line, target in IMPORTS[module] if climbs(module, target)] == []


def test_no_circle_of_files() -> None:
    graph = {module: [target for _, target in found if target != module] for module, found in IMPORTS.items()}
    assert circles(graph) == set()


@pytest.mark.parametrize("module", BELOW_THE_TOP, ids=lambda name: name or "fxgrad")
def test_module_below_the_top_neither_prints_nor_exits(module: str) -> None:
    assert exit_calls(MODULES[module].read_text()) == []


def test_passes_is_never_imported_by_its_folder_name() -> None:
    got = [f"{file}:{line}" for file in SOURCES for line in bare_passes_imports(file.read_text())]
    assert got == []


def test_any_is_rare() -> None:
    assert any_per_thousand(file.read_text() for file in MODULES.values()) < 10


@pytest.mark.parametrize("module", list(MODULES), ids=lambda name: name or "fxgrad")
def test_no_function_is_tangled(module: str) -> None:
    assert tangled(MODULES[module].read_text()) == []


# The checks themselves: each must see what it is there for, or the tests above could not fail.


@pytest.mark.parametrize(
    ("module", "source", "upward"),
    [
        ("records.errors", "from fxgrad.source.sites import caller_file", True),
        ("source.sites", "from fxgrad.torch_api import tree", True),
        ("source.sites", "from fxgrad.source.parsing import parsed", False),
        ("trace.facts", "def f():\n    from fxgrad.diagnosis.gather import diagnose", True),
        ("trace.facts", "from ..diagnosis.gather import diagnose", True),
        ("trace.facts", "from . import run", False),
        ("trace.facts", "from .. import cli, records", True),
        ("trace.facts", "import fxgrad", True),
        ("trace.facts", "from fxgrad import analyze", True),
        ("passes.rules.detached", "from fxgrad.passes.analyses.cuts import analyse", False),
        ("passes.rules.detached", "from fxgrad.program import load", True),
        ("report.table", "from ..records import Finding", False),
        ("report.table", "from fxgrad.api import analyze", True),
    ],
)
def test_upward_imports(module: str, source: str, upward: bool) -> None:
    found = imports_of(source, module, False, {*MODULES, "passes.rules.detached"})
    assert any(climbs(module, target) for _, target in found) == upward


def test_every_any_counts() -> None:
    assert any_per_thousand(["from typing import Any\n", "many: dict[Any, Any]\nAnything = 1\n"]) == 1000


def test_imports_from_a_package_resolve_inside_it() -> None:
    got = imports_of("from .rules import x", "passes.analyses", True, {"passes.analyses.rules"})
    assert got == [(1, "passes.analyses.rules")]


def test_a_module_outside_the_rooms_has_no_floor() -> None:
    assert floor("helpers") is None


@pytest.mark.parametrize(
    ("graph", "want"),
    [
        ({"a": ["b"], "b": ["c"], "c": []}, set()),
        ({"a": ["b"], "b": ["a"]}, {frozenset("ab")}),
        ({"a": ["b"], "b": ["c"], "c": ["b", "d"], "d": ["e"], "e": ["d"]}, {frozenset("bc"), frozenset("de")}),
    ],
)
def test_circles(graph: dict[str, list[str]], want: set[frozenset[str]]) -> None:
    assert circles(graph) == want


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


@pytest.mark.parametrize(
    ("source", "tangles"),
    [
        ("def f(x):\n" + "    if x: pass\n" * 14, False),
        ("def f(x):\n" + "    if x: pass\n" * 15, True),
        ("def f(x):\n    return " + " or ".join("x" * 16), True),
        ("def f(x):\n" + "    [y for y in x if y]\n" * 8, True),
        ("class C:\n    def f(self, x):\n" + "        if x: pass\n" * 15, True),
    ],
    ids=["plain", "branches", "boolean operators", "comprehensions", "a method"],
)
def test_complexity(source: str, tangles: bool) -> None:
    assert bool(tangled(source)) is tangles
