"""Shapes of programs on which a model of some package once failed: each small, with the same cause, and judged against eager."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.parameter import is_lazy

import fxgrad
from tests.zoo.judge import judge

X = torch.linspace(-1, 1, 12).reshape(3, 4)


def assert_good(build: Callable[[], tuple[nn.Module, Any]]) -> None:
    """Analysed, exact, regenerated bit-equal, rewritten in both modes."""
    outcome = judge("program", build, "auto", rewrite=True)
    assert outcome.reasons == {}
    assert (outcome.eager, outcome.analysed, outcome.exact, outcome.regenerated) == (True, True, True, True)
    assert (outcome.needed, outcome.all) == ("equal", "equal")


class Uncounted(tuple):  # type: ignore[type-arg]  # its elements do not matter
    """A tuple that refuses to be counted, as e3nn's representations do."""

    def __len__(self) -> int:
        raise NotImplementedError


class HoldsUncounted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.parts = nn.Linear(4, 4), Uncounted((1, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def test_container_with_methods_of_its_own() -> None:
    assert_good(lambda: (HoldsUncounted(), (X,)))


class TriesArguments(nn.Module):
    """Calls each layer with an argument that only some of them know."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4), nn.LeakyReLU()])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            try:
                x = layer(x, lengths=None)
            except TypeError:
                x = layer(x)
        return x


class TriesAnOperator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(x).t()
        try:
            return y.view(-1)
        except RuntimeError:
            return y.reshape(-1)


@pytest.mark.parametrize("model", [TriesArguments, TriesAnOperator])
def test_call_that_raises_and_is_done_in_another_way(model: type[nn.Module]) -> None:
    assert_good(lambda: (model(), (X,)))


class Warns(nn.Module):
    """A branch on data that computes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if (x > 100).any():
            warnings.warn("large input", stacklevel=2)
        return self.layer(x).relu_()


class SkipsMask(nn.Module):
    """A branch on a mask of ones that the forward itself made."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        if mask is None:
            mask = torch.ones(x.shape[0], dtype=torch.bool)
            mask[0] = True
        y = self.layer(x)
        return y if mask.all() else y * mask[:, None]


class Checks(nn.Module):
    """A branch on data that raises."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.isnan().any():
            raise ValueError("not a number")
        return self.layer(x)


class ChecksAndTells(Checks):
    """One whose message reads the data again."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.max() <= 5, f"expected at most 5, got {x.max()}"
        return self.layer(x)


class Recovers(Checks):
    """It takes another way, which ends in an error that nobody raised on purpose."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.max() > 5:
            return [self.layer(x)][int(x.max())]
        return self.layer(x)


def test_an_error_on_the_other_way_is_no_check() -> None:
    with pytest.raises(fxgrad.FxgradError, match="takes a branch on the value of a tensor"):
        fxgrad.fix(Recovers(), (X,))


@pytest.mark.parametrize("model", [Warns, SkipsMask, Checks, ChecksAndTells])
def test_branch_on_data_that_a_graph_can_do_without(model: type[nn.Module]) -> None:
    assert_good(lambda: (model(), (X,)))


def test_a_check_that_the_graph_does_without_is_listed() -> None:
    frozen = fxgrad.fix(Checks(), (X,)).frozen
    assert [(f.what, f.site.line - Checks.forward.__code__.co_firstlineno) for f in frozen if f.site] == [
        ("a check that raises for other values", 1)
    ]


class Rounds(nn.Module):
    """As many rounds as a mask selects: a mixture of experts that goes through those that were hit."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def rounds(self, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        for i in mask.nonzero():
            y = y + i.sum() * self.layer.bias
        return y

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.rounds(self.layer(x), mask)


class RoundsBySize(Rounds):
    def rounds(self, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        for _ in range(y[mask].shape[0]):
            y = y + self.layer.bias
        return y


class RoundsAfterMuchElse(Rounds):
    """What is looped over is the last of many selections, and by a helper that selected for a sum before."""

    def rounds(self, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        y = y + (y[mask].sum() + y[mask].mean() + y[mask].max() + y[mask].min()) + (y[mask].sum() + y[mask].mean() + y[mask].max())
        y = y + (y[mask].sum() + y[mask].mean() + y[mask].max() + y[mask].min()) + (y[mask].sum() + y[mask].mean() + y[mask].max())
        y = y + picked(mask).sum()
        for i in picked(mask):
            y = y + i.sum() * self.layer.bias
        return y


def picked(mask: torch.Tensor) -> torch.Tensor:
    return mask.nonzero()


@pytest.mark.parametrize("mask", [torch.tensor([True, False, True]), torch.tensor([True, True, True])])
def test_every_way_to_a_selection_is_tried(mask: torch.Tensor) -> None:
    with pytest.raises(fxgrad.FxgradError, match="as often as data selects here") as raised:
        fxgrad.fix(RoundsAfterMuchElse(), (X, mask))
    assert raised.value.site is not None
    assert raised.value.site.line == picked.__code__.co_firstlineno + 1


class NoRounds(Rounds):
    """What is selected is only computed with, and its number only divided by."""

    def rounds(self, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        chosen = y[mask]
        return chosen.sum() / chosen.shape[0] + torch.stack([row for row in chosen.sum(0)]).sum()


SELECTIONS = [torch.tensor([True, False, True]), torch.tensor([True, True, True])]


@pytest.mark.parametrize("mask", SELECTIONS)
@pytest.mark.parametrize("model", [Rounds, RoundsBySize])
def test_a_loop_over_what_data_selects_is_refused(model: type[Rounds], mask: torch.Tensor) -> None:
    with pytest.raises(fxgrad.FxgradError, match="as often as data selects here") as raised:
        fxgrad.fix(model(), (X, mask))
    assert raised.value.site is not None
    assert raised.value.site.line == model.rounds.__code__.co_firstlineno + 1


@pytest.mark.parametrize("mask", SELECTIONS)
def test_computing_with_a_selection_is_no_loop(mask: torch.Tensor) -> None:
    model = NoRounds()
    fixed = fxgrad.fix(model, (X, mask))
    for other in SELECTIONS:
        assert torch.equal(fixed.module(X, other), model(X, other))


class Shortcut(nn.Module):
    """A mask is skipped where it masks nothing, but not while the program is exported: what transformers does with `attention_mask`."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        y = self.layer(x).exp()
        y += 1
        if not torch.compiler.is_exporting() and mask.all():
            return y
        return y * self.weight(mask)

    def weight(self, mask: torch.Tensor) -> torch.Tensor:
        return mask[:, None].to(torch.float32)


class LiesWhenExported(Shortcut):
    def weight(self, mask: torch.Tensor) -> torch.Tensor:
        return 2 * super().weight(mask)


class BranchesWhenExported(Shortcut):
    def weight(self, mask: torch.Tensor) -> torch.Tensor:
        return super().weight(mask) if mask.any() else torch.zeros(3, 1)


MASKS = (torch.tensor([True, True, True]), torch.tensor([True, False, True]))


@pytest.mark.parametrize("mask", MASKS)
def test_a_branch_that_the_program_does_without_when_exported(mask: torch.Tensor) -> None:
    model = Shortcut()
    fixed = fxgrad.fix(model, (X, mask))
    assert "is_exporting" in fixed.frozen[0].what
    assert fixed.frozen[0].site is not None
    assert fixed.frozen[0].site.line == Shortcut.forward.__code__.co_firstlineno + 3
    assert len(fixed.applied) == 1
    assert not torch.compiler.is_exporting()
    assert not torch.compiler.is_compiling()
    out_of_place = BranchFree(model)
    for other in MASKS:  # whatever the values
        assert torch.equal(fixed.module(X, other), out_of_place(X, other))


class BranchFree(nn.Module):
    def __init__(self, model: Shortcut) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return (self.model.layer(x).exp() + 1) * self.model.weight(mask)


@pytest.mark.parametrize(
    ("model", "mask"), [(LiesWhenExported, MASKS[0]), (BranchesWhenExported, MASKS[0]), (BranchesWhenExported, MASKS[1])]
)
def test_a_way_for_export_that_is_another_or_branches_is_refused(model: type[Shortcut], mask: torch.Tensor) -> None:
    with pytest.raises(fxgrad.FxgradError, match="takes a branch on the value of a tensor") as raised:
        fxgrad.fix(model(), (X, mask))
    assert raised.value.site is not None
    assert raised.value.site.line == Shortcut.forward.__code__.co_firstlineno + 3
    assert not torch.compiler.is_exporting()


class DottedNames(nn.Module):
    """Its parameters are registered under names with dots, as tensordict's modules register those of a network."""

    def __init__(self) -> None:
        super().__init__()
        self._parameters["net.0.weight"] = nn.Parameter(torch.ones(4, 4))
        self._buffers["net.0.scale"] = torch.ones(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x @ self._parameters["net.0.weight"]).exp() * self._buffers["net.0.scale"]


def test_names_with_dots() -> None:
    assert_good(lambda: (nn.Sequential(DottedNames()), (X,)))
    module = fxgrad.fix(DottedNames(), (X,)).module
    assert list(module.state_dict()) == list(DottedNames().state_dict())


class Gates(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.other = nn.Linear(4, 4), nn.Linear(4, 4)
        self.register_buffer("first", torch.tensor(True))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 100:
            return self.other(x)
        return self.layer(x)


class BranchesOnBuffer(Gates):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) if self.first else self.other(x)


class BranchesOnChance(Gates):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) if torch.rand(()) < 2 else self.other(x)


class BranchesOnWrittenMask(Gates):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = torch.ones(3, dtype=torch.bool)
        mask[x[:, 0] > 100] = False
        return self.layer(x) if mask.all() else self.other(x)


class ScalesByOutcome(Gates):
    """The same operators on both sides, and another constant."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = 2.0 if x.sum() > 100 else 3.0
        return self.layer(x) * scale


class FailsInOperator(Gates):
    """The other side raises because of these inputs, not by itself."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 100:
            x = x.reshape(5, 5)
        return self.layer(x)


@pytest.mark.parametrize("model", [Gates, BranchesOnBuffer, BranchesOnChance, BranchesOnWrittenMask, ScalesByOutcome, FailsInOperator])
def test_branch_on_data_that_matters_is_refused(model: type[nn.Module]) -> None:
    with pytest.raises(fxgrad.FixError, match="branch on the value of a tensor"):
        fxgrad.fix(model(), (X,))


class Lazy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.LazyLinear(4), nn.LazyBatchNorm1d())
        self.unused = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def test_lazy_modules_are_analysed_and_stay_lazy() -> None:
    torch.manual_seed(5)
    model = Lazy()
    before = torch.get_rng_state()
    report = fxgrad.analyze(model, (X,), loss=lambda out: out.square().mean())
    assert {n for n, v in report.verdicts.items() if v == "none"} == {"unused.weight", "unused.bias"}
    assert report.verdicts["layers.0.weight"] in ("flows", "zero")
    assert report.assumptions == ("lazy modules got their parameters from one call of a copy",)
    assert is_lazy(model.layers[0].weight)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_optimizer_of_a_lazy_model_holds_what_the_model_holds() -> None:
    model = Lazy()
    optimizer = torch.optim.SGD(model.unused.parameters(), lr=0.1)
    optimizer.add_param_group({"params": list(model.layers.parameters())})
    codes = {f.code for f in fxgrad.analyze(model, (X,), optimizer=optimizer).findings}
    assert codes == {"FXG101", "FXG303"}


