"""`fxgrad rules` and `fxgrad explain CODE`: the rules of the registry, in the words of their documentation."""

from __future__ import annotations

import argparse
import difflib
import inspect

from tabulate import tabulate

from fxgrad.cli.output import say
from fxgrad.passes import RULES
from fxgrad.passes.context import Rule
from fxgrad.records.errors import InputError


def add(command: argparse.ArgumentParser) -> None:
    """Which rule."""
    command.add_argument("code", metavar="CODE", help="a rule's code or name: FXG103, detached-path")


def list_rules(arguments: argparse.Namespace) -> int:
    """Every rule, one a line."""
    del arguments
    rows = [(rule.CODE, rule.NAME, rule.SEVERITY, _summary(rule)) for rule in RULES]
    say(tabulate(rows, headers=("code", "name", "level", "finds"), maxcolwidths=[None, None, None, 80]))
    return 0


def _summary(rule: Rule) -> str:
    return (inspect.getdoc(rule) or "").partition("\n")[0]


def run(arguments: argparse.Namespace) -> int:
    """Print the documentation of a rule."""
    wanted = arguments.code.strip()
    for rule in RULES:
        if wanted.lower() in (rule.CODE.lower(), rule.NAME):
            say(f"{rule.CODE} {rule.NAME} ({rule.SEVERITY})\n\n{inspect.getdoc(rule)}")
            return 0
    known = {word.lower(): word for rule in RULES for word in (rule.CODE, rule.NAME)}
    close = [known[word] for word in difflib.get_close_matches(wanted.lower(), known, 1)]
    raise InputError(f"there is no rule {wanted}", hint=f"did you mean {close[0]}?" if close else "`fxgrad rules` lists them")
