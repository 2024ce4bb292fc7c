"""What the parts of `bench/gpu.sh` share: their arguments, and a page of results with the machine and the
command it came from."""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).resolve().parent.parent / "results"


def arguments(part: str, doc: str | None) -> argparse.Namespace:
    """`device`, `tiny` (the sizes of a dry run), `out` (a folder) of one part."""
    parser = argparse.ArgumentParser(prog=f"python -m bench.gpu.{part}", description=doc)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--out", type=Path, default=RESULTS, help="the folder for the result files")
    found = parser.parse_args()
    found.tiny = found.device == "cpu"
    if found.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device here: --device cpu is the dry run")
    found.out.mkdir(parents=True, exist_ok=True)
    return found


def machine(device: str) -> str:
    """Card, versions and date in a line."""
    card = (
        torch.cuda.get_device_name()
        if device == "cuda"
        else "a dry run on a CPU, sizes are tiny: no figure of it means anything"
    )
    cuda = f", CUDA {torch.version.cuda}" if device == "cuda" else ""
    return (
        f"{datetime.date.today()}, {card}; torch {torch.__version__}, Python "
        f"{platform.python_version()}{cuda}"
    )


def publish(part: str, title: str, sections: Sequence[str], data: Any, options: argparse.Namespace) -> None:
    """Write `gpu_PART.md` and `gpu_PART.json`; called after every row, so that a part that runs out of time
    leaves what it has."""
    command = f"bash bench/gpu.sh --device {options.device}"
    head = f"# {title}\n\n{machine(options.device)}. Written by `{command}` (`python -m bench.gpu.{part}`)."
    (options.out / f"gpu_{part}.md").write_text("\n\n".join([head, *sections]) + "\n")
    (options.out / f"gpu_{part}.json").write_text(json.dumps(data, indent=1) + "\n")


def show(text: str) -> None:
    """To stdout at once, so that a part that is stopped has said what it found."""
    print(text, flush=True)
    sys.stdout.flush()
