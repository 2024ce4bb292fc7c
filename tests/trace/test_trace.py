"""One run: what it refuses, what it notes beside the graph, and that it is the same on one step or ten thousand."""

from __future__ import annotations

import logging
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing._internal.two_tensor import TwoTensor
from torch.utils.checkpoint import checkpoint

import fxgrad
from fxgrad.fix_graph.regenerate import regenerate
from fxgrad.program.program import program
from fxgrad.records import Inputs
from fxgrad.records.errors import InputError, TraceError
from fxgrad.source.sites import site_of
from fxgrad.trace.experiment import Experiment
from fxgrad.trace.facts import observe
from fxgrad.trace.observations import same_elements
from fxgrad.trace.recorder import NeedsValue
from fxgrad.trace.run import Run, run

X = torch.randn(2, 4)


def forward_of(function: Callable[..., Any]) -> nn.Module:
    """A model with one layer, `self.layer`, and this forward."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)
            self.other = nn.Linear(4, 4)

        forward = function

    return Model()


def _watched(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> fxgrad.Report:
    with fxgrad.watch(model) as watch:
        model(*inputs).sum().backward()
    return watch.report


def traced(function: Callable[..., Any], values: str = "real", **options: Any) -> Run:
    return run(program(forward_of(function), (X,), None), Experiment(values, **options))


# ------------------------------------------------------------------ arguments


@pytest.mark.parametrize("inputs", [(X,), [X], {"x": X}, Inputs((X,)), Inputs((), {"x": X}), X])
def test_inputs_in_every_shape(inputs: Any) -> None:
    target = program(forward_of(lambda self, x: self.layer(x)), inputs, None)
    assert run(target, Experiment("real")).gradients == {
        "layer.weight": "some",
        "layer.bias": "some",
        "other.weight": "none",
        "other.bias": "none",
    }


@pytest.mark.parametrize(("model", "inputs"), [(nn.Linear(4, 4), 3), ("a model", (X,))])
def test_what_is_no_program_is_refused(model: Any, inputs: Any) -> None:
    with pytest.raises(InputError):
        program(model, inputs, None)


@pytest.mark.parametrize("values", ["real", "fake"])
def test_lazy_parameters_are_refused(values: str) -> None:
    with pytest.raises(InputError, match="call the model once"):
        run(program(nn.Sequential(nn.LazyLinear(4)), (X,), None), Experiment(values))


def test_a_lazy_module_that_was_called_is_ordinary() -> None:
    model = nn.Sequential(nn.LazyLinear(4))
    model(X)
    assert run(program(model, (X,), None), Experiment("fake")).gradients == {"0.weight": "some", "0.bias": "some"}


# ------------------------------------------------------------------ values


@pytest.mark.parametrize(
    "function",
    [
        lambda self, x: self.layer(x) * x.sum().item(),
        lambda self, x: self.layer(x) * float(x.sum()),
        lambda self, x: self.layer(x) + torch.tensor(x.tolist()),
        lambda self, x: self.layer(x) + torch.from_numpy(x.numpy()),
        lambda self, x: self.layer(x[x > 0][:4]),
        lambda self, x: self.layer(x)[x.nonzero()[0]],
        lambda self, x: checkpoint(lambda y: self.layer(y) * y.max().item(), x, use_reentrant=False),
        lambda self, x: self.layer(x).repeat(int(x.abs().max()), 1),
    ],
)
def test_a_number_that_fake_values_do_not_have_is_asked_for_at_its_line(function: Callable[..., Any]) -> None:
    with pytest.raises(NeedsValue) as caught:
        traced(function, "fake")
    assert site_of(caught.value.spots[0]).line == function.__code__.co_firstlineno


def test_user_code_cannot_swallow_the_request() -> None:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        try:
            return self.layer(x) * x.nonzero().shape[0]
        except Exception:
            return self.other(x)

    with pytest.raises(NeedsValue):
        traced(forward, "fake")


@torch.library.custom_op("fxgrad_test::picky", mutates_args=())
def picky(x: torch.Tensor) -> torch.Tensor:
    return x * 2


@picky.register_fake
def _picky_fake(x: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("only bfloat16 is supported")


picky.register_autograd(lambda ctx, grad: grad * 2)


def test_a_faulty_fake_kernel_asks_for_values(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(NeedsValue, match="picky"), caplog.at_level(logging.DEBUG):
        traced(lambda self, x: picky(self.layer(x)), "fake")
    assert traced(lambda self, x: picky(self.layer(x)), "real").gradients["layer.weight"] == "some"


@torch.library.custom_op("fxgrad_test::formless", mutates_args=())
def formless(x: torch.Tensor) -> torch.Tensor:
    return x * 2


@formless.register_fake
def _formless_fake(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


def test_that_a_formula_is_not_registered_is_known_without_data() -> None:
    result = traced(lambda self, x: formless(self.layer(x)).sum(), "fake")
    assert result.error is not None
    assert (result.error.phase, "autograd formula" in result.error.message) == ("backward", True)


@torch.library.custom_op("fxgrad_test::doubled", mutates_args=())
def doubled(x: torch.Tensor) -> torch.Tensor:
    return x * 2


doubled.register_fake(torch.empty_like)
doubled.register_autograd(lambda ctx, grad: grad * 2)


torch.library.define("fxgrad_test::halved", "(Tensor x) -> Tensor")
torch.library.impl("fxgrad_test::halved", "default", lambda x: x / 2)
torch.library.register_fake("fxgrad_test::halved", torch.empty_like)
halved = torch.ops.fxgrad_test.halved


def _halves_without_gradients(self: Any, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        scale = halved(self.layer(x))
    return self.layer(x) * scale


def test_a_custom_operator_without_a_formula_asks_for_values_where_gradients_are_on() -> None:
    assert traced(lambda self, x: doubled(self.layer(x)), "fake").gradients["layer.weight"] == "some"
    assert traced(_halves_without_gradients, "fake").gradients["layer.weight"] == "some"
    with pytest.raises(NeedsValue, match="fxgrad_test::halved. has no autograd formula"):
        traced(lambda self, x: halved(self.layer(x)), "fake")


class ReadsItsGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return grad * grad.sum().item()


def test_a_number_that_backward_reads_asks_for_values() -> None:
    with pytest.raises(NeedsValue):
        traced(lambda self, x: ReadsItsGradient.apply(self.layer(x)), "fake")
    assert traced(lambda self, x: ReadsItsGradient.apply(self.layer(x))).gradients["layer.weight"] == "some"


class Scale(nn.Parameter):
    """A parameter of a class of its own."""


@pytest.mark.parametrize("values", ["real", "fake"])
def test_a_parameter_of_another_class_made_in_forward_is_made_of_the_stand_in(values: str) -> None:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        made = Scale(self.other.weight)
        with torch.no_grad():
            made.zero_()
        return self.layer(x) + F.linear(x, made)

    model = forward_of(forward)
    result = run(program(model, (X,), None), Experiment(values))
    assert result.gradients["layer.weight"] == "some"
    assert bool(model.other.weight.any())


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (torch.ones(2, 3), torch.ones(2, 3), True),
        (torch.ones(2, 3), torch.ones(1, 3), False),
        (torch.ones(1, 3), torch.ones(2, 3), False),
        (torch.ones(3), torch.zeros(3), False),
        (torch.tensor([1.0, float("nan")]), torch.tensor([1.0, float("nan")]), True),
    ],
)
def test_what_is_broadcast_has_not_the_same_elements(one: torch.Tensor, other: torch.Tensor, same: bool) -> None:
    assert same_elements(one, other) is same


def test_without_data_a_kernel_error_is_the_programs() -> None:
    with torch.device("meta"):
        model, x = nn.Linear(3, 3), torch.empty(2, 4)
    result = run(program(model, (x,), None), Experiment("fake"))
    assert result.error is not None
    assert result.error.phase == "forward"


def test_a_question_of_torch_nn_is_no_question_of_the_program() -> None:
    layer = nn.TransformerEncoderLayer(4, 1, 8, batch_first=True)
    model = nn.Sequential(nn.TransformerEncoder(layer, 1))
    mask = nn.Transformer.generate_square_subsequent_mask(3)
    result = run(program(lambda x: model[0](x, mask=mask), (torch.randn(2, 3, 4),), None), Experiment("fake"))
    assert (result.error, result.recorder.decisions) == (None, [])


def test_a_history_from_before_the_run_asks_for_values() -> None:
    weight = nn.Parameter(torch.randn(4, 4))
    made = weight * 2
    with pytest.raises(NeedsValue):
        run(program(lambda x: F.linear(x, made).sum() + weight.sum(), (X,), None), Experiment("fake"))


def test_a_branch_that_is_captured_whole_is_refused() -> None:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda y: self.layer(y), lambda y: self.other(y), (x,))

    with pytest.raises(TraceError, match="torch.cond"):
        traced(forward)


# ------------------------------------------------------------------ branches


def test_a_branch_on_data_is_noted_with_its_outcome() -> None:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) if x.abs().sum() > 0 else self.other(x)

    decisions = traced(forward).recorder.decisions
    assert [(d.outcome, d.known) for d in decisions] == [(True, True)]


@pytest.mark.parametrize("values", ["real", "fake"])
def test_a_forced_branch_is_taken(values: str) -> None:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) if x.abs().sum() > 0 else self.other(x)

    verdicts = [traced(forward, values, forced=(way,)).gradients for way in (True, False)]
    assert [v["layer.weight"] for v in verdicts] == ["some", "none"]
    assert [v["other.weight"] for v in verdicts] == ["none", "some"]


def test_a_branch_on_a_size_is_no_decision() -> None:
    result = traced(lambda self, x: self.layer(x) if x.shape[0] > 1 else self.other(x))
    assert result.recorder.decisions == []


# ------------------------------------------------------------------ what a run notes


def test_hidden_reads_of_a_checkpoint() -> None:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        return checkpoint(lambda y: self.layer(y), x, use_reentrant=False)

    facts = observe(traced(forward))
    node = next(node for node in facts.nodes if node.kind == "checkpoint")
    weight = next(p for p in facts.parameters if p.name == "layer.weight")
    assert set(weight.values) <= set(node.reads)


def test_frozen_python_values_are_listed() -> None:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) * int(x.shape[0]) + x.tolist()[0][0]

    assumed = [one for one in traced(forward, assumptions=True).recorder.assumed if not one.weak]
    assert [(one.what, one.taken == X.tolist() or one.taken) for one in assumed] == [("", len(X)), ("the value of .tolist()", True)]


def test_modules_called_are_known_inside_quiet_regions_too() -> None:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        return checkpoint(lambda y: self.layer(y), x, use_reentrant=False)

    called = {p.name: p.module_called for p in observe(traced(forward)).parameters}
    assert called == {"layer.weight": True, "layer.bias": True, "other.weight": False, "other.bias": False}


def test_a_replaced_weight_opens_the_layer() -> None:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        swapped = torch.func.functional_call(self.layer, {"weight": self.other.weight * 2}, (x,))
        return swapped + self.layer(x)

    kinds = [step.target for step in traced(forward).recorder.steps if step.target in ("Linear", "torch._C._nn.linear")]
    assert kinds == ["torch._C._nn.linear", "Linear"]


def test_a_write_makes_views_and_bases_new_values() -> None:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(x)
        view = y[0]
        view.mul_(2)
        return y.sum() + view.sum()

    facts = observe(traced(forward))
    write = next(node for node in facts.nodes if node.target == "Tensor.mul_")
    sums = [node for node in facts.nodes if node.target == "Tensor.sum"]
    assert {value for node in sums[:2] for value in node.reads} <= set(write.makes)


class _Scaled(torch.autograd.Function):
    """Keeps a tensor under the name that autograd's own nodes of leaves have."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.variable = torch.ones(2)
        return x * 3

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * 3


