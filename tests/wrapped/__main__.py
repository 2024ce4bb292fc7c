"""`python -m tests.wrapped [WORD ...] [--every N] [--jobs N] [--write]`: judge the programs whose names have all the words, one of N.

What is not the same is written to stdout, then the table; `--write` puts the table into `tests/README.md`.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor

from tests.wrapped.judge import ALL, Outcome, Program, judged
from tests.wrapped.table import table, write


def _judged(program: Program) -> list[Outcome]:
    return list(judged(program))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.wrapped")
    parser.add_argument("words", nargs="*")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    chosen = [program for program in ALL if all(word in str(program) for word in options.words)][:: options.every]
    found: list[Outcome] = []
    with ProcessPoolExecutor(options.jobs) as pool:
        for outcomes in pool.map(_judged, chosen):
            found += outcomes
            for outcome in outcomes:
                if outcome.how in ("other", "trains otherwise"):
                    print(f"{outcome.program} | {outcome.wrapper}, {outcome.way} | {outcome.how} | {outcome.why}", flush=True)
    print(table(found))
    if options.write:
        write(found)


if __name__ == "__main__":
    main()
