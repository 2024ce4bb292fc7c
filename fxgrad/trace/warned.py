"""What torch warns of while a driver is on stands where the program called it.

A driver hands every call on, so the frame that torch blames may be the driver's own; from the stack, not from
what is said. Not handled: a program that replaces `warnings.showwarning` itself, later.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import TextIO

from fxgrad.source.sites import place_outside


def warned() -> Callable[..., None]:
    """What is to stand for `warnings.showwarning`."""
    original = warnings.showwarning

    def showwarning(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        filename, lineno = place_outside(sys._getframe(1), filename, lineno)
        original(message, category, filename, lineno, file, line)

    return showwarning
