"""What is often claimed about missing gradients, what torch does, and that the report says the latter.

`BELIEFS` holds one row a claim: (claim, what torch does, test function); a table of the documentation is made from it. Each function first
shows the truth by running torch, then asks the report. Claims are phrased as they are found on forums and in issue threads.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fxgrad

Test = Callable[[], None]

BELIEFS: list[tuple[str, str, Test]] = []


def belief(claim: str, truth: str) -> Callable[[Test], Test]:
    """Adds the function as a row of `BELIEFS`."""

    def add(test: Test) -> Test:
        BELIEFS.append((claim, truth, test))
        return test

    return add


def step(model: nn.Module, x: torch.Tensor, loss: Callable[[Any], torch.Tensor] = torch.sum) -> dict[str, torch.Tensor | None]:
    """The gradients that a real backward leaves, by name."""
    model.zero_grad()
    loss(model(x)).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def codes(report: fxgrad.Report) -> set[str]:
    """Codes of the findings above note level."""
    return {finding.code for finding in report.findings if finding.severity != "note"}


class Through(nn.Module):
    """Two layers with a function of the test's between them."""

    def __init__(self, between: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.between = nn.Linear(3, 3), nn.Linear(3, 1), between

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.between(self.first(x)))


@belief(
    "A custom module needs its own `backward()`, or its `x ** 2` does not train.",
    "Autograd records every differentiable torch operation; `nn.Module` has no `backward` to write.",
)
def a_module_needs_no_backward() -> None:
    model, x = Through(lambda h: h**2), torch.randn(4, 3)
    assert all(grad is not None for grad in step(model, x).values())
    report = fxgrad.analyze(model, (x,))
    assert set(report.verdicts.values()) == {"flows"}
    assert not codes(report)


@belief(
    "`y += 1` breaks backward: never write in place.",
    "It breaks only where backward needs the old value: after `y = x.exp()` it raises, after `y = 2 * x` nothing had saved `y`.",
)
def adding_in_place_is_often_harmless() -> None:
    def after(function: Callable[[torch.Tensor], torch.Tensor]) -> Through:
        def between(h: torch.Tensor) -> torch.Tensor:
            y = function(h)
            y += 1
            return y

        return Through(between)

    harmless, harmful, x = after(lambda h: 2 * h), after(torch.exp), torch.randn(4, 3)
    assert step(harmless, x)["first.weight"] is not None
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        step(harmful, x)
    assert not codes(fxgrad.analyze(harmless, (x,)))
    assert "FXG201" in codes(fxgrad.analyze(harmful, (x,)))


@belief(
    "Detaching the input stops the gradients of the layers behind it.",
    "It stops the gradient of the input only. The parameters are inputs of their own.",
)
def detaching_the_input_stops_no_parameter() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x.detach())

    model, x = Net(), torch.randn(4, 3, requires_grad=True)
    assert step(model, x)["fc.weight"] is not None
    assert x.grad is None
    assert not codes(fxgrad.analyze(model, (x,)))


@belief(
    "`loss.backward()` returned None, so no gradient was computed.",
    "It always returns None; the gradients are in `.grad` of the leaves.",
)
def backward_returns_none_by_design() -> None:
    model, x = nn.Linear(3, 1), torch.randn(4, 3)
    assert model(x).sum().backward() is None  # type: ignore[func-returns-value]
    assert model.weight.grad is not None
    assert fxgrad.analyze(model, (x,)).verdicts["weight"] == "flows"


@belief(
    "A parameter that is not in the optimizer gets no gradient.",
    "It gets one; no step changes it.",
)
def outside_the_optimizer_a_gradient_still_comes() -> None:
    model, x = Through(torch.relu), torch.randn(4, 3)
    optimizer = torch.optim.SGD(model.second.parameters(), 0.1)
    before = model.first.weight.detach().clone()
    assert step(model, x)["first.weight"] is not None
    optimizer.step()
    assert torch.equal(model.first.weight, before)
    report = fxgrad.analyze(model, (x,), optimizer=optimizer)
    assert report.verdicts["first.weight"] == "flows"
    assert codes(report) == {"FXG301"}


@belief(
    "`zero_grad()` before the first `backward()` raises, because `.grad` is still None.",
    "It skips what has no gradient. Since torch 2.0 it sets gradients to None, so None between steps is normal.",
)
def zero_grad_needs_no_gradient() -> None:
    model, x = nn.Linear(3, 1), torch.randn(4, 3)
    optimizer = torch.optim.Adam(model.parameters())
    optimizer.zero_grad()
    step(model, x)
    optimizer.zero_grad()
    assert model.weight.grad is None

    def loss(out: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        return out.sum()

    report = fxgrad.analyze(model, (x,), loss=loss, optimizer=optimizer)
    assert set(report.verdicts.values()) == {"flows"}
    assert not codes(report)


@belief(
    "`model.eval()` turns gradients off.",
    "It changes dropout, batch norm and their like. Gradients flow as before; `torch.no_grad()` is what turns them off.",
)
def eval_mode_keeps_gradients() -> None:
    model, x = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(), nn.Linear(3, 1)).eval(), torch.randn(4, 3)
    assert all(grad is not None for grad in step(model, x).values())
    assert not codes(fxgrad.analyze(model, (x,)))


