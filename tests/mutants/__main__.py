"""Turn a comparison, a condition or one side of an `and` in the engine, and see whether a test dies of it.

    python -m tests.mutants --cover [PATH ...]   # first: which tests run which lines (the default: the engine's rooms)
    python -m tests.mutants [--count N] [--seed N] [--jobs N] [--only TEXT] [--budget S] [--again]
    python -m tests.mutants --table              # run nothing; write the table of what was tried so far

The mutants are cosmic-ray's (the extra `mutants` brings it): of all places in `fxgrad/trace`, `fxgrad/diagnosis`,
`passes` and `fxgrad/fix_graph` where one of `OPERATORS` fits, `--count` are drawn with `--seed`, the same ones each
time for the same source. Each is tried in a copy of the committed tree, under tests that run its statement, up to the
first that fails: as many as take `--budget` seconds, of those that run other lines around it some, the quickest
first (`covering.py`).

An answer is a JSON line in `results.jsonl` (not kept in the repository); one that is there for the same mutant of the
same text is not tried again, with `--again` only what died. A test that fails on the tree as it is kills nothing.

A mutant does what nobody has read: one of `fix_graph/export/package.py` turned "the folders that were made" into those that
were there, and removed `/`. So nothing is tried in a file that removes files (`REMOVES`), and nothing at all as root; that
is no sandbox: run it in a container that is thrown away afterwards, with nothing mounted that is worth keeping.
"""

from __future__ import annotations

import argparse
import datetime
import difflib
import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

from tests import pages
from tests.mutants import covering, trial
from tests.mutants.covering import ROOMS, ROOT
from tests.mutants.trial import Session

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.jsonl"
PAGE = HERE / "README.md"
OPERATORS = (
    "AddNot",
    "ReplaceAndWithOr",
    "ReplaceOrWithAnd",
    "ReplaceUnaryOperator_Delete_Not",
    "ReplaceComparisonOperator",
)
COVER = ("trace", "fix_graph", "diagnosis", "passes", "watching", "world", "program", "models", "errors", "fix_source")
# what is never mutated: files that hold one of these
REMOVES = ("rmtree", "unlink", "rmdir", "removedirs", "os.remove", "os.replace", "os.rename", ".rename(", "shutil.move")
LIMIT = 100.0  # seconds for the tests of a mutant: a loop that no longer ends is found by it


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
    """What became of a mutant: `killed_by` is the test that failed, "" where none did. `tests`: how many were to be
    tried, `known`: of how many that are known to run the statement."""

    mutant: Mutant
    killed_by: str
    tests: int
    known: int
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
    """`count` mutants with the text of their file, without those in files that remove files. A place is drawn first, then what
    is done to it: a comparison has many turns."""
    at: dict[tuple[str, int, int], list[tuple[str, int]]] = {}
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            file = path.relative_to(ROOT).as_posix()
            for (line, column), operator, number in places(path) if only in file else ():
                at.setdefault((file, line, column), []).append((operator, number))
    chance = random.Random(seed)
    keys = chance.sample(sorted(at), min(count, len(at)))
    turns = [(file, line, *chance.choice(at[file, line, column])) for file, line, column in keys]
    return [mutated(*turn) for turn in turns if not removes_files(turn[0])]


def removes_files(file: str) -> bool:
    text = (ROOT / file).read_text()
    return any(name in text for name in REMOVES)


def mutated(file: str, line: int, operator: str, number: int) -> tuple[Mutant, str]:
    before = (ROOT / file).read_text()
    after = mutate_code(before, get_operator(operator)(), number)
    assert after is not None, (file, operator, number)
    changed = [text for text in difflib.ndiff(before.splitlines(), after.splitlines()) if text[:2] in ("- ", "+ ")]
    was = " ".join(text[2:].strip() for text in changed if text[0] == "-")
    now = " ".join(text[2:].strip() for text in changed if text[0] == "+")
    return Mutant(file, line, operator.removeprefix("core/"), was, now), after