@pytest.mark.parametrize("how", [fxgrad.analyze, _watched])
def test_only_what_accumulates_is_a_leaf(how: Callable[..., fxgrad.Report]) -> None:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        return (_Scaled.apply(self.layer(x)) * 2).detach() + self.other(x)

    assert [finding.code for finding in how(forward_of(forward), (X,)).findings] == ["FXG103"]


def test_calls_of_a_fake_kernel_are_not_the_programs() -> None:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + torch.Tensor([1.0])

    targets = [[step.target for step in traced(forward, values).recorder.steps] for values in ("real", "fake")]
    assert targets[0] == targets[1]


# ------------------------------------------------------------------ scale


@pytest.mark.parametrize("values", ["real", "fake"])
def test_ten_thousand_steps_do_not_recurse(values: str) -> None:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(x)
        for _ in range(10_000 if values == "real" else 2_000):
            y = y.sin()
        return y

    result = traced(forward, values)
    facts = observe(result)
    module = regenerate(result)
    assert (result.gradients["layer.weight"] != "none", facts.error) == (True, None)
    module(X).sum().backward()


def test_a_loop_of_writes_through_views_keeps_no_dead_views() -> None:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(x).repeat(50, 1)
        for i in range(100):
            y[i].mul_(2)
        return y

    steps = [step for step in traced(forward).recorder.steps if step.target == "Tensor.mul_"]
    assert max(len(step.makes) for step in steps) == 2


