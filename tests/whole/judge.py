"""One whole program against eager: verdicts on each kind of values, the modules that `fix` gives, and the user's world before and after.

The oracle is the program itself, run plainly on a model of its own from the same seeds; where its backward finds a saved tensor overwritten,
the same step with a copy of everything saved. A module is called on the inputs it was made with, on other values, on another number of rows and on
the first inputs again, one after the other as the program is, so that state which it keeps shows. Of an answer that is refused, and of a call
that a guard stops, nothing is compared: those are counted by their reasons.
"""

from __future__ import annotations

import contextlib
import copy
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

import fxgrad
from fxgrad.torch_api.saved_hooks import saved_copies
from tests.suites.judge import first_line
from tests.whole.programs import ROWS, Whole, whole
from tests.zoo.judge import equal, seed, true

Ended = Literal["right", "guarded", "refused", "wrong", "crash", "world changed"]
VALUES = ("auto", "real", "fake")
MODES = ("needed", "all")
CALLS = ((1, ROWS), (2, ROWS), (3, ROWS + 2), (1, ROWS))  # seed and rows of the inputs of each call


@dataclass(slots=True)
class Judged:
    """One program. `eager`: whether a plain step "runs" or "raises"; empty if the forward raises. `ended` and `said`: by what was asked."""

    seed: int
    eager: str = ""
    ended: dict[str, Ended] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Left:
    """What one step left behind."""

    output: torch.Tensor
    gradients: dict[str, torch.Tensor | None]
    buffers: dict[str, torch.Tensor]


def judge(number: int) -> Judged:
    """Judge the program of a seed."""
    judged = Judged(number)
    program = whole(number)
    eager, error = _first(program)
    judged.eager = "runs" if error is None else "raises"
    for values in VALUES:
        _ask(judged, program, f"verdicts, {values}", lambda model, values=values: _verdicts(program, model, values, eager, error))  # type: ignore[misc]
    for mode in MODES:
        _ask(judged, program, f"fix, {mode}", lambda model, mode=mode: _fixed(program, model, mode))  # type: ignore[misc]
    return judged


def _ask(judged: Judged, program: Whole, asked: str, question: Callable[[nn.Module], tuple[Ended, str]]) -> None:
    model = program.model()
    seed()
    before = world(model)
    try:
        ended, why = question(model)
    except fxgrad.FxgradError as error:
        ended, why = "refused", str(error.reason)
        changed = _changed(before, world(model))
        if changed:
            ended, why = "world changed", changed
    except Exception as error:
        ended, why = "crash", first_line(error)
    judged.ended[asked] = ended
    if why:
        judged.said[asked] = why


# ------------------------------------------------------------------------------------------------------------------ the oracle


def step(program: Whole, call: Any, inputs: tuple[torch.Tensor, ...], copies: bool = False) -> Left:
    """One plain step from fixed seeds; gradients are taken off the parameters again."""
    seed()
    with saved_copies() if copies else contextlib.nullcontext():
        output = call(*inputs)
        program.loss(output).backward()
    named = dict(call.named_parameters())
    left = Left(output.detach().clone(), {n: p.grad for n, p in named.items()}, {n: b.detach().clone() for n, b in call.named_buffers()})
    for parameter in named.values():
        parameter.grad = None
    return left


def _first(program: Whole) -> tuple[Left | None, Exception | None]:
    try:
        return step(program, program.model(), program.inputs(1)), None
    except Exception as error:
        return None, error


# ----------------------------------------------------------------------------------------------------------------- the questions


def _verdicts(program: Whole, model: nn.Module, values: Any, eager: Left | None, error: Exception | None) -> tuple[Ended, str]:
    before = world(model)
    report = fxgrad.analyze(model, program.inputs(1), loss=program.loss, options=fxgrad.Options(values=values))
    changed = _changed(before, world(model))
    if changed:
        return "world changed", changed
    if eager is None:
        assert error is not None
        trained = {n for n, p in model.named_parameters() if p.requires_grad}
        wrong = [
            f"{n} is {report.verdicts[n]}, eager raises {first_line(error)}" for n in sorted(trained) if report.verdicts[n] != "blocked"
        ]
    else:
        wrong = [
            f"{n} is {report.verdicts[n]}, eager's is {_kind(g)}" for n, g in eager.gradients.items() if not true(report.verdicts[n], g)
        ]
        wrong = [text for text in wrong if not (values == "fake" and " is flows, eager's is zero" in text)]  # fake tensors have no numbers
    return ("wrong", "; ".join(wrong[:2])) if wrong else ("right", "")


