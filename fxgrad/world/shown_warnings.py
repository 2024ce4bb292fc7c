"""How what a program warns of is shown while it runs for us: at the line of the program that torch was called
from, and once for all its runs.

A driver hands every call on, so the frame that torch blames may be the driver's own; the line is found from
the stack, not from what is said. Python forgets what it has shown whenever filters are put back, as they are
after each run. Not handled: a program that replaces `warnings.showwarning` itself, later.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import TextIO

from fxgrad.source.sites import is_made, place_outside

# What is shown: the text, the category, the file and the line (from 1) that it stands at.
_Shown = tuple[str, type[Warning], str, int]


def at_its_own_line() -> Callable[..., None]:
    """What is to stand for `warnings.showwarning` while a driver is on."""

    def moved(shown: _Shown) -> tuple[str, int]:
        _, _, file, line = shown
        return place_outside(sys._getframe(1), file, line)

    return _showing(moved)


def once() -> Callable[..., None]:
    """The same around several runs of a program: each warning once for each place, and not again for a graph
    of it that runs."""
    seen: set[tuple[object, ...]] = set()

    def first(shown: _Shown) -> tuple[str, int] | None:
        text, category, file, line = shown
        key = (text, category) if is_made(file) else shown
        if key in seen:
            return None
        seen.update(((text, category), key))
        return file, line

    return _showing(first)


def _showing(place: Callable[[_Shown], tuple[str, int] | None]) -> Callable[..., None]:
    """`warnings.showwarning` as it is now, with another place; nothing is shown where that is None."""
    original = warnings.showwarning

    def showwarning(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        found = place((str(message), category, filename, lineno))
        if found is not None:
            original(message, category, *found, file, line)

    return showwarning