@pytest.mark.parametrize(("step", "error"), [("x = x.sin()", None), ("x = x.sigmoid(); x += 1", "RuntimeError")])
def test_a_very_long_chain_is_given_back_without_a_crash(step: str, error: str | None) -> None:
    """In a process of its own: freed from its beginning such a chain overflows the C stack. Where backward raises, the error's frames hold
    the chain's end."""
    program_text = f"""
import gc, torch
from fxgrad.program.program import program
from fxgrad.trace.experiment import Experiment
from fxgrad.trace.run import run
def chain(x):
    for _ in range(60_000):
        {step}
    return x
result = run(program(chain, (torch.ones(2, requires_grad=True),), None), Experiment("real"))
assert (result.error and result.error.type) == {error!r} and len(result.recorder.steps) > 60_000
del result
gc.collect()
print("given back")
"""
    done = subprocess.run([sys.executable, "-c", program_text], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, "given back\n"), done.stderr[-500:]


def test_an_input_of_one_tensor_keeps_its_name_and_one_of_several_numbers_them() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor, pair: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
            return self.a(x) + pair[0] * pair[1]

    fixed = fxgrad.fix(Net(), (torch.ones(2, 3), (torch.ones(3), torch.ones(3)))).module
    assert [node.target for node in fixed.graph.nodes if node.op == "placeholder"] == ["x", "pair_0", "pair_1"]


