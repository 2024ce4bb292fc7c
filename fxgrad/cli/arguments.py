"""What several subcommands take from a command line."""

from __future__ import annotations

import argparse
import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fxgrad.program.step import Step

# The names of `fxgrad.report.FORMATS`, which imports torch.
FORMATS = (
    "table",
    "json",
    "sarif",
    "html",
    "github",
    "mermaid",
    "concise",
    "markdown",
    "gitlab",
    "junit",
)
VALUES = ("auto", "fake", "real")
STATUS = "exit status: 0 no error-level finding, 1 there are some, 2 could not run"


def model_arguments(command: argparse.ArgumentParser, *, several: bool = False) -> None:
    """MODEL (or several), what it is called with, what must train, and which rules speak."""
    add = command.add_argument
    add(
        "model",
        metavar="MODEL",
        nargs="*" if several else None,
        help="path/to/file.py[:name], package.module:name, a folder with a config.json, or a .pt2 file; "
        "after `--` what the file reads of sys.argv",
    )
    step_arguments(command)
    rule_arguments(command)


def step_arguments(command: argparse.ArgumentParser) -> None:
    """What a model is called with, what must train, and how it is run."""
    add = command.add_argument
    add(
        "--input",
        action="append",
        default=[],
        metavar="SPEC",
        help="[name=]SHAPE[:DTYPE][RANGE][:grad], as in x=2x3x224x224:float32; repeat it",
    )
    add(
        "--arg",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an argument to build the model with, as Python; repeat it",
    )
    add(
        "--loss",
        metavar="SPEC",
        help="package.module:name or file.py:name, called with the output, or a part of it: .loss, [0]",
    )
    add(
        "--expect",
        action="append",
        metavar="GLOB",
        help="parameters that must train; repeat it (default: all that require grad)",
    )
    add(
        "--max-paths",
        type=positive,
        default=64,
        metavar="N",
        help="outcomes of data-dependent branches explored at most (default: 64)",
    )
    add(
        "--values",
        choices=VALUES,
        default="auto",
        help="run the model on tensors with data or without (default: auto)",
    )
    add("--trust-pickle", action="store_true", help="load a pickled model: doing so runs the code in it")


def rule_arguments(command: argparse.ArgumentParser) -> None:
    """Which rules speak."""
    add = command.add_argument
    add(
        "--select",
        default="",
        metavar="CODES",
        help="only rules whose code begins so, comma separated: FXG1,FXG301",
    )
    add(
        "--ignore",
        default="",
        metavar="CODES",
        help="not the rules whose code begins so; the longer of two that fit decides",
    )


def report_arguments(command: argparse.ArgumentParser) -> None:
    """How a report is written, where to, and what it leaves out."""
    add = command.add_argument
    add("--format", choices=FORMATS, default="table", help="how the report is written (default: table)")
    add("-o", "--output", metavar="FILE", help="write the report there instead of to stdout")
    add("--baseline", metavar="FILE", help="leave out the findings that this file holds")
    add("--update-baseline", action="store_true", help="write the findings of now to the baseline first")
    add("-v", "--verbose", action="store_true", help="show notes and branches, and shorten nothing")
    add("--exit-zero", action="store_true", help="exit with 0 although there are errors")
    add("--statistics", action="store_true", help="show how often each rule speaks instead of the report")
    quiet_argument(command)


def quiet_argument(command: argparse.ArgumentParser) -> None:
    """`-q`."""
    command.add_argument("-q", "--quiet", action="store_true", help="only findings, and errors of fxgrad")


def step(arguments: argparse.Namespace) -> contextlib.AbstractContextManager[Step]:
    """The step that the arguments name."""
    from fxgrad.program.step import step_of  # imports torch, which help and `explain` do without

    return step_of(
        arguments.model,
        inputs=arguments.input,
        loss=arguments.loss,
        expect=arguments.expect,
        trust_pickle=arguments.trust_pickle,
        arguments=arguments.arg,
        argv=arguments.argv,
    )


def positive(text: str) -> int:
    """A number from 1 on, as a type of argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number
