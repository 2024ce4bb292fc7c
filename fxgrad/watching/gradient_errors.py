"""Gradient errors that end a program: which exceptions they are, and findings for those that no rule on facts
explains.

An error is read off the exception and its traceback; where its cause is looked for is told by kind, see
`fxgrad.watching.death`. Errors that have nothing to do with gradients (shapes, files, names) are left to
Python's own traceback.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from fxgrad.passes.rules.fxg002_program_raises import unexplained
from fxgrad.records import Facts, Finding, Phase, Raised
from fxgrad.source.sites import own_line, traceback_sites
from fxgrad.torch_api.errors import NOT_A_LOSS, says
from fxgrad.torch_api.explanations import OF_GRADIENTS
from fxgrad.trace.notes import Backward
from fxgrad.trace.observer import Observer
from fxgrad.watching.death import AFTERWARDS, Death, absent, causes_of
from fxgrad.watching.death.record import look_up, raising_text, user_entries


def is_gradient_error(error: BaseException, observer: Observer, modules: Iterator[Any]) -> bool:
    """Whether the report can explain this error. `modules`: those that took part, whose hooks are
    looked at."""
    if says(str(error), NOT_A_LOSS):
        return True
    if absent.is_of_none(error):
        codes = (code for module in modules for code in absent.hook_codes(module))
        return absent.is_explained(error, observer.requests, codes)
    if not isinstance(error, RuntimeError | ValueError | TypeError | NotImplementedError | AssertionError):
        return False
    return says(str(error), *OF_GRADIENTS)


def number_as_loss(error: BaseException, observer: Observer) -> None:
    """`loss.backward()` of a Python number that was read off a tensor: that number is the loss, for all that
    lies behind it."""
    entry = next(iter(user_entries(error)), None)
    if entry is None or not says(str(error), NOT_A_LOSS):
        return
    text, namespace = raising_text(error)
    value = observer.value_of_number(look_up(text.partition(".backward")[0], namespace))
    if value is None and "'float'" in str(error):
        value = observer.last_number()  # an expression that cannot be looked up: `loss_of(out).backward()`
    if value is not None:
        spots = ((entry.tb_frame.f_code, entry.tb_lasti),)
        observer.backwards.append(Backward(observer.ledger.count, spots, (value,), failed=True))


def raised(error: BaseException, observer: Observer) -> Raised | None:
    """The error as a record; None where the program had gone on past every backward of the step: then nothing
    is blocked."""
    if says(str(error), *AFTERWARDS) or absent.missing_gradient(error) is not None:
        return None
    if absent.is_of_none(error) and any(not backward.partial for backward in observer.backwards):
        return None
    return _record(error, observer)


def _record(error: BaseException, observer: Observer) -> Raised:
    stack = traceback_sites(error.__traceback__)
    failed = bool(observer.backwards and observer.backwards[-1].failed) or says(str(error), NOT_A_LOSS)
    phase: Phase = "backward" if failed else "forward"
    return Raised(phase, type(error).__name__, str(error), own_line(stack), stack, None)


def explained(death: Death, found: list[Finding]) -> list[Finding]:
    """The findings of the rules with those that only the exception itself can give, which take the place of
    others on the same parameters."""
    own = list(causes_of(death))
    kept = [f for f in found if not any(_answers(one, f) for one in own)]
    return [*kept, *own]


def _answers(one: Finding, other: Finding) -> bool:
    """Whether an error is of the same cause as one whose cause the exception told."""
    return (
        other.severity == "error" and bool(other.parameters) and set(other.parameters) <= set(one.parameters)
    )


def in_its_own_words(error: BaseException, facts: Facts, observer: Observer) -> Finding:
    """The finding of an error whose cause was not found: its words, what they mean, its line."""
    return unexplained(replace(facts, error=_record(error, observer)))
