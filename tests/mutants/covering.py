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
from collections.abc import Iterable, Iterator
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


def running(file: str, lines: Iterable[int]) -> set[str]:
    """The tests that run one of the lines."""
    known = _by_line(file)
    return {test for line in lines for test in known.get(line, ())}


@functools.cache
def _by_line(file: str) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for kept in sorted(COVERED.glob("*.data")):
        data = CoverageData(str(kept))
        data.read()
        for line, contexts in data.contexts_by_lineno(file).items():
            found.setdefault(line, set()).update(context.rpartition("|")[0] for context in contexts if context)
    return found


def statement(text: str, line: int) -> range:
    """The lines of the innermost statement at this line; of one with a body those of its head."""
    best = range(line, line + 1)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.stmt | ast.excepthandler | ast.match_case):
            here = _head(node)
            if line in here and (len(best) == 1 or len(here) < len(best)):
                best = here
    return best


def _head(node: ast.stmt | ast.excepthandler | ast.match_case) -> range:
    if isinstance(node, ast.match_case):
        return range(node.pattern.lineno, node.body[0].lineno)
    body = getattr(node, "body", None)
    return range(node.lineno, body[0].lineno if body else (node.end_lineno or node.lineno) + 1)


def spread(tests: Iterable[str], near: tuple[str, ...], budget: float) -> Iterator[str]:
    """The tests in the order to try them, for `budget` seconds in all: one of each file by turns, the files that
    are `near` first, in each the quickest first."""
    times = seconds()
    files: dict[str, list[str]] = {}
    for test in sorted(tests, key=lambda test: (times.get(test, 0.0), test)):
        files.setdefault(test.partition("::")[0], []).append(test)
    order = sorted(files, key=lambda file: (not file.startswith(near), times.get(files[file][0], 0.0)))
    for turn in zip_longest(*(files[file] for file in order)):
        for test in turn:
            if test is not None and (cost := times.get(test, 0.0)) <= budget:
                budget -= cost + 0.02  # a test that took no time takes some
                yield test
