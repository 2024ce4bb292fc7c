"""Mutants under tests, each in a fork of one process that has imported fxgrad and collected the tests: a trial then
costs what its tests cost.

The functions that exist get the mutant's code there. What ran at import has run: a mutant in the body of a module or
a class is tried in a process of its own, which imports it from the tree.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import CodeType, FunctionType

import pytest
from _pytest.runner import runtestprotocol

SLOW = "over the limit of time"


class Session:
    """A plugin of pytest: in place of its loop over the tests, `work` is called with this."""

    def __init__(self, tree: Path, work: Callable[[Session], None]) -> None:
        self.tree = tree
        self._work = work
        self._items: dict[str, pytest.Item] = {}
        self._passed: set[str] = set()  # on the tree as it is, after those that ran before
        self._broken: set[str] = set()

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self._items = {item.nodeid: item for item in session.items}
        self._work(self)
        return True

    def killer(self, file: str, text: str, tests: Sequence[str], limit: float) -> str:
        """The first test that fails with this text of the file, and does not fail without; "" where none does.
        What lasts longer than `limit` seconds, and does not without, fails too: a loop may no longer end."""
        original = (self.tree / file).read_text()
        while True:
            left = [test for test in tests if test in self._items and test not in self._broken]
            (self.tree / file).write_text(text)
            try:
                failed = self._failed(left, limit, lambda: _swap(self.tree / file, original, text))
            finally:
                (self.tree / file).write_text(original)
            if failed == SLOW and self._failed(left, limit, lambda: True) == SLOW:  # they take so long anyway
                return ""
            if failed in ("", SLOW) or failed in self._passed or failed not in left:
                return failed
            if not self._failed(left[: left.index(failed) + 1], limit, lambda: True):
                self._passed.add(failed)
                return failed
            self._broken.add(failed)

    def _failed(self, tests: Sequence[str], limit: float, prepare: Callable[[], bool]) -> str:
        ours, theirs = os.pipe()
        process = os.fork()
        if not process:
            os.setsid()
            nothing = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(nothing, stream)
            try:
                said = self._first([self._items[test] for test in tests]) if prepare() else self._apart(tests)
            except BaseException as error:  # the mutant broke the run of a test
                said = f"it raises {type(error).__name__}"
            os.write(theirs, said.encode() or b"-")
            os._exit(0)
        os.close(theirs)
        ready = select.select([ours], [], [], limit)[0]
        said = os.read(ours, 1 << 16).decode() if ready else SLOW
        os.close(ours)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)  # what the tests started included
        os.waitpid(process, 0)
        return "" if said == "-" else said or "the process died"

    def _first(self, items: Sequence[pytest.Item]) -> str:
        for item, following in zip(items, [*items[1:], None], strict=True):
            if any(report.failed for report in runtestprotocol(item, log=False, nextitem=following)):
                return item.nodeid
        return ""

    def _apart(self, tests: Sequence[str]) -> str:
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "--tb=no", "-p", "no:cacheprovider"]
        done = subprocess.run([*command, *tests], cwd=self.tree, capture_output=True, text=True)
        if done.returncode == 0:
            return ""
        failed = [line[7:].partition(" - ")[0] for line in done.stdout.splitlines() if line.startswith("FAILED ")]
        return (failed or [f"pytest ended with {done.returncode}"])[0]


def run(tree: Path, paths: Sequence[str], work: Callable[[Session], None]) -> None:
    """Collect the tests of `paths` in the copy `tree`, and do the work with them."""
    os.chdir(tree)
    os.environ.update(PYTHONPATH=str(tree), PYTHONDONTWRITEBYTECODE="1", OMP_NUM_THREADS="1")
    root = os.fspath(Path(__file__).parents[2])
    sys.path[:] = [str(tree), *(place for place in sys.path if place not in ("", root))]
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]
    options = ["-q", "-s", "--no-header", "-p", "no:cacheprovider", f"--basetemp={tree}.tmp"]
    pytest.main([*options, *paths], plugins=[Session(tree, work)])


def _swap(path: Path, before: str, after: str) -> bool:
    """Give the functions of the file the code of the text `after`; False where other code differs as well."""
    place = os.path.realpath(path)
    swaps = {}
    for old, new in _pairs(compile(before, place, "exec"), compile(after, place, "exec")):
        if old.co_code != new.co_code or old.co_consts != new.co_consts:
            swaps[old] = new
    found = False
    for function in gc.get_objects():
        if isinstance(function, FunctionType) and function.__code__.co_filename.endswith(path.name):
            old = function.__code__
            if os.path.realpath(old.co_filename) == place and old in swaps:
                function.__code__ = swaps[old]
                found = True
    return found


def _pairs(old: CodeType, new: CodeType) -> Iterator[tuple[CodeType, CodeType]]:
    yield old, new
    inner = ([const for const in code.co_consts if isinstance(const, CodeType)] for code in (old, new))
    for one, other in zip(*inner, strict=True):
        yield from _pairs(one, other)
