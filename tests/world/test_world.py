"""A run leaves the user's world as it was: tensors, modules, Python state, random numbers, torch's modes, patched classes.

Each test takes a picture of everything before a run and compares it after: after success, after an error in forward and in backward,
and after Ctrl-C inside forward.
"""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import warnings
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fxgrad
from fxgrad.program.program import program
from fxgrad.trace import regions, seams
from fxgrad.trace.experiment import Experiment
from fxgrad.trace.recorder import NeedsValue
from fxgrad.trace.run import Run, run
from fxgrad.world import reach

HISTORY: list[Any] = []
STEPS = 0
STATE: dict[str, Any] = {"steps": 0}


class Plain:
    """An object of the user's that is no module."""

    def __init__(self) -> None:
        self.count = 0
        self.seen: list[Any] = []


class Slotted:
    """One without a `__dict__`."""

    __slots__ = ("last",)

    def __init__(self) -> None:
        self.last: Any = None


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return grad * 2


class Failing(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        raise ValueError("backward fails")


class Busy(nn.Module):
    """Changes everything a forward can change, then ends as `end` says."""

    calls = 0
    shared: list[Any] = []

    def __init__(self, end: str) -> None:
        super().__init__()
        self.end = end
        self.layer = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.5)
        self.register_buffer("mean", torch.zeros(4))
        self.scale = torch.ones(4)
        self.log: list[Any] = []
        self.end_note = "deleted by the forward"
        self.cache: dict[str, Any] = {"old": 1}
        self.order = OrderedDict(a=1, b=2)
        self.queue = deque([1, 2], maxlen=2)
        self.names = {"a"}
        self.array = np.zeros(3)
        self.plain = Plain()
        self.slotted = Slotted()
        self.generator = torch.Generator().manual_seed(7)
        self.layer.weight.register_hook(lambda grad: grad * 2)
        self.layer.register_forward_hook(lambda module, args, out: out + 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        global STEPS
        STEPS += 1
        STATE["steps"] += 1
        HISTORY.append(x)
        type(self).calls += 1
        self.shared.append(1)
        self._python(x)
        torch.rand(2), np.random.rand(2), random.random(), torch.rand(2, generator=self.generator)
        torch.set_default_dtype(torch.float64)
        torch.set_default_dtype(torch.float32)
        x.mul_(2)
        with torch.no_grad():
            self.layer.weight.add_(1)
            self.scale.mul_(3)
        self.mean = self.mean + x.mean(0).detach()
        y = self.drop(self.norm(self.layer(x))) * self.scale
        return self._ended(Doubled.apply(y))

    def _python(self, x: torch.Tensor) -> None:
        self.log.append(x)
        self.cache["new"] = x
        self.cache["old"] = 2
        self.order.move_to_end("a")
        self.queue.append(3)
        self.names.add("b")
        self.array += 1
        self.plain.count += 1
        self.plain.seen.append(x)
        self.slotted.last = x
        self.added = x
        del self.end_note

    def _ended(self, y: torch.Tensor) -> torch.Tensor:
        if self.end == "forward":
            torch.set_grad_enabled(False)
            torch.set_default_dtype(torch.float64)
            torch.autocast("cpu", dtype=torch.bfloat16).__enter__()
            raise ValueError("forward fails")
        if self.end == "interrupt":
            torch.set_grad_enabled(False)
            raise KeyboardInterrupt
        return Failing.apply(y) if self.end == "backward" else y


def _patched_classes() -> dict[str, Any]:
    """What the interceptions replace while a run lasts."""
    functorch = sys.modules["torch._functorch.apis"], sys.modules["torch._functorch.eager_transforms"]
    return {
        "Module.__call__": nn.Module.__call__,
        "Module": dict(vars(nn.Module)),
        "Linear": dict(vars(nn.Linear)),
        "Busy": {name: value for name, value in vars(Busy).items() if name != "calls"},
        "apply": (vars(torch.autograd.Function)["apply"], dict(vars(torch.autograd.Function.__mro__[1]))),
        "Parameter": vars(nn.Parameter).get("__new__"),
        "Variable": vars(type(torch.autograd.Variable)).get("__call__"),
        "from_numpy": torch.from_numpy,
        "manual_seed": torch.manual_seed,
        "autocast": (torch.autocast.__enter__, torch.autocast.__exit__),
        "inference": (torch.inference_mode.__enter__, torch.inference_mode.__exit__),
        "hooks": dict(vars(torch.utils.hooks.BackwardHook)),
        "script": torch._C.ScriptFunction.__call__,
        "checkpoint": dict(vars(torch.utils.checkpoint.checkpoint.__wrapped__)),
        "transforms": (functorch[0].vmap_impl, functorch[1].grad_impl),
    }


def _modes() -> dict[str, Any]:
    return {
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu"), torch.is_autocast_cache_enabled()),
        "anomaly": torch.is_anomaly_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "function modes": torch._C._len_torch_function_stack(),
        "dispatch modes": torch._C._len_torch_dispatch_stack(),
        "recursion limit": sys.getrecursionlimit(),
        "path": list(sys.path),
        "streams": (sys.stdout, sys.stderr),
        "warnings": list(warnings.filters),
        "threads": threading.active_count(),
    }


def _random_numbers() -> dict[str, Any]:
    return {"torch": torch.get_rng_state().tolist(), "numpy": repr(np.random.get_state()), "python": random.getstate()}


def _tensor(tensor: torch.Tensor) -> tuple[Any, ...]:
    grad = tensor.grad if tensor.is_leaf else None
    hooks = list((tensor._backward_hooks or {}).values()) if tensor.requires_grad else []
    return id(tensor), tensor.tolist(), tensor._version, tensor.requires_grad, id(grad), None if grad is None else grad.tolist(), hooks


def _held(value: Any) -> Any:
    """Identity of what a container holds, in its order."""
    if isinstance(value, dict):
        return [(key, id(item)) for key, item in value.items()]
    return [id(item) for item in value] if isinstance(value, list | deque) else value


def _picture(model: Busy, x: torch.Tensor, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    return {
        "tensors": {name: _tensor(t) for name, t in (*model.named_parameters(), *model.named_buffers(), ("scale", model.scale), ("x", x))},
        "attributes": {path: _held(vars(module)) for path, module in model.named_modules()},
        "registries": {path: (_held(m._parameters), _held(m._buffers), _held(m._forward_hooks)) for path, m in model.named_modules()},
        "containers": [_held(c) for c in (model.log, model.cache, model.order, model.queue, HISTORY, STATE, Busy.shared)],
        "sets": set(model.names),
        "array": model.array.tolist(),
        "plain": (model.plain.count, list(model.plain.seen), model.slotted.last),
        "globals": (STEPS, STATE["steps"], Busy.calls),
        "generator": model.generator.get_state().tolist(),
        "optimizer": [(key, _held(state)) for key, state in optimizer.state.items()],
        "steps": [state["step"].tolist() for state in optimizer.state.values()],
        "groups": [_held(group) for group in optimizer.param_groups],
        "modes": _modes(),
        "random": _random_numbers(),
        "patched": _patched_classes(),
    }


def _trained(end: str) -> tuple[Busy, torch.Tensor, torch.optim.Optimizer]:
    """A model in the middle of training: gradients are there, the optimizer has a state."""
    model = Busy(end)
    optimizer = torch.optim.Adam(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return model, torch.randn(3, 4), optimizer


def _run(model: Busy, x: torch.Tensor, optimizer: torch.optim.Optimizer, values: str) -> Run:
    return run(program(model, (x,), lambda out: out.sum(), optimizer), Experiment(values, watch_saves=True))


def _differences(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    return {key: (before[key], after[key]) for key in before if before[key] != after[key]}


@pytest.mark.parametrize("values", ["real", "fake"])
@pytest.mark.parametrize(("end", "phase"), [("", None), ("forward", "forward"), ("backward", "backward")])
def test_a_run_changes_nothing(end: str, phase: str | None, values: str) -> None:
    model, x, optimizer = _trained(end)
    before = _picture(model, x, optimizer)
    result = _run(model, x, optimizer, values)
    after = _picture(model, x, optimizer)
    assert (result.error.phase if result.error else None) == phase
    assert _differences(before, after) == {}


@pytest.mark.parametrize("values", ["real", "fake"])
def test_an_interrupted_run_changes_nothing(values: str) -> None:
    model, x, optimizer = _trained("interrupt")
    before = _picture(model, x, optimizer)
    with pytest.raises(KeyboardInterrupt):
        _run(model, x, optimizer, values)
    assert _differences(before, _picture(model, x, optimizer)) == {}


def test_the_model_still_trains_after_a_run() -> None:
    model, x, optimizer = _trained("")
    _run(model, x, optimizer, "real")
    model.zero_grad()
    model(x).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_picture_sees_a_forward_without_a_recorder() -> None:
    model, x, optimizer = _trained("")
    before = _picture(model, x, optimizer)
    model(x)
    changed = set(_differences(before, _picture(model, x, optimizer)))
    HISTORY.clear()
    assert changed == {"tensors", "attributes", "registries", "containers", "sets", "array", "plain", "globals", "generator", "random"}


@pytest.mark.parametrize("values", ["fake", "real"])
def test_an_error_leaves_no_hooks_on_what_autograd_saves(values: str) -> None:
    """As torch 2.11's checkpoint does, which suspends a generator inside its hooks and never resumes it after an error."""

    def hooked() -> Iterator[None]:
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
            yield

    def forward(x: torch.Tensor) -> torch.Tensor:
        region = hooked()
        next(region)
        return (x * x.sum().item()).view(7)  # asks for a value; given one, the view fails

    top = torch._C._autograd._top_saved_tensors_default_hooks
    if values == "fake":
        with pytest.raises(NeedsValue) as caught:
            run(program(forward, (torch.ones(2, requires_grad=True),), None), Experiment("fake"))
        assert caught.value.__traceback__ is not None
    else:
        assert run(program(forward, (torch.ones(2, requires_grad=True),), None), Experiment("real")).error is not None
    assert top(True) is None


def test_other_threads_are_not_recorded() -> None:
    class Threaded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            worker = threading.Thread(target=lambda: torch.ones(2).add(1))
            worker.start()
            worker.join()
            return self.layer(x)

    result = run(program(Threaded(), (torch.ones(1, 2),), None), Experiment("real"))
    assert [step.target for step in result.recorder.steps if step.kind == "op"] == ["Tensor.sum"]


def test_every_interception_is_put_back() -> None:
    model, x, optimizer = _trained("")
    recorder = _run(model, x, optimizer, "real").recorder
    parts = (seams._module_calls(recorder), seams._interceptions(recorder), regions.interceptions(recorder))
    patched = [(holder, name) for part in parts for holder, name, _ in part]
    before = [vars(holder).get(name) for holder, name in patched]
    _run(model, x, optimizer, "fake")
    assert [vars(holder).get(name) for holder, name in patched] == before
    assert len(patched) > 15


class HoldsTable(nn.Module):
    """A layer beside a table of Python objects, into whose last row the forward writes."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.table = [{"row": (i, i + 1)} for i in range(rows)]
        self.layer = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.table[-1]["row"] = x
        return self.layer(x)


def test_a_large_table_on_the_model_is_put_back_to_its_last_row() -> None:
    model = HoldsTable(250_000)
    assert fxgrad.analyze(model, (torch.ones(1, 2),)).ok
    assert model.table[-1] == {"row": (249_999, 250_000)}


def test_more_than_can_be_put_back_is_refused_with_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "LIMIT", 1000)
    model = nn.Sequential(HoldsTable(2000))
    with pytest.raises(fxgrad.InputError, match="more than 1,000 Python objects .* `0.table`.*keep a data set outside"):
        fxgrad.analyze(model, (torch.ones(1, 2),))
    assert model[0].table[-1] == {"row": (1999, 2000)}
    monkeypatch.undo()
    assert fxgrad.analyze(model, (torch.ones(1, 2),)).ok


def test_numpys_generators_are_not_loaded_for_nothing() -> None:
    """They take longer to load than a small analysis, and are the program's own to load."""
    code = """
import sys, torch, fxgrad
assert "numpy.random" not in sys.modules
fxgrad.analyze(torch.nn.Linear(2, 2), (torch.ones(1, 2),))
print("numpy.random" in sys.modules)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False"]


def test_a_program_that_is_the_first_to_seed_numpy_leaves_it_unforeseen() -> None:
    code = """
import sys, torch, fxgrad

class Model(torch.nn.Linear):
    def forward(self, x):
        import numpy
        numpy.random.seed(0)
        return super().forward(x)

fxgrad.analyze(Model(2, 2), (torch.ones(1, 2),))
import numpy
drawn = numpy.random.rand()
numpy.random.seed(0)
print(drawn == numpy.random.rand())
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False"]


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls.add_(1)
        return self.layer(x)


@pytest.mark.parametrize("values", ["real", "fake"])
def test_what_our_own_records_hold_is_the_users(values: Any) -> None:
    """A fixed module and example inputs that a program keeps: frozen records of ours, with tensors of the user's."""
    inner, x = Counting(), torch.randn(2, 3)
    fixed, example = fxgrad.fix(inner, (x,)), fxgrad.Inputs((torch.zeros(3),))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            example.args[0].add_(1)
            return fixed.module(self.first(x))  # type: ignore[no-any-return]

    report = fxgrad.analyze(Net(), (x,), options=fxgrad.Options(values=values))
    assert set(report.verdicts.values()) == {"flows"}
    assert [p.grad for p in inner.parameters()] == [None, None]
    assert (float(inner.calls), example.args[0].tolist()) == (0.0, [0.0, 0.0, 0.0])


class Seeding(nn.Module):
    """It seeds, and a gradient of it is zero: further runs draw other numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        self.scale = nn.Parameter(torch.zeros(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(3)
        return x * self.weight * self.scale


@pytest.mark.skipif(torch.cuda.is_initialized(), reason="the seed waits for a device that nobody has used yet")
@pytest.mark.parametrize("act", [fxgrad.analyze, fxgrad.fix])
def test_a_seed_that_waits_for_a_device_is_the_one_it_was(act: Callable[..., object]) -> None:
    torch.manual_seed(7)
    waiting = torch.cuda._lazy_seed_tracker
    before, calls = dict(vars(waiting)), list(torch.cuda._queued_calls)
    act(Seeding(), (torch.randn(3),))
    assert vars(waiting) == before
    assert torch.cuda._queued_calls == calls
