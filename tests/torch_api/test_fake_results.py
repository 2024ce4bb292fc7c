"""Quick fake results are those of torch's own dispatch, and views those of the real kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch

from fxgrad.torch_api.fake_results import result_of
from fxgrad.torch_api.internals import FakeTensor, FakeTensorMode, keys_of, storage_id

aten = torch.ops.aten

DENSE = torch.empty(2, 3, 4)
TENSORS = {
    "dense": DENSE,
    "transposed": DENSE.transpose(0, 2),
    "spread": torch.empty(3, 1).expand(3, 4),
    "sliced": torch.empty(4, 6)[:, ::2],
    "scalar": torch.tensor(2.0).expand(()),
    "none": torch.empty(0, 3),
    "channels last": torch.empty(2, 3, 4, 4).to(memory_format=torch.channels_last),
    "half": torch.empty(2, 3, dtype=torch.bfloat16),
    "integers": torch.empty(2, 3, dtype=torch.int64),
    "complex": torch.empty(2, 3, dtype=torch.complex64),
    "conjugated": torch.empty(2, 3, dtype=torch.complex64).conj(),
    "negated": torch._neg_view(torch.empty(2, 3)),
    "sparse": torch.eye(3).to_sparse(),
}


def _moments(x: torch.Tensor) -> list[torch.Tensor]:
    return [torch.empty((*x.shape[:-1], 1)) for _ in range(2)]


CALLS: dict[str, tuple[Callable[..., object], Callable[[torch.Tensor], tuple[object, ...]]]] = {
    "add": (aten.add.Tensor, lambda x: (x, x)),
    "an integer": (aten.add.Tensor, lambda x: (x, 1)),
    "a float": (aten.add.Tensor, lambda x: (x, 1.0)),
    "a bool": (aten.mul.Tensor, lambda x: (x, True)),
    "exp": (aten.exp.default, lambda x: (x,)),
    "relu": (aten.relu.default, lambda x: (x,)),
    "clone": (aten.clone.default, lambda x: (x,)),
    "sum": (aten.sum.dim_IntList, lambda x: (x, [-1])),
    "argmax": (aten.argmax.default, lambda x: (x,)),
    "cat": (aten.cat.default, lambda x: ([x, x], -1)),
    "where": (aten.where.self, lambda x: (torch.empty(x.shape, dtype=torch.bool), x, x)),
    "softmax": (aten._softmax.default, lambda x: (x, -1, False)),
    "several results": (aten.max.dim, lambda x: (x, -1)),
    "a gradient not asked for": (
        aten.native_layer_norm_backward.default,
        lambda x: (x, x, [*x.shape[-1:]], *_moments(x), None, None, [True, False, False]),
    ),
    "batch norm": (aten.native_batch_norm.default, lambda x: (x, None, None, None, None, True, 0.1, 1e-5)),
    "product": (aten.mm.default, lambda x: (x, torch.empty(x.shape[::-1], dtype=x.dtype))),
    "view": (aten.view.default, lambda x: (x, [-1])),
    "a view that fits nothing": (aten.view.default, lambda x: (x, [7, 7])),
    "unsafe view": (aten._unsafe_view.default, lambda x: (x, [x.numel()])),
    "unsqueeze": (aten.unsqueeze.default, lambda x: (x, 0)),
    "no such dimension": (aten.unsqueeze.default, lambda x: (x, 9)),
    "transpose": (aten.transpose.int, lambda x: (x, 0, -1)),
    "select": (aten.select.int, lambda x: (x, 0, 1)),
    "slice": (aten.slice.Tensor, lambda x: (x, 0, 1, 2)),
    "expand": (aten.expand.default, lambda x: (x, [2, *x.shape])),
    "turned": (aten.t.default, lambda x: (x,)),
    "permute": (aten.permute.default, lambda x: (x, [*range(x.dim())][::-1])),
    "squeeze": (aten.squeeze.default, lambda x: (x,)),
    "squeeze one": (aten.squeeze.dim, lambda x: (x, 0)),
    "squeeze some": (aten.squeeze.dims, lambda x: (x, [0, -1])),
    "alias": (aten.alias.default, lambda x: (x,)),
    "detach": (aten.detach.default, lambda x: (x,)),
    "split": (aten.split.Tensor, lambda x: (x, 1)),
    "numbers that data decide": (aten.nonzero.default, lambda x: (x,)),
    "random": (aten.bernoulli.default, lambda x: (x,)),
}


def _told(made: object, arguments: Sequence[object]) -> object:
    """All there is to see of a result: sizes, strides, types, and which argument's memory it has."""
    if isinstance(made, tuple | list):
        return [_told(one, arguments) for one in made]
    if not isinstance(made, torch.Tensor):
        return (type(made), str(made))
    if made.layout is not torch.strided:
        return (made.layout, made.shape, made.dtype)
    memory = storage_id(made.untyped_storage())
    shared = [
        i
        for i, one in enumerate(arguments if made.numel() else ())  # nothing is shared of nothing
        if isinstance(one, torch.Tensor) and one.layout is torch.strided and storage_id(one.untyped_storage()) == memory
    ]
    size = made.untyped_storage().nbytes()
    place = (made.shape, made.stride(), made.storage_offset(), size, made.dtype, made.device)
    return (type(made), place, str(keys_of(made)), made.requires_grad, made.is_conj(), made.is_neg(), shared)


