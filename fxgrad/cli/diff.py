"""`fxgrad diff OLD NEW`: which gradients were lost, gained, or are missing for another reason, between two
reports, git revisions or models.

Each model is analysed in a process of its own, as `fxgrad report` does it, so that two versions of one module
never meet. Not handled: scripts; write their reports with `fxgrad run --format json -o FILE`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fxgrad.cli.arguments import quiet_argument, step_arguments
from fxgrad.cli.output import is_terminal, tell, width_of, write
from fxgrad.cli.revisions import Tree, checked_out, in_revision, is_revision
from fxgrad.records.errors import InputError

if TYPE_CHECKING:
    from fxgrad.records.report import ReportData
    from fxgrad.report.comparison import Side

FORMATS = ("table", "markdown", "json", "html")
EXAMPLES = """OLD and NEW are each a report (FILE.json, as `report --format json` writes it), a MODEL as \
for `report`, or a MODEL of a git
revision: REVISION:path/to/file.py[:name]. With --model they are revisions, and NEW may be left out: the \
working tree.

examples:
  fxgrad diff before.json after.json
  fxgrad diff main --model model.py                     what the working tree changes
  fxgrad diff HEAD~1 HEAD --model package.models:build
  fxgrad diff main:model.py:Net model.py:Net            the same, each with its own name
  fxgrad diff old_model.py new_model.py --input x=2x4   two models; options as for `report`
  fxgrad diff main --model model.py --format markdown   for a pull request
  fxgrad diff a.json b.json --format html -o diff.html  both reports side by side

