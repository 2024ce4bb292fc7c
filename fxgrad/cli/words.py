"""What the words of a command line mean: a command left out, one misspelt, an option that is not there."""

from __future__ import annotations

import argparse
import difflib
import os
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn

_MODEL = re.compile(r".*[./\\:].*", re.DOTALL)


class Parser(argparse.ArgumentParser):
    """A usage error in one line, as every other, with the word that may be meant."""

    def error(self, message: str) -> NoReturn:
        hint = "" if message.endswith(")") else f" (see `{self.prog} --help`)"  # it has one already
        self.exit(2, f"fxgrad: error: {message}{hint}\n")

    def _check_value(self, action: argparse.Action, value: object) -> None:
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices]
            meant = did_you_mean(str(value), choices) or f"choose from {', '.join(choices)}"
            raise argparse.ArgumentError(action, f"invalid choice: {value!r} ({meant})")

    def refuse(self, unknown: Sequence[str]) -> NoReturn:
        """End with what nobody knows, and the option that may be meant."""
        word = next((word for word in unknown if word.startswith("-")), "")
        meant = did_you_mean(word.partition("=")[0], self._option_string_actions)
        self.error(f"unrecognized arguments: {' '.join(unknown)}{f' ({meant})' if meant else ''}")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`did you mean --format?`, "" where nothing is like it."""
    close = difflib.get_close_matches(word, list(known), 1)
    return f"did you mean {close[0]}?" if close else ""


def with_command(given: Sequence[str], commands: Iterable[str], is_project: Callable[[], bool]) -> list[str]:
    """The command line with `report` before what stands without a command: a MODEL, or options where the
    project lists its models."""
    first = given[0] if given else ""
    if not first:
        return ["report"] if is_project() else ["--help"]
    if first in commands or first in ("-h", "--help", "--version"):
        return list(given)
    words = given if first.startswith("-") else given[:1]
    named = any(_MODEL.fullmatch(word) or os.path.exists(word) for word in words)
    return ["report", *given] if named or (first.startswith("-") and is_project()) else list(given)
