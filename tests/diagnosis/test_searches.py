"""What takes more than one run: branches on fake values, decisions nobody compares, numbers that come back, opened checkpoints."""

from __future__ import annotations

import copy
import linecache
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import fxgrad
from fxgrad import Options
from fxgrad.diagnosis.branches import outcomes
from fxgrad.program.program import program
from fxgrad.trace.experiment import Experiment
from fxgrad.trace.run import run


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(3)


class Gated(nn.Module):
    """Two heads, one per outcome of `decide`."""

    def __init__(self, decide: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.stem, self.yes, self.no = nn.Linear(3, 3), nn.Linear(3, 1), nn.Linear(3, 1)
        self.decide = decide

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.stem(x)
        if self.decide(h):
            return self.yes(h)
        return self.no(h)


def verdict(report: Any, module: str) -> str:
    (found,) = {v for name, v in report.verdicts.items() if name.startswith(f"{module}.")}
    return found


def text(site: Any) -> str:
    return linecache.getline(site.file, site.line).strip()


def found(report: Any, code: str) -> list[Any]:
    return [f for f in report.findings if f.code == code]


# ---------------------------------------------------------------------------------------------------------------- unknown values


def test_on_fake_values_both_outcomes_are_undecided() -> None:
    report = fxgrad.analyze(Gated(lambda h: h.sum() > 0), (torch.randn(2, 3),), options=Options(values="fake"))
    assert {m: verdict(report, m) for m in ("stem", "yes", "no")} == {"stem": "flows", "yes": "branch", "no": "branch"}
    (finding,) = found(report, "FXG115")
    assert finding.severity == "error"
    assert text(finding.site) == "if self.decide(h):"


def test_on_real_values_the_inputs_decide() -> None:
    report = fxgrad.analyze(Gated(lambda h: h.sum() < 1e9), (torch.randn(2, 3),))
    assert {m: verdict(report, m) for m in ("stem", "yes", "no")} == {"stem": "flows", "yes": "flows", "no": "branch"}
    (finding,) = found(report, "FXG115")
    assert set(finding.parameters) == {"no.weight", "no.bias"}
    assert "as it is for the example inputs" in finding.message


@pytest.mark.parametrize(
    ("decide", "call"),
    [
        (lambda h: h.mean().item() > 0, "`.item()`"),
        (lambda h: float(h.mean()) > 0, "float()"),
        (lambda h: int(h.argmax()) == 2, "int()"),
        (lambda h: max(h.argmax(-1).tolist()) > 0, "`.tolist()`"),
        (lambda h: h.detach().numpy().max() > 0, "`.numpy()`"),
    ],
)
def test_meta_tensors_have_no_value_and_the_error_names_the_line(decide: Callable[[torch.Tensor], Any], call: str) -> None:
    model = Gated(decide).to("meta")
    with pytest.raises(fxgrad.TraceError) as raised:
        fxgrad.analyze(model, (torch.randn(2, 3, device="meta"),))
    message = str(raised.value)
    assert message.startswith(f"{__file__}:"), message
    assert f"{call} reads a value, and the model or its inputs have none" in message
    line = int(message.removeprefix(f"{__file__}:").split(":")[0])
    assert "lambda h:" in linecache.getline(__file__, line)


def test_forced_fake_values_ask_for_real_ones() -> None:
    with pytest.raises(fxgrad.TraceError, match=r"fake tensors have none.*values=\"real\""):
        fxgrad.analyze(Gated(lambda h: h.mean().item() > 0), (torch.randn(2, 3),), options=Options(values="fake"))


class Checked(nn.Module):
    """Two branches of which one reads a number, as the validation of a distribution and a logged divergence do."""

    def __init__(self, decide: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.net, self.extra = nn.Linear(3, 3), nn.Linear(3, 3)
        self.decide = decide
        self.log: list[float] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.net(x)
        if not self.decide(h):
            raise ValueError("out of range")
        self.log.append(h.mean().item())
        return h


def test_an_outcome_that_reads_a_value_asks_for_real_ones() -> None:
    """On fake values the first outcome raises and the other cannot be followed: neither is the program's verdict."""
    model = Checked(lambda h: (h < 1e9).all())
    with pytest.raises(fxgrad.TraceError, match=r"`.item\(\)` reads a value.*values=\"real\""):
        fxgrad.analyze(model, (torch.randn(2, 3),), options=Options(values="fake"))
    report = fxgrad.analyze(model, (torch.randn(2, 3),))
    assert {m: verdict(report, m) for m in ("net", "extra")} == {"net": "flows", "extra": "none"}


def test_an_error_of_the_stand_ins_is_not_the_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module copied in forward and moved to another device: torch swaps tensors there, which fake ones do not allow."""

    class Stacked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList(nn.Linear(3, 1) for _ in range(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            base = copy.deepcopy(self.parts[0]).to("meta")
            weights = {name: torch.stack([part.get_parameter(name) for part in self.parts]) for name in ("weight", "bias")}
            return torch.vmap(lambda one: torch.func.functional_call(base, one, (x,)))(weights)

    monkeypatch.setattr("fxgrad.diagnosis.gather.REAL_ELEMENTS", 0)
    report = fxgrad.analyze(Stacked(), (torch.randn(2, 3),), loss=lambda out: out.square().sum())
    assert set(report.verdicts.values()) == {"flows"}


# ---------------------------------------------------------------------------------------------------------------- many outcomes


class Dropping(nn.Module):
    """LayerDrop: each layer is kept or skipped by a draw."""

    def __init__(self, layers: int, draw: Callable[[], Any]) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 3)
        self.layers = nn.ModuleList(nn.Linear(3, 3) for _ in range(layers))
        self.draw = draw

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        for layer in self.layers:
            if self.draw():
                continue
            x = x + torch.tanh(layer(x))
        return x


def test_every_layer_of_a_loop_is_turned() -> None:
    report = fxgrad.analyze(Dropping(8, lambda: torch.rand(()) < 2.0), (torch.randn(2, 3),), loss=lambda out: out.square().sum())
    assert {verdict(report, f"layers.{i}") for i in range(8)} == {"branch"}
    assert len(found(report, "FXG115")) == 1


def test_the_bound_on_paths_is_reported() -> None:
    options = Options(max_paths=3)
    report = fxgrad.analyze(
        Dropping(8, lambda: torch.rand(()) < 2.0), (torch.randn(2, 3),), loss=lambda out: out.square().sum(), options=options
    )
    assert report.paths == 3
    assert report.paths_cut_off


def test_a_loop_that_waits_does_not_use_up_the_paths() -> None:
    class Waiting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.step = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            z = x
            for _ in range(30):
                z = torch.tanh(self.step(z) + x)
                if z.norm() < 1e-9:
                    break
            return z

    report = fxgrad.analyze(Waiting(), (torch.randn(2, 3),), loss=lambda out: out.square().sum())
    assert set(report.verdicts.values()) == {"flows"}
    assert report.paths < 8
    assert not report.paths_cut_off


# ---------------------------------------------------------------------------------------------------------------- hidden decisions


@pytest.mark.parametrize("draw", [lambda: random.random() < 0.5, lambda: np.random.rand() < 0.5], ids=["random", "numpy"])
def test_a_random_draw_of_python_is_a_branch(draw: Callable[[], Any]) -> None:
    random.seed(1)
    np.random.seed(1)
    report = fxgrad.analyze(Dropping(6, draw), (torch.randn(2, 3),), loss=lambda out: out.square().sum())
    verdicts = {verdict(report, f"layers.{i}") for i in range(6)}
    assert verdicts == {"flows", "branch"}
    (finding,) = found(report, "FXG115")
    assert text(finding.site) == "if self.draw():"
    assert "a random draw" in finding.message


def test_drawing_does_not_change_the_random_state() -> None:
    random.seed(5)
    np.random.seed(5)
    before = random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state().tolist()
    fxgrad.analyze(Dropping(4, lambda: random.random() + np.random.rand() < 1.0), (torch.randn(2, 3),), loss=lambda out: out.sum())
    torch.manual_seed(3)
    torch.randn(2, 3)  # the inputs above
    after = random.getstate(), np.random.get_state()[1].tobytes()
    assert before[:2] == after


def test_parameters_that_no_number_brings_back_stay_unused() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.spare = nn.Linear(3, 2), nn.Linear(3, 2)
            self.seen: list[float] = []

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = self.net(x)
            self.seen.append(out.norm().item())
            return out

    report = fxgrad.analyze(Unused(), (torch.randn(2, 3),), loss=lambda out: out.square().sum())
    assert verdict(report, "spare") == "none"
    assert [f.code for f in report.findings] == ["FXG101"]


# ---------------------------------------------------------------------------------------------------------------- numbers that come back


def test_a_number_that_is_only_logged_is_no_detour() -> None:
    """The spare head's value leaves torch and nothing depends on it; a table that enters from NumPy is not blamed on it."""
    table = np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3)

    class Logged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.spare = nn.Linear(3, 3), nn.Linear(3, 3)
            self.log: list[Any] = []

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.log.append(self.spare(x).detach().numpy())
            return self.net(x) + torch.from_numpy(table)

    report = fxgrad.analyze(Logged(), (torch.randn(2, 3),), loss=lambda out: out.square().sum())
    assert [f.code for f in report.findings] == ["FXG101"]


def test_numbers_read_off_data_have_numpys_weak_types() -> None:
    class Stepping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            shift = np.zeros(3, dtype=np.float32) + x.argmax().item() * 1
            return self.net(torch.from_numpy(shift * x.mean().item()))

    report = fxgrad.analyze(Stepping(), (torch.randn(2, 3),), loss=lambda out: out.square().sum())
    assert set(report.verdicts.values()) == {"flows"}


# ---------------------------------------------------------------------------------------------------------------- checkpoints


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.before, self.inside, self.after = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)
        self.reentrant = reentrant

    def block(self, x: torch.Tensor) -> torch.Tensor:
        h = self.inside(x).detach()
        return torch.tanh(self.after(h))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return checkpoint(self.block, self.before(x), use_reentrant=self.reentrant)


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_cut_inside_a_checkpoint_is_named_there(reentrant: bool) -> None:
    report = fxgrad.analyze(Checkpointed(reentrant), (torch.randn(2, 3),), loss=lambda out: out.square().sum())
    assert {m: verdict(report, m) for m in ("before", "inside", "after")} == {"before": "none", "inside": "none", "after": "flows"}
    (finding,) = report.findings
    assert finding.code == "FXG103"
    assert text(finding.site) == "h = self.inside(x).detach()"