class Copying(nn.Module):
    """Torch warns of what it is handed, in whatever frame calls it."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lin(x) + x.new_tensor(torch.arange(4.0))  # warned of


def test_a_warning_of_torch_keeps_the_line_of_the_program() -> None:
    before = warnings.showwarning
    with pytest.warns(UserWarning, match="To copy construct") as caught:
        fxgrad.analyze(Copying(), torch.randn(2, 4))
    lines = Path(__file__).read_text().splitlines()
    assert {one.filename for one in caught} == {__file__}
    assert all(lines[one.lineno - 1].endswith("# warned of") for one in caught)
    assert warnings.showwarning is before


class WarnsAndZero(nn.Module):
    """Further runs are made of it, for a gradient is zero; `fix` runs graphs of it besides."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.zeros(3))
        self.second = nn.Parameter(torch.zeros(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        warnings.warn("of the program", stacklevel=1)
        out = F.softmax(x) * self.first * self.second  # torch warns that `dim` is missing
        return out.add_(1)


@pytest.mark.parametrize("act", [fxgrad.analyze, fxgrad.fix])
def test_what_a_program_warns_of_is_shown_once_for_all_runs_of_it(act: Callable[..., object]) -> None:
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        act(WarnsAndZero(), (torch.randn(2, 3),))
    assert [str(one.message).partition(" ")[0] for one in shown] == ["of", "Implicit"]
    assert {one.filename for one in shown} == {__file__}


def test_a_model_may_hold_what_has_no_values() -> None:
    model = forward_of(lambda self, x: self.layer(x))
    with FakeTensorMode():
        model.register_buffer("unused", torch.zeros(3, 3))
    model.pair = TwoTensor(torch.zeros(2), torch.zeros(2))  # type: ignore[no-untyped-call]
    assert fxgrad.analyze(model, (X,)).verdicts["layer.weight"] == "flows"


def reading_its_own(self: Any, x: torch.Tensor) -> torch.Tensor:
    return self.layer(x) + self.layer.weight.grad.sum()


def reading_that_of_another(self: Any, x: torch.Tensor) -> torch.Tensor:
    return self.layer(x) * BACK.grad.size(0)  # type: ignore[union-attr]


def passing_over_it(self: Any, x: torch.Tensor) -> torch.Tensor:
    return self.layer(x) if BACK.grad is None else self.layer(x) + BACK.grad.sum()


BACK = torch.ones(2, requires_grad=True)


@pytest.mark.parametrize("values", ["real", "fake"])
@pytest.mark.parametrize("forward", [reading_its_own, reading_that_of_another])
def test_a_gradient_left_by_an_earlier_backward_is_no_error_of_the_program(forward: Any, values: Any) -> None:
    model = forward_of(forward)
    (model.layer(X).sum() + BACK.sum()).backward()  # type: ignore[operator]
    model(X)
    with pytest.raises(TraceError, match="reads a gradient that an earlier backward has left"):
        fxgrad.analyze(model, (X,), options=fxgrad.Options(values=values))
    with pytest.raises(fxgrad.FxgradError, match="reads a gradient that an earlier backward has left"):
        fxgrad.fix(model, (X,))


def test_without_one_it_raises_as_the_program_does() -> None:
    assert fxgrad.analyze(forward_of(reading_its_own), (X,)).verdicts["layer.weight"] == "blocked"
    assert fxgrad.analyze(forward_of(passing_over_it), (X,)).verdicts["layer.weight"] == "flows"


class Doubling(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return grad.mul_(2)


@pytest.mark.parametrize("values", ["real", "fake"])
def test_a_backward_that_writes_an_expanded_gradient_raises_on_fake_values_too(values: Any) -> None:
    options = fxgrad.Options(values=values)
    summed = fxgrad.analyze(forward_of(lambda self, x: Doubling.apply(self.layer(x)).sum()), (X,), options=options)
    assert summed.verdicts["layer.weight"] == "blocked"
    scaled = fxgrad.analyze(forward_of(lambda self, x: (Doubling.apply(self.layer(x)) * x).sum()), (X,), options=options)
    assert scaled.verdicts["layer.weight"] == "flows"
