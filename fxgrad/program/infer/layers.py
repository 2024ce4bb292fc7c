"""What torch's own functions take: the sizes that a layer's weight fixes, and below what an index must stay.

Read off one call (its name and arguments, before it runs), so functional code counts as much as modules. Not
handled: `einsum`, custom operators, and functions that are not listed here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fxgrad.program.infer.candidates import BATCH, Ground, Need, of_dimensions
from fxgrad.program.infer.spec import Spec

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


@dataclass(frozen=True, slots=True)
class Call:
    """A call of one of torch's functions, before it runs."""

    name: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]

    def argument(self, position: int, key: str) -> Any:
        """What was given at a place or by a keyword; None where nothing was."""
        return self.args[position] if position < len(self.args) else self.kwargs.get(key)


Asked = Iterator[tuple[int, str, Need]]


def needs_of(name: str, args: Sequence[object], kwargs: Mapping[str, object]) -> Asked:
    """(position of the tensor, its keyword, what is needed of it) for a call of a function that has a weight
    or a target."""
    rule = _convolution_needs if name.startswith("conv") else _NEEDS.get(name)
    return rule(Call(name, args, kwargs)) if rule is not None else iter(())


def _embedding_needs(call: Call) -> Asked:
    weight = call.argument(1, "weight")
    if isinstance(weight, torch.Tensor):
        rows = weight.shape[0]
        yield 0, "input", Need("ids", rows, why=f"`{call.name}` has {_several(rows, 'row')}")


def _convolution_needs(call: Call) -> Asked:
    weight = call.argument(1, "weight")
    if not isinstance(weight, torch.Tensor) or weight.dim() <= 2:
        return
    groups = call.argument(6, "groups") or 1
    grouped = weight.shape[1] * (groups if isinstance(groups, int) else 1)
    channels = weight.shape[0] if "transpose" in call.name else grouped
    why = f"`{call.name}` takes {_several(channels, 'channel')}"
    yield 0, "input", Need("channels", channels, weight.dim() - 2, why=why)


def _linear_needs(call: Call) -> Asked:
    weight = call.argument(1, "weight")
    if isinstance(weight, torch.Tensor):
        yield 0, "input", features_needed("features", call.name, weight.shape[-1])


def _bilinear_needs(call: Call) -> Asked:
    weight = call.argument(2, "weight")
    if isinstance(weight, torch.Tensor):
        yield 0, "input1", features_needed("features", call.name, weight.shape[1])
        yield 1, "input2", features_needed("features", call.name, weight.shape[2])


def _product_needs(call: Call) -> Asked:
    """The first factor; and the second, where the first is a batch of matrices that it does not fit."""
    second = call.argument(1, "weight")
    if not isinstance(second, torch.Tensor) or second.dim() <= 1 or not call.args:
        return
    yield 0, "input", features_needed("features", call.name, second.shape[-2])
    first = call.args[0]
    if not isinstance(first, torch.Tensor) or first.dim() <= 2:
        return
    is_batch = second.dim() == first.dim()
    if is_batch and second.shape[-2] == first.shape[-1]:
        return
    shape = (*first.shape[:-2], first.shape[-1], second.shape[-1] if is_batch else _WIDTH)
    why = f"`{call.name}` multiplies {_by(first)} with it"
    yield 1, "other", Need("like", shape=shape, dtype=first.dtype, why=why)


def _split_needs(call: Call) -> Asked:
    """What is split into parts of given sizes is as long as all of them."""
    if not call.args or not isinstance(call.args[0], torch.Tensor):
        return
    tensor, sizes = call.args[0], call.argument(1, "split_size_or_sections")
    if not isinstance(sizes, tuple | list) or not all(isinstance(size, int) for size in sizes):
        return
    dim = call.argument(2, "dim") or 0
    if -tensor.dim() <= dim < tensor.dim() and tensor.shape[dim] != sum(sizes):
        shape = list(tensor.shape)
        shape[dim] = sum(sizes)
        why = f"it is split into {' + '.join(map(str, sizes))}"
        yield 0, "tensor", Need("like", shape=tuple(shape), dtype=tensor.dtype, why=why)


def _numbers(call: Call) -> Sequence[Any]:
    """What follows the tensor, one by one or together."""
    together = len(call.args) == 2 and isinstance(call.args[1], tuple | list)
    found: Sequence[Any] = call.args[1] if together else call.args[1:]
    return found


