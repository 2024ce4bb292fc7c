"""The command line: `main(argv) -> exit status`. The only module that prints.

Exit status: 0 clean, 1 findings at error level, 2 could not run. Data goes to stdout, talk to stderr, what the user's
own program prints too; an error is one line, what, where and how to mend it, with the traceback only on `--traceback`.
A subcommand is one entry of `COMMANDS`. Not handled: output of C code in the user's program, which goes where it likes.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import inspect
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from tabulate import tabulate

from fxgrad.cli import bench, completion, fix, run, versions
from fxgrad.cli.codes import codes
from fxgrad.cli.output import say, write
from fxgrad.cli.progress_line import showing
from fxgrad.diagnosis import analyze
from fxgrad.passes import RULES
from fxgrad.program.infer import given_inputs
from fxgrad.program.load import loading
from fxgrad.records import Options
from fxgrad.records.errors import FxgradError, InputError
from fxgrad.report import FORMATS, Report
from fxgrad.report.baseline import apply_baseline, write_baseline
from fxgrad.report.table import raised
from fxgrad.source.excerpt import place

_STATUS = "exit status: 0 no error-level finding, 1 there are some, 2 could not run"
_EXAMPLES = f"""examples:
  fxgrad report model.py
  fxgrad report model.py:Net --input x=2x3x224x224:float32 --expect 'head.*'
  fxgrad explain FXG103

{_STATUS}
"""
_REPORT_EXAMPLES = f"""MODEL names a module, a class that takes no arguments, or a function that returns a module; the name may be left out
where the file has one candidate. `example_inputs`, `loss`, `optimizer` and `expect` are used where the file defines them.

examples:
  fxgrad report model.py                                      the file's only model, inputs inferred
  fxgrad report model.py:Net --input x=2x3x224x224:float32    one input by name
  fxgrad report model.py --input ids=2x16:int64[0,1000)       integers from 0 to 999
  fxgrad report package.models:build --loss losses.py:total   loss = total(output)
  fxgrad report model.py --loss '.logits'                     a part of the output, summed
  fxgrad report model.py --expect 'head.*' --ignore FXG3      only the head must train; no optimizer rules
  fxgrad report model.py --format sarif -o fxgrad.sarif       for code scanning

{_STATUS}
"""


@dataclass(frozen=True, slots=True)
class Command:
    """A subcommand: its name, what `--help` says of it, its arguments, and what it does (returning the exit status)."""

    name: str
    summary: str
    examples: str
    add: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status."""
    given = list(sys.argv[1:] if argv is None else argv)
    if "--version" in given and set(given) <= {"--version", "-v", "--verbose"}:
        say(versions.long() if len(set(given)) > 1 else versions.short())
        return 0
    try:
        arguments = _parser().parse_args(given)
    except SystemExit as error:  # argparse after --help, --version or a usage error
        return error.code if isinstance(error.code, int) else 2
    try:
        status: int = arguments.run(arguments)
        return status
    except FxgradError as error:
        return _failed(_one_line(error), show=arguments.traceback)
    except KeyboardInterrupt:
        print("fxgrad: interrupted", file=sys.stderr)
        return 130
    except (Exception, SystemExit) as error:  # the user's program raised where nobody foresaw it, or fxgrad has a bug
        first = next(iter(str(error).strip().splitlines()), "")
        said = f"{type(error).__name__}{f': {first}' if first else ''} (unforeseen: please report it with the output of --traceback)"
        return _failed(said, show=arguments.traceback)


def entry() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # a terminal that cannot show a character gets an escape, not an error
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(main())


def _failed(said: str, *, show: bool) -> int:
    if show:
        traceback.print_exc()
    print(f"fxgrad: error: {said}", file=sys.stderr)
    return 2


def _one_line(error: FxgradError) -> str:
    where = f"{place(error.site)}: " if error.site else ""
    hint = f" ({error.hint})" if error.hint else ""
    return " ".join(f"{where}{error.reason}{hint}".split())


# ---------------------------------------------------------------------------------------------------------------- arguments