@belief(
    "`model.train()` turns gradients on again after validation.",
    "It does not: after `torch.set_grad_enabled(False)` only `set_grad_enabled(True)` does.",
)
def train_mode_does_not_enable_gradients() -> None:
    model, x = Through(torch.relu), torch.randn(4, 3)
    torch.set_grad_enabled(False)
    try:
        model.train()
        assert not model(x).requires_grad
        report = fxgrad.analyze(model, (x,))
    finally:
        torch.set_grad_enabled(True)
    assert set(report.verdicts.values()) == {"blocked"}
    assert "FXG104" in codes(report)


@belief(
    '`loss.requires_grad_(True)` mends "element 0 of tensors does not require grad".',
    "It silences the error. The loss becomes a leaf, `backward()` runs, and no parameter gets anything.",
)
def requiring_grad_of_the_loss_mends_nothing() -> None:
    def loss(out: torch.Tensor) -> torch.Tensor:
        value = (out > 0).float().mean()
        value.requires_grad_(True)
        return value

    model, x = Through(torch.relu), torch.randn(4, 3)
    assert all(grad is None for grad in step(model, x, loss).values())
    report = fxgrad.analyze(model, (x,), loss=loss)
    assert set(report.verdicts.values()) == {"none"}
    assert "FXG105" in codes(report)


@belief(
    "`torch.tensor(loss, requires_grad=True)` keeps the history and lets `backward()` run.",
    "It copies the number into a new leaf without a history; `torch.stack` is what keeps it.",
)
def torch_tensor_copies_without_history() -> None:
    model, x = Through(torch.relu), torch.randn(4, 3)

    def copied(out: torch.Tensor) -> torch.Tensor:
        return torch.tensor([row.sum() for row in out], requires_grad=True).mean()

    def stacked(out: torch.Tensor) -> torch.Tensor:
        return torch.stack([row.sum() for row in out]).mean()

    assert all(grad is None for grad in step(model, x, copied).values())
    assert all(grad is not None for grad in step(model, x, stacked).values())
    report = fxgrad.analyze(model, (x,), loss=copied)
    assert set(report.verdicts.values()) == {"none"}
    assert codes(report) & {"FXG107", "FXG108"}
    assert not codes(fxgrad.analyze(model, (x,), loss=stacked))


@belief(
    '`retain_graph=True` cures "modified by an inplace operation".',
    "It keeps saved tensors for a second backward. One that was overwritten stays overwritten.",
)
def retaining_the_graph_restores_nothing() -> None:
    def between(h: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(h).mul_(2)

    model, x = Through(between), torch.randn(4, 3)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        model(x).sum().backward(retain_graph=True)
    report = fxgrad.analyze(model, (x,))
    assert set(report.verdicts.values()) == {"blocked"}
    assert "FXG201" in codes(report)


@belief(
    "`nn.ReLU(inplace=True)` loses gradients.",
    "Its backward needs the result, not the input, so after a layer that did not save its own output it is exact.",
)
def inplace_relu_is_exact_after_a_layer() -> None:
    model, x = nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True), nn.Linear(3, 1)), torch.randn(4, 3)
    twin = copy.deepcopy(model)
    twin[1].inplace = False
    mine, its = step(model, x), step(twin, x)
    assert all(torch.equal(mine[name], its[name]) for name in mine)  # type: ignore[arg-type]
    assert not codes(fxgrad.analyze(model, (x,)))


@belief(
    "`clone()` cuts the graph, as `detach()` does.",
    "`clone()` is differentiable; only `detach()` in `x.clone().detach()` cuts.",
)
def clone_is_differentiable() -> None:
    kept, cut, x = Through(torch.clone), Through(lambda h: h.clone().detach()), torch.randn(4, 3)
    assert step(kept, x)["first.weight"] is not None
    assert step(cut, x)["first.weight"] is None
    assert not codes(fxgrad.analyze(kept, (x,)))
    report = fxgrad.analyze(cut, (x,))
    assert report.verdicts["first.weight"] == "none"
    assert codes(report) == {"FXG103"}