def _view_needs(call: Call) -> Asked:
    """What is seen as another shape has as many elements; the size that is left open is the batch."""
    if not call.args or not isinstance(call.args[0], torch.Tensor):
        return
    sizes = _numbers(call)
    if len(sizes) < 2 or not all(isinstance(size, int) for size in sizes) or 0 in sizes:
        return
    wanted, count = abs(math.prod(sizes)), call.args[0].numel()
    if len(sizes) == 2 and sizes[0] == -1 and count % wanted:
        yield (
            0,
            "input",
            Need("flat", wanted, dtype=call.args[0].dtype, why=f"it is seen as rows of {wanted}"),
        )
    elif count % wanted if -1 in sizes else count != wanted:
        shape = tuple(BATCH if size == -1 else size for size in sizes)
        why = f"it is seen as {' x '.join(map(str, sizes))}"
        yield 0, "input", Need("like", shape=shape, dtype=call.args[0].dtype, why=why)


def _permute_needs(call: Call) -> Asked:
    """What is permuted has as many dimensions as are named."""
    if not call.args or not isinstance(call.args[0], torch.Tensor):
        return
    named = _numbers(call)
    if len(named) != call.args[0].dim():
        for one in of_dimensions(len(named), "")[:1]:
            if isinstance(one.spec, Spec):
                why = f"its {len(named)} dimensions are permuted"
                yield 0, "input", Need("like", shape=one.spec.shape, dtype=call.args[0].dtype, why=why)


def _by(tensor: torch.Tensor) -> str:
    return "x".join(map(str, tensor.shape))


def _attention_layer_needs(call: Call) -> Asked:
    """What it attends to; and its masks, where the first dimension of queries and keys is their length."""
    size = call.args[3]
    for position, name in enumerate(("query", "key", "value")):
        yield position, name, features_needed("sequence", call.name, size)
    query, key = call.args[0], call.args[1]
    if not isinstance(query, torch.Tensor) or not isinstance(key, torch.Tensor):
        return
    if query.dim() not in (2, 3) or key.dim() != query.dim():
        return
    why = f"`{call.name}` masks {query.shape[0]} by {key.shape[0]} with it"
    yield 16, "attn_mask", Need("like", shape=(query.shape[0], key.shape[0]), dtype=torch.bool, why=why)
    shape = (*query.shape[1:2], key.shape[0]) if query.dim() == 3 else (key.shape[0],)
    why = f"`{call.name}` masks {_several(key.shape[0], 'key')} with it"
    yield 14, "key_padding_mask", Need("like", shape=shape, dtype=torch.bool, why=why)


def _attention_needs(call: Call) -> Asked:
    if len(call.args) > 1:
        shape = (call.args[0].shape[-2], call.args[1].shape[-2])
        why = f"`{call.name}` masks {_several(shape[0], 'query')} with it"
        yield 3, "attn_mask", Need("like", shape=shape, dtype=torch.bool, why=why)


def _norm_needs(call: Call) -> Asked:
    given = (*call.args[1:5], call.kwargs.get("weight"), call.kwargs.get("running_mean"))
    scale = next((value for value in given if isinstance(value, torch.Tensor)), None)
    first = call.argument(0, "input")
    if scale is not None and isinstance(first, torch.Tensor):
        dims = max(first.dim() - 2, 0)  # its module has checked them
        why = f"`{call.name}` takes {_several(scale.shape[0], 'channel')}"
        yield 0, "input", Need("channels", scale.shape[0], dims, why=why)


def _layer_norm_needs(call: Call) -> Asked:
    if len(call.args) > 1:
        yield 0, "input", features_needed("features", call.name, call.args[1][-1])


def _class_needs(call: Call) -> Asked:
    scores, target = call.argument(0, "input"), call.argument(1, "target")
    if isinstance(scores, torch.Tensor) and isinstance(target, torch.Tensor):
        classes = scores.shape[1] if scores.dim() > 1 else scores.shape[0]
        shape = (*scores.shape[:1], *scores.shape[2:]) if scores.dim() > 1 else ()
        why = f"`{call.name}` compares it with {classes} classes"
        yield 1, "target", Need("target", classes, shape=shape, why=why)


def _loss_needs(call: Call) -> Asked:
    first, target = call.argument(0, "input"), call.argument(1, "target")
    if isinstance(first, torch.Tensor) and isinstance(target, torch.Tensor):
        why = f"`{call.name}` compares it with such a tensor"
        yield 1, "target", Need("like", shape=tuple(first.shape), dtype=first.dtype, why=why)


