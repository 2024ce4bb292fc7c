"""`fxgrad run SCRIPT [ARGS ...]`, `fxgrad run -m MODULE [ARGS ...]`: the user's own training script,
unchanged, watched for its first optimizer steps.

A report that is data (JSON, SARIF, ...) has stdout for itself: what the script prints goes to stderr then.
With `-o FILE` both stay as they are.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from fxgrad.cli.arguments import report_arguments, rule_arguments
from fxgrad.cli.output import tell
from fxgrad.cli.progress_line import showing
from fxgrad.cli.several import without_known, write_reports
from fxgrad.records.errors import InputError

if TYPE_CHECKING:
    from fxgrad.report import Report

EXAMPLES = """examples:
  fxgrad run train.py --lr 0.1                     stop after the first step and report
  fxgrad run --steps 3 --continue train.py         report on three steps, then train on
  fxgrad run -m package.train --lr 0.1             as `python -m package.train` would run it
  fxgrad run --format html -o report.html train.py
  torchrun --nproc-per-node 2 -m fxgrad run train.py

Options of fxgrad stand before the script; what follows it belongs to the script. The exit status is the \
script's own where it is not 0.
"""


def add(command: argparse.ArgumentParser) -> None:
    """The script, its arguments, how long to watch, and what to do with the report."""
    option = command.add_argument
    option("--steps", type=int, default=1, metavar="N", help="optimizer steps to watch (default: 1)")
    option(
        "--continue", dest="go_on", action="store_true", help="let the script run on when they have been seen"
    )
    rule_arguments(command)
    report_arguments(command)
    option("-m", dest="as_module", action="store_true", help="SCRIPT is a module's name, as for `python -m`")
    option("script", metavar="SCRIPT")
    option("arguments", nargs=argparse.REMAINDER, metavar="ARGS", help="passed to the script")


def run(arguments: argparse.Namespace) -> int:
    """Run it; the report comes after what the script printed. The exit status is the script's own where it is
    not 0."""
    # here: `--help` does without torch
    from fxgrad.cli.codes import codes
    from fxgrad.watching.ranks.board import launched
    from fxgrad.watching.script import run_script

    if arguments.steps < 1:
        raise InputError("--steps must be at least 1")
    if arguments.update_baseline and not arguments.baseline:
        raise InputError("--update-baseline needs a file", hint="add --baseline FILE")
    select, ignore = codes(arguments.select), codes(arguments.ignore)
    out, is_table = sys.stdout, arguments.format == "table"

    def choose(report: Report) -> Report:
        chosen = replace(report.selected(select, ignore), command=arguments.command)
        return without_known(arguments, [chosen])[0]

    def show(report: Report) -> None:
        with contextlib.redirect_stdout(out):
            write_reports(arguments, [report])

    def judging() -> contextlib.AbstractContextManager[None]:
        return showing(sys.stderr) if reports else contextlib.nullcontext()

    data_to_stdout = not is_table and arguments.output is None
    with contextlib.redirect_stdout(sys.stderr) if data_to_stdout else contextlib.nullcontext():
        board = launched()
        reports = board is None or board.rank == 0
        report, status = run_script(
            arguments.script,
            arguments.arguments,
            as_module=arguments.as_module,
            steps=arguments.steps,
            go_on=arguments.go_on,
            show=show,
            choose=choose,
            judging=judging,
            board=board,
            leave=_leave,
        )
    if report is None and reports:
        of_error = ", and its error is none of gradients'" if status == 1 else ""
        tell(f"fxgrad: no training step had ended when the script did{of_error}: nothing to report")
    found_errors = report is not None and not report.ok and status == 1
    return 0 if arguments.exit_zero and found_errors else status


def _leave(status: int) -> None:
    """End a process whose main thread waits for another process that will not answer."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)
