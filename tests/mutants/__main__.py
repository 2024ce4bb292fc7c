"""Turn a comparison, a condition or one side of an `and` in the engine, and see whether a test dies of it.

    python -m tests.mutants [--count N] [--seed N] [--jobs N] [--only TEXT] [--nearest]
    python -m tests.mutants --table      # run nothing; write the table of what was tried so far

The mutants are cosmic-ray's (the extra `mutants` brings it): of all places in `fxgrad/trace`, `fxgrad/diagnosis`, `passes` and `fxgrad/fix_graph` where
one of `OPERATORS` fits, `--count` are drawn with `--seed`, the same ones each time for the same source. Each is tried in a copy of the committed tree:
first the test files that name its module, then those of its room, then (without `--nearest`) the whole suite, up to the first test that fails. An
answer is a JSON line in `results.jsonl` (not kept in the repository); one that is there for the same mutant of the same text is not tried again.
300 mutants take many hours: most die within a minute, but a survivor costs a run of the suite.
"""

from __future__ import annotations

import argparse
import datetime
import difflib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

from tests import pages

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
RESULTS = HERE / "results.jsonl"
PAGE = HERE / "README.md"
ROOMS = ("fxgrad/trace", "fxgrad/diagnosis", "passes", "fxgrad/fix_graph")
OPERATORS = ("AddNot", "ReplaceAndWithOr", "ReplaceOrWithAnd", "ReplaceUnaryOperator_Delete_Not", "ReplaceComparisonOperator")
LIMIT = 1800  # seconds for the tests of a mutant, per stage: a loop that no longer ends is found by it


@dataclass(frozen=True)
class Mutant:
    """One change of a file: `operator` at its `occurrence`-th place there. `was` and `now` are the lines changed."""

    file: str
    line: int
    operator: str
    was: str
    now: str


@dataclass(frozen=True)
class Answer:
    """What became of a mutant: `killed_by` is the test or the file that failed, "" where none did. `stage`: the tests tried."""

    mutant: Mutant
    killed_by: str
    stage: str
    seconds: float


def places(file: Path) -> list[tuple[tuple[int, int], str, int]]:
    """Every mutation that fits the file: its position, the operator, and which of the operator's it is."""
    tree = get_ast(file.read_text())
    found = []
    for name in operator_names():
        if name.removeprefix("core/").startswith(OPERATORS):
            operator = get_operator(name)()
            positions = [start for node in ast_nodes(tree) for start, _ in operator.mutation_positions(node)]
            found += [(start, name, number) for number, start in enumerate(positions)]
    return sorted(found)


def drawn(count: int, seed: int, only: str) -> list[tuple[Mutant, str]]:
    """`count` mutants with the text of their file. A place is drawn first, then what is done to it: a comparison has many turns."""
    at: dict[tuple[str, int, int], list[tuple[str, int]]] = {}
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            file = path.relative_to(ROOT).as_posix()
            for (line, column), operator, number in places(path) if only in file else ():
                at.setdefault((file, line, column), []).append((operator, number))
    chance = random.Random(seed)
    keys = chance.sample(sorted(at), min(count, len(at)))
    return [mutated(file, line, *chance.choice(at[file, line, column])) for file, line, column in keys]


def mutated(file: str, line: int, operator: str, number: int) -> tuple[Mutant, str]:
    before = (ROOT / file).read_text()
    after = mutate_code(before, get_operator(operator)(), number)
    assert after is not None, (file, operator, number)
    changed = [text for text in difflib.ndiff(before.splitlines(), after.splitlines()) if text[:2] in ("- ", "+ ")]
    was = " ".join(text[2:].strip() for text in changed if text[0] == "-")
    now = " ".join(text[2:].strip() for text in changed if text[0] == "+")
    return Mutant(file, line, operator.removeprefix("core/"), was, now), after


def nearest(file: str) -> list[str]:
    """The test files that name the module, then those of its room."""
    dotted = f"fxgrad.{file}" if file.startswith("passes") else file
    module = dotted.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    package, _, name = module.rpartition(".")
    naming = [
        path
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if module in (text := path.read_text()) or f"from {package} import {name}" in text
    ]
    room = "passes" if file.startswith("passes") else Path(file).parts[1]
    return [*(path.relative_to(ROOT).as_posix() for path in naming), f"tests/{room}"]


