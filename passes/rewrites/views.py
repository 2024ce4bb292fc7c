"""View ops backwards: given a view's new content, what its source becomes.

`put_back` is the inverse of one view edge of a graph, by the op that made the view: scatters for selections
and for parts of a split, the inverse permutation or a reshape for views that cover their source. Not handled,
and then None: overlapping views (`expand`, `unfold`), views of another dtype, `as_strided` (torch's
`as_strided_scatter` hands its source the gradient of what was overwritten too: 2.11 to 2.15, by finite
differences), anything unknown; the caller clones the source and writes the clone.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.fx

from fxgrad.passes.analyses.aliases import Aliases
from fxgrad.passes.rewrites import registry, setitem
from fxgrad.passes.rewrites.ops import Ops
from fxgrad.torch_api.tensors import Geometry

Resolve = Callable[[object], Any]
CUTS = frozenset(("detach", "detach_", "data"))
_SAME_ORDER = frozenset(
    [
        "view",
        "reshape",
        "flatten",
        "unflatten",
        "squeeze",
        "unsqueeze",
        "view_as",
        "reshape_as",
        "ravel",
        "contiguous",
        "atleast_1d",
        "atleast_2d",
        "atleast_3d",
        "alias",
    ]
)
_SWAPS = frozenset(["transpose", "swapaxes", "swapdims"])
_ALONG = {"vsplit": 0, "hsplit": 1, "dsplit": 2}
_LAST_TWO = frozenset(["t", "T", "mT", "adjoint"])
_PERMUTATIONS = _SWAPS | _LAST_TWO | {"permute", "movedim", "moveaxis"}


def name_of(node: torch.fx.Node) -> str:
    """The name of the view op of a node, a property's too."""
    if node.target is getattr:
        return str(node.args[1])
    if node.op == "call_method":
        return str(node.target)
    packet = getattr(node.target, "overloadpacket", node.target)
    return str(getattr(packet, "__name__", ""))


def covers(node: torch.fx.Node) -> bool:
    """Whether the view holds every element of its source."""
    return name_of(node) in _SAME_ORDER | _PERMUTATIONS


def put_back(
    ops: Ops,
    node: torch.fx.Node,
    source: torch.fx.Node,
    value: Any,
    old: object,
    aliases: Aliases,
    resolve: Resolve,
) -> object:
    """`source` after its view `node` became `value`; `old` is the value of `source` before. None: this view
    has no inverse here."""
    here, there = aliases.place(node), aliases.place(source)
    if here is None or there is None or here.dtype != there.dtype:
        return None
    name = name_of(node)
    if node.op == "call_module" or name in _SAME_ORDER:
        return _covering(ops, value, old, here.geometry, there.geometry)
    if node.target is operator.getitem:
        path = setitem.steps(setitem.elements(node.args[1]), len(there.geometry.shape), aliases.is_number)
        if path is None:
            return None
        return setitem.scatter(ops, old, value, tuple((kind, resolve(rest)) for kind, rest in path))
    arguments = registry.positional(node)
    if arguments is None:
        return None
    if name in _PERMUTATIONS:
        return _permutation(ops, name, arguments[1:], value, len(here.geometry.shape), resolve)
    return _selection(ops, name, arguments[1:], value, old, resolve)


def _permutation(ops: Ops, name: str, args: Sequence[Any], value: Any, rank: int, resolve: Resolve) -> object:
    """Dimensions back in their order."""
    if name in _SWAPS:
        return ops.method("transpose", value, *resolve(args))
    if name in _LAST_TWO:
        return ops.method("transpose", value, -2, -1) if rank == 2 or name == "mT" else None
    if name == "permute":
        order = args[0] if len(args) == 1 and isinstance(args[0], list | tuple) else args
        return _unpermuted(ops, value, order)
    return ops.method("movedim", value, args[1], args[0])


