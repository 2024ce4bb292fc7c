"""`t[index] = value` out of place, for every index form: scatters for basic indices, `masked_fill` and
`index_put` for the others.

`steps` takes a basic index apart into view steps; `scatter` puts a value back through them, innermost first.
Not handled, and then None: mixtures of index tensors with ints, None or proper slices (a clone is written
instead).
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.fx

from fxgrad.passes.analyses.aliases import Aliases
from fxgrad.passes.rewrites.ops import Ops

# ("select", (dim, index)) | ("slice", (dim, start, stop, step)) | ("unsqueeze", (dim,))
Step = tuple[str, tuple[object, ...]]


def elements(index: object) -> tuple[object, ...]:
    """The index as a tuple of its elements."""
    return tuple(index) if isinstance(index, tuple) else (index,)


def steps(
    index: tuple[object, ...], rank: int, is_number: Callable[[object], bool]
) -> tuple[Step, ...] | None:
    """The view steps of a basic index of a tensor of `rank` dimensions; None if it is not basic.

    `is_number` says of a graph node whether it is a Python int.
    """
    consumed = 0
    for item in index:
        if item is None or item is Ellipsis:
            continue
        if isinstance(item, bool) or not (
            isinstance(item, int | slice) or (isinstance(item, torch.fx.Node) and is_number(item))
        ):
            return None
        consumed += 1
    found: list[Step] = []
    dim = 0
    for item in index:
        if item is None:
            found.append(("unsqueeze", (dim,)))
            dim += 1
        elif item is Ellipsis:
            dim += rank - consumed
        elif isinstance(item, slice):
            if item != slice(None, None, None):
                found.append(("slice", (dim, item.start, item.stop, 1 if item.step is None else item.step)))
            dim += 1
        else:
            found.append(("select", (dim, item)))
    return tuple(found)


def view(ops: Ops, tensor: Any, path: tuple[Step, ...]) -> Any:
    """The view that the steps lead to."""
    for step in path:
        tensor = _view(ops, tensor, step)
    return tensor


def _view(ops: Ops, tensor: object, step: Step) -> object:
    kind, args = step
    if kind == "slice":
        return ops.function(torch.ops.aten.slice.Tensor, tensor, *args)
    return ops.method(kind, tensor, *args)


def scatter(ops: Ops, tensor: Any, value: Any, path: tuple[Step, ...]) -> object:
    """`tensor` with `value` in place of the view that the steps lead to."""
    if not path:
        return value
    (kind, args), rest = path[0], path[1:]
    inner = scatter(ops, _view(ops, tensor, path[0]), value, rest) if rest else value
    if kind == "select":
        return ops.function(torch.select_scatter, tensor, inner, *args)
    if kind == "slice":
        return ops.function(torch.slice_scatter, tensor, inner, *args)
    return ops.method("squeeze", inner, *args)


def assign(
    ops: Ops,
    tensor: object,
    target: torch.fx.Node,
    index: object,
    value: object,
    aliases: Aliases,
    resolve: Callable[[object], Any],
) -> object:
    """The tensor after `target[index] = value`, or None if this index form is not handled.

    `target`, `index` and `value` are of the old graph, `tensor` is the value to use for `target`, `resolve`
    gives the others.
    """
    parts, rank = elements(index), aliases.rank(target)
    path = steps(parts, rank, aliases.is_number)
    number = _is_number(value, aliases)
    if path is not None:
        if all(kind == "unsqueeze" for kind, _ in path):
            # all of it: what `copy_` does, and a clone that is written knows that the old value gets a
            # gradient of zeros
            return None
        resolved = tuple((kind, resolve(args)) for kind, args in path)
        inner = view(ops, tensor, resolved)
        if number:
            return scatter(ops, tensor, ops.function(torch.full_like, inner, resolve(value)), resolved)
        return scatter(
            ops,
            tensor,
            broadcast(ops, resolve(value), aliases.rank(value), inner, _rank_of_view(rank, path)),
            resolved,
        )
    if isinstance(index, torch.fx.Node) and number and aliases.is_mask(index, rank):
        return ops.method("masked_fill", tensor, resolve(index), resolve(value))
    if not all(isinstance(part, torch.fx.Node) or _is_whole(part) for part in parts):
        return None
    indices = [resolve(part) if isinstance(part, torch.fx.Node) else None for part in parts]
    put = (
        ops.method("new_full", tensor, (), resolve(value))
        if number
        else ops.method("to", resolve(value), tensor)
    )
    return ops.function(torch.ops.aten.index_put.default, tensor, indices, put)


def _is_number(value: object, aliases: Aliases) -> bool:
    return isinstance(value, int | float | bool | complex) or aliases.is_number(value)


def _is_whole(part: object) -> bool:
    """Whether an element of an index is `:`."""
    return isinstance(part, slice) and part == slice(None, None, None)


def _rank_of_view(rank: int, path: tuple[Step, ...]) -> int:
    return rank + sum({"select": -1, "slice": 0, "unsqueeze": 1}[kind] for kind, _ in path)


def broadcast(ops: Ops, value: object, value_rank: int, like: object, like_rank: int) -> object:
    """`value` in the shape, dtype and device of `like`, as an assignment broadcasts it: leading dimensions of
    size 1 fall away."""
    if value_rank > like_rank:
        value = ops.function(operator.getitem, value, (0,) * (value_rank - like_rank))
    return ops.method("to", ops.method("expand_as", value, like), like)
