"""The regenerated graph module as its user meets it: called, trained, saved, copied and misused like the model."""

from __future__ import annotations

import copy
import functools
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import fxgrad
from fxgrad.fix_graph.regenerate import regenerate
from fxgrad.program.program import program
from fxgrad.records.errors import GuardError, InputError, TraceError
from fxgrad.trace.experiment import Experiment
from fxgrad.trace.run import run


def graph(model: Any, inputs: Any, values: str = "real") -> torch.fx.GraphModule:
    result = run(program(model, inputs, None), Experiment(values))
    assert result.error is None, result.error
    return regenerate(result)


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("shift", torch.ones(4))
        self.register_buffer("local", torch.ones(4), persistent=False)

    def forward(self, x: torch.Tensor, scale: float = 2.0, *, bias: torch.Tensor | None = None) -> torch.Tensor:
        y = self.layer(x) * scale + self.shift + self.local
        return y if bias is None else y + bias


X, B = torch.randn(2, 4), torch.randn(4)


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m(X, 3.0, bias=B),
        lambda m: m(x=X, scale=3.0, bias=B),
        lambda m: m(bias=B, scale=3.0, x=X),
        lambda m: m(X, bias=B, scale=3.0),
    ],
)
def test_called_by_position_and_by_name(call: Callable[[Any], torch.Tensor]) -> None:
    model = Scaled()
    module = graph(model, {"x": X, "scale": 3.0, "bias": B})
    assert torch.equal(call(module), call(model))


def test_tensors_by_position_or_by_name_or_too_few() -> None:
    a, b = torch.ones(2, requires_grad=True), torch.zeros(2)
    module = graph(lambda a, b: a - b, (a, b))
    assert [out.tolist() for out in (module(a, b), module(b=b, a=a), module(a, b=b), module(b, a))] == [[1, 1]] * 3 + [[-1, -1]]
    with pytest.raises(InputError):
        module(a)
    with pytest.raises(InputError):
        module(a, 2.0)


def test_one_tensor_passed_twice_is_not_two() -> None:
    a = torch.ones(2, requires_grad=True)
    module = graph(lambda a, b: a + b, (a, a))
    assert module(a, a).tolist() == [2, 2]
    with pytest.raises(InputError, match="same tensor twice"):
        module(a, torch.ones(2))


def test_defaults_are_the_models() -> None:
    model = Scaled()
    assert torch.equal(graph(model, (X,))(X), model(X))


def test_state_dict_is_the_models() -> None:
    model = Scaled()
    module = graph(model, (X,))
    assert list(module.state_dict()) == list(model.state_dict()) == ["shift", "layer.weight", "layer.bias"]
    assert module.load_state_dict(Scaled().state_dict()) == ([], [])


def test_parameters_are_the_models_own() -> None:
    model = Scaled()
    module = graph(model, (X,))
    with torch.no_grad():
        model.layer.weight.zero_()
    assert module(X)[0].tolist() == (model.layer.bias * 2 + 2).tolist()


def test_training_flag_is_the_models() -> None:
    assert [graph(model, (X,)).training for model in (Scaled(), Scaled().eval())] == [True, False]


def test_a_deep_copy_has_parameters_of_its_own() -> None:
    module = graph(Scaled(), (X,))
    twin = copy.deepcopy(module)
    twin(X).sum().backward()
    assert (twin.layer.weight.grad is None, module.layer.weight.grad is None) == (False, True)
    assert torch.equal(twin(X), module(X))


