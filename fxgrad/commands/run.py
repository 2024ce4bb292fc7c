"""`fxgrad run SCRIPT [ARGS ...]`: the user's own training script, unchanged, watched for its first optimizer steps."""

from __future__ import annotations

import argparse
import sys

from fxgrad.errors import InputError
from fxgrad.report import FORMATS
from fxgrad.run import run_script

EXAMPLES = """examples:
  fxgrad run train.py --lr 0.1               stop after the first step and report
  fxgrad run --steps 3 --continue train.py   report on three steps, then train on

Options of fxgrad stand before the script; what follows it belongs to the script.
"""


def add(command: argparse.ArgumentParser) -> None:
    """The script, its arguments, and how long to watch."""
    command.add_argument("--steps", type=int, default=1, metavar="N", help="optimizer steps to watch (default: 1)")
    command.add_argument("--continue", dest="go_on", action="store_true", help="let the script run on when they have been seen")
    command.add_argument("--format", choices=[module.NAME for module in FORMATS], default="table", help="how the report is written")
    command.add_argument("-v", "--verbose", action="store_true", help="show notes and shorten nothing")
    command.add_argument("script", metavar="SCRIPT")
    command.add_argument("arguments", nargs=argparse.REMAINDER, metavar="ARGS", help="passed to the script")


def run(arguments: argparse.Namespace) -> int:
    """Run it; the report goes to stdout after what the script printed. The exit status is the script's own where it is not 0."""
    if arguments.steps < 1:
        raise InputError("--steps must be at least 1")
    report, status = run_script(
        arguments.script,
        arguments.arguments,
        steps=arguments.steps,
        go_on=arguments.go_on,
        show=lambda found: print(found.render(arguments.format, verbose=arguments.verbose), flush=True),
    )
    if report is None:
        said = "no training step had ended when the script did"
        print(f"fxgrad: {said}{', and its error is none of gradients' if status == 1 else ''}: nothing to report", file=sys.stderr)
    return status
