"""Which tests run a line, and how long each takes: from a run under coverage with a context per test (pytest-cov).

Kept in `covered/` (not in the repository), for each path a file of data and what pytest printed. A line that runs once
and is then remembered (an import, a cache) is known of the first test alone. What tests do in processes of their
own is not seen. On Python 3.11 coverage.py traces by `sys.settrace`, so `fxgrad/trace/coverage.py` looks at nothing
meanwhile (some tests fail of that; what they ran is known all the same).
"""

from __future__ import annotations

import ast
import functools
import os
import re
import subprocess
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import zip_longest
from pathlib import Path

from coverage import CoverageData

ROOT = Path(__file__).resolve().parents[2]
COVERED = Path(__file__).with_name("covered")
ROOMS = ("fxgrad/trace", "fxgrad/diagnosis", "passes", "fxgrad/fix_graph")

_SETTINGS = f"""[run]
core = ctrace
relative_files = true
source =
    {chr(10).join(f"    {room}" for room in ROOMS).strip()}
"""


def record(paths: Iterable[str]) -> None:
    """Run the tests of each path under coverage, each path in a process of its own."""
    COVERED.mkdir(exist_ok=True)
    settings = COVERED / "settings"
    settings.write_text(_SETTINGS)
    for path in paths:
        kept = COVERED / path.replace("/", "-")
        command = [sys.executable, "-m", "pytest", "-q", "--no-header", "--tb=no", "-p", "no:cacheprovider"]
        command += ["--cov", f"--cov-config={settings}", "--cov-context=test", "--cov-report="]
        command += ["--durations=0", "--durations-min=0.001", path]
        environment = {**os.environ, "COVERAGE_FILE": f"{kept}.data", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
        Path(f"{kept}.txt").write_text(done.stdout)
        print(path, *done.stdout.splitlines()[-1:], flush=True)


@functools.cache
def seconds() -> dict[str, float]:
    """How long each test took, under coverage."""
    found: dict[str, float] = {}
    for page in COVERED.glob("*.txt"):
        for time, test in re.findall(r"^([\d.]+)s call +(.+)$", page.read_text(), re.MULTILINE):
            found[test] = float(time)
    return found


def running(file: str, text: str, line: int) -> dict[str, frozenset[int]]:
    """The tests that run the statement at this line of the file, each with the lines that it runs of the function
    around."""
    known = _by_line(file)
    statement, function = around(text, line)
    found = {test for one in statement for test in known.get(one, ())}
    return {test: frozenset(one for one in function if test in known.get(one, ())) for test in found}


@functools.cache
def _by_line(file: str) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for kept in sorted(COVERED.glob("*.data")):
        data = CoverageData(str(kept))
        data.read()
        for line, contexts in data.contexts_by_lineno(file).items():
            found.setdefault(line, set()).update(context.rpartition("|")[0] for context in contexts if context)
    return found


def around(text: str, line: int) -> tuple[range, range]:
    """The lines of the innermost statement at this line (of one with a body those of its head), and those of the
    innermost function."""
    statement, function = range(line, line + 1), range(line, line + 1)
    for node in ast.walk(ast.parse(text)):  # outer ones come first
        if not isinstance(node, ast.stmt | ast.excepthandler | ast.match_case):
            continue
        if line in _head(node):
            statement = _head(node)
        if isinstance(node, ast.FunctionDef) and line in range(node.lineno, (node.end_lineno or 0) + 1):
            function = range(node.lineno, (node.end_lineno or 0) + 1)
    return statement, function


def _head(node: ast.stmt | ast.excepthandler | ast.match_case) -> range:
    if isinstance(node, ast.match_case):
        return range(node.pattern.lineno, node.body[0].lineno)
    body = getattr(node, "body", None)
    return range(node.lineno, body[0].lineno if body else (node.end_lineno or node.lineno) + 1)


def spread(tests: Mapping[str, frozenset[int]], budget: float) -> Iterator[str]:
    """The tests in the order to try them, for `budget` seconds in all. Those that run the same lines of the function
    are of a kind: one of each kind by turns, the rarest kind first, in each the quickest first."""
    times = seconds()
    kinds: dict[frozenset[int], list[str]] = {}
    for test in sorted(tests, key=lambda test: (times.get(test, 0.0), test)):
        kinds.setdefault(tests[test], []).append(test)
    turns = zip_longest(*sorted(kinds.values(), key=len))
    return _within(budget, (test for turn in turns for test in turn if test is not None))


def likely(file: str, budget: float) -> Iterator[str]:
    """Tests for a line that none is known to run, as all that goes by `fxgrad/trace/coverage.py` is not: those of
    a file that is called as the module, then the case programs, then others of its room, by lot."""
    module, room = Path(file).stem, Path(file).parts[-2]

    def far(test: str) -> tuple[bool, bool, bool, int]:
        path = test.partition("::")[0]
        return module not in path, "test_cases" not in path, room not in path, zlib.crc32(test.encode())

    return _within(budget, sorted(seconds(), key=far))


def _within(budget: float, tests: Iterable[str]) -> Iterator[str]:
    times = seconds()
    for test in tests:
        if (cost := times.get(test, 0.0)) <= budget:
            budget -= cost + 0.02  # a test that took no time takes some
            yield test
