"""The other process of `python -m tests.suites`: judges the programs it is told of, one at a time, and may die of one without ending the run.

Reads JSON lines `{"suite", "name", "seconds"}` from stdin and writes `{"done": true, "judged": ...}` to what was its stdout. A program that takes
longer than `seconds` ends the process, with the stack on stderr. Memory is limited as in the zoo.
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

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: one core, and sums in one order

import torch

from tests.suites.judge import judge
from tests.suites.programs import SUITES, Built
from tests.zoo.worker import MEMORY


@cache
def entries(suite: str) -> dict[str, Callable[[], Built]]:
    return dict(SUITES[suite]())


def main() -> int:
    out = os.fdopen(os.dup(1), "w")
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 1)  # programs print
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        order = json.loads(line)
        build = entries(order["suite"])[order["name"]]  # the first call makes the list, which takes seconds
        faulthandler.dump_traceback_later(order["seconds"], exit=True)
        judged = judge(order["name"], build)
        faulthandler.cancel_dump_traceback_later()
        out.write(json.dumps({"done": True, "judged": dataclasses.asdict(judged)}) + "\n")
        out.flush()
        gc.collect()  # errors hold frames, and frames models
    return 0


if __name__ == "__main__":
    sys.exit(main())
