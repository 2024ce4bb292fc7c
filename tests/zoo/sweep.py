"""The sweep: each model of the zoo traced, regenerated, rewritten and judged, and every answer compared with eager.

    python -m tests.zoo.sweep [FAMILY ...] [--every K] [--offset N] [--only TEXT] [--values real|fake|auto] [--no-rewrite] [--again]
    python -m tests.zoo.sweep --table      # the table of what was measured so far, written into tests/zoo/README.md

Models are judged one after the other in a process of their own (`tests.zoo.worker`): one that crashes or takes too long is a line of the
result and not its end. Results are JSON lines in `tests/zoo/results.jsonl`; what is in there is not run again without `--again` (all that is
selected) or `--failed` (only what eager runs and was not as it should be, or was refused).
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.zoo.judge import Outcome, given, judge
from tests.zoo.table import good, load, write

HERE = Path(__file__).resolve().parent
SECONDS = 120
PATIENCE = 40  # models for one process


class OutOfTime(Exception):
    """A model took too long."""


@contextlib.contextmanager
def limited(seconds: int) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class Worker:
    """The other process, started again when it has died. `errors` holds what it wrote to stderr.

    `module` is what it runs; `patience`: after so many orders it is another process.
    """

    def __init__(self, module: str = "tests.zoo.worker", patience: int = PATIENCE) -> None:
        self.module, self.patience = module, patience
        self.errors = tempfile.TemporaryFile("a+")  # noqa: SIM115  lives as long as the worker
        self.process: subprocess.Popen[str] | None = None
        self.asked = 0

    def ask(self, order: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The worker's answers to one order, up to the last; fewer where it died."""
        self.asked += 1
        if self.asked % self.patience == 0:  # what packages keep of the models that they built adds up
            self.close()
        if self.process is None or self.process.poll() is not None:
            command = [sys.executable, "-W", "ignore", "-m", self.module]
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True, cwd=HERE.parent.parent
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.errors.truncate(0)
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            answer = json.loads(line)
            yield answer
            if "done" in answer or "names" in answer:
                return
        self.process.wait()

    def last_words(self) -> str:
        """The innermost frames of the main thread, which is written last, of the process that ended."""
        self.errors.seek(0)
        stack = self.errors.read().rpartition("Thread 0x")[2]
        lines = [line.strip() for line in stack.splitlines() if line.lstrip().startswith("File ")]
        return " <- ".join(line.split("site-packages/")[-1].replace('File "', "").replace('"', "") for line in lines[:4])

    def judge(self, family: str, name: str, arguments: argparse.Namespace) -> dict[str, Any]:
        order = {"family": family, "name": name, "values": arguments.values, "rewrite": arguments.rewrite, "seconds": arguments.seconds}
        outcome: dict[str, Any] = {"name": name}
        stage = "start"
        for answer in self.ask(order):
            outcome = answer["outcome"]
            if "done" in answer:
                return outcome
            stage = answer["stage"]
        assert self.process is not None
        status = self.process.returncode
        what = f"over {arguments.seconds} s" if status == 1 else f"the process ended with {status}"
        outcome.setdefault("reasons", {})[stage] = f"{what}: {self.last_words()}"
        outcome.setdefault("seconds", {})[stage] = arguments.seconds
        return outcome

    def close(self) -> None:
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()
            self.process.wait()


def selected(names: list[str], arguments: argparse.Namespace, known: dict[str, dict[str, Any]]) -> list[str]:
    chosen = [n for n in names if arguments.only in n][arguments.offset :: arguments.every][: arguments.limit]
    if arguments.again:
        return chosen
    if arguments.failed:
        return [n for n in chosen if known.get(n, {}).get("eager") and known[n]["reasons"]]
    return [n for n in chosen if n not in known]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.zoo.sweep")
    parser.add_argument("families", nargs="*", help="default: all of them")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--offset", type=int, default=0)
    parser.add_argument("--limit", type=int, default=10**9)
    parser.add_argument("--only", default="", help="names that contain this")
    parser.add_argument("--values", default="auto", choices=("auto", "real", "fake"))
    parser.add_argument("--no-rewrite", dest="rewrite", action="store_false")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="for one stage of one model")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--failed", action="store_true")
    parser.add_argument("--results", type=Path, default=HERE / "results.jsonl")
    parser.add_argument("--table", action="store_true", help="run nothing; write the table of the results")
    arguments = parser.parse_args(argv)
    if arguments.table:
        write(load(arguments.results), _listed(), HERE / "README.md")
    else:
        _sweep(arguments)
    return 0


def _listed() -> collections.Counter[str]:
    """How many models each family has here."""
    worker = Worker()
    families = next(worker.ask({"list": ""}))["names"]
    names = {name for family in families for name in next(worker.ask({"list": family}))["names"]}
    worker.close()
    return collections.Counter(name.split("/")[0] for name in names)


def _sweep(arguments: argparse.Namespace) -> None:
    worker = Worker()
    known = load(arguments.results)
    with arguments.results.open("a") as results:
        for family in arguments.families or next(worker.ask({"list": ""}))["names"]:
            listed = next(worker.ask({"list": family}), None)
            if listed is None:  # a package of it that does not import ends that process, not the others' answers
                print(f"{family}: its models cannot be listed", flush=True)
                continue
            for name in selected(listed["names"], arguments, known):
                outcome = {**worker.judge(family, name, arguments), "family": family}
                results.write(json.dumps(outcome) + "\n")
                results.flush()
                if not good(outcome):
                    print(f"{name}: {outcome.get('reasons')}", flush=True)
    worker.close()


__all__ = ["Outcome", "given", "judge", "limited", "main"]

if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