exit status: 0 no gradient was lost, 1 one was, 2 could not run
"""

# A revision of a project may hold an fxgrad of its own: the one that runs is this one.
_THIS_FXGRAD = """\
import sys
sys.path.insert(0, sys.argv.pop(1))
import fxgrad.cli
del sys.path[0]
fxgrad.cli.entry()
"""


def add(command: argparse.ArgumentParser) -> None:
    """What to compare, and how to write it."""
    add = command.add_argument
    add("old", metavar="OLD", help="a report, a model, or a git revision")
    add("new", metavar="NEW", nargs="?", help="the same; with --model may be left out: the working tree")
    add("--model", metavar="MODEL", help="the model of which OLD and NEW are git revisions")
    step_arguments(command)
    add("--format", choices=FORMATS, default="table", help="how it is written (default: table)")
    add("-o", "--output", metavar="FILE", help="write it there instead of to stdout")
    add("--exit-zero", action="store_true", help="exit with 0 although a gradient was lost")
    add("-v", "--verbose", action="store_true", help="shorten nothing")
    quiet_argument(command)


@dataclass(frozen=True, slots=True)
class Operand:
    """One side. `report`: a file that holds it; else `model` in `revision` (None: the working tree)."""

    title: str
    report: str = ""
    model: str = ""
    revision: str | None = None


def run(arguments: argparse.Namespace) -> int:
    """Write the comparison; exit status 1 where a gradient was lost."""
    from fxgrad.report import comparison_text
    from fxgrad.report.comparison import compare

    operands = _operands(arguments)
    with contextlib.ExitStack() as stack:
        # The files of a revision stay until what is written of them has quoted their lines.
        trees = [
            stack.enter_context(checked_out(one.revision)) if one.revision is not None else None
            for one in operands
        ]
        with ThreadPoolExecutor(len(operands)) as pool:
            old, new = pool.map(lambda one, tree: _side(one, tree, arguments), operands, trees)
        found = compare(old, new)
        width = width_of(sys.stdout) if arguments.output is None and is_terminal(sys.stdout) else None
        text = comparison_text.FORMATS[arguments.format](found, verbose=arguments.verbose, width=width)
        for tree in filter(None, trees):
            text = text.replace(tree.root, tree.repository)
    write(text, arguments.output, coloured=arguments.format == "table")
    return 0 if found.ok or arguments.exit_zero else 1


def _operands(arguments: argparse.Namespace) -> tuple[Operand, Operand]:
    """What OLD and NEW are.

    Raises:
        InputError: one is missing, or none of what it may be.
    """
    if arguments.model is None and arguments.new is None:
        raise InputError(
            "there is nothing to compare with", hint="give NEW, or --model MODEL where OLD is a git revision"
        )
    if arguments.model is None:
        return _operand(arguments.old), _operand(arguments.new)
    old = _revision(arguments.old, arguments.model)
    new = Operand("the working tree", model=arguments.model)
    return old, _revision(arguments.new, arguments.model) if arguments.new is not None else new


def _revision(text: str, model: str) -> Operand:
    return Operand(text, report=text) if _is_report(text) else Operand(text, model=model, revision=text)


def _operand(text: str) -> Operand:
    if _is_report(text):
        return Operand(text, report=text)
    before, colon, rest = text.partition(":")
    if not os.path.exists(before):
        path, _, name = rest.partition(":")
        file = in_revision(before, path) if colon and path else None
        if file is not None:
            return Operand(text, model=f"{file}:{name}" if name else file, revision=before)
        if not colon and is_revision(text):
            raise InputError(f"{text} is a git revision, and no model", hint="add --model MODEL")
    return Operand(text, model=text)


def _is_report(text: str) -> bool:
    return text.endswith(".json")


def _side(operand: Operand, tree: Tree | None, arguments: argparse.Namespace) -> Side:
    """The report of an operand, read or made.

    Raises:
        InputError: it cannot be read, or the model cannot be analysed.
    """
    from fxgrad.report.comparison import side

    if operand.report:
        return side(operand.title, _read(Path(operand.report), operand.title))
    with tempfile.TemporaryDirectory(prefix="fxgrad-diff-") as folder:
        tell(f"analysing {operand.title}")
        report = _analysed(operand, tree, arguments, Path(folder) / "report.json")
        report = replace(report, command="")  # of a process that nobody started by hand
    return side(operand.title, report, (tree.root, tree.repository) if tree is not None else None)


def _read(file: Path, title: str) -> ReportData:
    from fxgrad.report.read_back import read

    try:
        return read(json.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(f"the report {title} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise InputError(
            f"{title} is no JSON", hint="write a report with `fxgrad report MODEL --format json -o FILE`"
        ) from None
    except InputError as error:
        raise InputError(f"{title}: {error.reason}", hint=error.hint) from None


def _analysed(operand: Operand, tree: Tree | None, arguments: argparse.Namespace, file: Path) -> ReportData:
    """The report that `fxgrad report` writes of the model, in a process of its own."""
    path, colon, name = operand.model.partition(":")
    model = f"{tree.of(path)}{colon}{name}" if tree is not None else operand.model
    command = [sys.executable, "-P", "-c", _THIS_FXGRAD, str(Path(__file__).parents[2])]
    command += ["report", model, "--format", "json", "-o", str(file)]
    command += _passed_on(arguments)
    done = subprocess.run(
        command,
        cwd=tree.of(os.getcwd()) if tree is not None else None,
        env=tree.environment() if tree is not None else None,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if not file.exists():
        last = next(reversed(done.stderr.strip().splitlines()), f"it ended with {done.returncode}")
        said = last.removeprefix("fxgrad: error: ")
        if tree is not None:
            said = said.replace(tree.root, tree.repository)
        raise InputError(f"{operand.title} cannot be analysed: {said}")
    return _read(file, operand.title)


def _passed_on(arguments: argparse.Namespace) -> list[str]:
    """The options of this command line that are `report`'s."""
    given = [f"--values={arguments.values}", f"--max-paths={arguments.max_paths}"]
    for option, values in (
        ("--input", arguments.input),
        ("--arg", arguments.arg),
        ("--loss", [arguments.loss] if arguments.loss is not None else []),
        ("--expect", arguments.expect or []),
    ):
        given += [f"{option}={value}" for value in values]
    given += ["--trust-pickle"] if arguments.trust_pickle else []
    return [*given, *(["--", *arguments.argv] if arguments.argv else [])]
