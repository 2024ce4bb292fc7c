"""Fake results without the way through torch's own dispatch, which is most of what an analysis on fake values
takes (what this won stands in `bench/README.md`, with its command).

Two kinds of operators are answered, both as torch's dispatch ends for them. A view is what its kernel makes
of the meta tensor. What neither writes nor aliases is remembered: the sizes, strides, dtypes and devices that
torch's dispatch gave for arguments of the same kind. An error is always torch's own: nothing that raises is
answered. Not handled, and left to torch: other layouts than strided ones, conjugated and negated views,
constants, symbols, subclasses, custom operators, lists of results.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import torch

from fxgrad.torch_api.internals import (
    UNSAFE_VIEW,
    FakeTensor,
    FakeTensorMode,
    OpOverload,
    inside_kernel,
    keys_of,
    schema_of,
    storage_id,
)

_aten = torch.ops.aten

# Views whose kernel for meta tensors is in C++ and says all there is to say: torch's dispatch adds nothing
# but the device.
_VIEWS: frozenset[object] = frozenset(
    (
        _aten.view.default,
        UNSAFE_VIEW,
        _aten.t.default,
        _aten.transpose.int,
        _aten.permute.default,
        _aten.expand.default,
        _aten.slice.Tensor,
        _aten.select.int,
        _aten.unsqueeze.default,
        _aten.squeeze.default,
        _aten.squeeze.dim,
        _aten.squeeze.dims,
        _aten.detach.default,
        _aten.alias.default,
    )
)
# Arguments that are what they are equal to, with their types: 1, 1.0 and True give results of three dtypes.
_PLAIN: frozenset[type] = frozenset(
    (
        int,
        float,
        bool,
        complex,
        str,
        type(None),
        torch.dtype,
        torch.layout,
        torch.memory_format,
        torch.device,
    )
)
# A program of more kinds of calls than this begins anew.
_LIMIT = 5_000


class _Made(NamedTuple):
    """A tensor that a call made: in units of elements; `device` is the one it is said to be on."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device


# None among several is a gradient that was not asked for.
_remembered: dict[tuple[object, ...], tuple[_Made | None, ...]] = {}


class _Foreign(Exception):
    """An argument that torch must look at itself."""


def result_of(
    mode: FakeTensorMode,
    operator: object,
    args: Sequence[object],
    kwargs: Mapping[str, object],
    dispatch: Callable[[], object],
) -> object:
    """What `dispatch` (torch's own, for this operator on these arguments) would return, or what it did."""
    kind = _kind(operator)
    if kind == "":
        return dispatch()
    if kind == "view":
        view = _viewed(mode, operator, args, kwargs)
        return dispatch() if view is None else view
    try:
        key = _key(mode, operator, args, kwargs)
    except _Foreign:
        return dispatch()
    known = _remembered.get(key)
    if known is not None:
        made = tuple(None if one is None else _again(mode, one) for one in known)
        return made[0] if kind == "one" else made
    result = dispatch()
    _remember(mode, key, result, (*args, *kwargs.values()))
    return result


@functools.lru_cache(maxsize=4096)  # a program may make operators without end
def _kind(operator: object) -> Literal["view", "one", "several", ""]:
    """How an operator is answered; "" is by torch alone."""
    if operator in _VIEWS:
        return "view"
    if not isinstance(operator, OpOverload) or operator.namespace not in ("aten", "prims"):
        return ""
    schema = schema_of(operator)
    if schema.is_mutable or not schema.returns:
        return ""
    if torch.Tag.dynamic_output_shape in operator.tags or torch.Tag.data_dependent_output in operator.tags:
        return ""
    if any(one.alias_info is not None or str(one.type) != "Tensor" for one in schema.returns):
        return ""
    return "one" if len(schema.returns) == 1 else "several"


