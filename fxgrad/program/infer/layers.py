"""What torch's own functions take: the sizes that a layer's weight fixes, and below what an index must stay.

Read off one call (its name and arguments, before it runs), so functional code counts as much as modules. Not
handled: `einsum`, custom operators, and functions that are not listed here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from fxgrad.program.infer.candidates import BATCH, Need

_WIDTH = 64
_LOSSES = frozenset(
    {
        "mse_loss",
        "l1_loss",
        "smooth_l1_loss",
        "huber_loss",
        "binary_cross_entropy",
        "binary_cross_entropy_with_logits",
        "kl_div",
        "poisson_nll_loss",
    }
)


def needs_of(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[tuple[int, str, Need]]:
    """(position of the tensor, its keyword, what is needed of it) for a call of a function that has a weight
    or a target."""
    weight = _argument(args, kwargs, 1, "weight")
    if name in ("embedding", "embedding_bag") and isinstance(weight, torch.Tensor):
        yield 0, "input", Need("ids", weight.shape[0], why=f"`{name}` has {_several(weight.shape[0], 'row')}")
    elif name.startswith("conv") and isinstance(weight, torch.Tensor) and weight.dim() > 2:
        groups = _argument(args, kwargs, 6, "groups") or 1
        channels = (
            weight.shape[0]
            if "transpose" in name
            else weight.shape[1] * (groups if isinstance(groups, int) else 1)
        )
        yield (
            0,
            "input",
            Need(
                "channels", channels, weight.dim() - 2, why=f"`{name}` takes {_several(channels, 'channel')}"
            ),
        )
    elif name == "linear" and isinstance(weight, torch.Tensor):
        yield 0, "input", _features_needed(name, weight.shape[-1])
    elif (
        name in ("matmul", "mm", "__matmul__", "bmm")
        and isinstance(weight, torch.Tensor)
        and weight.dim() > 1
        and args
    ):
        yield 0, "input", _features_needed(name, weight.shape[-2])
        yield from _factor_needs(name, args[0], weight)
    elif name == "split" and args and isinstance(args[0], torch.Tensor):
        yield from _split_needs(args, kwargs)
    elif name in ("view", "reshape") and args and isinstance(args[0], torch.Tensor):
        yield from _view_needs(args)
    elif name == "bilinear" and isinstance(_argument(args, kwargs, 2, "weight"), torch.Tensor):
        weight = _argument(args, kwargs, 2, "weight")
        yield 0, "input1", _features_needed(name, weight.shape[1])
        yield 1, "input2", _features_needed(name, weight.shape[2])
    elif name == "multi_head_attention_forward":
        for position, key in enumerate(("query", "key", "value")):
            yield (
                position,
                key,
                Need("sequence", args[3], why=f"`{name}` takes {_several(args[3], 'feature')}"),
            )
        yield from _mask_needs(name, args, kwargs)
    elif name == "scaled_dot_product_attention" and len(args) > 1:
        shape = (args[0].shape[-2], args[1].shape[-2])
        yield (
            3,
            "attn_mask",
            Need(
                "like",
                shape=shape,
                dtype=torch.bool,
                why=f"`{name}` masks {_several(shape[0], 'query')} with it",
            ),
        )
    else:
        yield from _norm_and_loss_needs(name, args, kwargs)


def _factor_needs(name: str, first: Any, second: torch.Tensor) -> Iterator[tuple[int, str, Need]]:
    """The second factor of a product whose first is a batch of matrices that it does not fit."""
    if (
        isinstance(first, torch.Tensor)
        and first.dim() > 2
        and (second.dim() != first.dim() or second.shape[-2] != first.shape[-1])
    ):
        shape = (
            *first.shape[:-2],
            first.shape[-1],
            second.shape[-1] if second.dim() == first.dim() else _WIDTH,
        )
        yield (
            1,
            "other",
            Need("like", shape=shape, dtype=first.dtype, why=f"`{name}` multiplies {_by(first)} with it"),
        )


def _split_needs(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[tuple[int, str, Need]]:
    """What is split into parts of given sizes is as long as all of them."""
    tensor, sizes, dim = (
        args[0],
        _argument(args, kwargs, 1, "split_size_or_sections"),
        _argument(args, kwargs, 2, "dim") or 0,
    )
    if (
        not isinstance(sizes, tuple | list)
        or not tensor.dim()
        or not all(isinstance(size, int) for size in sizes)
    ):
        return
    if -tensor.dim() <= dim < tensor.dim() and tensor.shape[dim] != sum(sizes):
        shape = list(tensor.shape)
        shape[dim] = sum(sizes)
        yield (
            0,
            "tensor",
            Need(
                "like",
                shape=tuple(shape),
                dtype=tensor.dtype,
                why=f"it is split into {' + '.join(map(str, sizes))}",
            ),
        )


def _view_needs(args: Sequence[Any]) -> Iterator[tuple[int, str, Need]]:
    """What is seen as another shape has as many elements; the size that is left open is the batch."""
    sizes = args[1] if len(args) == 2 and isinstance(args[1], tuple | list) else args[1:]
    if not sizes or not all(isinstance(size, int) for size in sizes) or 0 in sizes:
        return
    wanted, count = 1, args[0].numel()
    for size in sizes:
        wanted *= abs(size)
    if (count % wanted if -1 in sizes else count != wanted) and (len(sizes) > 1):
        shape = tuple(BATCH if size == -1 else size for size in sizes)
        yield (
            0,
            "input",
            Need(
                "like", shape=shape, dtype=args[0].dtype, why=f"it is seen as {' x '.join(map(str, sizes))}"
            ),
        )


def _by(tensor: torch.Tensor) -> str:
    return "x".join(map(str, tensor.shape))


def _mask_needs(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[tuple[int, str, Need]]:
    """The masks of an attention over queries and keys whose first dimension is their length."""
    query, key = args[0], args[1]
    if (
        isinstance(query, torch.Tensor)
        and isinstance(key, torch.Tensor)
        and query.dim() in (2, 3)
        and key.dim() == query.dim()
    ):
        why = f"`{name}` masks {query.shape[0]} by {key.shape[0]} with it"
        yield 16, "attn_mask", Need("like", shape=(query.shape[0], key.shape[0]), dtype=torch.bool, why=why)
        shape = (*query.shape[1:2], key.shape[0]) if query.dim() == 3 else (key.shape[0],)
        yield (
            14,
            "key_padding_mask",
            Need(
                "like",
                shape=shape,
                dtype=torch.bool,
                why=f"`{name}` masks {_several(key.shape[0], 'key')} with it",
            ),
        )


def _norm_and_loss_needs(
    name: str, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Iterator[tuple[int, str, Need]]:
    second = _argument(args, kwargs, 1, "target")
    scale = next(
        (
            a
            for a in (*args[1:5], kwargs.get("weight"), kwargs.get("running_mean"))
            if isinstance(a, torch.Tensor)
        ),
        None,
    )
    if (
        name in ("batch_norm", "instance_norm", "group_norm")
        and scale is not None
        and isinstance(args[0], torch.Tensor)
    ):
        dims = max(args[0].dim() - 2, 0)  # its module has checked them
        yield (
            0,
            "input",
            Need(
                "channels", scale.shape[0], dims, why=f"`{name}` takes {_several(scale.shape[0], 'channel')}"
            ),
        )
    elif name == "layer_norm" and len(args) > 1:
        yield 0, "input", _features_needed(name, args[1][-1])
    elif (
        name in ("cross_entropy", "nll_loss")
        and isinstance(args[0], torch.Tensor)
        and isinstance(second, torch.Tensor)
    ):
        scores = args[0]
        classes = scores.shape[1] if scores.dim() > 1 else scores.shape[0]
        shape = (*scores.shape[:1], *scores.shape[2:]) if scores.dim() > 1 else ()
        yield (
            1,
            "target",
            Need("target", classes, shape=shape, why=f"`{name}` compares it with {classes} classes"),
        )
    elif (
        name == "gather"
        and isinstance(args[0], torch.Tensor)
        and isinstance(_argument(args, kwargs, 1, "dim"), int)
        and args[0].dim()
    ):
        dim = _argument(args, kwargs, 1, "dim")
        shape = tuple(size for place, size in enumerate(args[0].shape) if place != dim % args[0].dim())
        yield (
            2,
            "index",
            Need(
                "index",
                args[0].shape[dim],
                shape=shape,
                why=f"`gather` picks one of {args[0].shape[dim]} with it",
            ),
        )
    elif name in _LOSSES and isinstance(args[0], torch.Tensor) and isinstance(second, torch.Tensor):
        yield (
            1,
            "target",
            Need(
                "like",
                shape=tuple(args[0].shape),
                dtype=args[0].dtype,
                why=f"`{name}` compares it with such a tensor",
            ),
        )


def _features_needed(name: str, size: int) -> Need:
    return Need("features", size, why=f"`{name}` takes {_several(size, 'feature')}")


def _several(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def index_limits(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[tuple[Any, int]]:
    """(index tensor, what its values must stay below)."""
    first, second, third = (
        _argument(args, kwargs, *at) for at in ((0, "input"), (1, "target"), (2, "index"))
    )
    if name in ("embedding", "embedding_bag") and isinstance(
        _argument(args, kwargs, 1, "weight"), torch.Tensor
    ):
        yield first, _argument(args, kwargs, 1, "weight").shape[0]
    elif name in ("cross_entropy", "nll_loss") and isinstance(first, torch.Tensor) and first.dim():
        yield second, first.shape[1] if first.dim() > 1 else first.shape[0]
    elif name in ("gather", "index_select", "take_along_dim") and isinstance(first, torch.Tensor):
        dim = _argument(args, kwargs, 1, "dim")
        if isinstance(dim, int) and first.dim():
            yield third, first.shape[dim]
    elif name == "one_hot" and isinstance(_argument(args, kwargs, 1, "num_classes"), int):
        yield first, max(_argument(args, kwargs, 1, "num_classes"), 1)
    elif name == "__getitem__" and isinstance(first, torch.Tensor):
        keys = args[1] if isinstance(args[1], tuple) else (args[1],)
        if Ellipsis not in [key for key in keys if not isinstance(key, torch.Tensor)]:
            yield from (
                (key, size)
                for key, size in zip(keys, first.shape, strict=False)
                if isinstance(key, torch.Tensor)
            )


def _argument(args: Sequence[Any], kwargs: Mapping[str, Any], position: int, key: str) -> Any:
    return args[position] if position < len(args) else kwargs.get(key)


def features_of(name: str, args: Sequence[Any]) -> tuple[int, int] | None:
    """What a failed linear layer got and what it wants."""
    if name == "linear" and len(args) > 1 and args[0].dim() and args[0].shape[-1] != args[1].shape[-1]:
        return args[0].shape[-1], args[1].shape[-1]
    return None
