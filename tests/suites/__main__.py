"""Judge torch's own test suites against eager, in processes of their own.

    python -m tests.suites [module_db|op_db|export_db ...] [--sample N] [--jobs N] [--seconds N] [--only TEXT]
    python -m tests.suites --table      # run nothing; write the table of what was judged so far

Prints what is wrong or crashes as it is found, then the figures, and writes the table into tests/README.md. Every result is a JSON line in
`tests/suites/results.jsonl` (not kept in the repository), the last one of a program counts. Exit status 1 where something is wrong or crashed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import queue
import sys
import threading
from pathlib import Path
from typing import Any

from tests import pages
from tests.suites.judge import Judged
from tests.suites.programs import SUITES
from tests.suites.table import figures, load
from tests.zoo.sweep import Worker

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.jsonl"
README = HERE.parent / "README.md"
PATIENCE = 300  # programs for one process: listing a suite takes it ten seconds


def spread(names: list[str], most: int | None) -> list[str]:
    """At most so many, from the whole list."""
    if most is None or most >= len(names):
        return names
    return [names[position * len(names) // most] for position in range(most)]


def judged_elsewhere(worker: Worker, suite: str, name: str, seconds: int) -> Judged:
    """What the other process says of a program; where it dies of it, that is a crash."""
    for answer in worker.ask({"suite": suite, "name": name, "seconds": seconds}):
        return Judged(**answer["judged"])
    assert worker.process is not None
    ended = f"over {seconds} s" if worker.process.returncode == 1 else f"the process ended with {worker.process.returncode}"
    return Judged(name, "not known", {"verdicts": "crash"}, {"verdicts": f"{ended}: {worker.last_words()}"})


def run(suites: list[str], arguments: argparse.Namespace) -> None:
    """Judge the programs of the suites and write down every result."""
    waiting: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
    for suite in suites:
        names = [name for name, _ in SUITES[suite]() if arguments.only in name]
        for name in spread(names, arguments.sample):
            waiting.put((suite, name))
    lock = threading.Lock()

    def work() -> None:
        worker = Worker("tests.suites.worker", PATIENCE)
        while True:
            try:
                suite, name = waiting.get_nowait()
            except queue.Empty:
                break
            judged = judged_elsewhere(worker, suite, name, arguments.seconds)
            with lock:
                _note(judged)
        worker.close()

    threads = [threading.Thread(target=work) for _ in range(arguments.jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _note(judged: Judged) -> None:
    with RESULTS.open("a") as results:
        results.write(json.dumps(dataclasses.asdict(judged)) + "\n")
    for asked, ended in judged.ended.items():
        if ended in ("wrong", "crash"):
            print(f"{ended}: {judged.name}, {asked}: {judged.said.get(asked, '')}", flush=True)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.suites", description="torch's own test suites against eager")
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"{', '.join(SUITES)} (default: all of them)")
    parser.add_argument("--sample", type=int, metavar="N", help="at most N programs of each suite, from the whole of it")
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2) // 2), metavar="N", help="processes at once")
    parser.add_argument("--seconds", type=int, default=120, metavar="N", help="limit of time for one program (default: 120)")
    parser.add_argument("--only", default="", metavar="TEXT", help="programs whose name holds this")
    parser.add_argument("--table", action="store_true", help="run nothing; write the table of the results")
    arguments = parser.parse_args(argv)
    unknown = set(arguments.suites) - set(SUITES)
    if unknown:
        parser.error(f"there is no suite {unknown.pop()}; there are {', '.join(SUITES)}")
    listed: dict[str, int] = {suite: sum(1 for _ in SUITES[suite]()) for suite in SUITES}
    if not arguments.table:
        run(arguments.suites or list(SUITES), arguments)
    results: dict[str, dict[str, Any]] = load(RESULTS)
    text, bad = figures(results, listed)
    print(text)
    pages.write(README, "suites", text)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