class _Parser(argparse.ArgumentParser):
    """A usage error in one line, as every other."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"fxgrad: error: {message} (see `{self.prog} --help`)\n")


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    purpose = "Which parameters get no gradient, which line is to blame, and what repairs it."
    parser = _Parser(prog="fxgrad", description=purpose, epilog=_EXAMPLES, formatter_class=raw)
    parser.add_argument("--version", action="version", version=versions.short(), help="show the version; with -v all that matters")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    for item in COMMANDS:
        command = commands.add_parser(
            item.name, help=item.summary, description=f"{item.summary.capitalize()}.", epilog=item.examples, formatter_class=raw
        )
        command.add_argument("--traceback", action="store_true", help="show the Python traceback of an error")
        item.add(command)
        command.set_defaults(run=item.run)
    return parser


def _model_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("model", metavar="MODEL", help="path/to/file.py[:name], package.module:name, or a .pt2 file of torch.export.save")
    add("--input", action="append", default=[], metavar="SPEC", help="[name=]SHAPE[:DTYPE][RANGE], as in x=2x3x224x224:float32; repeat it")
    add("--loss", metavar="SPEC", help="package.module:name or file.py:name, called with the output, or a part of it: .loss, [0]")
    add("--expect", action="append", metavar="GLOB", help="parameters that must train; repeat it (default: all that require grad)")
    add("--select", default="", metavar="CODES", help="only rules whose code begins so, comma separated: FXG1,FXG301")
    add("--ignore", default="", metavar="CODES", help="not the rules whose code begins so; the longer of two that fit decides")
    add("--max-paths", type=_positive, default=64, metavar="N", help="outcomes of data-dependent branches explored at most (default: 64)")
    add("--values", choices=("auto", "fake", "real"), default="auto", help="run the model on tensors with data or without (default: auto)")
    add("--trust-pickle", action="store_true", help="load a pickled model: doing so runs the code in it")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def _report_arguments(command: argparse.ArgumentParser) -> None:
    _model_arguments(command)
    add = command.add_argument
    add("--format", choices=[module.NAME for module in FORMATS], default="table", help="how the report is written (default: table)")
    add("-o", "--output", metavar="FILE", help="write the report there instead of to stdout")
    add("--baseline", metavar="FILE", help="leave out the findings that this file holds")
    add("--update-baseline", action="store_true", help="write the findings of now to the baseline first")
    add("--exit-zero", action="store_true", help="exit with 0 although there are errors")
    add("-v", "--verbose", action="store_true", help="show notes and branches, and shorten nothing")


def _fix_arguments(command: argparse.ArgumentParser) -> None:
    _model_arguments(command)
    fix.add(command)


def _bench_arguments(command: argparse.ArgumentParser) -> None:
    _model_arguments(command)
    bench.add(command)


def _explain_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("code", metavar="CODE", help="a rule's code or name: FXG103, detached-path")


def _completion(arguments: argparse.Namespace) -> int:
    return completion.run(arguments.shell, _parser())


def _no_arguments(command: argparse.ArgumentParser) -> None:
    del command


# ---------------------------------------------------------------------------------------------------------------- report


def _report(arguments: argparse.Namespace) -> int:
    select, ignore = codes(arguments.select), codes(arguments.ignore)
    if arguments.update_baseline and not arguments.baseline:
        raise InputError("--update-baseline needs a file", hint="add --baseline FILE")
    found = _analysed(arguments)
    report = found.selected(select, ignore)
    if arguments.baseline:
        if arguments.update_baseline:
            write_baseline(Path(arguments.baseline), report)
        report = apply_baseline(Path(arguments.baseline), report)
    write(report.render(arguments.format, verbose=arguments.verbose), arguments.output, coloured=arguments.format == "table")
    if found.ok and found.error is not None:
        print(f"fxgrad: error: {raised(found.error)} (no finding explains it: the program itself may be at fault)", file=sys.stderr)
        return 2
    return 0 if report.ok or arguments.exit_zero else 1


def _analysed(arguments: argparse.Namespace) -> Report:
    """The report on the model that the arguments name. What the user's program prints goes to stderr."""
    options = Options(values=arguments.values, max_paths=arguments.max_paths)
    with contextlib.redirect_stdout(sys.stderr), loading(arguments.model, trust_pickle=arguments.trust_pickle) as loaded:
        loss = loaded.loss_named(arguments.loss) if arguments.loss else loaded.loss
        inputs, assumptions = given_inputs(loaded.model, loaded.inputs, arguments.input)
        expect = arguments.expect or loaded.expect
        with showing(sys.stderr):
            report = analyze.analyze(loaded.model, inputs, loss=loss, optimizer=loaded.optimizer, expect=expect, options=options)
    return replace(report, assumptions=(*loaded.notes, *assumptions, *report.assumptions))


# ---------------------------------------------------------------------------------------------------------------- rules


def _rules(arguments: argparse.Namespace) -> int:
    del arguments
    rows = [(rule.CODE, rule.NAME, rule.SEVERITY, _summary(rule)) for rule in RULES]
    say(tabulate(rows, headers=("code", "name", "level", "finds"), maxcolwidths=[None, None, None, 80]))
    return 0


def _summary(rule: ModuleType) -> str:
    return (inspect.getdoc(rule) or "").partition("\n")[0]


def _explain(arguments: argparse.Namespace) -> int:
    wanted = arguments.code.strip()
    for rule in RULES:
        if wanted.lower() in (rule.CODE.lower(), rule.NAME):
            say(f"{rule.CODE} {rule.NAME} ({rule.SEVERITY})\n\n{inspect.getdoc(rule)}")
            return 0
    known = {word.lower(): word for rule in RULES for word in (rule.CODE, rule.NAME)}
    close = [known[word] for word in difflib.get_close_matches(wanted.lower(), known, 1)]
    raise InputError(f"there is no rule {wanted}", hint=f"did you mean {close[0]}?" if close else "`fxgrad rules` lists them")


COMMANDS: tuple[Command, ...] = (
    Command("report", "report which parameters of a model get no gradient, and why", _REPORT_EXAMPLES, _report_arguments, _report),
    Command("fix", "repair the source of a model, shown as a diff or written", fix.EXAMPLES, _fix_arguments, fix.run),
    Command("bench", "time a model beside its repaired forms and torch's own means", bench.EXAMPLES, _bench_arguments, bench.run),
    Command("run", "run a training script and report on its first optimizer steps", run.EXAMPLES, run.add, run.run),
    Command("rules", "list the rules", "example:\n  fxgrad rules\n", _no_arguments, _rules),
    Command("explain", "print the documentation of a rule", "example:\n  fxgrad explain FXG103\n", _explain_arguments, _explain),
    Command("completion", "print a script that completes fxgrad's words in a shell", completion.EXAMPLES, completion.add, _completion),
)
