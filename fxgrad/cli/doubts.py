"""Whether a verdict hangs on what was guessed: then it is none, and what to write is said instead.

Another value of a guessed flag or text is another model, and another number of dimensions of an input is
another use of it: the step is analysed with each, a few, and the error and warning codes are compared. Not
handled: guesses of sizes; all are alike in what they show.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

from fxgrad.program.step import Step
from fxgrad.records.errors import FxgradError, InputError
from fxgrad.report import Report

_OTHERS = 4
_RAISES = "FXG002"


def refuse_doubtful(step: Step, report: Report, analysed: Callable[[Step], Report]) -> None:
    """Raise where another guess gives another verdict. Other inputs are tried only where there is something
    to doubt.

    Raises:
        InputError: it does; both are named.
    """
    codes = _codes(report)
    for option, own, other, changed in itertools.islice(step.others(inputs_too=bool(codes)), _OTHERS):
        try:
            found = _codes(analysed(changed))
        except FxgradError:  # a guess that does not fit says nothing
            continue
        if _RAISES in found - codes:  # it does not fit either
            continue
        if found != codes:
            reason = f"the verdict hangs on a guess: {own} gives {_said(codes)}, {other} gives {_said(found)}"
            raise InputError(reason, hint=f"write {option} {own} or {option} {other}")


def _codes(report: Report) -> frozenset[str]:
    return frozenset(finding.code for finding in report.findings if finding.severity != "note")


def _said(codes: frozenset[str]) -> str:
    return ", ".join(sorted(codes)) or "no finding"