class Inside(nn.Module):
    """What reaches the parameters is a Python function, which a graph can only hold."""

    def __init__(self, how: Callable[[Inside, Tensor], Tensor]) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.register_buffer("calls", torch.zeros(()))
        self.how = how

    def part(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        return self.layer(x).sigmoid() + self.layer.weight.sum()

    def forward(self, x: Tensor) -> Tensor:
        h = self.how(self, x)
        return h.mul_(2)


INSIDE: dict[str, Callable[[Inside, Tensor], Tensor]] = {
    "checkpoint": lambda net, x: checkpoint(net.part, x, use_reentrant=False),
    "reentrant checkpoint": lambda net, x: checkpoint(net.part, x.clone().requires_grad_(), use_reentrant=True),
    "closure": lambda net, x: checkpoint(lambda t: net.layer(t) * x.cos(), x * 2, use_reentrant=False),
    "partial": lambda net, x: checkpoint(functools.partial(F.linear, weight=net.layer.weight), x, use_reentrant=False) + net.layer.bias,
    "vmap": lambda net, x: torch.vmap(torch.func.grad(lambda t: net.layer(t).sin().sum()))(x),
    "jvp": lambda net, x: torch.func.jvp(lambda t: net.layer(t).sin(), (x,), (x,))[1],
}


@pytest.mark.parametrize("how", INSIDE)
@pytest.mark.parametrize("kind", ["deepcopy", "deepcopy twice", "copy=True"])
def test_a_copy_has_its_parameters_inside_functions_too(how: str, kind: str) -> None:
    model, x = Inside(INSIDE[how]), torch.randn(3, 2)
    if kind == "copy=True":
        twin: Any = fxgrad.fix(model, (x,), copy=True).module
    else:
        twin = copy.deepcopy(graph(model, (x,)))
        twin = copy.deepcopy(twin) if kind == "deepcopy twice" else twin
    calls = model.calls.item()
    twin(x).sum().backward()
    assert [p.grad for p in model.parameters()] == [None, None]
    assert model.calls.item() == calls
    mine = [p.grad for p in twin.parameters()]
    model(x).sum().backward()
    for p, gradient in zip(model.parameters(), mine, strict=True):
        assert (p.grad is None) == (gradient is None)
        assert gradient is None or torch.equal(p.grad, gradient)
    with torch.no_grad():
        twin.layer.weight.zero_()
    assert not torch.equal(twin(x), model(x))


def test_an_interpreter_runs_it() -> None:
    module = graph(Scaled(), (X,))
    assert torch.equal(torch.fx.Interpreter(module).run(X), module(X))


def test_it_is_traced_again() -> None:
    module = graph(Scaled(), (X,))
    assert torch.equal(graph(module, (X,))(X), module(X))


def test_the_graph_is_well_formed() -> None:
    module = graph(Scaled(), (X,))
    module.graph.lint()
    assert [node.op for node in module.graph.nodes].count("placeholder") == 1


# ------------------------------------------------------------------ calls that do not fit


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda m: m(X, 3.0), "`scale` is 2.0; now"),
        (lambda m: m(X, bias=B), "`bias` is None; now it is Tensor"),
        (lambda m: m(), "signature"),
        (lambda m: m(X, wrong=1), "signature"),
    ],
)
def test_another_call_than_the_traced_one_is_refused(call: Callable[[Any], Any], reason: str) -> None:
    module = graph(Scaled(), (X,))
    with pytest.raises((InputError, GuardError), match=reason):
        call(module)


def test_a_keyword_only_tensor_is_not_taken_by_position() -> None:
    def twice(*, x: torch.Tensor) -> torch.Tensor:
        return x * 2

    x = X.clone().requires_grad_()
    module = graph(twice, {"x": x})
    assert torch.equal(module(x=X), X * 2)
    with pytest.raises(InputError, match="signature"):
        module(X)


def test_two_tensors_for_one_are_refused() -> None:
    module = graph(nn.Bilinear(4, 4, 2), (X, X))
    with pytest.raises(InputError, match="same tensor twice"):
        module(X, X.clone())


def test_a_forward_that_raised_has_no_graph() -> None:
    result = run(program(nn.Linear(3, 3), (X,), None), Experiment("real"))
    with pytest.raises(TraceError, match="no graph"):
        regenerate(result)


