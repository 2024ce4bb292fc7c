"""Benchmark of rewritten models: original, fixed, and torch's alternatives, on six models that write in
place.

    python bench/rewriting.py [--device cuda|cpu] [--scale N] [--runs N] [--threads N] [--only WORD] [--json
    FILE] [--markdown FILE]

Prints one table per model, with device, dtype, sizes and versions. `--scale 4` and more is meant for a GPU.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(1, str(Path(__file__).resolve().parent.parent))

from models import MODELS

from fxgrad import Benchmark, benchmark, fix


def measured(name: str, scale: int, device: str, runs: int, seconds: float) -> Benchmark:
    """One model on one device."""
    torch.manual_seed(0)
    model, inputs, loss = MODELS[name](scale)
    model, inputs = model.to(device), tuple(t.to(device) for t in inputs)
    fixed = fix(model, inputs, loss=loss).module
    return benchmark(model, fixed, inputs, loss=loss, runs=runs, seconds=seconds)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cuda", "cpu"]
    )
    parser.add_argument("--scale", type=int, default=1)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument(
        "--threads",
        type=int,
        default=torch.get_num_threads(),
        help="on a CPU that others use too, 1 is steadiest",
    )
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--only", default="")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = {}
    sections = [f"# Rewriting, measured\n\n{datetime.date.today()}. Command: `python {' '.join(sys.argv)}`."]
    for name in MODELS:
        if options.only.lower() in name.lower():
            results[name] = measured(name, options.scale, options.device, options.runs, options.seconds)
            sections.append(f"## {name}\n\n{results[name].markdown()}")
            print(sections[-1], flush=True)
    if options.json:
        options.json.write_text(
            json.dumps({name: result.to_dict() for name, result in results.items()}, indent=1)
        )
    if options.markdown:
        options.markdown.write_text("\n\n".join(sections) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
