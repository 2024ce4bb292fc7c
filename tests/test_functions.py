"""A Function's `apply` is caught wherever the program took it from, and is torch's own again after."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch

from fxgrad.torch_api.functions import replaced_apply


class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        return grad * 2


class Scale(torch.autograd.Function):
    """`forward` without a context, and a default."""

    @staticmethod
    def forward(x: torch.Tensor, factor: float = 3.0) -> torch.Tensor:
        return x * factor

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.factor = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        return grad * ctx.factor, None


class Through(torch.autograd.Function):
    """Its forward applies another."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return double(x)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        return grad


double, scale = Double.apply, Scale.apply  # as programs write it, long before anything is caught


class Seen:
    """A replacement that notes each call and leaves the rest to torch."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __call__(self, cls: Any, original: Any, args: Any, kwargs: Any) -> Any:
        self.calls.append(cls.__name__)
        return original(*args, **kwargs)


def outcome(call: Any) -> Any:
    """What a call gives and the gradient through it, or the error: `apply` takes keywords from torch 2.13 on."""
    x = torch.ones(2, requires_grad=True)
    try:
        y = call(x)
    except TypeError as error:
        return str(error)
    y.sum().backward()
    assert x.grad is not None
    return y.tolist(), x.grad.tolist()


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda x: Double.apply(x), "Double"),
        (lambda x: double(x), "Double"),
        (lambda x: scale(x), "Scale"),
        (lambda x: scale(x, 5.0), "Scale"),
        (lambda x: Scale.apply(x, factor=4.0), "Scale"),
    ],
    ids=["by name", "taken before", "a default", "positional", "by keyword"],
)
def test_caught_once_with_values_and_gradients_as_before(call: Any, name: str) -> None:
    seen = Seen()
    want = outcome(call)
    with replaced_apply(seen):
        assert outcome(call) == want
    assert seen.calls == [name]


def test_what_the_replacement_returns_is_the_result() -> None:
    x = torch.ones(2, requires_grad=True)
    with replaced_apply(lambda cls, original, args, kwargs: "ours"):
        assert double(x) == Double.apply(x) == scale(x) == "ours"
    assert double(x).tolist() == [2.0, 2.0]


def test_one_inside_another_is_caught_too() -> None:
    seen = Seen()
    with replaced_apply(seen):
        Through.apply(torch.ones(2))
    assert seen.calls == ["Through", "Double"]


def test_the_last_replacement_alone_is_asked() -> None:
    outer, inner = Seen(), Seen()
    with replaced_apply(outer):
        with replaced_apply(inner):
            double(torch.ones(2))
        scale(torch.ones(2))
    assert inner.calls == ["Double"]
    assert outer.calls == ["Scale"]


def test_an_error_is_torchs_own_and_leaves_nothing_on() -> None:
    with replaced_apply(Seen()):
        for call, message in ((lambda: double(), "missing 1 required positional argument"), (lambda: scale(), "missing a required")):
            with pytest.raises(TypeError, match=message):
                call()
            assert not torch._C._are_functorch_transforms_active()
    assert double(torch.ones(2)).tolist() == [2.0, 2.0]


def test_under_a_transform_the_answers_are_torchs() -> None:
    x = torch.ones(2)
    want = torch.func.grad(lambda x: scale(x).sum())(x)
    with replaced_apply(Seen()):
        got = torch.func.grad(lambda x: scale(x).sum())(x)
        with pytest.raises(RuntimeError, match="setup_context"):
            torch.func.grad(lambda x: double(x).sum())(x)
    assert got.tolist() == want.tolist() == [3.0, 3.0]


def test_a_function_used_first_while_caught_is_right_after() -> None:
    """The C function of torch 2.15 keeps the first `setup_context` it is told of the base."""

    class Late(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> Any:
            (x,) = ctx.saved_tensors
            return 2 * x * grad

    x = torch.full((2,), 3.0, requires_grad=True)
    with replaced_apply(Seen()):
        Late.apply(x)
    Late.apply(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [6.0, 6.0]


def test_setup_context_can_be_read_and_called_by_the_program() -> None:
    class Kept:
        factor: float

    with replaced_apply(Seen()):
        Scale.setup_context(Kept, (torch.ones(1), 7.0), None)
    assert Kept.factor == 7.0
    assert not torch._C._are_functorch_transforms_active()


def test_each_thread_for_itself() -> None:
    seen = Seen()
    results: list[Any] = []
    start = threading.Barrier(2)

    def work() -> None:
        start.wait()
        for _ in range(50):
            results.append(scale(double(torch.ones(1))).item())

    with replaced_apply(seen):
        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == [6.0] * 100
    assert len(seen.calls) == 200