def tried(session: Session, mutant: Mutant, text: str, budget: float) -> Answer:
    start = time.monotonic()
    known = covering.running(mutant.file, (ROOT / mutant.file).read_text(), mutant.line)
    tests = list(covering.spread(known, budget) if known else covering.likely(mutant.file, budget))
    killed_by = session.killer(mutant.file, text, tests, LIMIT) if tests else ""
    return Answer(mutant, killed_by, len(tests), len(known), round(time.monotonic() - start, 1))


def results() -> list[Answer]:
    if not RESULTS.exists():
        return []
    raw = [json.loads(text) for text in RESULTS.read_text().splitlines()]
    return [Answer(**{**one, "mutant": Mutant(**one["mutant"])}) for one in raw]


def run(arguments: argparse.Namespace) -> None:
    """Try what was not tried yet, `jobs` at once, each in a copy of the tree of its own."""
    known = {answer.mutant for answer in results() if answer.killed_by or not arguments.again}
    wanted = [one for one in drawn(arguments.count, arguments.seed, arguments.only) if one[0] not in known]
    with tempfile.TemporaryDirectory(prefix="fxgrad-mutants-") as folder:
        jobs, fork = [], multiprocessing.get_context("fork")
        for number in range(arguments.jobs):
            tree = Path(folder, str(number))
            tree.mkdir()
            archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, check=True, capture_output=True).stdout
            subprocess.run(["tar", "-x", "-C", str(tree)], input=archive, check=True)
            job = fork.Process(target=one_job, args=(tree, wanted[number :: arguments.jobs], arguments.budget))
            job.start()
            jobs.append(job)
        for job in jobs:
            job.join()


def one_job(tree: Path, wanted: list[tuple[Mutant, str]], budget: float) -> None:
    def work(session: Session) -> None:
        for mutant, text in wanted:
            answer = tried(session, mutant, text, budget)
            with RESULTS.open("a") as kept:
                kept.write(json.dumps(asdict(answer)) + "\n")
            end = f"killed by {answer.killed_by}" if answer.killed_by else f"ALIVE after {under(answer)}"
            print(f"{mutant.file}:{mutant.line}: {mutant.now}: {end} ({answer.seconds} s)", flush=True)

    trial.run(tree, sorted({test.partition("::")[0] for test in covering.seconds()}), work)


def under(answer: Answer) -> str:
    """The tests that it was tried under, in words."""
    if not answer.known:
        return f"{answer.tests} tests of which none is known to run it"
    return f"{answer.tests} of the {answer.known} tests that run it"


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
        yield "\n| alive | was | now | tried under |"
        yield "|---|---|---|---|"
    for answer in sorted(alive, key=lambda one: (one.mutant.file, one.mutant.line)):
        was, now = (text.replace("|", "\\|") for text in (answer.mutant.was, answer.mutant.now))
        yield f"| {answer.mutant.file}:{answer.mutant.line} | `{was}` | `{now}` | {under(answer)} |"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description="whether a test dies of a turned condition")
    parser.add_argument("--count", type=int, default=300, metavar="N", help="mutants to draw (default: 300)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the draw (default: 0)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="mutants at once")
    parser.add_argument("--only", default="", metavar="TEXT", help="files whose path holds this")
    parser.add_argument("--budget", type=float, default=90, metavar="S", help="seconds of tests for a mutant (default: 90)")
    parser.add_argument("--again", action="store_true", help="also those that lived so far")
    rooms = [f"tests/{room}" for room in COVER]
    parser.add_argument("--cover", nargs="*", metavar="PATH", help="run these tests once, to know which lines they run")
    parser.add_argument("--table", action="store_true", help="run nothing; write the table of the results")
    arguments = parser.parse_args(argv)
    if arguments.cover is not None:
        covering.record(arguments.cover or rooms)
        return 0
    if not arguments.table:
        if not hasattr(os, "geteuid") or os.geteuid() == 0:
            parser.error("a mutant may remove whatever it can reach: not as root, and in a container that is thrown away")
        run(arguments)
    text = "\n".join(table())
    pages.write(PAGE, "mutants", text)
    print(text)
    return 1 if any(not answer.killed_by for answer in results()) else 0


if __name__ == "__main__":
    sys.exit(main())
