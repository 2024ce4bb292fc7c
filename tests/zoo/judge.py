"""One model of the zoo against eager: analysed, regenerated, rewritten, and every answer compared with what eager itself gives.

`judge` gives an `Outcome`. What eager does not run is no case. Eager's own step is repeated first: a model that gives other numbers at the
same seed (atomics, Python's own random numbers) is compared within rounding only as far as it agrees with itself.
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy
import torch
from torch.nn.parameter import is_lazy

import fxgrad
from fxgrad.fix_graph.regenerate import regenerate
from fxgrad.program.loss import loss_of
from fxgrad.program.program import program
from fxgrad.torch_api import tree
from fxgrad.trace.experiment import Experiment
from fxgrad.trace.run import run

Rewritten = Literal["equal", "refused", "differs", ""]
STAGES = ("eager", "analyse", "regenerate", "rewrite needed", "rewrite all")


@dataclass(slots=True)
class Outcome:
    """One model. `eager` False: it does not run here at all. The rest are True, False, or None where not reached.

    `needed` and `all`: the two modes of rewriting. `reasons`: by stage, why it is not as it should be; `sites`: the line a refusal names.
    """

    name: str
    eager: bool = False
    analysed: bool | None = None
    exact: bool | None = None
    regenerated: bool | None = None
    needed: Rewritten = ""
    all: Rewritten = ""
    parameters: int = 0
    reasons: dict[str, str] = field(default_factory=dict)
    sites: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def reason(self) -> str:
        return "; ".join(f"{stage}: {text}" for stage, text in self.reasons.items())


def given(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(inputs, fxgrad.Inputs):
        return inputs.args, dict(inputs.kwargs)
    return (inputs, {}) if isinstance(inputs, tuple) else ((), dict(inputs))


Step = tuple[list[torch.Tensor], dict[str, torch.Tensor | None]]


def seed() -> None:
    torch.manual_seed(3)
    random.seed(3)
    numpy.random.seed(3)


def step(call: Any, parameters: dict[str, torch.Tensor], inputs: Any) -> Step:
    """Outputs and gradients of one step at a fixed seed; gradients are taken off the parameters again."""
    args, kwargs = copy.deepcopy(given(inputs))
    seed()
    output = call(*args, **kwargs)
    leaves = [t.detach().clone() for t in tree.flatten(output)[0]]
    loss_of(None, output).backward()
    gradients = {n: p.grad for n, p in parameters.items()}
    for parameter in parameters.values():
        parameter.grad = None
    return leaves, gradients


def judge(
    name: str, build: Callable[[], Any], values: str, *, rewrite: bool = False, note: Callable[[Outcome, str], None] = lambda *_: None
) -> Outcome:
    """Judge one model. `note` is told the outcome so far and the stage that begins."""
    outcome = Outcome(name)
    note(outcome, "eager")
    try:
        model, inputs = build()
        want, again = (step(reference, named(reference), inputs) for reference in (another(model, build), another(model, build)))
    except Exception as error:
        outcome.reasons["eager"] = _said(error)
        return outcome
    outcome.eager = True
    outcome.parameters = len(want[1])
    steady = not different(want, again)
    stages: dict[str, Callable[[], None]] = {
        "analyse": lambda: _analyse(outcome, model, inputs, want, values),
        "regenerate": lambda: _regenerate(outcome, another(model, build), inputs, want, steady),
    }
    if rewrite:
        stages["rewrite needed"] = lambda: _rewrite(outcome, model, build, inputs, want, "needed")
        stages["rewrite all"] = lambda: _rewrite(outcome, model, build, inputs, want, "all")
    for stage, work in stages.items():
        note(outcome, stage)
        start = time.perf_counter()
        try:
            work()
        except fxgrad.FxgradError as error:
            outcome.reasons[stage] = f"refused: {error}"
            if error.site is not None:
                outcome.sites[stage] = str(error.site)
        except Exception as error:
            outcome.reasons[stage] = _said(error)
        outcome.seconds[stage] = round(time.perf_counter() - start, 2)
    return outcome


def named(model: Any) -> dict[str, torch.Tensor]:
    return dict(model.named_parameters(remove_duplicate=False))


def another(model: Any, build: Callable[[], Any]) -> Any:
    """The model again, as it is before its first step."""
    try:
        return copy.deepcopy(model)
    except (RuntimeError, ValueError):  # a tensor with a history (`weight_norm` of old), a lazy buffer; builders seed
        return build()[0]


def called(model: Any, inputs: Any) -> None:
    """A graph shares the parameters of the model, and a lazy module has none before it is called."""
    if any(is_lazy(t) for t in (*model.parameters(), *model.buffers())):
        seed()
        args, kwargs = copy.deepcopy(given(inputs))
        model(*args, **kwargs)


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"


def _analyse(outcome: Outcome, model: Any, inputs: Any, want: Step, values: str) -> None:
    outcome.analysed = False
    seed()
    report = fxgrad.analyze(model, inputs, options=fxgrad.Options(values=values))  # type: ignore[arg-type]  # argparse gives a str
    outcome.analysed = True
    wrong = [n for n, g in want[1].items() if not true(report.verdicts[n], g)]
    outcome.exact = not wrong
    if wrong:
        outcome.reasons["analyse"] = f"verdicts: {[(n, report.verdicts[n]) for n in wrong[:3]]} {report.error or ''}"


def true(verdict: str, gradient: torch.Tensor | None) -> bool:
    """Whether a verdict says of a parameter what eager's backward left; one that hangs on a branch may have either."""
    if verdict == "branch":
        return True
    if gradient is None:
        return verdict == "none"
    if verdict == "zero":
        return not bool((dense(gradient) != 0).any())
    return verdict == "flows"


