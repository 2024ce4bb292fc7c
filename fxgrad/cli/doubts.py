"""Whether a verdict hangs on what was guessed: then it is none, and what to write is said instead.

Another value of a guessed flag or text is another model, and another number of dimensions of an input is
another use of it: the step is analysed with each, a few, and the error and warning codes are compared. A
guessed length may be one element, or none, where the model has shortened it: what goes away where it is
longer is not said. Not handled: guesses of other sizes; all are alike in what they show.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import itertools
import re
import textwrap
from collections.abc import Callable

from fxgrad.program.step import Step
from fxgrad.records import Site
from fxgrad.records.errors import FxgradError, InputError
from fxgrad.report import Report
from fxgrad.source.assigned import raises_always
from fxgrad.torch_api import registry
from fxgrad.torch_api.errors import element_without_history

_OTHERS = 4
_LENGTHS = frozenset(["FXG101", "FXG401"])  # what a length of one or none leads to
_RANK: dict[str, int] = {"blocked": 0, "none": 1, "zero": 2, "branch": 2, "flows": 3}
_RAISES, _HISTORY = "FXG002", "FXG116"
_LACKS = re.compile(r"'(\w+)' object has no attribute '(\w+)'")
_OF_A_KIND = re.compile(r"'(\w+)' object|non-iterable (\w+) object")


def refuse_doubtful(step: Step, report: Report, analysed: Callable[[Step], Report]) -> None:
    """Raise where another guess gives another verdict. Other inputs are tried only where there is something
    to doubt.

    Raises:
        InputError: it does; both are named.
    """
    _refuse_misfit(step, report)
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


def of_any_length(step: Step, report: Report, analysed: Callable[[Step], Report]) -> tuple[Step, Report]:
    """The step with longer inputs and its report, where nothing in that is worse and a parameter fares
    better; else those given."""
    if not _LENGTHS.isdisjoint(_codes(report)):
        for longer in step.larger():
            with contextlib.suppress(FxgradError):
                found = analysed(longer)
                if _is_better(found, report):
                    return longer, found
    return step, report


def _is_better(one: Report, other: Report) -> bool:
    if not _codes(one) <= _codes(other) or one.verdicts.keys() != other.verdicts.keys():
        return False
    gains = [_RANK[verdict] - _RANK[other.verdicts[name]] for name, verdict in one.verdicts.items()]
    return min(gains, default=0) >= 0 and any(gains)


def _refuse_misfit(step: Step, report: Report) -> None:
    """Raise where what the program raised is none of its mistakes: a forward that was never written, or one
    that wants of a guessed argument what the guess does not have.

    Raises:
        InputError: so it is; what to write is said.
    """
    error = report.error
    if error is None or error.phase != "forward":
        return
    own = f"{type(step.model).__qualname__}.forward"
    site = error.site
    if (
        error.type == "NotImplementedError"
        and site is not None
        and site.function == own
        and raises_always(site)
    ):
        raise InputError(
            f"`{own}` raises NotImplementedError: the model is not used by calling it",
            site=site,
            hint="write a function of the inputs that calls what the program calls, and name that, "
            "or watch the script: fxgrad run SCRIPT",
        )
    if step.found and element_without_history(error.message) is not None and _HISTORY in _errors(report):
        raise InputError(
            f"`{own}` differentiates what it is given, or what is computed of that alone, and a guessed "
            "input has no history",
            site=error.site,
            hint="define `example_inputs` in the model's file, or watch the script: fxgrad run SCRIPT",
        )
    kinds = step.loaded.guessed.kinds if step.loaded.guessed is not None else {}
    _refuse_unset(step, error.message, error.site)
    match = _OF_A_KIND.search(error.message)
    kind = (match[1] or match[2]) if match is not None else ""
    if error.type in ("AttributeError", "TypeError") and kind in kinds:
        reason = f"the argument `{kinds[kind]}` is a guess that does not fit: {error.message}"
        hint = (
            f"write --arg {kinds[kind].partition('=')[0]}=..., or write a function that builds the model "
            "and name that"
        )
        raise InputError(reason, site=error.site, hint=hint)


def _refuse_unset(step: Step, message: str, site: Site | None) -> None:
    """Raise where the model lacks an attribute that its class sets on another way than the guesses took."""
    guessed, match = step.loaded.guessed, _LACKS.search(message)
    if guessed is None or not any(value.text for value in guessed.guesses.taken.values()) or match is None:
        return
    classes = {type(part) for part in registry.modules(step.model) if type(part).__name__ == match[1]}
    if any(_sets(cls, match[2]) for cls in classes):
        raise InputError(
            f"the guessed arguments make a {match[1]} without `{match[2]}`, which it sets for others",
            site=site,
            hint="write them with --arg, or write a function that builds the model and name that",
        )


def _sets(cls: type, name: str) -> bool:
    """Whether the text of the class has an assignment to the attribute."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError, SyntaxError):
        return False
    return any(
        isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and node.attr == name
        for node in ast.walk(tree)
    )


def _errors(report: Report) -> frozenset[str]:
    return frozenset(finding.code for finding in report.findings if finding.severity == "error")


def _codes(report: Report) -> frozenset[str]:
    return frozenset(finding.code for finding in report.findings if finding.severity != "note")


def _said(codes: frozenset[str]) -> str:
    return ", ".join(sorted(codes)) or "no finding"