def test_data_that_fake_values_do_not_have_is_no_graph() -> None:
    class Model(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + torch.Tensor([1.0])

    result = run(program(Model(4, 4), (X,), None), Experiment("fake"))
    with pytest.raises(TraceError, match="Python data"):
        regenerate(result)


# ------------------------------------------------------------------ state and modes


class Running(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(x) * (1 + self.mean)
        self.mean = self.mean * 0.9 + y.detach().mean(0)
        return y


def test_rebound_buffers_accumulate_as_in_the_model() -> None:
    model = Running()
    module = graph(copy.deepcopy(model), (X,))
    for _ in range(3):
        want, got = model(X), module(X)
    assert torch.equal(got, want)
    assert torch.equal(module.mean, model.mean)


class Failing(torch.autograd.Function):
    """Fails when told to, so that a graph that ran once raises the next time."""

    on = False

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        if Failing.on:
            raise ValueError("asked to fail")
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return grad


class Modes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            with torch.inference_mode():
                y = self.layer(x)
            z = Failing.apply(y.clone())
        return self.layer(x) + z.float()


def test_modes_are_left_when_the_graph_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    module = graph(Modes(), (X,))
    monkeypatch.setattr(Failing, "on", True)
    with pytest.raises(ValueError, match="asked to fail"):
        module(X)
    assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")) == (True, False, False)


def test_the_callers_mode_is_the_graphs() -> None:
    module = graph(Scaled(), (X,))
    with torch.no_grad():
        assert not module(X).requires_grad


def test_a_fresh_constant_for_every_call() -> None:
    class Model(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            total = torch.Tensor([0.0])
            total += 1
            return super().forward(x) * total

    module = graph(Model(4, 4), (X,))
    assert torch.equal(module(X), module(X))


@pytest.mark.parametrize("name", ["class", 'a"b', "a\nb", "a\\b"])
def test_names_that_generated_code_cannot_say_are_refused(name: str) -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleDict({name: nn.Linear(4, 4)})

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.blocks[name](torch.sigmoid(x))
            return y

    with pytest.raises(fxgrad.FixError, match="has no way to say") as caught:
        fxgrad.fix(Named(), (torch.randn(2, 4),))
    assert caught.value.site is not None


class Holding(nn.Module):
    """Holds something under a name; `how` says what, and whether forward uses it."""

    def __init__(self, name: str, how: str) -> None:
        super().__init__()
        self.name, self.how = name, how
        if how == "buffer":
            self.register_buffer(name, torch.ones(4))
        else:
            setattr(self, name, nn.Parameter(torch.ones(4)) if how == "parameter" else nn.Linear(4, 4))
        self.last = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        held = getattr(self, self.name)
        h = {"layer": lambda: held(x), "unused": lambda: x, "weight": lambda: x @ held.weight}.get(self.how, lambda: x * held)()
        return self.last(h.sigmoid())


@pytest.mark.parametrize("how", ["layer", "weight", "parameter", "buffer", "unused"])
@pytest.mark.parametrize("name", ["code", "graph", "meta", "guards", "print_readable", "_graph"])
def test_a_name_of_a_graph_modules_own_is_refused(name: str, how: str) -> None:
    x = torch.randn(2, 4)
    model = Holding(name, how)
    with pytest.raises(fxgrad.FixError, match=f"`{name}` of the model is also a name") as caught:
        fxgrad.fix(model, (x,))
    assert caught.value.site is not None
    assert caught.value.hint is not None
    inside = fxgrad.fix(nn.Sequential(model), (x,)).module
    assert torch.equal(inside(x), model(x))


@pytest.mark.parametrize("name", ["code", "graph", "meta", "guards"])
def test_an_attribute_of_python_may_have_any_name(name: str) -> None:
    class Weighing(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * getattr(self, name)

    model, x = Weighing(4, 4), torch.randn(2, 4)
    setattr(model, name, 3.0)
    module = fxgrad.fix(model, (x,)).module
    assert torch.equal(module(x), model(x))
    assert torch.equal(copy.deepcopy(module)(x), model(x))


def test_a_pickle_is_refused_with_a_way_to_save() -> None:
    module = fxgrad.fix(Scaled(), (X,)).module
    for save in (pickle.dumps, lambda made: torch.save(made, io.BytesIO())):
        with pytest.raises(pickle.PicklingError, match="Save its state_dict"):
            save(module)


def test_a_size_that_nothing_is_made_of_is_not_in_the_graph() -> None:
    class Tries(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            try:
                x = x.view(x.size(0), 7)
            except RuntimeError:
                x = x + 1
            return super().forward(x)

    module = graph(Tries(4, 4), (X,))
    assert "size" not in {node.target for node in module.graph.nodes}