def test_a_branch_inside_a_checkpoint_is_explored() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

        def block(self, x: torch.Tensor) -> torch.Tensor:
            if x.sum() < 1e9:
                return self.a(x)
            return self.b(x)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return checkpoint(self.block, x, use_reentrant=False)

    report = fxgrad.analyze(Branching(), (torch.randn(2, 3),), loss=lambda out: out.square().sum())
    assert verdict(report, "b") == "branch"
    assert text(found(report, "FXG115")[0].site) == "if x.sum() < 1e9:"


# ---------------------------------------------------------------------------------------------------------------- the user's world

OUTSIDE = nn.Linear(3, 1)


def test_a_global_layer_is_found_and_left_alone() -> None:
    class Using(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return OUTSIDE(self.net(x))

    report = fxgrad.analyze(Using(), (torch.randn(2, 3),), loss=lambda out: out.square().sum())
    assert [(f.code, text(f.site)) for f in report.findings] == [("FXG110", "OUTSIDE = nn.Linear(3, 1)")]
    assert OUTSIDE.weight.grad is None


def test_a_parameter_taken_away_in_forward_keeps_its_gradient() -> None:
    class Folded(nn.Module):
        """The old weight norm: the parameter gives way to what is computed from it, for good."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 2, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            weight = self.inner._parameters.pop("weight")
            self.inner.weight = weight * 2
            return self.inner(x)

    report = fxgrad.analyze(Folded(), (torch.randn(2, 3),), loss=lambda out: out.square().sum())
    assert dict(report.verdicts) == {"inner.weight": "flows"}


def test_turned_decisions_are_replayed_in_order() -> None:
    target = program(Gated(lambda h: h.sum() < 1e9), (torch.randn(2, 3),), None)
    main = run(target, Experiment("real"))
    assert outcomes(main) == (True,)
    other = run(target, Experiment("real", forced=(False,)))
    assert outcomes(other) == (False,)
    assert other.gradients["no.weight"] == "some"
    assert other.gradients["yes.weight"] == "none"


class Words(nn.Module):
    """Targets of rare words use the softmax's tail, others do without."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.words = nn.Linear(4, 4), nn.AdaptiveLogSoftmaxWithLoss(4, 12, [4, 8], div_value=1.0)

    def forward(self, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return self.words(self.body(x), target).loss  # type: ignore[no-any-return]  # a module's call is Any


def test_a_part_that_torchs_own_module_did_without_is_not_to_be_removed() -> None:
    report = fxgrad.analyze(Words(), (torch.rand(5, 4), torch.tensor([0, 1, 5, 6, 2])))
    (found,) = (f for f in report.findings if f.code == "FXG101")
    assert found.parameters == ("words.tail.1.0.weight", "words.tail.1.1.weight")
    assert (found.message, "remove" in found.fix.advice) == (
        "AdaptiveLogSoftmaxWithLoss does without `words.tail.1` for these inputs: 2 parameters get no gradient",
        False,
    )


def test_an_empty_selection_decides_where_no_line_is_the_users_too() -> None:
    """The model itself is torch's: its own loop over clusters runs in the open."""
    report = fxgrad.analyze(Words().words, (torch.rand(5, 4), torch.tensor([0, 1, 5, 6, 2])))
    tails = {name: verdict for name, verdict in report.verdicts.items() if name.startswith("tail")}
    assert tails == {f"tail.{i}.{j}.weight": "branch" if i else "flows" for i in (0, 1) for j in (0, 1)}


@pytest.mark.parametrize(
    "x",
    [torch.tensor([[1.0, 2.0, 4.0]]).expand(5, 3), torch.tensor([[1.0], [3.0]]).expand(2, 3), torch.arange(7.0).unfold(0, 3, 1)],
    ids=["rows", "columns", "windows"],
)
@pytest.mark.parametrize(
    "forward",
    [lambda m, x: m.weight * 0 * x, lambda m, x: (m.weight * x).round(), lambda m, x: m.weight * (x * 0).expand(4, *x.shape)],
    ids=["times zero", "round", "times zeros"],
)
def test_a_zero_is_confirmed_on_an_expanded_input(forward: Callable[[Any, torch.Tensor], torch.Tensor], x: torch.Tensor) -> None:
    """Other numbers are drawn for it once, into the memory that all its rows share."""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.rand(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return forward(self, x)

    assert fxgrad.analyze(Scaled(), (x,)).verdicts == {"weight": "zero"}
