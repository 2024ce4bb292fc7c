"""Where two runs of a program part: the last statement of the user's own code that both ran.

Not handled: runs that part inside a library, and inside one line.
"""

from __future__ import annotations

from dataclasses import replace
from types import CodeType

from fxgrad.records import Site
from fxgrad.source import statement_site
from fxgrad.trace.experiment import Experiment
from fxgrad.trace.lab import Lab


def parting(lab: Lab, one: Experiment, other: Experiment) -> Site | None:
    """The statement after which the runs go different ways; None if their lines are the same."""
    before, after = (lab.lines(replace(asked, backward=False)) for asked in (one, other))
    for index, (line, another) in enumerate(zip(before, after, strict=False)):
        if line != another:
            # The condition may have called a function: back to the function that goes on differently.
            inside = [i for i in range(index) if before[i][0] is line[0]] if line[0] is another[0] else []
            place = inside[-1] if inside else index - 1
            return _statement(*before[place]) if place >= 0 else None
    return None


def _statement(code: CodeType, line: int) -> Site:
    return statement_site(code.co_filename, line) or Site(code.co_filename, line, function=code.co_qualname)
