"""A sketch leaves what a recorded run leaves, and refuses what it does not follow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import fxgrad
from fxgrad.diagnosis.analyze import examine
from fxgrad.program.program import program
from fxgrad.trace.experiment import Experiment
from fxgrad.trace.lab import Lab
from fxgrad.trace.run import Run, run
from fxgrad.trace.sketch import NotSketched


class _Net(nn.Module):
    """A layer and a scale, with a step of the program's between them."""

    def __init__(self, step: Callable[[nn.Module, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.fc, self.norm, self.drop = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.scale, self.unused = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(4))
        self.register_buffer("seen", torch.zeros(4))
        self.step = step

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.step(self, self.fc(x)) * self.scale


def _masked(net: Any, x: torch.Tensor) -> torch.Tensor:
    return x * net.unused if (x > 100).all() else x


def _counted(net: Any, x: torch.Tensor) -> torch.Tensor:
    net.seen.add_(x.detach().mean(0))
    net.seen[0] = 1
    return x + net.seen


def _attended(net: Any, x: torch.Tensor) -> torch.Tensor:
    mask = torch.zeros(1, 3, dtype=torch.bool)
    return net.attention(x[None], x[None], x[None], key_padding_mask=mask)[0][0]


def _checked(net: Any, x: torch.Tensor) -> torch.Tensor:
    if not torch.isfinite(x).all():
        raise ValueError(f"not finite: {x}")
    return x


def _in_inference(net: Any, x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        level = x.abs().amax()
    with torch.autocast("cpu", torch.bfloat16):
        return net.fc(x).float() * level.clone()


FOLLOWED: dict[str, Callable[[Any, torch.Tensor], torch.Tensor]] = {
    "masked": _masked,
    "counted": _counted,
    "attended": _attended,
    "checked": _checked,
    "in inference and autocast": _in_inference,
    "normalised and dropped": lambda net, x: net.drop(net.norm(x)),
    "in place": lambda net, x: x.mul_(2).relu_()[:, :4],
    "sizes": lambda net, x: x.view(x.shape[0], -1) / x.size(1) + len(x),
    "detached": lambda net, x: x.detach() + x.data,
    "without gradients": torch.no_grad()(lambda net, x: net.fc(x)),
}


def _left(made: Run) -> tuple[Any, ...]:
    """What a run leaves."""
    grads = {name: made.recorder.standins.get(p) for name, p in made.registered}
    decisions = [(d.spots, d.outcome, d.known) for d in made.recorder.decisions]
    return (
        made.gradients,
        {name: p.grad.tolist() for name, p in grads.items() if p is not None and p.grad is not None},
        made.loss.tensor.tolist() if made.loss is not None else None,
        decisions,
        made.error,
    )


@pytest.mark.parametrize("forced", [(), (True,), (False,)], ids=["as it goes", "true", "false"])
@pytest.mark.parametrize("name", FOLLOWED)
def test_a_sketch_leaves_what_a_record_leaves(name: str, forced: tuple[bool, ...]) -> None:
    target = program(_Net(FOLLOWED[name]), (torch.randn(3, 4),), lambda out: out.square().mean())
    asked = Experiment("real", forced=forced, noise=1, unsettle="drawn", seed=3)
    before = {key: value.clone() for key, value in target.root.state_dict().items()}
    recorded = run(target, asked)
    state = torch.get_rng_state()
    sketch = run(target, Experiment("real", forced=forced, noise=1, unsettle="drawn", seed=3, sketched=True))
    assert _left(sketch) == _left(recorded)
    assert not sketch.recorder.steps
    assert recorded.recorder.steps
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in target.root.state_dict().items())
    assert all(p.grad is None for p in target.root.parameters())


class _Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return grad * 2


def _caught(net: Any, x: torch.Tensor) -> torch.Tensor:
    try:
        return x * x.mean().item()
    except BaseException:
        return x


REFUSED: dict[str, Callable[[Any, torch.Tensor], torch.Tensor]] = {
    "a number": lambda net, x: x * x.mean().item(),
    "a number, refusal caught": _caught,
    "a list": lambda net, x: x * torch.tensor(x.tolist()),
    "a Function": lambda net, x: _Twice.apply(x),
    "a checkpoint": lambda net, x: checkpoint(net.fc, x, use_reentrant=False),
    "a transform": lambda net, x: torch.func.vmap(torch.sin)(x),
    "a new parameter": lambda net, x: x * nn.Parameter(x.detach()),
    "a gradient on the way": lambda net, x: x + torch.autograd.grad(x.sum(), net.fc.bias)[0],
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_sketch_does_not_follow(name: str) -> None:
    target = program(_Net(REFUSED[name]), (torch.randn(3, 4),), lambda out: out.square().mean())
    with pytest.raises(NotSketched):
        run(target, Experiment("real", sketched=True))
    lab = Lab(target)
    assert lab.sketched(Experiment("real")) is None
    assert lab.left(Experiment("real")).recorder.steps  # recorded


def test_a_branch_that_changes_no_gradient_is_sketched() -> None:
    net = _Net(_masked)
    net.unused.requires_grad_(False)
    examined = examine(net, (torch.randn(3, 4),))
    turned = [asked for asked in examined.lab.asked if asked.forced == (True,)]
    assert [asked.sketched for asked in turned] == [True]
    assert examined.report.paths == 2


def test_a_branch_that_changes_one_is_recorded() -> None:
    report = fxgrad.analyze(_Net(_masked), (torch.randn(3, 4),), expect=["unused"])
    assert report.verdicts["unused"] == "branch"
    assert [f.code for f in report.findings if "unused" in f.parameters] == ["FXG115"]