@belief(
    "`h.detach().requires_grad_()` attaches a value to the graph again.",
    "It makes a new leaf: its own `.grad` is filled, and what lies before the detach still gets nothing.",
)
def requiring_grad_does_not_reattach() -> None:
    model, x = Through(lambda h: h.detach().requires_grad_()), torch.randn(4, 3)
    assert step(model, x)["first.weight"] is None
    report = fxgrad.analyze(model, (x,))
    assert report.verdicts["first.weight"] == "none"
    assert codes(report) == {"FXG103"}


@belief(
    "Wrapping an activation in `Variable(...)` makes autograd track it.",
    "Tensors are tracked without it since torch 0.4. `Variable(h)` of an activation gives a tensor without its history.",
)
def variable_drops_the_history() -> None:
    model, x = Through(lambda h: torch.autograd.Variable(h)), torch.randn(4, 3)
    assert step(model, x)["first.weight"] is None
    report = fxgrad.analyze(model, (x,))
    assert report.verdicts["first.weight"] == "none"
    assert codes(report) == {"FXG108"}


@belief(
    "The input must have `requires_grad=True`, or the parameters get no gradient.",
    "Parameters are leaves that require grad themselves; the input need not.",
)
def the_input_need_not_require_grad() -> None:
    model, x = Through(torch.relu), torch.randn(4, 3)
    assert not x.requires_grad
    assert all(grad is not None for grad in step(model, x).values())
    assert not codes(fxgrad.analyze(model, (x,)))


@belief(
    "Freezing a layer stops the gradients of the layers before it.",
    "A frozen layer gets none itself and passes them on.",
)
def a_frozen_layer_passes_gradients_on() -> None:
    model, x = Through(torch.relu), torch.randn(4, 3)
    model.second.requires_grad_(False)
    grads = step(model, x)
    assert grads["first.weight"] is not None
    assert grads["second.weight"] is None
    report = fxgrad.analyze(model, (x,))
    assert report.verdicts["first.weight"] == "flows"
    assert report.verdicts["second.weight"] == "none"
    assert not codes(report)


@belief(
    "`.grad is None` means that the gradient vanished.",
    "A vanished gradient is a tensor of zeros or of tiny numbers. None means that no way led back to the parameter.",
)
def a_vanished_gradient_is_not_none() -> None:
    model, x = Through(lambda h: torch.relu(h - 1e6)), torch.randn(4, 3)
    grad = step(model, x)["first.weight"]
    assert grad is not None
    assert not grad.any()
    assert fxgrad.analyze(model, (x,)).verdicts["first.weight"] != "none"


@belief(
    "`argmax(...).float()` is differentiable, for it is a float again.",
    "The cast back does not bring the history back: `argmax` recorded nothing.",
)
def a_float_of_an_index_has_no_history() -> None:
    model, x = Through(lambda h: F.one_hot(h.argmax(-1), 3).float()), torch.randn(4, 3)
    assert step(model, x)["first.weight"] is None
    report = fxgrad.analyze(model, (x,))
    assert report.verdicts["first.weight"] == "none"
    assert codes(report) == {"FXG105"}


@belief(
    "`max`, `clamp`, `where` and sorting cut the gradient.",
    "Their values are differentiable; only indices, masks and conditions are not.",
)
def values_of_max_and_where_are_differentiable() -> None:
    def between(h: torch.Tensor) -> torch.Tensor:
        h = torch.where(h > 0, h, 0.1 * h).clamp(max=5.0)
        return h.sort(-1).values + h.max(-1, keepdim=True).values

    model, x = Through(between), torch.randn(4, 3)
    assert step(model, x)["first.weight"] is not None
    assert not codes(fxgrad.analyze(model, (x,)))


@belief(
    "Filling a buffer, `out[:, i] = layer(x)`, loses the gradient.",
    "The write is recorded: what is written gets its gradient through the buffer.",
)
def a_write_into_a_buffer_is_recorded() -> None:
    def between(h: torch.Tensor) -> torch.Tensor:
        out = torch.zeros_like(h)
        for i in range(h.shape[1]):
            out[:, i] = h[:, i]
        return out

    model, x = Through(between), torch.randn(4, 3)
    assert step(model, x)["first.weight"] is not None
    assert not codes(fxgrad.analyze(model, (x,)))


@belief(
    "`x = layer(x)` throws the graph of the old `x` away.",
    "The graph is held by `grad_fn`, not by Python names.",
)
def rebinding_a_name_keeps_the_graph() -> None:
    def between(h: torch.Tensor) -> torch.Tensor:
        for _ in range(3):
            h = torch.tanh(h)
        return h

    model, x = Through(between), torch.randn(4, 3)
    assert step(model, x)["first.weight"] is not None
    assert not codes(fxgrad.analyze(model, (x,)))


