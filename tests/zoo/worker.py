"""The sweep's other process: judges the models it is told of, one at a time, and may die of one without ending the sweep.

Reads JSON lines from stdin, `{"list": FAMILY}` or `{"family", "name", "values", "rewrite", "seconds"}`, and writes JSON lines to what was
its stdout: `{"names": [...]}`, or one `{"stage", "outcome"}` as each stage of a model begins and `{"done", "outcome"}` at the end. A stage
that takes longer than `seconds` ends the process with the stack on stderr. Memory is limited (`MEMORY`): a model that is too large for the
machine is an error of its own.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import gc
import json
import os
import resource
import sys
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: one core, and sums in one order

import torch

from tests.zoo.families import FAMILIES
from tests.zoo.judge import Outcome, judge

MEMORY = 14 * 2**30  # bytes of address space


@cache
def entries(family: str) -> dict[str, Callable[[], Any]]:
    return dict(next(f for f in FAMILIES if f.__name__ == family)())


def main() -> int:
    out = os.fdopen(os.dup(1), "w")
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 1)  # models print
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")

    def say(message: dict[str, Any]) -> None:
        out.write(json.dumps(message) + "\n")
        out.flush()

    for line in sys.stdin:
        order = json.loads(line)
        if "list" in order:
            say({"names": list(entries(order["list"])) if order["list"] else [f.__name__ for f in FAMILIES]})
            continue

        def note(outcome: Outcome, stage: str, seconds: float = order["seconds"]) -> None:
            faulthandler.dump_traceback_later(seconds, exit=True)
            say({"stage": stage, "outcome": dataclasses.asdict(outcome)})

        gc.collect()  # errors hold frames, and frames models
        outcome = judge(order["name"], entries(order["family"])[order["name"]], order["values"], rewrite=order["rewrite"], note=note)
        faulthandler.cancel_dump_traceback_later()
        say({"done": True, "outcome": dataclasses.asdict(outcome)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
