"""Judge random whole programs against eager, in processes of their own.

    python -m tests.whole [--count 10000] [--start 0] [--jobs N] [--seconds 60] [--results FILE]
    python -m tests.whole --show SEED      # the text of one program

Prints what is wrong, changes the world or crashes as it is found, then how many answers of each kind there were and what was refused or stopped
by a guard, by reason. Exit status 1 where something is wrong, changed the world or crashed.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHUNK = 20  # programs for one process
BAD = ("wrong", "world changed", "crash")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.whole", description="random whole programs against eager")
    parser.add_argument("--count", type=int, default=10_000, metavar="N", help="programs (default: 10,000)")
    parser.add_argument("--start", type=int, default=0, metavar="SEED", help="the first seed (default: 0)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="processes at once")
    parser.add_argument("--seconds", type=int, default=60, metavar="N", help="limit of time for one program (default: 60)")
    parser.add_argument("--results", type=Path, metavar="FILE", help="write every answer there, a JSON line a program")
    parser.add_argument("--show", type=int, metavar="SEED", help="print one program")
    parser.add_argument("--inside", type=int, nargs=2, metavar=("START", "STOP"), help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.show is not None:
        from tests.whole.programs import text_of

        print(text_of(arguments.show))
        return 0
    if arguments.inside is not None:
        inside(range(*arguments.inside), arguments.seconds)
        return 0
    stop = arguments.start + arguments.count
    chunks = [range(first, min(first + CHUNK, stop)) for first in range(arguments.start, stop, CHUNK)]
    found: list[dict[str, object]] = []
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for records in pool.map(lambda chunk: judged_elsewhere(chunk, arguments.seconds), chunks):
            found += records
            for record in records:
                note(record, arguments.results)
    print(figures(found))
    return int(any(ended in BAD for record in found for ended in record["ended"].values()))  # type: ignore[attr-defined]


def inside(seeds: Iterable[int], seconds: int) -> None:
    """In the other process: a JSON line for each program."""
    import faulthandler
    import warnings

    import torch

    from tests.whole.judge import judge

    out = os.fdopen(os.dup(1), "w")
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 1)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for seed in seeds:
        faulthandler.dump_traceback_later(seconds, exit=True)
        out.write(json.dumps(dataclasses.asdict(judge(seed))) + "\n")
        out.flush()
    faulthandler.cancel_dump_traceback_later()


def judged_elsewhere(seeds: range, seconds: int) -> list[dict[str, object]]:
    """The records of these programs; where the process dies of one, that is a crash, and the others are judged by a new one."""
    records: list[dict[str, object]] = []
    first = seeds.start
    while first < seeds.stop:
        command = [sys.executable, "-m", "tests.whole", "--seconds", str(seconds), "--inside", str(first), str(seeds.stop)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        records += [json.loads(line) for line in done.stdout.splitlines()]
        first = int(records[-1]["seed"]) + 1 if records else first  # type: ignore[call-overload]
        if first < seeds.stop:
            last = (done.stderr.strip().splitlines() or [""])[-1]
            said = f"the process ended with {done.returncode}: {last}"
            records.append({"seed": first, "eager": "not known", "ended": {"process": "crash"}, "said": {"process": said}})
            first += 1
    return records


def note(record: dict[str, object], results: Path | None) -> None:
    """Write a record down, and say what is bad in it."""
    if results is not None:
        with results.open("a") as file:
            file.write(json.dumps(record) + "\n")
    for asked, ended in record["ended"].items():  # type: ignore[attr-defined]
        if ended in BAD:
            print(f"{ended}: {record['seed']}, {asked}: {record['said'].get(asked, '')}", flush=True)  # type: ignore[attr-defined]


def figures(records: list[dict[str, object]]) -> str:
    """How many answers of each kind, and the reasons of what was refused or guarded."""
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    reasons: collections.Counter[tuple[str, str]] = collections.Counter()
    for record in records:
        for asked, ended in record["ended"].items():  # type: ignore[attr-defined]
            counts[asked, ended] += 1
            if ended in ("refused", "guarded"):
                said = record["said"].get(asked, "")  # type: ignore[attr-defined]
                reasons[ended, re.sub(r"`[^`]*`", "`...`", re.sub(r"\d+", "N", said))[:140]] += 1
    eager = collections.Counter(record["eager"] for record in records)
    lines = [f"{len(records)} programs; a plain step: " + ", ".join(f"{kind} {n}" for kind, n in eager.most_common())]
    for asked in sorted({asked for asked, _ in counts}):
        shown = (f"{ended} {n}" for (of, ended), n in sorted(counts.items()) if of == asked)
        lines.append(f"{asked}: {', '.join(shown)}")
    lines += [f"  {n} {ended}: {reason}" for (ended, reason), n in reasons.most_common(40)]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