def _key(
    mode: FakeTensorMode, operator: object, args: Sequence[object], kwargs: Mapping[str, object]
) -> tuple[object, ...]:
    """All that a result of the operator hangs on.

    Raises:
        _Foreign: an argument is none whose kind says all, tensors are on several devices, or there is none.
    """
    key: list[object] = [operator, torch.get_default_dtype()]
    place: torch.device | None = None
    named = (item for pair in kwargs.items() for item in pair)
    for one in (*args, *named):
        items: Sequence[object] = (one,)
        if isinstance(one, list | tuple):
            key.append(len(one))
            items = one
        for item in items:
            if type(item) is FakeTensor:
                place = _append(mode, key, item, place)
            elif type(item) in _PLAIN:
                key += (type(item), item)
            else:
                raise _Foreign
    if place is None:
        raise _Foreign
    key.append(place)
    return tuple(key)


def _append(
    mode: FakeTensorMode, key: list[object], tensor: FakeTensor, place: torch.device | None
) -> torch.device:
    """Add what a tensor brings to a key, and the device of all.

    Raises:
        _Foreign: it is of a kind that torch must look at, or on another device than the ones before.
    """
    device: torch.device = tensor.fake_device
    if not _is_plain(mode, tensor) or (place is not None and place != device):
        raise _Foreign
    key += (FakeTensor, tensor.shape, tensor.stride(), tensor.dtype)
    return device


def _is_plain(mode: FakeTensorMode, tensor: FakeTensor) -> bool:
    """Whether sizes, strides, dtype and device are all that decides what a kernel makes of it."""
    return (
        tensor.fake_mode is mode
        and tensor.constant is None
        and tensor.layout is torch.strided
        and not tensor.is_conj()
        and not tensor.is_neg()
    )


def _viewed(
    mode: FakeTensorMode, operator: object, args: Sequence[object], kwargs: Mapping[str, object]
) -> FakeTensor | None:
    """A view as the kernel for meta tensors makes it; None where torch must look, or say why not."""
    base = args[0] if args else None
    if type(base) is not FakeTensor or not _is_plain(mode, base) or not callable(operator):
        return None
    try:
        with inside_kernel(mode):
            made = operator(*args, **kwargs)
    except Exception:
        return None
    return FakeTensor(mode, made, base.fake_device)


def _again(mode: FakeTensorMode, made: _Made) -> FakeTensor:
    with inside_kernel(mode):
        data = torch.empty_strided(made.size, made.stride, dtype=made.dtype, device="meta")
    return FakeTensor(mode, data, made.device)


def _remember(
    mode: FakeTensorMode, key: tuple[object, ...], result: object, arguments: Sequence[object]
) -> None:
    """Keep what a call made, if tensors made anew from what is kept are all that it is."""
    seen = set()
    for argument in arguments:
        for tensor in argument if isinstance(argument, list | tuple) else (argument,):
            if isinstance(tensor, torch.Tensor):
                seen.add(storage_id(tensor.untyped_storage()))
    kept: list[_Made | None] = []
    for one in result if isinstance(result, tuple | list) else (result,):
        if one is None:
            kept.append(None)
            continue
        made = _told(mode, one)
        if made is None or storage_id(one.untyped_storage()) in seen:  # it is an argument, or shares memory
            return
        seen.add(storage_id(one.untyped_storage()))
        kept.append(made)
    if len(_remembered) >= _LIMIT:
        _remembered.clear()
    _remembered[key] = tuple(kept)


def _told(mode: FakeTensorMode, result: object) -> _Made | None:
    """What `_again` makes this tensor of; None where it would be another."""
    if type(result) is not FakeTensor or result.constant is not None or result.requires_grad:
        return None
    if result.layout is not torch.strided or result.storage_offset() != 0:
        return None
    made = _Made(tuple(result.shape), result.stride(), result.dtype, result.fake_device)
    twin = _again(mode, made)
    same_size = twin.untyped_storage().nbytes() == result.untyped_storage().nbytes()
    return made if same_size and keys_of(twin) == keys_of(result) else None
