"""The command line: `main(argv) -> exit status`. The only module that prints.

Exit status: 0 clean, 1 findings at error level, 2 could not run. Data goes to stdout, talk to stderr, what the user's
own program prints too; an error is one line, what, where and how to mend it, with the traceback only on `--traceback`.
A subcommand is one entry of `COMMANDS`. Not handled: output of C code in the user's program, which goes where it likes.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fxgrad.cli import bench, completion, explain, fix, report, run, versions
from fxgrad.cli.arguments import STATUS, Parser, model_arguments
from fxgrad.cli.output import say, tell
from fxgrad.records.errors import FxgradError
from fxgrad.source.excerpt import place

_EXAMPLES = f"""examples:
  fxgrad report model.py
  fxgrad report model.py:Net --input x=2x3x224x224:float32 --expect 'head.*'
  fxgrad explain FXG103

{STATUS}
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
    given, argv = _split(given)
    try:
        arguments = _parser().parse_args(given, argparse.Namespace(argv=argv))
    except SystemExit as error:  # argparse after --help, --version or a usage error
        return error.code if isinstance(error.code, int) else 2
    try:
        status: int = arguments.run(arguments)
        return status
    except FxgradError as error:
        return _failed(_one_line(error), show=arguments.traceback)
    except KeyboardInterrupt:
        tell("fxgrad: interrupted")
        return 130
    except (Exception, SystemExit) as error:  # the user's program raised where nobody foresaw it, or fxgrad has a bug
        first = next(iter(str(error).strip().splitlines()), "")
        said = f"{type(error).__name__}{f': {first}' if first else ''} (unforeseen: please report it with the output of --traceback)"
        return _failed(said, show=arguments.traceback)


def _split(given: list[str]) -> tuple[list[str], list[str]]:
    """What is fxgrad's, and what after `--` is for the model's file. A script of `run` takes its arguments without one."""
    if "--" not in given or given[0] == "run":
        return given, []
    at = given.index("--")
    return given[:at], given[at + 1 :]


def entry() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # a terminal that cannot show a character gets an escape, not an error
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(main())


def _failed(said: str, *, show: bool) -> int:
    if show:
        traceback.print_exc()
    tell(f"fxgrad: error: {said}")
    return 2


def _one_line(error: FxgradError) -> str:
    where = f"{place(error.site)}: " if error.site else ""
    hint = f" ({error.hint})" if error.hint else ""
    return " ".join(f"{where}{error.reason}{hint}".split())


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    purpose = "Which parameters get no gradient, which line is to blame, and what repairs it."
    parser = Parser(prog="fxgrad", description=purpose, epilog=_EXAMPLES, formatter_class=raw)
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


def _fix_arguments(command: argparse.ArgumentParser) -> None:
    model_arguments(command)
    fix.add(command)


def _bench_arguments(command: argparse.ArgumentParser) -> None:
    model_arguments(command)
    bench.add(command)


def _completion(arguments: argparse.Namespace) -> int:
    return completion.run(arguments.shell, _parser())


def _no_arguments(command: argparse.ArgumentParser) -> None:
    del command


COMMANDS: tuple[Command, ...] = (
    Command("report", "report which parameters of a model get no gradient, and why", report.EXAMPLES, report.add, report.run),
    Command("fix", "repair the source of a model, shown as a diff or written", fix.EXAMPLES, _fix_arguments, fix.run),
    Command("bench", "time a model beside its repaired forms and torch's own means", bench.EXAMPLES, _bench_arguments, bench.run),
    Command("run", "run a training script and report on its first optimizer steps", run.EXAMPLES, run.add, run.run),
    Command("rules", "list the rules", "example:\n  fxgrad rules\n", _no_arguments, explain.list_rules),
    Command("explain", "print the documentation of a rule", "example:\n  fxgrad explain FXG103\n", explain.add, explain.run),
    Command("completion", "print a script that completes fxgrad's words in a shell", completion.EXAMPLES, completion.add, _completion),
)
