"""Part 3: a training script on the device, plain and watched, in turns: the time of each step, and of the
first report.

Watched is `fxgrad run --continue train.py`: the first step is looked at, the rest of the script runs on by
itself.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tabulate import tabulate

from bench.gpu.pages import arguments, publish, show

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WAYS = {"plain": [], "watched": ["-m", "fxgrad", "run", "--continue"]}


def once(way: str, device: str, steps: int, tiny: bool, folder: str) -> dict[str, Any]:
    """One run of the script: milliseconds of its steps, seconds of it all, and what it printed."""
    times = Path(folder) / "times.json"
    command = [
        sys.executable,
        *WAYS[way],
        str(HERE / "train.py"),
        device,
        str(steps),
        "tiny" if tiny else "full",
        str(times),
    ]
    begin = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        raise SystemExit(f"{way}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return {**json.loads(times.read_text()), "process": time.perf_counter() - begin, "printed": done.stdout}


def main() -> int:
    options = arguments("watching", __doc__)
    rounds, steps = (1, 4) if options.tiny else (2, 40)
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            for way, runs in found.items():
                runs.append(once(way, options.device, steps, options.tiny, folder))
    report = found["watched"][0]["printed"]
    if "parameters" not in report:
        raise SystemExit(f"the watched script gave no report:\n{report}")

    def median(way: str, pick: Any) -> float:
        return statistics.median(pick(run) for run in found[way])

    rows = {
        "first step, ms (the report is made in it)": lambda run: run["steps"][0],
        "later steps, ms (median of all after the third)": lambda run: statistics.median(run["steps"][3:]),
        "whole process, s": lambda run: run["process"],
        "peak memory, MiB": lambda run: run["peak"] / 2**20,
    }
    table = []
    for name, pick in rows.items():
        plain, watched = median("plain", pick), median("watched", pick)
        table.append([name, f"{plain:.2f}", f"{watched:.2f}", f"{watched / plain:.3f}" if plain else ""])
    text = tabulate(
        table, headers=["", "plain", "watched", "ratio"], tablefmt="github", disable_numparse=True
    )
    sections = [
        f"`bench/gpu/train.py`: ResNet-50, {steps} steps, autocast, GradScaler, AdamW; each way {rounds} "
        "times in turns, medians.",
        text,
        f"What the watched run printed:\n\n```text\n{report.strip()}\n```",
    ]
    publish("watching", "A watched training script on a GPU", sections, found, options)
    show(text)
    show(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
