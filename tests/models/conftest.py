"""The measure of these tests: a model's own step and the step of its regenerated graph, compared bit by bit.

`same_as_eager(model, inputs)` records the model on real and on fake values, regenerates it, runs both from the same seeds and fails
where anything that a training step could notice differs: outputs and their types, gradients, buffers, written inputs, verdicts.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fxgrad.fix_graph.regenerate import regenerate
from fxgrad.program.loss import loss_of
from fxgrad.program.program import Program, program
from fxgrad.records.errors import TraceError
from fxgrad.torch_api import tree
from fxgrad.trace.experiment import Experiment
from fxgrad.trace.facts import observe
from fxgrad.trace.recorder import NeedsValue
from fxgrad.trace.run import Run, run

Loss = Callable[[Any], torch.Tensor]


@dataclass(frozen=True)
class Outcome:
    """What one training step leaves behind."""

    types: Any
    outputs: list[torch.Tensor]
    wants_grad: list[bool]
    constants: list[Any]
    gradients: dict[str, torch.Tensor | None]
    buffers: dict[str, torch.Tensor]
    inputs: list[torch.Tensor]
    input_gradients: list[torch.Tensor | None]


def seed() -> None:
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)


def fresh(inputs: Any) -> Any:
    """The inputs with tensors of their own."""
    leaves, structure = tree.flatten(inputs)
    made = {id(t): t.detach().clone().requires_grad_(t.requires_grad) for t in leaves}  # a tensor given twice stays one
    return tree.unflatten(structure, [made[id(t)] for t in leaves])


def types_of(output: Any) -> Any:
    if isinstance(output, dict):
        return type(output), {key: types_of(value) for key, value in output.items()}
    if isinstance(output, tuple | list):
        return type(output), [types_of(value) for value in output]
    return type(output)


class Buffers:
    """The buffers of a model, to be put back between two steps."""

    def __init__(self, root: nn.Module) -> None:
        self.root = root
        self.held = [(m, name, b, b.clone()) for m in root.modules() for name, b in m._buffers.items() if b is not None]

    def restore(self) -> None:
        for module in self.root.modules():
            known = {name for m, name, _, _ in self.held if m is module}
            for name in [name for name, b in module._buffers.items() if b is not None and name not in known]:
                delattr(module, name)
        for module, name, buffer, value in self.held:
            setattr(module, name, buffer)
            with torch.no_grad():
                buffer.copy_(value)


def step(call: Callable[..., Any], root: nn.Module, inputs: Any, loss: Loss | None) -> Outcome:
    """One forward and backward from fresh seeds and no gradients."""
    buffers = Buffers(root)
    seed()
    root.zero_grad(set_to_none=True)
    given = fresh(inputs)
    tensors, _ = tree.flatten(given)
    output = call(**given) if isinstance(given, dict) else call(*given)
    loss_of(loss, output).backward()
    leaves, structure = tree.flatten(output)
    holder = call if isinstance(call, nn.Module) else root
    outcome = Outcome(
        types=types_of(output),
        outputs=[t.detach().clone() for t in leaves],
        wants_grad=[t.requires_grad for t in leaves],
        constants=[c for c in tree.constants(structure) if isinstance(c, str | int | float | type(None))],
        gradients={name: None if p.grad is None else p.grad.clone() for name, p in root.named_parameters(remove_duplicate=False)},
        buffers={name: b.clone() for name, b in holder.named_buffers()},
        inputs=[t.detach().clone() for t in tensors],
        input_gradients=[t.grad for t in tensors],
    )
    root.zero_grad(set_to_none=True)
    buffers.restore()
    return outcome


def identical(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    one, other = one.to_dense(), other.to_dense()
    same = (one == other) | ((one != one) & (other != other)) if one.shape == other.shape else torch.tensor(False)
    return one.dtype == other.dtype and bool(same.all())


def close(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    one, other = one.to_dense(), other.to_dense()
    wide = torch.complex128 if one.is_complex() else torch.float64
    return one.shape == other.shape and torch.allclose(one.to(wide), other.to(wide), rtol=1e-4, atol=1e-5, equal_nan=True)


def differences(want: Outcome, got: Outcome, same: Callable[[Any, Any], bool]) -> Iterator[str]:
    """In words, all in which two steps differ. Buffers that only one of them created are let pass: the graph makes them anew."""
    for what in ("types", "wants_grad", "constants"):
        if getattr(want, what) != getattr(got, what):
            yield f"{what}: {getattr(want, what)} != {getattr(got, what)}"
    for what in ("outputs", "inputs", "input_gradients"):
        pairs = list(zip(getattr(want, what), getattr(got, what), strict=True))
        yield from (f"{what}[{i}]" for i, (one, other) in enumerate(pairs) if not same(one, other))
    yield from (f"gradient of {name}" for name, grad in want.gradients.items() if not same(grad, got.gradients[name]))
    yield from (f"buffer {name}" for name in want.buffers.keys() & got.buffers.keys() if not same(want.buffers[name], got.buffers[name]))


def drop_in_faults(model: nn.Module, module: torch.fx.GraphModule) -> Iterator[str]:
    """How the graph module could be told from the model by who holds it."""
    if list(module.state_dict()) != list(model.state_dict()):
        yield "state_dict keys"
    mine, theirs = dict(model.named_parameters(remove_duplicate=False)), dict(module.named_parameters(remove_duplicate=False))
    if list(mine) != list(theirs) or any(mine[name] is not theirs[name] for name in mine):
        yield "parameters are not the model's own"


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small tensors: threads cost more than they give, and another process's load would be felt."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def recorded() -> Callable[[Program, str], Run]:
    """A run from the seeds that every step starts from; fails where the program raised."""

    def record(target: Program, values: str) -> Run:
        seed()
        result = run(target, Experiment(values))
        assert result.error is None, f"{values}: {result.error}"
        observe(result)
        return result

    return record


@pytest.fixture
def same_as_eager(recorded: Callable[[Program, str], Run]) -> Callable[..., dict[str, Run | None]]:
    """`same_as_eager(model, inputs, loss=None, then=(), fake=True)` -> the run per kind of values, None where a value was needed.

    `then`: further inputs for the same graph. `fake=False`: fake values must be refused; `None`: they may be, or may not be enough to take
    the eager path or to make a graph.
    """

    def check(
        model: Any, inputs: Any, loss: Loss | None = None, then: tuple[Any, ...] = (), fake: bool | None = True
    ) -> dict[str, Run | None]:
        target = program(model, inputs, loss)
        runs: dict[str, Run | None] = {"real": recorded(target, "real"), "fake": None}
        if fake is True:
            runs["fake"] = recorded(target, "fake")
        elif fake is False:
            with pytest.raises(NeedsValue):
                run(target, Experiment("fake"))
        else:
            with contextlib.suppress(NeedsValue):
                found = run(target, Experiment("fake"))
                runs["fake"] = found if found.error is None else None
        eager = [step(model, target.root, given, loss) for given in (inputs, *then)]
        for values, result in runs.items():
            if result is None:
                continue
            try:
                module = regenerate(result)
            except TraceError:
                assert (values, fake) == ("fake", None)
                continue
            faults = list(drop_in_faults(model, module)) if isinstance(model, nn.Module) else []
            for given, want in zip((inputs, *then), eager, strict=True):
                got = step(module, target.root, given, loss)
                faults += differences(want, got, identical if values == "real" else close)
            got_none = {name for name, state in result.gradients.items() if state == "none"}
            faults += [f"verdict of {n}" for n, grad in eager[0].gradients.items() if (grad is None) != (n in got_none)]
            assert faults == [], values
        return runs

    return check