def _gather_needs(call: Call) -> Asked:
    first, dim = call.argument(0, "input"), call.argument(1, "dim")
    if isinstance(first, torch.Tensor) and isinstance(dim, int) and first.dim():
        shape = tuple(size for place, size in enumerate(first.shape) if place != dim % first.dim())
        why = f"`gather` picks one of {first.shape[dim]} with it"
        yield 2, "index", Need("index", first.shape[dim], shape=shape, why=why)


_NEEDS: Mapping[str, Callable[[Call], Asked]] = {
    **dict.fromkeys(("embedding", "embedding_bag"), _embedding_needs),
    "linear": _linear_needs,
    "bilinear": _bilinear_needs,
    **dict.fromkeys(("matmul", "mm", "__matmul__", "bmm"), _product_needs),
    "split": _split_needs,
    **dict.fromkeys(("view", "reshape"), _view_needs),
    "permute": _permute_needs,
    "multi_head_attention_forward": _attention_layer_needs,
    "scaled_dot_product_attention": _attention_needs,
    **dict.fromkeys(("batch_norm", "instance_norm", "group_norm"), _norm_needs),
    "layer_norm": _layer_norm_needs,
    **dict.fromkeys(("cross_entropy", "nll_loss"), _class_needs),
    **dict.fromkeys(_LOSSES, _loss_needs),
    "gather": _gather_needs,
}


def features_needed(kind: str, layer: str, size: int) -> Need:
    """Rows of features, or a "sequence" of such."""
    return Need(kind, size, why=f"`{layer}` takes {_several(size, 'feature')}", ground=Ground.FEATURES)


def _several(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


# ------------------------------------------------------------------------------------------------- indices

Limits = Iterator[tuple[object, int]]


def index_limits(name: str, args: Sequence[object], kwargs: Mapping[str, object]) -> Limits:
    """(index tensor, what its values must stay below)."""
    rule = _LIMITS.get(name)
    return rule(Call(name, args, kwargs)) if rule is not None else iter(())


def _row_limits(call: Call) -> Limits:
    weight = call.argument(1, "weight")
    if isinstance(weight, torch.Tensor):
        yield call.argument(0, "input"), weight.shape[0]


def _class_limits(call: Call) -> Limits:
    scores = call.argument(0, "input")
    if isinstance(scores, torch.Tensor) and scores.dim():
        classes = scores.shape[1] if scores.dim() > 1 else scores.shape[0]
        yield call.argument(1, "target"), classes


def _picking_limits(call: Call) -> Limits:
    first, dim = call.argument(0, "input"), call.argument(1, "dim")
    if isinstance(first, torch.Tensor) and isinstance(dim, int) and first.dim():
        yield call.argument(2, "index"), first.shape[dim]


def _one_hot_limits(call: Call) -> Limits:
    classes = call.argument(1, "num_classes")
    if isinstance(classes, int):
        yield call.argument(0, "input"), max(classes, 1)


def _item_limits(call: Call) -> Limits:
    first = call.argument(0, "input")
    if not isinstance(first, torch.Tensor):
        return
    keys = call.args[1] if isinstance(call.args[1], tuple) else (call.args[1],)
    if Ellipsis in [key for key in keys if not isinstance(key, torch.Tensor)]:
        return
    for key, size in zip(keys, first.shape, strict=False):
        if isinstance(key, torch.Tensor):
            yield key, size


_LIMITS: Mapping[str, Callable[[Call], Limits]] = {
    **dict.fromkeys(("embedding", "embedding_bag"), _row_limits),
    **dict.fromkeys(("cross_entropy", "nll_loss"), _class_limits),
    **dict.fromkeys(("gather", "index_select", "take_along_dim"), _picking_limits),
    "one_hot": _one_hot_limits,
    "__getitem__": _item_limits,
}


def features_of(name: str, args: Sequence[Any]) -> tuple[int, int] | None:
    """What a failed linear layer got and what it wants."""
    if name == "linear" and len(args) > 1 and args[0].dim() and args[0].shape[-1] != args[1].shape[-1]:
        return args[0].shape[-1], args[1].shape[-1]
    return None


def channels_of(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[int, int] | None:
    """What a failed convolution got and what it wants, of an input with a batch."""
    if not re.fullmatch(r"conv[123]d", name) or len(args) < 2 or args[0].dim() != args[1].dim():
        return None
    groups = kwargs.get("groups", args[6] if len(args) > 6 else 1)
    got, wanted = args[0].shape[1], args[1].shape[1] * groups
    return (got, wanted) if got != wanted else None
