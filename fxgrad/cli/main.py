"""The command line: `main(argv) -> exit status`. The only module that prints.

Exit status: 0 clean, 1 findings at error level, 2 could not run. Data goes to stdout, talk to stderr, what
the user's own program prints too; an error is one line, what, where and how to mend it, with the traceback
only on `--traceback`. A subcommand is one entry of `COMMANDS`; its module is imported where it is the one
that was asked for, and imports torch where it runs: help costs no more than Python itself. Not handled:
output of C code in the user's program, which goes where it likes.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fxgrad.cli.arguments import STATUS
from fxgrad.cli.output import in_one_line, manner, say, tell
from fxgrad.cli.project import listed
from fxgrad.cli.words import Parser, with_command
from fxgrad.records.errors import FxgradError

_EXAMPLES = f"""examples:
  fxgrad model.py                                  the same as fxgrad report model.py
  fxgrad report model.py:Net --input x=2x3x224x224:float32 --expect 'head.*'
  fxgrad explain FXG103

{STATUS}
"""


class Parts(NamedTuple):
    """What a subcommand's module has: examples, its arguments, and what it does (returning the exit
    status)."""

    examples: str
    add: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


@dataclass(frozen=True, slots=True)
class Command:
    """A subcommand: its name, what `--help` says of it, and how its module is imported."""

    name: str
    summary: str
    parts: Callable[[], Parts]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status."""
    given = list(sys.argv[1:] if argv is None else argv)
    if given[:1] == ["--version"] or (
        "--version" in given and set(given) <= {"--version", "-v", "--verbose"}
    ):
        from fxgrad.cli import versions

        say(versions.long() if len(set(given)) > 1 else versions.short())
        return 0
    given, argv = _split(given)
    given = with_command(given, [command.name for command in COMMANDS], lambda: listed() is not None)
    line = shlex.join(["fxgrad", *given, *(["--", *argv] if argv else ())])
    try:
        arguments = _parsed(given, argv, line)
    except SystemExit as error:  # argparse after --help, --version or a usage error
        return error.code if isinstance(error.code, int) else 2
    with manner(arguments.color, quiet=getattr(arguments, "quiet", False)):
        return _done(arguments)


def _done(arguments: argparse.Namespace) -> int:
    """Do what is asked; an error is one line, and the exit status 2."""
    try:
        status: int = arguments.run(arguments)
        return status
    except FxgradError as error:
        return _failed(in_one_line(error), show=arguments.traceback)
    except KeyboardInterrupt:
        tell("fxgrad: interrupted", error=True)
        return 130
    # the user's program raised where nobody foresaw it, or fxgrad has a bug
    except (Exception, SystemExit) as error:
        first = next(iter(str(error).strip().splitlines()), "")
        said = (
            f"{type(error).__name__}{f': {first}' if first else ''} (unforeseen: please report it with "
            "the output of --traceback)"
        )
        return _failed(said, show=arguments.traceback)


def _parsed(given: list[str], argv: list[str], line: str) -> argparse.Namespace:
    """The arguments. Several MODELs need not stand together, as argparse would have it."""
    parser = _parser(given)
    arguments, unknown = parser.parse_known_args(given, argparse.Namespace(argv=argv, command=line))
    if unknown:
        command: Parser = arguments.parser
        if any(word.startswith("-") for word in unknown) or not isinstance(
            getattr(arguments, "model", None), list
        ):
            command.refuse(unknown)
        arguments.model += unknown
    return arguments


def _split(given: list[str]) -> tuple[list[str], list[str]]:
    """What is fxgrad's, and what after `--` is for the model's file. A script of `run` takes its arguments
    without one."""
    if "--" not in given or given[0] == "run":
        return given, []
    at = given.index("--")
    return given[:at], given[at + 1 :]


def entry() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        # a terminal that cannot show a character gets an escape, not an error
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(main())


def _failed(said: str, *, show: bool) -> int:
    if show:
        import traceback

        traceback.print_exc()
    tell(f"fxgrad: error: {said}", error=True)
    return 2


def _parser(given: Sequence[str] | None = None) -> Parser:
    """The parser; for one command line, given, with the arguments of those subcommands alone that it
    names."""
    raw = argparse.RawDescriptionHelpFormatter
    purpose = "Which parameters get no gradient, which line is to blame, and what repairs it."
    parser = Parser(prog="fxgrad", description=purpose, epilog=_EXAMPLES, formatter_class=raw)
    parser.add_argument("--version", action="store_true", help="show the version; with -v all that matters")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    for item in COMMANDS:
        command = commands.add_parser(
            item.name, help=item.summary, description=f"{item.summary.capitalize()}.", formatter_class=raw
        )
        command.add_argument("--traceback", action="store_true", help="show the Python traceback of an error")
        command.add_argument(
            "--color",
            choices=("auto", "always", "never"),
            default="auto",
            help="when to paint (default: auto: on a terminal)",
        )
        if given is None or item.name in given:
            command.epilog, add, run = item.parts()
            add(command)
            command.set_defaults(run=run, parser=command)
    return parser


def _report() -> Parts:
    from fxgrad.cli import report

    return Parts(report.EXAMPLES, report.add, report.run)


def _fix() -> Parts:
    from fxgrad.cli import fix

    return Parts(fix.EXAMPLES, fix.add, fix.run)


def _bench() -> Parts:
    from fxgrad.cli import bench

    return Parts(bench.EXAMPLES, bench.add, bench.run)


def _run() -> Parts:
    from fxgrad.cli import run

    return Parts(run.EXAMPLES, run.add, run.run)


def _diff() -> Parts:
    from fxgrad.cli import diff

    return Parts(diff.EXAMPLES, diff.add, diff.run)


def _rules() -> Parts:
    from fxgrad.cli import rules

    return Parts(rules.EXAMPLES, rules.add, rules.run)


def _explain() -> Parts:
    from fxgrad.cli import explain

    return Parts(explain.EXAMPLES, explain.add, explain.run)


def _help() -> Parts:
    from fxgrad.cli import completion, topics

    def run(arguments: argparse.Namespace) -> int:
        return topics.run(arguments.topic, completion.commands_of(_parser()))

    return Parts(topics.EXAMPLES, topics.add, run)


def _completion() -> Parts:
    from fxgrad.cli import completion

    return Parts(
        completion.EXAMPLES, completion.add, lambda arguments: completion.run(arguments.shell, _parser())
    )


COMMANDS: tuple[Command, ...] = (
    Command("report", "report which parameters of a model get no gradient, and why", _report),
    Command("fix", "repair the source of a model, shown as a diff or written", _fix),
    Command("bench", "time a model beside its repaired forms and torch's own means", _bench),
    Command("run", "run a training script and report on its first optimizer steps", _run),
    Command("diff", "compare two reports, revisions or models: gradients lost and gained", _diff),
    Command("rules", "list the rules, or write their documentation as a site", _rules),
    Command(
        "explain", "explain a rule, or an error: its text, a traceback or a log, given or on stdin", _explain
    ),
    Command("help", "show a page on a topic: models, settings, CI, ...", _help),
    Command("completion", "print a script that completes fxgrad's words in a shell", _completion),
)