class Quadrature(torch.autograd.Function):
    """The mean of a function's values; its backward differentiates the function with regard to the tensors it is told of."""

    @staticmethod
    def forward(ctx: Any, f: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, *phi: torch.Tensor) -> torch.Tensor:
        ctx.f = f
        ctx.save_for_backward(x, *phi)
        return f(x) / 2

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]  # one gradient, one result
        x, *phi = ctx.saved_tensors
        with torch.enable_grad():
            y = ctx.f(x) / 2
        return None, None, *torch.autograd.grad(y, phi, grad)


class Scaled:
    """A method bound to what holds a tensor of the run."""

    def __init__(self, scale: torch.Tensor) -> None:
        self.scale = scale

    def f(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale.exp()


def scaled(scale: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return x * scale.exp()


@pytest.mark.parametrize(
    "take",
    [lambda s: Scaled(s).f, lambda s: functools.partial(scaled, s), lambda s: (lambda held: lambda x: held[0](x))([Scaled(s).f]), lambda s: lambda x, inner=s: x * inner.exp()],
    ids=["method", "partial", "variable", "default"],
)  # fmt: skip
def test_function_handed_on_together_with_what_it_holds(take: Callable[[torch.Tensor], Callable[[torch.Tensor], torch.Tensor]]) -> None:
    class Integrates(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            scale = self.layer(x)
            return Quadrature.apply(take(scale), x, scale)

    assert_good(lambda: (Integrates(), (X,)))


class StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:  # type: ignore[override]  # one gradient, one result
        return grad


straight_through = StraightThrough.apply


class Rounds(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return straight_through(self.layer(x))


def test_custom_function_under_a_name_of_its_own() -> None:
    assert_good(lambda: (Rounds(), (X,)))
    report = fxgrad.analyze(Rounds(), (X,))
    assert dict(report.verdicts) == {"layer.weight": "flows", "layer.bias": "flows"}
    assert not report.findings
    assert "StraightThrough_apply" in fxgrad.fix(Rounds(), (X,)).module.code


class DropsGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> None:  # type: ignore[override]  # one gradient, one result
        return None


drops_gradient = DropsGradient.apply


class Drops(Rounds):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return drops_gradient(self.layer(x)) + x.new_zeros((), requires_grad=True)


def test_custom_function_under_a_name_of_its_own_is_what_drops_the_gradient() -> None:
    report = fxgrad.analyze(Drops(), (X,))
    assert set(report.verdicts.values()) == {"none"}
    assert {f.code for f in report.findings} == {"FXG112"}


class WritesIntoArguments(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, options: dict[str, Any]) -> torch.Tensor:
        options["seen"] = options.get("seen", 0) + 1
        options["kept"].append(1)
        return x * 2

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:  # type: ignore[override]  # one gradient a result
        return grad * 2, None


class HandsOnOptions(Rounds):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return WritesIntoArguments.apply(self.layer(x), {"kept": []}).relu_()


def test_custom_function_that_writes_into_a_dictionary_it_is_given() -> None:
    assert_good(lambda: (HandsOnOptions(), (X,)))


class OfModuleRegression(nn.Module):
    """Its module's name begins as that of a module of the standard library whose objects are not looked into."""

    __module__ = "regression"

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.layer = nn.Parameter(torch.ones(4)), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.layer(x) * self.scale).relu_()


def test_model_of_a_module_named_much_like_another() -> None:
    assert_good(lambda: (OfModuleRegression(), (X,)))


class DrawsFromItsOwnGenerator(Rounds):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        generator = torch.Generator().manual_seed(7)
        first = torch.randn(x.shape, generator=generator)
        return (self.layer(x) * first).relu_() + torch.randn(x.shape, generator=generator)


def test_generator_that_the_forward_makes() -> None:
    assert_good(lambda: (DrawsFromItsOwnGenerator(), (X,)))
    whats = [f.what for f in fxgrad.fix(DrawsFromItsOwnGenerator(), (X,)).frozen]
    # The second draw begins where the first has ended, which is another place for another batch.
    assert whats == ["the random numbers of a generator that the forward makes"] * 2 + ["`x.size(0)` is 3"]