def tried(mutant: Mutant, text: str, tree: Path, whole: bool) -> Answer:
    """The mutant in the copy `tree`, under the nearest tests and, if it lives, under all."""
    (tree / mutant.file).write_text(text)
    start = time.monotonic()
    stage = "nearest"
    try:
        killed_by = failing(tree, nearest(mutant.file))
        if whole and not killed_by:
            stage, killed_by = "whole", failing(tree, ["tests"])
    finally:
        (tree / mutant.file).write_text((ROOT / mutant.file).read_text())
    return Answer(mutant, killed_by, stage, round(time.monotonic() - start, 1))


def failing(tree: Path, tests: list[str]) -> str:
    """The first test that fails, "" where all pass."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "--tb=no", "-p", "no:cacheprovider", *tests]
    own = {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=LIMIT, env={**os.environ, **own})
    except subprocess.TimeoutExpired:
        return "over the limit of time"
    if done.returncode == 0:
        return ""
    named = [line.split()[1] for line in done.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    return (named or [f"pytest ended with {done.returncode}"])[0]


def results() -> list[Answer]:
    if not RESULTS.exists():
        return []
    raw = [json.loads(text) for text in RESULTS.read_text().splitlines()]
    return [Answer(**{**one, "mutant": Mutant(**one["mutant"])}) for one in raw]


def run(arguments: argparse.Namespace) -> None:
    """Try what was not tried yet, `jobs` at once, each in a copy of the tree of its own."""
    known = {answer.mutant for answer in results() if answer.stage == "whole" or answer.killed_by or arguments.nearest}
    wanted = [one for one in drawn(arguments.count, arguments.seed, arguments.only) if one[0] not in known]
    trees: SimpleQueue[Path] = SimpleQueue()
    with tempfile.TemporaryDirectory(prefix="fxgrad-mutants-") as folder:
        for number in range(arguments.jobs):
            tree = Path(folder, str(number))
            tree.mkdir()
            archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, check=True, capture_output=True).stdout
            subprocess.run(["tar", "-x", "-C", str(tree)], input=archive, check=True)
            trees.put(tree)

        def one(given: tuple[Mutant, str]) -> Answer:
            tree = trees.get()
            try:
                return tried(*given, tree, not arguments.nearest)
            finally:
                trees.put(tree)

        with ThreadPoolExecutor(arguments.jobs) as pool, RESULTS.open("a") as kept:
            for answer in pool.map(one, wanted):
                kept.write(json.dumps(asdict(answer)) + "\n")
                kept.flush()
                end = f"killed by {answer.killed_by}" if answer.killed_by else f"ALIVE after the {answer.stage} tests"
                print(f"{answer.mutant.file}:{answer.mutant.line}: {answer.mutant.now}: {end} ({answer.seconds} s)", flush=True)


def table() -> Iterator[str]:
    """The figures by room, and every survivor."""
    latest = {answer.mutant: answer for answer in results()}
    yield f"{datetime.date.today()}: {len(latest)} mutants tried so far.\n"
    yield "| room | tried | killed | alive |"
    yield "|---|---|---|---|"
    for room in ROOMS:
        counts = Counter(bool(answer.killed_by) for answer in latest.values() if answer.mutant.file.startswith(room))
        yield f"| `{room}` | {counts.total()} | {counts[True]} | {counts[False]} |"
    alive = [answer for answer in latest.values() if not answer.killed_by]
    if alive:
        yield "\n| alive | was | now | under |"
        yield "|---|---|---|---|"
    for answer in sorted(alive, key=lambda one: (one.mutant.file, one.mutant.line)):
        was, now = (text.replace("|", "\\|") for text in (answer.mutant.was, answer.mutant.now))
        yield f"| {answer.mutant.file}:{answer.mutant.line} | `{was}` | `{now}` | the {answer.stage} tests |"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description="whether a test dies of a turned condition")
    parser.add_argument("--count", type=int, default=300, metavar="N", help="mutants to draw (default: 300)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the draw (default: 0)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="mutants at once")
    parser.add_argument("--only", default="", metavar="TEXT", help="files whose path holds this")
    parser.add_argument("--nearest", action="store_true", help="the nearest tests alone, not the whole suite")
    parser.add_argument("--table", action="store_true", help="run nothing; write the table of the results")
    arguments = parser.parse_args(argv)
    if not arguments.table:
        run(arguments)
    text = "\n".join(table())
    pages.write(PAGE, "mutants", text)
    print(text)
    return 1 if any(not answer.killed_by for answer in results()) else 0


if __name__ == "__main__":
    sys.exit(main())