@belief(
    "Calling `model.forward(x)` in place of `model(x)` loses gradients.",
    "It skips the hooks. Gradients are the same.",
)
def calling_forward_keeps_gradients() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner.forward(x)

    model, x = Net(), torch.randn(4, 3)
    assert all(grad is not None for grad in step(model, x).values())
    report = fxgrad.analyze(model, (x,))
    assert set(report.verdicts.values()) == {"flows"}
    assert not codes(report)


@belief(
    "Logging `loss.item()` breaks training.",
    "It reads a copy. Only a loss that is made of such numbers has no history.",
)
def reading_a_number_changes_nothing() -> None:
    log: list[float] = []

    def loss(out: torch.Tensor) -> torch.Tensor:
        value = out.pow(2).mean()
        log.append(value.item())
        return value

    model, x = Through(torch.relu), torch.randn(4, 3)
    assert all(grad is not None for grad in step(model, x, loss).values())
    assert not codes(fxgrad.analyze(model, (x,), loss=loss))


@belief(
    "Layers in a plain Python list get no gradient.",
    "They get one. `parameters()` does not list them, so no optimizer updates them and `state_dict()` lacks them.",
)
def layers_in_a_list_get_gradients() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = [nn.Linear(3, 3)]
            self.out = nn.Linear(3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(self.layers[0](x))

    model, x = Net(), torch.randn(4, 3)
    step(model, x)
    assert model.layers[0].weight.grad is not None
    assert [name for name, _ in model.named_parameters()] == ["out.weight", "out.bias"]
    assert codes(fxgrad.analyze(model, (x,))) == {"FXG110"}


@belief(
    "`round()` and `sign()` leave `.grad` at None.",
    "They are recorded, with a derivative of zero: the gradient is there and all zeros.",
)
def rounding_gives_zeros() -> None:
    model, x = Through(torch.round), torch.randn(4, 3)
    grad = step(model, x)["first.weight"]
    assert grad is not None
    assert not grad.any()
    report = fxgrad.analyze(model, (x,))
    assert report.verdicts["first.weight"] == "zero"
    assert codes(report) == {"FXG401"}


@belief(
    "`.data` is the same as `detach()`, so writing through it is safe.",
    "Autograd does not see the write: where backward needs the old value, the gradient is silently wrong and nothing raises.",
)
def a_write_through_data_is_not_seen() -> None:
    def through_data(h: torch.Tensor) -> torch.Tensor:
        y = torch.sigmoid(h)
        y.data.mul_(2)
        return y

    def through_detach(h: torch.Tensor) -> torch.Tensor:
        y = torch.sigmoid(h)
        y.detach().mul_(2)
        return y

    x = torch.randn(4, 3)
    model = Through(through_data)
    twin = copy.deepcopy(model)
    twin.between = lambda h: torch.sigmoid(h) * 2
    got, right = step(model, x)["first.weight"], step(twin, x)["first.weight"]
    assert got is not None
    assert right is not None
    assert not torch.allclose(got, right)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        step(Through(through_detach), x)
    assert "FXG203" in codes(fxgrad.analyze(model, (x,)))


@belief(
    "Under `allow_mutation_on_saved_tensors()` every in-place write is harmless.",
    "It misses a write through a view that begins elsewhere than its tensor (`y[::2, 1::2] += x`): backward runs, and the gradient is wrong.",
)
def allowed_mutation_misses_views() -> None:
    """The oracle of a repair is a copy of everything saved, and finite differences side with that."""
    weight, x = torch.randn(4, 4, dtype=torch.float64), torch.rand(2, 2, dtype=torch.float64)

    def program(w: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        y = w.sigmoid()
        y[::2, 1::2] += x
        return y

    def gradient(call: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], around: Any) -> torch.Tensor:
        w = weight.clone().requires_grad_()
        with around:
            call(w, x).sum().backward()
        assert w.grad is not None
        return w.grad

    step = 1e-6 * torch.eye(16, dtype=torch.float64).view(16, 4, 4)
    slopes = [(program(weight + d, x).sum() - program(weight - d, x).sum()) / 2e-6 for d in step]
    right = torch.stack(slopes).view(4, 4)
    copies = torch.autograd.graph.saved_tensors_hooks(lambda t: t.detach().clone(), lambda t: t)
    assert not torch.allclose(gradient(program, torch.autograd.graph.allow_mutation_on_saved_tensors()), right, atol=1e-3)
    torch.testing.assert_close(gradient(program, copies), right, atol=1e-6, rtol=1e-6)
    fixed = fxgrad.fix(program, (weight.clone().requires_grad_(), x)).module
    torch.testing.assert_close(gradient(fixed, contextlib.nullcontext()), right, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("test", [pytest.param(test, id=test.__name__) for _, _, test in BELIEFS])
def test_belief(test: Test) -> None:
    test()
