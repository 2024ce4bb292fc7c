"""`fxgrad bench MODEL`: what the repaired graph costs beside the original, and beside torch's own means."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys

from fxgrad.cli.arguments import model_arguments, quiet_argument, step
from fxgrad.cli.output import say, tell
from fxgrad.cli.progress_line import showing

EXAMPLES = """examples:
  fxgrad bench model.py                            where the model is
  fxgrad bench model.py:Net --device cuda          a copy of it on the GPU
  fxgrad bench model.py --input x=8x3x224x224 --format json > bench.json

Needs a model and inputs with data. Exit status: 0 measured, 2 could not run (no GPU, or a program that \
`fix` refuses).
"""


def add(command: argparse.ArgumentParser) -> None:
    """The model, where to run, how often, and how to say it."""
    model_arguments(command)
    command.add_argument(
        "--device", choices=("cpu", "cuda"), help="where to run (default: where the model is)"
    )
    command.add_argument(
        "--runs", type=int, default=30, metavar="N", help="timed runs of each form (default: 30)"
    )
    command.add_argument(
        "--seconds",
        type=float,
        default=20.0,
        metavar="S",
        help="stop before N runs after so many seconds (default: 20)",
    )
    command.add_argument("--compiled", action="store_true", help="each form under torch.compile too")
    command.add_argument(
        "--format",
        choices=("table", "json"),
        default="table",
        help="how the result is written (default: table)",
    )
    quiet_argument(command)


def run(arguments: argparse.Namespace) -> int:
    """Measure. The table goes to stdout, what had to be assumed to stderr."""
    # here: it takes as long to import as all the rest of the command line
    from fxgrad.fix_graph.benchmark import benchmark

    with contextlib.redirect_stdout(sys.stderr), showing(sys.stderr), step(arguments) as asked:
        found = benchmark(
            asked.model,
            None,
            asked.inputs,
            loss=asked.loss,
            device=arguments.device,
            runs=arguments.runs,
            seconds=arguments.seconds,
            compiled=arguments.compiled,
        )
    for note in asked.assumed:
        tell(f"fxgrad: assumed: {note}")
    say(json.dumps(found.to_dict(), indent=2) if arguments.format == "json" else str(found))
    return 0