def _kind(gradient: torch.Tensor | None) -> str:
    if gradient is None:
        return "None"
    return "some" if bool((gradient != 0).any()) else "zero"


def _fixed(program: Whole, model: nn.Module, mode: Any) -> tuple[Ended, str]:
    before = world(model)
    module = fxgrad.fix(model, program.inputs(1), loss=program.loss, options=fxgrad.Options(rewrite=mode)).module
    changed = _changed(before, world(model))
    if changed:
        return "world changed", changed
    plain = program.model()
    for place, (number, rows) in enumerate(CALLS):
        inputs = program.inputs(number, rows)
        want = _right(program, plain, inputs)
        try:
            got = step(program, module, inputs)
        except fxgrad.GuardError as error:
            return "guarded", str(error).partition("takes for granted: ")[2].partition(";")[0]
        except Exception as error:
            if want is None:
                return "right", ""
            return "wrong", f"call {place} raises {first_line(error)}"
        if want is None:
            return "wrong", f"call {place} runs, and eager raises"
        if why := different(want, got):
            return "wrong", f"call {place}: {why}"
    return "right", ""


def _right(program: Whole, plain: nn.Module, inputs: tuple[torch.Tensor, ...]) -> Left | None:
    """What eager's step leaves, with a copy of what is saved if it refuses otherwise; None where the forward raises even so."""
    state = _state(plain)
    try:
        return step(program, plain, inputs)
    except Exception:
        _put_back(plain, state)
    try:
        return step(program, plain, inputs, copies=True)
    except Exception:
        return None


State = list[tuple[nn.Module, dict[str, torch.Tensor | None], dict[str, Any]]]


def _state(model: nn.Module) -> State:
    """The buffers and the attributes of each module."""
    return [
        (
            module,
            {name: None if buffer is None else buffer.clone() for name, buffer in module._buffers.items()},
            {name: copy.copy(value) for name, value in vars(module).items() if not name.startswith("_")},
        )
        for module in model.modules()
    ]


def _put_back(model: nn.Module, state: State) -> None:
    """Buffers and attributes as they were before a step that raised half way; no gradients."""
    for module, buffers, attributes in state:
        module._buffers.update(buffers)
        module.__dict__.update(attributes)
    for parameter in model.parameters():
        parameter.grad = None


def different(want: Left, got: Left) -> str:
    """What the second has otherwise; empty if nothing."""
    if not equal(want.output, got.output, exact=False):
        return "the output differs"
    for name, gradient in want.gradients.items():
        other = got.gradients.get(name)
        if (gradient is None) != (other is None):
            return f"the gradient of {name} is {_kind(other)}, eager's is {_kind(gradient)}"
        if gradient is not None and other is not None and not equal(gradient, other, exact=False):
            return f"the gradient of {name} differs"
    for name, buffer in want.buffers.items():
        if name in got.buffers and not equal(buffer, got.buffers[name], exact=False):
            return f"the buffer {name} differs"
    return ""


# ------------------------------------------------------------------------------------------------------------------- the world


def world(model: nn.Module) -> dict[str, Any]:
    """What an analysis must leave as it was."""
    found: dict[str, Any] = {
        "grad mode": torch.is_grad_enabled(),
        "threads": frozenset(threading.enumerate()),
        "torch's generator": torch.get_rng_state().numpy().tobytes(),
        "Python's generator": random.getstate(),
        "NumPy's generator": str(np.random.get_state()),
    }
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        found[f"{name}"] = (id(tensor), tensor._version, tensor.detach().numpy().tobytes(), tensor.grad is None)
    for name, module in model.named_modules():
        held = {k: v for k, v in vars(module).items() if not isinstance(v, torch.Tensor)}
        found[f"{name}: its attributes"] = {
            k: len(v) if k.startswith("_") and hasattr(v, "__len__") else repr(v)[:200] for k, v in held.items()
        }
        found[f"{name}: its tensors"] = sorted(k for k, v in vars(module).items() if isinstance(v, torch.Tensor))
    return found


def _changed(before: dict[str, Any], after: dict[str, Any]) -> str:
    """What is otherwise; of the threads those that are new, since one that others began may end at any time."""
    changed = [name for name in {**before, **after} if name != "threads" and before.get(name) != after.get(name)]
    begun = sorted(f"the thread {thread.name}" for thread in after["threads"] - before["threads"])
    return ", ".join(changed + begun)
