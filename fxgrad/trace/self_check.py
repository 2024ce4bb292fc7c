"""Whether the recorder sees on this torch what it must: a small program with each seam in it, recorded and
compared with eager.

A seam is a place where torch is caught by something that its documentation does not promise. Where one no
longer holds, a call goes by unseen and verdicts are wrong in silence. So a torch newer than those tried is
checked once a process, and what does not match is refused. Not checked: the seams of a watch (calls of
modules, optimizers, backward).
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from fxgrad.program.program import Program, program
from fxgrad.records.errors import TraceError
from fxgrad.torch_api import registry, versions
from fxgrad.trace import transforms
from fxgrad.trace.experiment import Experiment
from fxgrad.trace.run import Run, run


@dataclass(frozen=True, slots=True)
class Seam:
    """One way in which torch is caught. `wrong`: what does not match on this torch, empty if all does."""

    name: str
    wrong: str


def refuse_unknown_torch() -> None:
    """Raise where this torch is newer than those tried and a seam does not match; the check is made once a
    process.

    Raises:
        TraceError: says which seam, which torch, and which versions are known.
    """
    if not versions.newer_than_tried():
        return
    wrong = next((seam for seam in seams() if seam.wrong), None)
    if wrong is not None:
        oldest, newest = versions.OLDEST_TRIED, versions.NEWEST_TRIED
        raise TraceError(
            f"torch {torch.__version__} is newer than fxgrad knows (torch {versions.tried()}), and does not "
            f"match: {wrong.name}: {wrong.wrong}",
            hint=f'install a newer fxgrad, or "torch>={oldest[0]}.{oldest[1]},<{newest[0]}.{newest[1] + 1}"',
        )


@functools.cache
def seams() -> tuple[Seam, ...]:
    """Every seam that is checked, as it is on this torch. All are in two runs; where one does not match, each
    seam alone says."""
    with torch.inference_mode(False), torch.enable_grad():
        together = _wrong([p for p in PROBES if p.kind]) or _wrong([p for p in PROBES if not p.kind])
        found = tuple(Seam(probe.name, _wrong([probe]) if together else "") for probe in PROBES)
    return (
        found
        if not together or any(seam.wrong for seam in found)
        else (*found, Seam("all of them together", together))
    )


# ----------------------------------------------------------------------------------------------- the programs


class _Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> object:
        (x,) = ctx.saved_tensors
        # not the derivative: a forward that autograd looked into would give another gradient
        return 3 * x * grad


_square: Any = _Square.apply  # as programs take it: long before anything is caught


class _Model(nn.Module):
    """The sum of what each probe makes of a weight of its own, whose numbers are the same each time."""

    def __init__(self, bodies: Sequence[_Body]) -> None:
        super().__init__()
        self.bodies = tuple(bodies)
        self.weights = nn.ParameterList([nn.Parameter(_numbers(2, 3)) for _ in bodies])
        self.layer = nn.Linear(3, 3, device="cpu", dtype=torch.float32)
        with torch.no_grad():
            self.layer.weight.copy_(_numbers(3, 3))
            self.layer.bias.copy_(_numbers(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = [
            body(self.layer, weight * x).sum() for body, weight in zip(self.bodies, self.weights, strict=True)
        ]
        return torch.stack(made).sum()


_Body = Callable[[nn.Module, torch.Tensor], torch.Tensor]


def _numbers(*shape: int) -> torch.Tensor:
    count = torch.Size(shape).numel()
    return torch.linspace(-1.0, 1.0, count, device="cpu", dtype=torch.float32).reshape(shape)


def _function(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    made: torch.Tensor = _Square.apply(x)  # type: ignore[no-untyped-call]
    return made


def _function_held(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    made: torch.Tensor = _square(x)
    return made


def _checkpoint(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    made: torch.Tensor = checkpoint(_sine_for_the_recorder, x, use_reentrant=False)
    return made


def _sine_for_the_recorder(x: torch.Tensor) -> torch.Tensor:
    caller = sys._getframe(1).f_code.co_filename
    if caller != transforms.__file__:
        raise RuntimeError(f"checkpoint was not caught: the function in it is called from {caller}")
    return x.sin()


def _reentrant(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    made: torch.Tensor = checkpoint(_sine_for_the_recorder, x, use_reentrant=True)
    return made


def _sine(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return x.sin()


def _view_write(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y[0].mul_(2)
    return y.sin()


def _transform(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    made: torch.Tensor = torch.vmap(torch.sin)(x)
    return made


def _leaf(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    made: torch.Tensor = layer(x)
    return made


# -------------------------------------------------------------------------------------------------- the check


@dataclass(frozen=True, slots=True)
class _Probe:
    """A seam's part of the program, the kind of the one step that the recorder must make of it ("write": one
    that writes; "": what is in it is recorded), and what to compare with.

    Torch's checkpoint loads sympy and all of torch.compile when it is first used, in seconds. So checkpoints
    are seen opened, where the recorder calls the function in them, and eager is compared without.
    """

    name: str
    body: _Body
    kind: str
    eager: _Body


PROBES = (
    _Probe("autograd.Function.apply", _function, "function", _function),
    _Probe("autograd.Function.apply, held by the program", _function_held, "function", _function_held),
    _Probe("torch.utils.checkpoint, not reentrant", _checkpoint, "", _sine),
    _Probe("torch.utils.checkpoint, reentrant", _reentrant, "", _sine),
    _Probe("a write through a view", _view_write, "write", _view_write),
    _Probe("a transform of torch.func", _transform, "transform", _transform),
    _Probe("a leaf module", _leaf, "module", _leaf),
)


def _wrong(probes: Sequence[_Probe]) -> str:
    try:
        return _difference(probes)
    except Exception as error:  # whatever this torch does that no other did: it is the answer
        return f"{type(error).__name__}: {error}"


def _difference(probes: Sequence[_Probe]) -> str:
    eager, x = _Model([probe.eager for probe in probes]), _numbers(2, 3)
    loss = eager(x)
    loss.backward()
    target = program(_Model([probe.body for probe in probes]), (x,), None)
    target = replace(target, open_checkpoints=not any(probe.kind for probe in probes))
    made = run(target, Experiment("real"))
    if made.error is not None:
        return f"the recorded step raises {made.error.type}: {made.error.message}"
    miscounted = _miscounted(probes, made)
    if miscounted:
        return miscounted
    if made.loss is None or not torch.equal(made.loss.tensor, loss):
        return "the recorded loss is not eager's"
    wrong = [
        name
        for name, want in registry.named_parameters(eager)
        if not _same(_gradient(made, target, name), want.grad)
    ]
    return f"the recorded gradient of `{wrong[0]}` is not eager's" if wrong else ""


def _miscounted(probes: Sequence[_Probe], made: Run) -> str:
    """A kind of step that the recorder did not make as often as the probes are for it."""
    for kind in {probe.kind for probe in probes if probe.kind}:
        want = sum(probe.kind == kind for probe in probes)
        steps = made.recorder.steps
        seen = sum(bool(step.writes) if kind == "write" else step.kind == kind for step in steps)
        if seen != want:
            return f"{seen} steps of kind `{kind}` are recorded, not {want}"
    return ""


def _gradient(made: Run, target: Program, name: str) -> torch.Tensor | None:
    standin = made.recorder.standins.get(target.root.get_parameter(name))
    return standin.grad if standin is not None else None


def _same(got: torch.Tensor | None, want: torch.Tensor | None) -> bool:
    return got is want if got is None or want is None else torch.equal(got, want)
