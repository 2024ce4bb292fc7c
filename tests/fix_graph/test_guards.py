"""Guards: a module gives what the plain program gives, or raises GuardError with the line; what nothing is taken for granted of is any."""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fxgrad
from fxgrad.fix_graph.export.package import export_module
from fxgrad.world.reach import Reach

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
SCALE = 2.0
COUNT = 0


class Two(nn.Module):
    """Two layers, and whatever Python a forward may read."""

    kind = 1.5

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.layers, self.plain = nn.ModuleList([self.a, self.b]), [self.a, self.b]
        self.scale, self.mode, self.steps, self.rates = 2.0, "a", 0, [1.0, 2.0]
        self.config = SimpleNamespace(scale=3.0, inner=SimpleNamespace(on=True), unread=1)
        self.kept: Any = None
        self.found: dict[Any, Any] = {}
        self.generator = random.Random(0)


Forward = Callable[..., torch.Tensor]


def net(forward: Forward) -> Any:
    torch.manual_seed(0)
    return type(forward.__name__, (Two,), {"forward": forward})()


# ---------------------------------------------------------------------------------------------- nothing is taken for granted


def layers_alone(self: Two, x: torch.Tensor) -> torch.Tensor:
    return self.b(F.dropout(self.a(x).relu_(), 0.0))