def _selection(ops: Ops, name: str, args: Sequence[Any], value: Any, old: object, resolve: Resolve) -> object:
    if name == "select" and len(args) == 2:
        return ops.function(torch.select_scatter, old, value, *resolve(args))
    if name == "narrow" and len(args) == 3 and isinstance(args[1], int) and args[1] >= 0:
        length = resolve(args[2])
        end = args[1] + length if isinstance(length, int) else ops.function(operator.add, length, args[1])
        return ops.function(torch.slice_scatter, old, value, resolve(args[0]), args[1], end, 1)
    if name == "diagonal":
        return ops.function(torch.diagonal_scatter, old, value, *resolve(args))
    if name == "slice":
        return ops.function(torch.ops.aten.slice_scatter.default, old, value, *resolve(args))
    return None


def _covering(ops: Ops, value: object, old: object, here: Geometry, there: Geometry) -> object:
    if here == there:
        return value
    source = torch.empty_strided(there.shape, there.stride, device="meta")
    try:
        same = source.view(here.shape).stride() == here.stride or source.numel() == 0
    except RuntimeError:
        return None
    return ops.method("reshape", value, ops.function(getattr, old, "shape")) if same else None


def _unpermuted(ops: Ops, value: object, order: Sequence[Any]) -> object:
    if not all(isinstance(d, int) for d in order):
        return None
    dims = [d % len(order) for d in order]
    return ops.method("permute", value, [dims.index(d) for d in range(len(dims))])


def part(
    ops: Ops, split: torch.fx.Node, index: int, source: Any, rank: int, resolve: Resolve
) -> setitem.Step | None:
    """The step from the source (of `rank` dimensions) of a `split`, `chunk`, `unbind` or their kind to part
    `index` of it; None for other calls."""
    name = name_of(split)
    position = 1 if name == "unbind" else 2
    dim = resolve(split.kwargs.get("dim", split.args[position] if len(split.args) > position else 0))
    if name == "unbind":
        return "select", (dim, index)
    if name not in ("split", "chunk", "split_with_sizes", "tensor_split", *_ALONG) or len(split.args) < 2:
        return None
    size = resolve(split.args[1])
    if name in _ALONG:
        dim = _ALONG[name] if name != "hsplit" or rank > 1 else 0
    if name == "tensor_split" or name in _ALONG:
        return _tensor_split(ops, size, dim, index, source)
    if isinstance(size, list | tuple):
        return _of_sizes(size, dim, index)
    if name == "chunk":
        return _chunk(ops, size, dim, index, source)
    return _of_one_size(ops, size, dim, index)


def _of_sizes(sizes: Sequence[object], dim: object, index: int) -> setitem.Step | None:
    """Part `index` of parts that have these sizes."""
    numbers = [n for n in sizes if isinstance(n, int)]
    if len(numbers) != len(sizes):
        return None
    return "slice", (dim, sum(numbers[:index]), sum(numbers[: index + 1]), 1)


def _chunk(ops: Ops, count: object, dim: object, index: int, source: object) -> setitem.Step | None:
    """Part `index` of `count` at most: as many as needed of the size that the first has."""
    if not isinstance(count, int):
        return None
    rest = ops.function(operator.add, ops.method("size", source, dim), count - 1)
    return _of_one_size(ops, ops.function(operator.floordiv, rest, count), dim, index)


def _of_one_size(ops: Ops, size: Any, dim: object, index: int) -> setitem.Step:
    """Part `index` of parts that all have this size, but for the last."""
    start, end = (
        ops.function(operator.mul, size, i) if isinstance(size, torch.fx.Node) else size * i
        for i in (index, index + 1)
    )
    return "slice", (dim, start, end, 1)


def _tensor_split(ops: Ops, sections: object, dim: object, index: int, source: object) -> setitem.Step | None:
    """Part `index` of `tensor_split`: into equal parts of which the first are longer by one, or at the places
    given."""
    if isinstance(sections, list | tuple) and all(isinstance(n, int) for n in sections):
        bounds = [None, *sections, None]
        return "slice", (dim, bounds[index], bounds[index + 1], 1)
    if not isinstance(sections, int):
        return None
    size = ops.method("size", source, dim)
    length, longer = (
        ops.function(operator.floordiv, size, sections),
        ops.function(operator.mod, size, sections),
    )

    def bound(i: int) -> Any:
        return ops.function(operator.add, ops.function(operator.mul, length, i), ops.function(min, longer, i))

    return "slice", (dim, bound(index), bound(index + 1), 1)
