"""Where two runs of a program part: the last statement of the user's own code that both ran.

From line events of the interpreter. Not handled: runs that part inside a library, and inside one line.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from types import CodeType, FrameType
from typing import Any

from fxgrad.program.program import Program
from fxgrad.records import Site
from fxgrad.source import statement_site
from fxgrad.source.sites import is_user_code
from fxgrad.trace.run import run

_LONGEST = 200_000  # lines of a run that are compared

Lines = list[tuple[CodeType, int]]


def parting(program: Program, values: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> Site | None:
    """The statement after which the runs with these settings go different ways; None if their lines are the same."""
    before = _lines(lambda: run(program, values=values, backward=False, **one))
    after = _lines(lambda: run(program, values=values, backward=False, **other))
    for index, (line, another) in enumerate(zip(before, after, strict=False)):
        if line != another:
            # The condition may have called a function: back to the function that goes on differently.
            inside = [i for i in range(index) if before[i][0] is line[0]] if line[0] is another[0] else []
            place = inside[-1] if inside else index - 1
            return _statement(*before[place]) if place >= 0 else None
    return None


def _statement(code: CodeType, line: int) -> Site:
    return statement_site(code.co_filename, line) or Site(code.co_filename, line, function=code.co_qualname)


def _lines(call: Callable[[], Any]) -> Lines:
    """The lines of the user's code that a call runs, in order."""
    found: Lines = []

    def local(frame: FrameType, event: str, arg: Any) -> Any:
        if event == "line" and len(found) < _LONGEST:
            found.append((frame.f_code, frame.f_lineno))
        return local

    def enter(frame: FrameType, event: str, arg: Any) -> Any:
        file = frame.f_code.co_filename
        # "<string>" is what dataclasses and named tuples generate, fxgrad's own among them.
        return local if is_user_code(file) and file != "<string>" and "site-packages" not in file else None

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        call()
    finally:
        sys.settrace(before)
    return found
