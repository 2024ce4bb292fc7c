"""A program against eager: its verdicts, and what `fix` makes of it in both modes, compared with the gradients of a plain step.

Where eager's step raises, every parameter is `blocked`, and what `fix` gives is compared with eager's step with a copy of everything that is saved
for backward. What eager does not run even so is no case. Where both run and differ, the program writes what torch does not count (`torch.kron` with
`out=`): FXG203 has to say so, and `fix` gives the gradients of what was computed.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

import fxgrad
from fxgrad.fix_graph.proof import saved_copies
from tests.suites.programs import Built, NotASample
from tests.zoo.judge import Step, another, called, different, named, seed, step, true

Ended = Literal["right", "wrong", "refused", "crash", ""]
ASKED = ("verdicts", "needed", "all")


@dataclass(slots=True)
class Judged:
    """One program. `eager`: whether a plain step "runs", "runs, wrongly" or "raises", or why it is no case. `ended` and `said`: by what was asked."""

    name: str
    eager: str = ""
    ended: dict[str, Ended] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)


def judge(name: str, build: Callable[[], Built]) -> Judged:
    """Judge one program."""
    judged = Judged(name)
    try:
        model, inputs = build()
    except NotASample:
        judged.eager = "no further sample"
        return judged
    except Exception as error:
        judged.eager = f"cannot be built: {first_line(error)}"
        return judged
    want, raised = _eager(model, build, inputs)
    if isinstance(want, Exception):
        judged.eager = f"eager raises: {first_line(want)}"
        if raised is None:
            return judged
    else:
        judged.eager = "raises" if raised is not None else "runs"
    right = _kept(model, build, inputs) if judged.eager == "runs" else want
    hidden = not isinstance(right, Exception) and right is not want and bool(different(want, right, exact=False))
    if hidden:
        judged.eager = "runs, wrongly"
    questions: dict[str, Callable[[], str]] = {"verdicts": lambda: _verdicts(another(model, build), inputs, want, raised, hidden)}
    if not isinstance(want, Exception):
        fixed = right if hidden else want
        questions["needed"] = lambda: _fixed(another(model, build), inputs, fixed, "needed")
        questions["all"] = lambda: _fixed(another(model, build), inputs, fixed, "all")
    for asked, question in questions.items():
        try:
            why = question()
            judged.ended[asked] = "wrong" if why else "right"
        except fxgrad.FxgradError as error:
            judged.ended[asked], why = "refused", str(error.reason)
        except Exception as error:
            judged.ended[asked], why = "crash", f"{first_line(error)} at {_last_frame(error)}"
        if why:
            judged.said[asked] = why
    return judged


def _eager(model: Any, build: Callable[[], Built], inputs: Any) -> tuple[Step | Exception, Exception | None]:
    """The numbers that are right (or why there are none), and what a plain step raises."""
    try:
        reference = another(model, build)
        return step(reference, named(reference), inputs), None
    except Exception as error:
        return _kept(model, build, inputs), error


def _kept(model: Any, build: Callable[[], Built], inputs: Any) -> Step | Exception:
    """What a step leaves that keeps a copy of everything saved for backward, or what it raises."""
    try:
        reference = another(model, build)
        with saved_copies():
            return step(reference, named(reference), inputs)
    except Exception as error:
        return error


def _verdicts(model: Any, inputs: Any, want: Step | Exception, raised: Exception | None, hidden: bool) -> str:
    seed()
    report = fxgrad.analyze(model, inputs)
    if hidden and not any(finding.code == "FXG203" for finding in report.findings):
        return "a write that torch does not count goes unsaid"
    if raised is not None:
        wrong = [
            f"{name} is {verdict}, eager raises {first_line(raised)}" for name, verdict in report.verdicts.items() if verdict != "blocked"
        ]
        return "; ".join(wrong[:2])
    assert not isinstance(want, Exception)
    wrong = [f"{n} is {report.verdicts[n]}, eager's gradient is {_kind(g)}" for n, g in want[1].items() if not true(report.verdicts[n], g)]
    return "; ".join(wrong[:2]) + (f" ({report.error.type}: {report.error.message.splitlines()[:1]})" if wrong and report.error else "")


def _kind(gradient: torch.Tensor | None) -> str:
    if gradient is None:
        return "None"
    return "some" if bool((gradient != 0).any()) else "zero"


def _fixed(model: Any, inputs: Any, want: Step, mode: Literal["needed", "all"]) -> str:
    called(model, inputs)  # a graph shares the parameters of the model, and a lazy module has none yet
    seed()
    made = fxgrad.fix(model, inputs, options=fxgrad.Options(rewrite=mode)).module
    return different(want, step(made, named(made), inputs), exact=False)


def first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__


def _last_frame(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/fxgrad/" in frame.filename or "/passes/" in frame.filename]
    frame = (ours or frames)[-1]
    return f"{'/'.join(frame.filename.split('/')[-3:])}:{frame.lineno}"