def sizes_in_arithmetic(self: Two, x: torch.Tensor) -> torch.Tensor:
    b, c = x.shape[0], x.size(-1)
    return self.a(x).view(b, 2, c // 2).reshape(x.size(0), -1) / b


def a_length(self: Two, x: torch.Tensor) -> torch.Tensor:
    return self.a(x) / len(x) + torch.zeros(len(x), 1)


def a_number_in_arithmetic(self: Two, x: torch.Tensor) -> torch.Tensor:
    return self.a(x) * x.sum().item() + x.max().item()


def elements_by_numpy(self: Two, x: torch.Tensor) -> torch.Tensor:
    return self.a(x) / np.prod(x.shape)


def halves(self: Two, x: torch.Tensor) -> torch.Tensor:
    left, right = self.a(x).chunk(2, dim=-1)
    return torch.cat((right, left), dim=-1)


def a_counter_that_nobody_reads(self: Two, x: torch.Tensor) -> torch.Tensor:
    self.steps += 1
    return self.a(x)


def a_mask_kept_by_size(self: Two, x: torch.Tensor) -> torch.Tensor:
    if x.shape[0] not in self.found:
        self.found[x.shape[0]] = torch.full((x.shape[0], 1), 2.0)
    return self.a(x) * self.found[x.shape[0]]


def a_live_dropout(self: Two, x: torch.Tensor) -> torch.Tensor:
    return self.plain[0](x) + self.layers[1](x)


def a_constant_compared(self: Two, x: torch.Tensor) -> torch.Tensor:
    return self.a(x) if torch.arange(3.0).sum() > 2 else self.b(x)


def a_number_that_only_one_size_fits(self: Two, x: torch.Tensor) -> torch.Tensor:
    left, right = self.a(x).chunk(2, dim=-1)
    return torch.cat((right, left), dim=-1).reshape((x == x).sum().item())


def as_long_as_its_shape(self: Two, x: torch.Tensor) -> torch.Tensor:
    return self.b(self.a(x) * len(x.shape[-1:]) + len(x.shape[:1]) + len(x.size()[1:]))


def filled_in_a_shape(self: Two, x: torch.Tensor) -> torch.Tensor:
    return self.b(self.a(x) + x.new(x.shape).zero_() + x.new(torch.Size([len(x), 4])).zero_() + x.new((1.0, 2.0, 3.0, 4.0)))


GENERIC = [
    filled_in_a_shape,
    a_constant_compared,
    a_number_that_only_one_size_fits,
    layers_alone,
    sizes_in_arithmetic,
    a_length,
    a_number_in_arithmetic,
    elements_by_numpy,
    halves,
    a_counter_that_nobody_reads,
    a_mask_kept_by_size,
]


# ---------------------------------------------------------------------------------------------- sizes


def rounds_of_a_size(self: Two, x: torch.Tensor) -> torch.Tensor:
    out = torch.zeros(x.shape[0], 4)
    for i in range(x.shape[0]):
        out[i] = self.a(x[i])
    return self.b(out)


def rows(self: Two, x: torch.Tensor) -> torch.Tensor:
    return self.b(torch.stack([self.a(row) for row in x]))


def counted_rows(self: Two, x: torch.Tensor) -> torch.Tensor:
    return sum((self.a(row) * i for i, row in enumerate(x)), torch.zeros(4))


def parts_of_one_row(self: Two, x: torch.Tensor) -> torch.Tensor:
    return self.b(torch.cat([self.a(part) for part in reversed(x.split(1))]))


def a_sum_of_parts(self: Two, x: torch.Tensor) -> torch.Tensor:
    return self.a(functools.reduce(torch.add, x.unbind(0)))


def a_layer_by_size(self: Two, x: torch.Tensor) -> torch.Tensor:
    return self.a(x) if x.shape[0] > 3 else self.b(x)


def a_layer_by_length(self: Two, x: torch.Tensor) -> torch.Tensor:
    return self.a(x) if len(x) == 3 else self.b(x)


def a_layer_of_a_list_by_size(self: Two, x: torch.Tensor) -> torch.Tensor:
    return self.plain[x.shape[0] % 2](x)


def a_layer_of_a_module_list_by_size(self: Two, x: torch.Tensor) -> torch.Tensor:
    return self.layers[x.shape[0] % 2](x)


def a_size_in_a_while(self: Two, x: torch.Tensor) -> torch.Tensor:
    n, y = x.shape[0], self.a(x)
    while n > 1:
        n, y = n // 2, self.b(y)
    return y


def a_size_as_a_key(self: Two, x: torch.Tensor) -> torch.Tensor:
    return self.a(x) * {1: 0.5, 2: 1.0, 3: 2.0, 4: 3.0, 5: 4.0}.get(x.shape[0], 9.0)


def a_layer_for_large_sizes(self: Two, x: torch.Tensor) -> torch.Tensor:
    return self.plain[min(x.shape[0] // 8, 1) if x.shape[0] else 0](x)


def a_size_in_a_text(self: Two, x: torch.Tensor) -> torch.Tensor:
    return self.a(x) * {"3": 2.0}.get(f"{x.shape[0]}", 1.0)


def a_whole_number_of_a_size(self: Two, x: torch.Tensor) -> torch.Tensor:
    return self.a(x) / int(x.shape[0]) + math.sqrt(x.shape[0])


def numpy_by_size(self: Two, x: torch.Tensor) -> torch.Tensor:
    return self.a(x) * torch.from_numpy(np.arange(x.shape[0], dtype=np.float32))[:, None]


def a_stride(self: Two, x: torch.Tensor) -> torch.Tensor:
    return self.a(x) * x.t().contiguous().stride()[0]


def bytes_of_the_input(self: Two, x: torch.Tensor) -> torch.Tensor:
    return self.a(x) / x.nbytes


def a_list_by_size(self: Two, x: torch.Tensor) -> torch.Tensor:
    return self.a(x) * sum([0.5] * x.shape[0])


def a_shape_compared(self: Two, x: torch.Tensor) -> torch.Tensor:
    return self.a(x) if x.shape == (3, 4) else self.b(x)


def a_size_on_the_way(self: Two, x: torch.Tensor) -> torch.Tensor:
    h = self.a(x).t()
    return self.b(h.t()) if h.shape[1] > 3 else h.t()


def rows_of_a_size_then_rounds_of_it(self: Two, x: torch.Tensor) -> torch.Tensor:
    y = self.a(x)
    y = y + torch.stack([self.b(row) for row in y])
    for number in range(y.shape[0]):
        y = y + y[number]
    return y


def parts_of_a_size_then_a_branch_on_it(self: Two, x: torch.Tensor) -> torch.Tensor:
    y = self.a(x)
    y = y * torch.cat([self.b(part) for part in y.split(1)])
    return y if y.size(0) > 3 else y * 2


def parts_then_rows_then_a_size(self: Two, x: torch.Tensor) -> torch.Tensor:
    y = self.a(x)
    y = y - torch.cat([part.sin() for part in y.chunk(y.size(0))])
    first, *others = y.unbind()
    return torch.stack([first, *(other * first for other in others)]) + x


BY_SIZE = [
    (rows_of_a_size_then_rounds_of_it, "`len(unbind)` is 3"),
    (parts_of_a_size_then_a_branch_on_it, "`len(split)` is 3"),
    (parts_then_rows_then_a_size, "`len(chunk)` is 3"),
    (rounds_of_a_size, "`x.size(0)` is 3"),
    (rows, "`len(unbind)` is 3"),
    (counted_rows, "`len(unbind)` is 3"),
    (parts_of_one_row, "`len(split)` is 3"),
    (a_sum_of_parts, "`len(unbind)` is 3"),
    (a_layer_by_size, "`x.size(0) > 3` is False"),
    (a_layer_by_length, "`x.size(0) == 3` is True"),
    (a_layer_of_a_list_by_size, "`x.size(0)` is 3"),
    (a_layer_of_a_module_list_by_size, "`(x.size(0) % 2)` is 1"),
    (a_size_in_a_while, "`(x.size(0) // 2) > 1` is False"),
    (a_size_as_a_key, "`x.size(0) == 3` is True"),
    (a_layer_for_large_sizes, "`x.size(0)` is 3"),
    (a_size_in_a_text, "`x.size(0)` is 3"),
    (a_whole_number_of_a_size, "`x.size(0)` is 3"),
    (numpy_by_size, "`x.size(0)` is 3"),
    (a_list_by_size, "`x.size(0)` is 3"),
    (a_stride, "`x.size(0)` is 3"),
    (bytes_of_the_input, "`x.size(0)` is 3"),
    (a_shape_compared, "`x.size(0) == 3` is True"),
    (a_size_on_the_way, "`t.size(1) > 3` is False"),
]


# ---------------------------------------------------------------------------------------------- values


def a_layer_by_a_number(self: Two, x: torch.Tensor) -> torch.Tensor:
    return self.plain[(x[0, 0] > 0).long().item()](x)


def a_layer_of_a_module_list_by_a_number(self: Two, x: torch.Tensor) -> torch.Tensor:
    return self.layers[int((x[0, 0] > 0).long().item())](x)


def rounds_of_a_number(self: Two, x: torch.Tensor) -> torch.Tensor:
    y = self.a(x)
    for _ in range((x > 0).sum().item()):
        y = self.b(y)
    return y


def a_list_of_numbers(self: Two, x: torch.Tensor) -> torch.Tensor:
    return self.a(x) * max(x.tolist()[0])


def numbers_in_numpy(self: Two, x: torch.Tensor) -> torch.Tensor:
    return self.a(x) * torch.from_numpy(np.sort(x.detach().numpy(), axis=1))


def a_check_of_values(self: Two, x: torch.Tensor) -> torch.Tensor:
    if (x > 100).any():
        raise ValueError("too large")
    return self.a(x)


def a_check_that_says_the_value(self: Two, x: torch.Tensor) -> torch.Tensor:
    if (x > 100).any():
        raise ValueError(f"too large: {x.max().item()}")
    return self.a(x)


BY_VALUE = [
    (a_layer_by_a_number, ".item() is "),
    (a_layer_of_a_module_list_by_a_number, "`item` is "),
    (rounds_of_a_number, "`item` is "),
    (a_list_of_numbers, ".tolist() is "),
    (numbers_in_numpy, ".numpy() is "),
    (a_check_of_values, "a check that raises for other values"),
    (a_check_that_says_the_value, "a check that raises for other values"),
]


# ---------------------------------------------------------------------------------------------- Python's side


def an_attribute(self: Two, x: torch.Tensor) -> torch.Tensor:
    return self.a(x) * self.scale if self.mode == "a" else self.b(x)


def a_list_attribute(self: Two, x: torch.Tensor) -> torch.Tensor:
    return self.a(x) * sum(self.rates)


def a_class_attribute(self: Two, x: torch.Tensor) -> torch.Tensor:
    return self.a(x) * self.kind


def a_configuration(self: Two, x: torch.Tensor) -> torch.Tensor:
    return self.a(x) * self.config.scale if self.config.inner.on else self.b(x)


def a_global(self: Two, x: torch.Tensor) -> torch.Tensor:
    return self.a(x) * scale_of_module()


def scale_of_module() -> float:
    return SCALE


def the_training_flag(self: Two, x: torch.Tensor) -> torch.Tensor:
    return self.a(x) if self.training else self.b(x)


def a_function_by_the_training_flag(self: Two, x: torch.Tensor) -> torch.Tensor:
    return F.dropout(self.a(x), 0.5, self.training)


def the_grad_mode(self: Two, x: torch.Tensor) -> torch.Tensor:
    return self.a(x) if torch.is_grad_enabled() else self.b(x)


def a_dtype(self: Two, x: torch.Tensor) -> torch.Tensor:
    return self.a(x.float()) if x.dtype == torch.float32 else self.b(x.float())


def a_rank(self: Two, x: torch.Tensor) -> torch.Tensor:
    return self.a(x) if x.dim() == 2 else self.b(x)


def a_rank_taken_apart(self: Two, x: torch.Tensor) -> torch.Tensor:
    b, c = x.shape
    return self.a(x).reshape(b, c) if c == 4 else self.b(x)


def a_flag(self: Two, x: torch.Tensor, flag: bool = True, mode: str | None = None) -> torch.Tensor:
    return self.a(x) if flag and mode is None else self.b(x)


def _setting(owner: Callable[[Any], Any], name: str, value: Any) -> Callable[[Any, pytest.MonkeyPatch], None]:
    return lambda model, patch: patch.setattr(owner(model), name, value)


# What is done to the model, and what is called then.
PYTHON: list[tuple[Forward, str, Callable[[Any, Any], None] | None, Callable[[Any], Any]]] = [
    (an_attribute, "`self.scale` is 2.0", _setting(lambda m: m, "scale", 3.0), lambda m: m(X)),
    (an_attribute, "`self.mode` is 'a'", _setting(lambda m: m, "mode", "b"), lambda m: m(X)),
    (a_list_attribute, "`self.rates` is [1.0, 2.0]", lambda m, patch: m.rates.append(1.0), lambda m: m(X)),
    (a_class_attribute, "`self.kind` is 1.5", _setting(lambda m: Two, "kind", 3.0), lambda m: m(X)),
    (a_class_attribute, "`self.kind` is 1.5", _setting(lambda m: m, "kind", 3.0), lambda m: m(X)),
    (a_configuration, "`self.config.scale` is 3.0", _setting(lambda m: m.config, "scale", 1.0), lambda m: m(X)),
    (a_configuration, "`self.config.inner.on` is True", _setting(lambda m: m.config.inner, "on", False), lambda m: m(X)),
    (a_global, "`SCALE` is 2.0", lambda m, patch: patch.setitem(globals(), "SCALE", 5.0), lambda m: m(X)),
    (the_training_flag, "`self.training` is True", None, lambda m: m.eval()(X)),
    (a_function_by_the_training_flag, "`self.training` is True", None, lambda m: m.eval()(X)),
    (the_grad_mode, "`torch.is_grad_enabled()` is True", None, lambda m: torch.no_grad()(m)(X)),
    (a_dtype, "`x.dtype` is torch.float32", None, lambda m: m(X.double())),
    (a_rank, "`x.ndim` is 2", None, lambda m: m(X[None])),
    (a_rank_taken_apart, "`x.ndim` is 2", None, lambda m: m(X[:, :, None])),
    (a_flag, "`flag` is True", None, lambda m: m(X, False)),
    (a_flag, "`mode` is None", None, lambda m: m(X, mode="b")),
]


# ---------------------------------------------------------------------------------------------- state kept, and draws


def a_switch_after_many_calls(self: Two, x: torch.Tensor) -> torch.Tensor:
    self.steps += 1
    return self.a(x) if self.steps < 100 else self.b(x)


def a_switch_after_the_first_call(self: Two, x: torch.Tensor) -> torch.Tensor:
    first, self.kept = self.kept is None, True
    return self.a(x) if first else self.b(x)


def a_tensor_of_the_last_call(self: Two, x: torch.Tensor) -> torch.Tensor:
    h = self.a(x) if self.kept is None else self.a(x) + self.kept
    self.kept = h.detach().mean(0)
    return h


def a_list_that_grows(self: Two, x: torch.Tensor) -> torch.Tensor:
    self.rates.append(1.0)
    return self.a(x) * sum(self.rates)


def a_size_of_the_first_call(self: Two, x: torch.Tensor) -> torch.Tensor:
    self.found.setdefault("n", x.shape[0])
    return self.a(x) * self.found["n"]


def a_global_that_counts(self: Two, x: torch.Tensor) -> torch.Tensor:
    global COUNT
    COUNT += 1
    return self.a(x) if COUNT < 50 else self.b(x)


def a_layer_dropped_at_random(self: Two, x: torch.Tensor) -> torch.Tensor:
    return self.a(x) if random.random() < 0.5 else self.b(x)


def a_layer_seldom_dropped(self: Two, x: torch.Tensor) -> torch.Tensor:
    return self.b(x) if random.uniform(0, 1) < 0.02 else self.a(x)


def a_layer_chosen_by_numpy(self: Two, x: torch.Tensor) -> torch.Tensor:
    return self.layers[np.random.randint(2)](x)


def a_layer_by_a_generator_of_its_own(self: Two, x: torch.Tensor) -> torch.Tensor:
    return self.a(x) * self.generator.random()


REFUSED = [
    a_switch_after_many_calls,
    a_switch_after_the_first_call,
    a_tensor_of_the_last_call,
    a_list_that_grows,
    a_size_of_the_first_call,
    a_global_that_counts,
    a_layer_dropped_at_random,
    a_layer_seldom_dropped,
    a_layer_chosen_by_numpy,
    a_layer_by_a_generator_of_its_own,
]


# ---------------------------------------------------------------------------------------------- the tests


def outcome(call: Callable[[], Any]) -> Any:
    torch.manual_seed(3)
    try:
        return call()
    except Exception as error:  # what the program raises is its outcome
        return error


OTHERS = {
    "other values": -X.flip(0) * 2,
    "negated": -X,
    "large values": X * 1000,
    "one row": X[:1],
    "two rows": X[:2],
    "five rows": torch.linspace(-1, 1, 20).view(5, 4),
    "eight rows": torch.linspace(-1, 1, 32).view(8, 4),
}


def differences(forward: Forward, module: Any) -> tuple[list[str], list[fxgrad.GuardError]]:
    """On which calls the module gives other numbers than the program, or none without a GuardError; and the GuardErrors."""
    wrong, broken = [], []
    for name, x in [("same", X), *OTHERS.items(), ("second", X)]:
        model = net(forward)
        model.load_state_dict(module.state_dict())
        want, got = outcome(lambda: model(x)), outcome(lambda: module(x))  # noqa: B023  called at once
        if isinstance(got, fxgrad.GuardError):
            broken.append(got)
        elif isinstance(want, Exception):
            wrong += [f"{name}: no {want!r}"] if not isinstance(got, Exception) else []
        elif isinstance(got, Exception) or not torch.allclose(want, got, atol=1e-5) or want.requires_grad != got.requires_grad:
            wrong.append(name)
    return wrong, broken


@pytest.mark.parametrize("forward", GENERIC, ids=lambda f: f.__name__)
def test_what_needs_no_guard_has_none(forward: Forward) -> None:
    fixed = fxgrad.fix(net(forward), (X,))
    assert (fixed.frozen, tuple(fixed.module.guards)) == ((), ())
    assert differences(forward, fixed.module) == ([], [])
    fixed.module.eval()
    assert torch.equal(fixed.module(X), net(forward).eval()(X))


@pytest.mark.parametrize(("forward", "what"), [*BY_SIZE, *BY_VALUE], ids=lambda p: getattr(p, "__name__", None))
def test_a_call_that_a_graph_does_not_stand_for_raises_with_the_line(forward: Forward, what: str) -> None:
    fixed = fxgrad.fix(net(forward), (X,))
    assert [(f.what, f.site) for f in fixed.frozen] == [(g.what, g.site) for g in fixed.module.guards]
    guard = next(guard for guard in fixed.module.guards if what in guard.what)
    wrong, broken = differences(forward, fixed.module)
    assert wrong == []
    told = [error for error in broken if guard.what in error.reason]
    assert told
    assert all("; now " in error.reason for error in told)
    code = forward.__code__
    assert guard.site is not None
    assert (guard.site.file, code.co_firstlineno < guard.site.line) == (__file__, True)
    assert {error.site for error in told} == {guard.site}


@pytest.mark.parametrize(("forward", "what", "change", "call"), PYTHON)
def test_what_python_holds(
    forward: Forward, what: str, change: Callable[..., None] | None, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = net(forward)
    module: Any = fxgrad.fix(model, (X,)).module
    assert torch.allclose(module(X), model(X)) or forward is a_function_by_the_training_flag
    assert sum(guard.what == what for guard in module.guards) == 1
    if change is not None:
        change(model, monkeypatch)
    with pytest.raises(fxgrad.GuardError) as caught:
        call(module)
    assert what in caught.value.reason
    assert caught.value.site is not None


@pytest.mark.parametrize("forward", REFUSED, ids=lambda f: f.__name__)
def test_state_kept_between_calls_and_draws_are_refused_with_the_line(forward: Forward) -> None:
    model = net(forward)
    with pytest.raises(fxgrad.FixError) as caught:
        fxgrad.fix(model, (X,))
    assert caught.value.site is not None
    assert Path(caught.value.site.file) == Path(__file__)
    assert (model.steps, model.kept, model.rates, model.found, COUNT) == (0, None, [1.0, 2.0], {}, 0)


def a_size_that_is_only_told(self: Two, x: torch.Tensor) -> torch.Tensor:
    self.found[int(x.shape[0])] = "seen"
    return self.a(x)


def a_value_that_is_only_told(self: Two, x: torch.Tensor) -> torch.Tensor:
    self.found[float(x.sum())] = "seen"
    return self.a(x.view(3, 4))


def test_a_guard_that_need_not_be_says_so() -> None:
    frozen = fxgrad.fix(net(a_value_that_is_only_told), (X,)).frozen  # takes no other size
    assert ["narrower than need be" in held.what for held in frozen] == [True]
    frozen = fxgrad.fix(net(a_size_that_is_only_told), (X,)).frozen
    assert ["narrower than need be" in held.what for held in frozen] == [True]
    frozen = fxgrad.fix(net(a_layer_by_size), (X,)).frozen
    assert ["narrower than need be" in held.what for held in frozen] == [False]


def test_a_tensor_without_a_size_among_the_inputs() -> None:
    class Scaled(Two):
        def forward(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            return torch.stack([self.a(row) for row in x]) * scale

    module: Any = fxgrad.fix(Scaled(), (X, torch.tensor(2.0))).module
    assert [guard.what for guard in module.guards] == ["`len(unbind)` is 3"]


def a_tensor_that_is_not_registered(self: Two, x: torch.Tensor) -> torch.Tensor:
    h = self.a(x)
    return h * self.kept


def test_the_guard_of_an_unregistered_tensor_stands_where_it_is_read() -> None:
    model = net(a_tensor_that_is_not_registered)
    model.kept = torch.ones(4)
    (guard,) = fxgrad.fix(model, (X,)).module.guards
    assert guard.site is not None
    assert guard.site.line == a_tensor_that_is_not_registered.__code__.co_firstlineno + 2


def test_what_is_told_of_a_comparison_is_its_size_now() -> None:
    module: Any = fxgrad.fix(net(a_layer_by_size), (X,)).module
    with pytest.raises(fxgrad.GuardError, match=r"`x.size\(0\) > 3` is False; now `x.size\(0\)` is 5"):
        module(OTHERS["five rows"])


def test_an_attribute_set_on_the_module_itself() -> None:
    module: Any = fxgrad.fix(net(an_attribute), (X,)).module
    module.scale = 5.0
    with pytest.raises(fxgrad.GuardError, match="`self.scale` is 2.0; now it is 5.0"):
        module(X)


def test_guards_can_be_switched_off() -> None:
    module: Any = fxgrad.fix(net(a_layer_by_size), (X,)).module
    module.guards.enabled = False
    assert module(OTHERS["five rows"]).shape == (5, 4)
    module.guards.enabled = True
    with pytest.raises(fxgrad.GuardError):
        module(OTHERS["five rows"])


def test_guards_go_with_copies_and_are_no_state() -> None:
    model = net(an_attribute)
    module: Any = fxgrad.fix(model, (X,)).module
    for made in (copy.deepcopy(module), fxgrad.fix(model, (X,), copy=True).module, module.to(torch.float64)):
        assert [guard.what for guard in made.guards] == [guard.what for guard in module.guards]
        assert list(made.state_dict()) == list(model.state_dict())
    module.to(torch.float32)
    twin = copy.deepcopy(module)
    twin.scale = 5.0
    assert torch.equal(module(X), model(X))
    with pytest.raises(fxgrad.GuardError):
        twin(X)


def test_guards_under_export_and_compile() -> None:
    model = net(a_size_on_the_way)
    module: Any = fxgrad.fix(model, (X,)).module
    exported = torch.export.export(module, (X,)).module()
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    for run in (exported, compiled):
        torch.testing.assert_close(run(X), model(X))
    with pytest.raises(fxgrad.GuardError):
        torch.compile(module, backend="eager")(OTHERS["five rows"])


class Slotted:
    __slots__ = ("name", "x")

    def __init__(self, x: torch.Tensor, name: str = "a") -> None:
        self.x, self.name = x, name


@dataclasses.dataclass
class Fielded:
    x: torch.Tensor
    name: str = "a"


class Plain:
    def __init__(self, x: torch.Tensor, name: str = "a") -> None:
        self.x, self.name = x, name


def of_a_batch(self: Two, batch: Any) -> torch.Tensor:
    batch.x = batch.x * 2
    return self.b(self.a(batch.x)) if batch.name == "a" else self.a(batch.x)


@pytest.mark.parametrize("make", [Slotted, Fielded, Plain])
def test_what_an_input_object_holds(make: Any) -> None:
    module: Any = fxgrad.fix(net(of_a_batch), (make(X),)).module
    for x in (X, *OTHERS.values()):
        assert torch.allclose(module(make(x)), net(of_a_batch)(make(x)), atol=1e-4)
    with pytest.raises(fxgrad.GuardError, match=f"`batch` is {make.__name__}"):
        module(make(X, "b"))


def of_a_dictionary(self: Two, batch: dict[str, Any]) -> torch.Tensor:
    return sum((self.a(value) for value in batch.values() if isinstance(value, torch.Tensor)), torch.zeros(4)) * batch.get("times", 1)


@pytest.mark.parametrize("other", [{"x": X}, {"x": X, "z": X}, {"x": X, "y": X, "times": 3}, {"x": X, "y": None, "times": 2}])
def test_a_dictionary_with_other_keys_or_values(other: dict[str, Any]) -> None:
    module: Any = fxgrad.fix(net(of_a_dictionary), ({"x": X, "y": X + 1, "times": 2},)).module
    assert torch.allclose(module({"x": X, "y": X, "times": 2}), net(of_a_dictionary)({"x": X, "y": X, "times": 2}), atol=1e-5)
    with pytest.raises(fxgrad.GuardError, match="`batch` is "):
        module(other)


class Branching(nn.Module):
    """Sizes of an input and on the way, a number, a check, a flag."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, flag: bool = True) -> torch.Tensor:
        h = self.a(x) * int(x.shape[0])
        if h.t().shape[1] != 3:
            return self.b(h)
        for _ in range((x > 0).sum().item()):
            h = self.b(h)
        if h.isnan().any():
            raise ValueError("no number")
        return h if self.training and flag else -h


def test_the_exported_package_has_them_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Branching()
    fixed: Any = fxgrad.fix(model, (X.abs(),))
    export_module(fixed.module, (X.abs(),), tmp_path / "guarded_package")
    monkeypatch.syspath_prepend(str(tmp_path))
    package: Any = __import__("guarded_package")
    module = package.load()
    assert torch.allclose(module(X.abs()), model(X.abs()))
    assert "fxgrad" not in {name.partition(".")[0] for name in vars(package)}
    calls = [(torch.ones(5, 4),), (-X.abs(),), (X.abs(), False), (X.abs() * float("nan"),)]
    for call in calls:
        with pytest.raises(fxgrad.GuardError):
            fixed.module(*call)
        with pytest.raises(package.GuardError):
            module(*call)
    with pytest.raises(package.GuardError, match=r"test_guards.py:\d+: .* `x.size\(0\)` is 3; now x.size\(0\) is 5"):
        module(*calls[0])
    with pytest.raises(package.GuardError, match="training"):
        module.eval()(X.abs())


def test_a_guard_on_a_global_does_not_lead_the_world_walk_through_its_module() -> None:
    class Net(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * WALKED

    module = fxgrad.fix(Net(), (torch.randn(3, 4),)).module
    assert module.guards
    reach = Reach()
    reach.walk(module)
    assert not reach.found(NEVER_NAMED)


WALKED = 2.0
NEVER_NAMED = {"held by this module": object()}


class Counts(nn.Module):
    """Counts its calls in a global of this file; `goes_by_it`: and computes with the count."""

    def __init__(self, goes_by_it: bool) -> None:
        super().__init__()
        self.goes_by_it = goes_by_it

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        global CALLS
        CALLS += 1
        return x * CALLS if self.goes_by_it else x * 2


CALLS = 1


def test_a_global_that_is_counted_up_stands_in_the_way_only_where_it_is_gone_by() -> None:
    x = torch.randn(3, 4)
    module = fxgrad.fix(Counts(False), (x,)).module
    assert torch.equal(module(x + 1), (x + 1) * 2)
    with pytest.raises(fxgrad.FixError, match="the forward changes `CALLS` and goes by it"):
        fxgrad.fix(Counts(True), (x,))
    assert CALLS == 1


def test_the_length_of_a_part_of_a_shape_goes_by_the_rank() -> None:
    model, other = net(as_long_as_its_shape), torch.randn(5, 4)
    made = fxgrad.fix(model, (X,))
    assert [frozen.what for frozen in made.frozen] == ["`x.ndim` is 2"]
    assert torch.equal(made.module(other), model(other))


class Marker:
    """Nothing but its class."""


class OtherMarker:
    pass


def told_by_class(self: Two, x: torch.Tensor, marker: object) -> torch.Tensor:
    return self.a(x) if isinstance(marker, Marker) else self.b(x)


def test_an_argument_without_attributes_is_told_by_its_class() -> None:
    model = net(told_by_class)
    module = fxgrad.fix(model, (X, Marker())).module
    assert torch.equal(module(X, Marker()), model(X, Marker()))
    for other in (OtherMarker(), object(), None):
        with pytest.raises(fxgrad.GuardError):
            module(X, other)


class Times:
    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


def called_with(self: Two, x: torch.Tensor, function: Any) -> torch.Tensor:
    return self.a(function(x))


def test_an_argument_that_is_called_is_told_by_what_it_holds() -> None:
    model = net(called_with)
    module = fxgrad.fix(model, (X, Times(2.0))).module
    assert torch.equal(module(X, Times(2.0)), model(X, Times(2.0)))
    with pytest.raises(fxgrad.GuardError):
        module(X, Times(3.0))
    with pytest.raises(fxgrad.GuardError):
        fxgrad.fix(model, (X, torch.sin)).module(X, torch.cos)


def drawn_by(self: Two, x: torch.Tensor, generator: random.Random) -> torch.Tensor:
    return self.a(x) * generator.random()


def test_an_argument_that_c_code_keeps_is_itself() -> None:
    with pytest.raises(fxgrad.FixError):
        fxgrad.fix(net(drawn_by), (X, random.Random(1)))


class WithSlot:
    __slots__ = ("q",)


class Answering(WithSlot):
    q = 1  # type: ignore[assignment]  # as sympy's integers do; the slot below stays empty


def told_by_q(self: Two, x: torch.Tensor, number: Any) -> torch.Tensor:
    return self.a(x) * number.q


def test_an_empty_slot_that_the_class_answers_is_no_error() -> None:
    given = Answering()
    given.kept = 2  # type: ignore[attr-defined]
    model = net(told_by_q)
    assert torch.equal(fxgrad.fix(model, (X, given)).module(X, given), model(X, given))
