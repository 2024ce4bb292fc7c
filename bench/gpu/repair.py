"""Part 1: the repaired modules beside their originals, eager and under `torch.compile`.

Every model has a process of its own. They are fixed one after the other (a fix is proven in float64 on
private copies, which take the card's memory), warmed up and compiled all at once, and timed one after the
other, each alone on the card. Forms that do not run are rows that say why.
"""

from __future__ import annotations

import argparse
import fcntl
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from bench.gpu.models import BREAKING, MODELS
from bench.gpu.pages import arguments, publish, show

RUNS, SECONDS = 30, 14.0
WANTED = ("fixed (needed)", "fixed (all)")


class Turn:
    """The card for one process at a time, by a locked file, from the start until `end`."""

    def __init__(self, file: str, device: str) -> None:
        self.held = open(file, "a")  # noqa: SIM115  closed where the turn ends
        self.device = device
        fcntl.flock(self.held, fcntl.LOCK_EX)

    def end(self) -> None:
        """Give back what this process has of the card and does not use, and the turn."""
        if not self.held.closed:
            gc.collect()
            if self.device == "cuda":
                torch.cuda.empty_cache()
            self.held.close()


def measure(name: str, device: str, lock: str) -> None:
    """The other process: says `ready` when all is warm, waits for a line, times, and says the result as
    JSON."""
    from fxgrad import benchmark, fix
    from fxgrad.trace.progress import heard_by

    tiny = device == "cpu"
    torch.manual_seed(0)
    model, inputs, loss = MODELS[name](tiny)
    turn = Turn(lock, device)
    model, inputs = model.to(device), tuple(t.to(device) for t in inputs)
    fixed = fix(model, inputs, loss=loss)

    def hear(phase: str, path: int, nodes: int) -> None:
        if phase.startswith("warming up"):  # all graphs are made
            turn.end()

    def ready() -> None:
        gc.collect()
        if device == "cuda":
            torch.cuda.empty_cache()
        print("ready", flush=True)
        sys.stdin.readline()

    # Inductor on a CPU takes minutes for seven models; that the compiled rows work is a test of
    # `fxgrad.benchmark`.
    compiled = not tiny or name == "LSTM tagger"
    runs = 2 if tiny else RUNS
    with heard_by(hear):
        result = benchmark(
            model, fixed.module, inputs, loss=loss, runs=runs, seconds=SECONDS, compiled=compiled, ready=ready
        )
    proof = fixed.verification
    worst = max(proof.gradients.values(), default=0.0)
    found = {
        "applied": len(fixed.applied),
        "verified": (
            f"{proof.dtype or 'own dtype'}: outputs differ by at most {proof.outputs:.1e}, gradients "
            f"by {worst:.1e}"
        ),
        "markdown": result.markdown(),
        **result.to_dict(),
    }
    print(json.dumps(found), flush=True)


def ratios(row: dict[str, Any], base: dict[str, Any]) -> str:
    if row["failure"] or base["failure"]:
        return row["failure"] or base["failure"]
    time = row["step"] / base["step"]
    memory = "" if row["memory"] is None else f", {row['memory'] / base['memory']:.3f}"
    return f"{time:.3f}{memory}"


def summary(results: dict[str, dict[str, Any]]) -> str:
    """Time and memory of each form as a ratio of the original's; of what runs where the original raises."""
    cells = []
    for name, result in results.items():
        rows = {row["name"]: row for row in result["rows"]}
        eager = "original" if not rows["original"]["failure"] else "allow_mutation_on_saved_tensors"
        line = [name, "the original" if eager == "original" else "writes allowed"]
        line += [
            ratios(rows[form], rows[eager])
            for form in ("original, again", *WANTED, "functionalize (make_fx)")
            if form in rows
        ]
        compiled = rows.get(f"{eager}, compiled")
        line += [ratios(rows[f"{form}, compiled"], compiled) if compiled else "" for form in WANTED]
        cells.append(line)
    headers = [
        "model",
        "ratio of",
        "original, again",
        "needed",
        "all",
        "functionalize",
        "needed, compiled",
        "all, compiled",
    ]
    return tabulate(cells, headers=headers, tablefmt="github", disable_numparse=True)


HOW = (
    "Each cell of the first table is time of forward and backward, then peak memory, as ratios (medians of "
    "interleaved runs); compiled "
    "forms are ratios of the compiled original. Where the original raises in backward, ratios are of "
    "`allow_mutation_on_saved_tensors`, the one way to run it unchanged. `original, again` is the original "
    "against itself: the noise."
)


def write(results: dict[str, dict[str, Any]], failures: dict[str, str], options: argparse.Namespace) -> None:
    sections = [HOW, summary(results)]
    for name, result in results.items():
        sections.append(
            f"## {name}\n\n{result['markdown']}\n\n{result['applied']} writes rewritten where needed; "
            f"{result['verified']}."
        )
    sections += [f"## {name}\n\nNot measured: {why}" for name, why in failures.items()]
    publish(
        "repair", "Repaired modules on a GPU", sections, {"results": results, "failures": failures}, options
    )


def main() -> int:
    options = arguments("repair", __doc__)
    root = Path(__file__).resolve().parent.parent.parent
    workers = {}
    lock = tempfile.NamedTemporaryFile()  # noqa: SIM115  lives as long as this process
    for name in MODELS:
        command = [sys.executable, "-W", "ignore", "-c", _CHILD, name, options.device, lock.name]
        workers[name] = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root
        )
    results: dict[str, dict[str, Any]] = {}
    failures: dict[str, str] = {}
    said = {
        name: next((line for line in worker.stdout or () if line), "") for name, worker in workers.items()
    }
    for name, worker in workers.items():
        assert worker.stdin is not None
        assert worker.stdout is not None
        if said[name].strip() == "ready":
            worker.stdin.write("go\n")
            worker.stdin.flush()
        words = worker.stdout.read().strip().splitlines() or [said[name].strip()]
        worker.wait()
        if worker.returncode == 0:
            results[name] = json.loads(words[-1])
            show(f"## {name}\n\n{results[name]['markdown']}\n")
        else:
            failures[name] = words[-1] or f"the process ended with {worker.returncode}"
            show(f"## {name}\n\n{failures[name]}\n")
        write(results, failures, options)
    show(summary(results))
    broken = [n for n in results if (n in BREAKING) != bool(_row(results[n], "original")["failure"])]
    again = [
        _row(r, "original, again")["step"] / _row(r, "original")["step"]
        for n, r in results.items()
        if n not in BREAKING
    ]
    if again:
        show(f"the original against itself: median {statistics.median(again):.3f}")
    return 1 if failures or broken else 0


def _row(result: dict[str, Any], name: str) -> dict[str, Any]:
    return next(row for row in result["rows"] if row["name"] == name)


_CHILD = "import sys; from bench.gpu.repair import child; sys.exit(child(*sys.argv[1:]))"


def child(name: str, device: str, lock: str) -> int:
    try:
        measure(name, device, lock)
    except Exception as error:
        traceback.print_exc()
        print(f"{type(error).__name__}: {error}".splitlines()[0], flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
