"""The Python API as it is called: what it takes, and what it says of arguments that make no sense."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import fxgrad
from fxgrad.records.errors import InputError


class Cut(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.body(x.to(self.body.weight.device))
        return self.head(h.detach() + torch.ones(4))


VERDICTS = {"body.weight": "none", "body.bias": "none", "head.weight": "flows", "head.bias": "flows"}


def meta(build: Any) -> Any:
    with torch.device("meta"):
        return build()


def fake(build: Any) -> Any:
    with FakeTensorMode():
        return build()


@pytest.mark.parametrize(
    "inputs",
    [
        (torch.ones(2, 4),),
        [torch.ones(2, 4)],
        {"x": torch.ones(2, 4)},
        fxgrad.Inputs((torch.ones(2, 4),), {}),
        fxgrad.Inputs((), {"x": torch.ones(2, 4)}),
        torch.ones(2, 4),
        (fake(lambda: torch.ones(2, 4)),),
    ],
)
def test_inputs_in_every_form(inputs: Any) -> None:
    assert fxgrad.analyze(Cut(), inputs).verdicts == VERDICTS


def test_meta_inputs_are_shapes_for_a_model_that_has_data() -> None:
    report = fxgrad.analyze(Cut(), (torch.empty(2, 4, device="meta"),))
    assert report.verdicts == VERDICTS
    assert report.assumptions == ("tensors on the meta device are taken to be on cpu",)


def test_a_meta_model_stands_where_its_inputs_are() -> None:
    report = fxgrad.analyze(meta(Cut), (torch.ones(2, 4),))
    assert report.verdicts == VERDICTS
    assert report.assumptions == ("tensors on the meta device are taken to be on cpu",)


def test_all_meta_stays_meta() -> None:
    model = meta(lambda: nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1)))
    report = fxgrad.analyze(model, (torch.empty(2, 4, device="meta"),))
    assert set(report.verdicts.values()) == {"flows"}
    assert report.assumptions == ()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"inputs": 3}, "inputs must be a tuple"),
        ({"inputs": ()}, "missing a required argument: 'x'"),
        ({"inputs": (torch.ones(2, 5),)}, "mat1 and mat2 shapes"),
        ({"expect": ["nothing.*"]}, "matches no parameter"),
        ({"optimizer": 3}, "holds no parameter groups"),
        ({"model": 3}, "not int"),
        ({"model": nn.LazyLinear(2), "inputs": (torch.ones(()),)}, "has no shape yet"),
    ],
)
def test_arguments_that_make_no_sense_are_an_input_error(arguments: dict[str, Any], said: str) -> None:
    given = {"model": Cut(), "inputs": (torch.ones(2, 4),), **arguments}
    with pytest.raises(fxgrad.InputError, match=said) as caught:
        fxgrad.analyze(given.pop("model"), given.pop("inputs"), **given)
    assert str(caught.value)


@pytest.mark.parametrize("form", [meta, fake])
def test_a_fix_needs_data(form: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True))
    with pytest.raises(fxgrad.FixError, match="verified on real tensors"):
        fxgrad.fix(model, (form(lambda: torch.ones(2, 4)),))


CALLS: list[int] = []


class Lazy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.LazyLinear(3), nn.Linear(3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        CALLS.append(1)
        return self.head(self.body(torch.dropout(x, 0.5, True)))


def test_the_call_that_gives_a_lazy_model_its_shapes_leaves_no_trace() -> None:
    model, before = Lazy(), torch.get_rng_state()
    assert set(fxgrad.analyze(model, (torch.ones(2, 4),)).verdicts.values()) == {"flows"}
    assert CALLS == []
    assert torch.equal(before, torch.get_rng_state())
    assert model.body.has_uninitialized_params()


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> Any:
        return self.a(x)


class Takes(Linear):
    """Makes tensors of what it gets."""

    def forward(self, x: Any) -> Any:
        return super().forward(torch.as_tensor(x))


class Forgets(Linear):
    """Without `return`."""

    def forward(self, x: torch.Tensor) -> Any:
        x = self.a(x)


class Picks(Linear):
    """Returns numbers of classes."""

    def forward(self, x: torch.Tensor) -> Any:
        x = self.a(x)
        return x.argmax(1)


X = (torch.ones(4, 3),)
MISTAKES: dict[str, tuple[Any, Any, Any, str, str]] = {
    "a class": (Linear, X, None, "the model is the class Linear, not an instance of it", "pass Linear(...)"),
    "a file": ("model.py", X, None, "the model is a text, 'model.py'", "fxgrad report model.py"),
    "nothing": (None, X, None, "the model must be an nn.Module or a callable, not NoneType", "pass the module itself"),
    "a criterion": (
        Linear(),
        X,
        nn.MSELoss(),
        "the loss MSELoss takes input, target, but",
        "loss=lambda output: criterion(output, target)",
    ),
    "a function of two": (Linear(), X, nn.functional.mse_loss, "the loss mse_loss takes input, target, but", "loss=lambda output: "),
    "a class of losses": (Linear(), X, nn.MSELoss, "the loss is the class MSELoss, not", "loss=lambda output: "),
    "a loss that was computed": (Linear(), X, X[0].sum(), "the loss is a tensor that was computed before", "pass a function"),
    "the name of a loss": (Linear(), X, "mse", "the loss is of type str, not", "loss=lambda output: "),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("call", [fxgrad.analyze, fxgrad.fix])
def test_what_is_no_model_or_loss_gets_what_to_write(call: Any, mistake: str) -> None:
    model, inputs, loss, reason, hint = MISTAKES[mistake]
    with pytest.raises(InputError) as caught:
        call(model, inputs, loss=loss)
    assert caught.value.reason.startswith(reason)
    assert hint in caught.value.hint


def test_a_forward_that_forgets_its_return_is_told() -> None:
    with pytest.raises(InputError, match="the model returns None") as caught:
        fxgrad.analyze(Forgets(), X)
    assert "is a `return` missing" in caught.value.hint
    assert caught.value.site is not None
    assert caught.value.site.line == Forgets.forward.__code__.co_firstlineno


def test_an_output_without_a_floating_tensor_is_refused_at_its_return() -> None:
    with pytest.raises(InputError, match="no floating tensor") as caught:
        fxgrad.analyze(Picks(), X)
    assert caught.value.site is not None
    assert caught.value.site.line == Picks.forward.__code__.co_firstlineno + 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_programs_without_lines_are_refused() -> None:
    for model, said in (
        (torch.jit.trace(Linear(), X), "the model is TorchScript"),
        (torch.export.export(Linear(), X), "the model is an ExportedProgram"),
    ):
        with pytest.raises(InputError, match=said):
            fxgrad.analyze(model, X)


def test_arrays_are_refused_where_the_model_takes_none() -> None:
    array = X[0].numpy()
    for inputs in ((array,), {"x": array}, array):
        with pytest.raises(InputError) as caught:
            fxgrad.analyze(Linear(), inputs)
        assert "torch.from_numpy" in caught.value.hint
    assert fxgrad.analyze(Takes(), (array,)).ok


def test_a_criterion_with_a_target_of_its_own_is_a_loss() -> None:
    assert fxgrad.analyze(Linear(), X, loss=lambda output: nn.functional.mse_loss(output, torch.zeros(4, 2))).ok


class Centres(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.centres = torch.nn.Parameter(torch.ones(3, 2))

    def forward(self, x: torch.Tensor) -> Any:
        self.centres.mul_(0.9)
        return x @ self.centres


def test_a_write_that_raises_is_the_one_that_is_judged_whatever_runs_on_the_way_out() -> None:
    """`DataParallel` ends a mark of the profiler, as every `with` may end something."""
    report = fxgrad.analyze(torch.nn.DataParallel(Centres()), X)
    assert [(f.code, f.parameters) for f in report.findings] == [("FXG202", ("module.centres",))]