def _regenerate(outcome: Outcome, model: Any, inputs: Any, want: Step, steady: bool) -> None:
    """Whether the regenerated module gives bit-equal outputs and gradients."""
    outcome.regenerated = False
    called(model, inputs)
    seed()
    traced = regenerate(run(program(model, inputs, None), Experiment("real")))
    got = step(traced, named(traced), inputs)
    why = different(want, got, exact=steady)
    outcome.regenerated = not why
    if why:
        outcome.reasons["regenerate"] = why


def _rewrite(outcome: Outcome, model: Any, build: Callable[[], Any], inputs: Any, want: Step, mode: Literal["needed", "all"]) -> None:
    setattr(outcome, mode, "differs")
    seed()
    try:
        why = _rewritten(another(model, build), inputs, want, mode)
    except fxgrad.FxgradError:
        setattr(outcome, mode, "refused")
        raise
    if why and _agrees_in_double(model, build, inputs, mode):
        why = ""  # sums in another order, of terms that cancel
    if why:
        outcome.reasons[f"rewrite {mode}"] = why
    else:
        setattr(outcome, mode, "equal")


def _rewritten(model: Any, inputs: Any, want: Step, mode: Literal["needed", "all"]) -> str:
    called(model, inputs)
    fixed = fxgrad.fix(model, inputs, options=fxgrad.Options(rewrite=mode))
    return different(want, step(fixed.module, named(fixed.module), inputs), exact=False)


def _agrees_in_double(model: Any, build: Callable[[], Any], inputs: Any, mode: Literal["needed", "all"]) -> bool:
    try:
        leaves, structure = tree.flatten(given(inputs))
        args, kwargs = tree.unflatten(structure, [t.double() if t.dtype == torch.float32 else t for t in leaves])
        wide = fxgrad.Inputs(args, kwargs)
        reference = another(model, build).double()
        return not _rewritten(another(model, build).double(), wide, step(reference, named(reference), wide), mode)
    except Exception:  # the model holds float32 of its own
        return False


def different(want: Step, got: Step, *, exact: bool = True) -> str:
    """What the second step has otherwise than the first; empty if nothing."""
    if len(got[0]) != len(want[0]):
        return f"{len(got[0])} output tensors, not {len(want[0])}"
    for number, (a, b) in enumerate(zip(want[0], got[0], strict=True)):
        if not equal(a, b, exact=exact):
            return f"output {number} differs"
    for name, gradient in want[1].items():
        other = got[1].get(name)
        if (gradient is None) != (other is None) or (
            gradient is not None and other is not None and not equal(gradient, other, exact=exact)
        ):
            return f"the gradient of {name} differs"
    return ""


def equal(one: torch.Tensor, other: torch.Tensor, *, exact: bool = True) -> bool:
    """Bit-equal; else equal but for the rounding of sums in another order, relative to the largest element."""
    one, other = dense(one), dense(other)
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if torch.equal(one.nan_to_num(), other.nan_to_num()) and torch.equal(one.isnan(), other.isnan()):
        return True
    if exact or not (one.is_floating_point() or one.is_complex()):
        return False
    tolerance = 100 * torch.finfo(one.dtype).eps
    scale = float(one.nan_to_num(0, 0, 0).abs().max()) if one.numel() else 0.0
    floor = 1e-9 if one.dtype == torch.float64 else 0.0  # in double what is left of terms that cancel is below this
    return torch.allclose(one, other, rtol=tolerance, atol=max(tolerance * scale, floor), equal_nan=True)


def dense(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_dense() if tensor.layout is not torch.strided else tensor