def _outcome(call: Callable[[], object], arguments: Sequence[object]) -> object:
    try:
        return _told(call(), arguments)
    except Exception as error:
        return (type(error), str(error))


@pytest.mark.parametrize("tensor", TENSORS)
def test_results_are_those_of_torchs_dispatch(tensor: str) -> None:
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    fake = mode.from_tensor(TENSORS[tensor])
    for name, (operator, given) in CALLS.items():
        with mode:
            arguments = given(fake)

        def dispatched(operator: Callable[..., object] = operator, arguments: tuple[object, ...] = arguments) -> object:
            with mode:
                return operator(*arguments)

        def quick(operator: Callable[..., object] = operator, arguments: tuple[object, ...] = arguments) -> object:
            return result_of(mode, operator, arguments, {}, dispatched)

        want = _outcome(dispatched, arguments)
        assert _outcome(quick, arguments) == want, name
        assert _outcome(quick, arguments) == want, f"{name}, remembered"


def test_what_was_asked_before_is_not_dispatched_again() -> None:
    """Else nothing is won."""
    mode = FakeTensorMode()
    with mode:
        x = torch.empty(5, 7)
    for operator, arguments in (
        (aten.mul.Tensor, (x, x)),
        (aten.max.dim, (x, -1)),
        (aten.view.default, (x, [7, 5])),
    ):
        calls = []

        def dispatched(
            operator: Callable[..., object] = operator,
            arguments: tuple[object, ...] = arguments,
            calls: list[object] = calls,
        ) -> object:
            calls.append(operator)
            with mode:
                return operator(*arguments)

        result_of(mode, operator, arguments, {}, dispatched)
        first = len(calls)
        result_of(mode, operator, arguments, {}, dispatched)
        assert len(calls) == first <= 1


def test_a_views_strides_are_the_real_ones() -> None:
    """torch's own fake `view` gives others where a size is 0 or 1 (2.11 to 2.15)."""
    mode = FakeTensorMode()
    for real in (torch.empty(5, 5, 1).permute(2, 1, 0), torch.empty(0, 5, 5).permute(0, 2, 1)):
        made = result_of(mode, aten.view.default, (mode.from_tensor(real), list(real.shape)), {}, _never)
        assert isinstance(made, FakeTensor)
        assert made.stride() == real.view(real.shape).stride()


def _never() -> object:
    raise AssertionError("it was dispatched")


def test_the_default_dtype_decides_anew() -> None:
    mode = FakeTensorMode()
    with mode:
        x = torch.empty(3, dtype=torch.int64)

    def asked() -> object:
        def dispatched() -> object:
            with mode:
                return aten.div.Tensor(x, x)

        made = result_of(mode, aten.div.Tensor, (x, x), {}, dispatched)
        assert isinstance(made, torch.Tensor)
        return made.dtype

    before = torch.get_default_dtype()
    assert asked() is before
    torch.set_default_dtype(torch.float64)
    try:
        assert asked() is torch.float64
    finally:
        torch.set_default_dtype(before)
