"""`fxgrad fix MODEL`: repair the user's own source, shown as a diff or written; or the graph, exported as a
package of its own."""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import TYPE_CHECKING, Literal

from fxgrad.cli.arguments import model_arguments, quiet_argument, step
from fxgrad.cli.output import say, tell
from fxgrad.cli.progress_line import showing
from fxgrad.records import Finding, Options

# What imports torch is imported where it is used: `--help` does without.
if TYPE_CHECKING:
    from fxgrad.fix_source import MendResult, Subject

EXAMPLES = """examples:
  fxgrad fix model.py                       print what would be changed; exit 1 if there is a diff
  fxgrad fix model.py | git apply           the same as --write, through git
  fxgrad fix model.py --write               change the files
  fxgrad fix model.py --module fixed        write the regenerated module as the package `fixed`, which runs \
without fxgrad
  fxgrad fix model.py --all                 every in-place operation out of place, also those that break \
nothing
  fxgrad fix model.py --unsafe-fixes        also what changes numbers or intent: drop a detach, register a \
layer
"""


def add(command: argparse.ArgumentParser) -> None:
    """The model, and what to do with the repair."""
    model_arguments(command)
    how = command.add_mutually_exclusive_group()
    how.add_argument(
        "--diff",
        action="store_true",
        help="print a unified diff and change nothing (the default); exit 1 if there is one",
    )
    how.add_argument("--write", action="store_true", help="write the mended files")
    how.add_argument(
        "--module",
        metavar="DIR",
        help="leave the files, and write the model as a mended graph into a folder of its own",
    )
    everything = (
        "every in-place operation out of place, not only what breaks backward; `x[i] = v` stays in "
        "source and goes in a graph"
    )
    command.add_argument("--all", action="store_true", help=everything)
    command.add_argument(
        "--unsafe-fixes", action="store_true", help="also fixes that change numbers or intent"
    )
    quiet_argument(command)


def run(arguments: argparse.Namespace) -> int:
    """Mend. The diff goes to stdout, what was mended and what was not to stderr."""
    from fxgrad.cli.codes import codes
    from fxgrad.fix_source import mend

    select, ignore = codes(arguments.select), codes(arguments.ignore)
    if arguments.module is not None:
        return _export(arguments, select, ignore)
    rewrite: Literal["needed", "all"] = "all" if arguments.all else "needed"
    options = Options(
        values=arguments.values, max_paths=arguments.max_paths, unsafe=arguments.unsafe_fixes, rewrite=rewrite
    )
    with showing(sys.stderr):
        result = mend(subject(arguments), options=options, select=select, ignore=ignore)
    _tell(result)
    left = any(finding.severity == "error" for finding in result.remaining)
    if arguments.write:
        for file in result.write():
            tell(f"wrote {file}")
        return int(left)
    text = result.diff()
    say(text, coloured=True, end="")
    return int(bool(text) or left)


def subject(arguments: argparse.Namespace) -> Subject:
    """The program that the arguments name, as a fresh process gets it."""
    from fxgrad.fix_source import Subject

    return Subject.of(
        arguments.model,
        inputs=arguments.input,
        loss=arguments.loss,
        expect=arguments.expect,
        trust_pickle=arguments.trust_pickle,
        arguments=arguments.arg,
        argv=arguments.argv,
    )


def _export(arguments: argparse.Namespace, select: tuple[str, ...], ignore: tuple[str, ...]) -> int:
    """The model as a verified graph, in a folder. Errors that rewriting cannot mend stay in it, and count for
    the exit status."""
    from fxgrad.diagnosis.analyze import analyze
    from fxgrad.fix_graph.export.package import check_folder, export_module
    from fxgrad.fix_graph.fix import fix
    from fxgrad.source.excerpt import place

    check_folder(arguments.module)
    options = Options(rewrite="all" if arguments.all else "needed", max_paths=arguments.max_paths)
    with contextlib.redirect_stdout(sys.stderr), step(arguments) as asked:
        with showing(sys.stderr):
            result = fix(asked.model, asked.inputs, loss=asked.loss, options=options)
        again = Options(max_paths=arguments.max_paths)
        report = analyze(result.module, asked.inputs, loss=asked.loss, expect=asked.expect, options=again)
        files = export_module(result.module, asked.inputs, arguments.module)
    for note in asked.assumed:
        tell(f"assumed: {note}")
    for done in result.applied:
        tell(
            f"{place(done.site) + ': ' if done.site else ''}`{done.operator}` out of place "
            f"({done.form}): "
            f"{done.reason}"
        )
    for left in result.refused:
        tell(f"{place(left.site) + ': ' if left.site else ''}`{left.operator}` stays in place: {left.reason}")
    checked = result.verification
    largest = max([checked.outputs, *checked.gradients.values()])
    tell(
        f"outputs and {len(checked.gradients)} gradients equal {checked.oracle}: largest difference "
        f"{largest:.2g}"
    )
    for value in result.frozen:
        tell(f"{place(value.site) + ': ' if value.site else ''}the graph takes for granted: {value.what}")
    remaining = report.selected(select, ignore).findings
    for finding in remaining:
        tell(f"not mended: {finding.code} {finding.message}")
    tell("the package was loaded in a fresh process, and one step of it equals the graph's")
    for file in files:
        tell(f"wrote {file}")
    return int(any(finding.severity == "error" for finding in remaining))


def _tell(result: MendResult) -> None:
    for repair in result.repairs:
        proof = f"; equal to the oracle ({repair.proof})" if repair.proof else ""
        tell(f"{_where(repair.finding)}{repair.finding.code} [{repair.safety}] {repair.how}{proof}")
    for refusal in result.refused:
        more = " (--unsafe-fixes would)" if refusal.unsafe_would_help else ""
        tell(f"{_where(refusal.finding)}{refusal.finding.code} not fixed{more}: {refusal.reason}")
    for name, (before, after) in result.changes.items():
        tell(f"  {name}: {before} -> {after}")
    tell(f"Fixed {len(result.fixed)}, remaining {len(result.remaining)}.")


def _where(finding: Finding) -> str:
    from fxgrad.source.excerpt import place

    return f"{place(finding.site)}: " if finding.site else ""
