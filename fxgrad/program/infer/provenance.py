"""Which inputs reach which layer first, while a model runs on fake tensors: the observations that guesses are
improved by.

`Provenance` is a TorchFunctionMode that tags every tensor with the inputs it was computed from and notes, per
input, what the first layer with a size of its own takes (a `Need`), below what an index must stay (a limit),
and the inputs behind the first call that failed. Where a program asks for the value of a tensor it gets a
made-up one. Not handled: data that passes through NumPy or Python numbers loses its tags.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from fxgrad.program.infer.candidates import Need
from fxgrad.program.infer.joins import JOINING, Joins
from fxgrad.program.infer.layers import (
    channels_of,
    features_needed,
    features_of,
    index_limits,
    needs_of,
)
from fxgrad.torch_api.internals import FakeTensor, pytree, unset_fake_temporarily

# What only moves or relabels elements: an index stays the same index through these.
_PURE = frozenset(
    # fmt: off
    {
        "view",
        "reshape",
        "flatten",
        "unflatten",
        "unsqueeze",
        "squeeze",
        "transpose",
        "permute",
        "t",
        "contiguous",
        "to",
        "long",
        "int",
        "clone",
        "detach",
        "__getitem__",
        "pad",
        "expand",
        "expand_as",
        "narrow",
        "select",
        "chunk",
        "split",
        "unbind",
        "stack",
        "cat",
        "view_as",
        "movedim",
        "swapaxes",
        "repeat",
        "type",
        "requires_grad_",
        "masked_fill",
    }
    # fmt: on
)
_VALUES = frozenset(
    {"__bool__", "item", "__int__", "__float__", "__index__", "tolist", "numpy", "equal", "allclose"}
)
_MEASURES = frozenset({"size", "dim", "__len__", "numel", "ndimension"})
_MADE_UP = 500  # values handed out before a loop on them is taken to be endless
_TRUE = 50  # first answers of a condition: most loops that run while something holds must end at some point

Tags = Mapping[str, bool]  # input name -> whether only moved since


class EndlessLoop(RuntimeError):
    """A program kept asking for values of tensors."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The first call that raised: the inputs behind it, and for a linear layer the features it got and
    wants, for a convolution the channels."""

    inputs: frozenset[str]
    features: tuple[int, int] | None
    likes: tuple[tuple[str, Need], ...]
    channels: tuple[int, int] | None = None


class Provenance(TorchFunctionMode):
    """The observations of one run. `inputs` are the tensors or tuples given, by name; `stand_in` gives what
    to compute with for a tensor.

    FakeTensorMode alone would run a call on real tensors for real: `self.count += 1` would change the user's
    tensor.
    """

    def __init__(
        self, inputs: Mapping[str, object], stand_in: Callable[[torch.Tensor], torch.Tensor]
    ) -> None:
        super().__init__()
        self._stand_in = stand_in
        self.needs: dict[str, Need] = {}
        self._shared: set[str] = set()  # those whose need is their share of what several are joined to
        self.touched: set[str] = set()  # inputs that anything was computed from, or read off (`x.shape`)
        # inputs whose sizes were read off them or off what was computed from them
        self.measured: set[str] = set()
        self.passed: set[str] = set()  # inputs that the first layer they need to fit has accepted
        self.limits: dict[str, int] = {}
        self.emptied = False  # a part of what is not empty came out empty
        self.failure: Failure | None = None
        self.made_up = 0
        self.calls = 0
        leaves = [
            (name, leaf)
            for name, value in inputs.items()
            for leaf in pytree.tree_leaves(value)
            if isinstance(leaf, torch.Tensor)
        ]
        # Of a tuple the tensors are alike; the first stands for it.
        self._shapes = {name: tuple(tensor.shape) for name, tensor in reversed(leaves)}
        self._dtypes = {name: tensor.dtype for name, tensor in reversed(leaves)}
        self._tags: dict[int, Tags] = {id(tensor): {name: True} for name, tensor in leaves}
        self._alive: list[object] = [
            tensor for _, tensor in leaves
        ]  # an id is only good while its tensor lives
        self._joins = Joins(self)

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in _VALUES and args and isinstance(args[0], FakeTensor):
            return self._value(name, args[0])
        args, kwargs = pytree.tree_map_only(torch.Tensor, self._stand_in, (tuple(args), dict(kwargs)))
        tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        tags = self._joined(tensors)
        if tags:
            self._read(name, args, kwargs, tags)
        try:
            result = func(*args, **kwargs)
        except Exception:
            if self.failure is None:
                self.failure = Failure(
                    frozenset(tags),
                    features_of(name, args),
                    tuple(self._likes(name, tensors)),
                    channels_of(name, args, kwargs),
                )
            raise
        self.calls += 1
        if tags:
            self._carry(name, tensors, tags, result)
            if name in JOINING:
                self._joins.note(args, kwargs, result)
            elif not list(needs_of(name, args, kwargs)):
                self._joins.follow(tensors, result)
        return result

    def _read(self, name: str, args: Sequence[object], kwargs: Mapping[str, object], tags: Tags) -> None:
        """A call takes what comes from inputs."""
        self.touched.update(tags)
        if name in _MEASURES or name == "__get__":
            self.measured.update(tags)
        self._note(name, args, kwargs)

    def _carry(self, name: str, tensors: Sequence[torch.Tensor], tags: Tags, result: object) -> None:
        """A call has accepted it: its new tensors come from the same inputs."""
        self.passed.update(tag for tag in tags if tag in self.needs)
        kept = {key: pure and name in _PURE for key, pure in tags.items()}
        for leaf in pytree.tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and not any(leaf is tensor for tensor in tensors):
                self.emptied = self.emptied or (name == "__getitem__" and not leaf.numel())
                self._tags[id(leaf)] = kept
                self._alive.append(leaf)

    def entered(self, module: nn.Module, args: tuple[object, ...]) -> None:
        """A module was called: recurrent and transformer layers check sizes before they call any function."""
        if (
            len(args) > 1
            and isinstance(module, nn.RNNBase | nn.RNNCellBase)
            and isinstance(args[0], torch.Tensor)
        ):
            self._state_needs(module, args[0], args[1])
        sizes = [getattr(module, key, None) for key in ("input_size", "d_model")]
        size = next((size for size in sizes if isinstance(size, int)), None)
        if size is None or not isinstance(module, nn.RNNBase | nn.RNNCellBase | nn.Transformer):
            return
        for arg in args[: 2 if isinstance(module, nn.Transformer) else 1]:
            kind = "features" if isinstance(module, nn.RNNCellBase) else "sequence"
            self._need(arg, features_needed(kind, type(module).__name__, size))

    def _state_needs(self, module: nn.RNNBase | nn.RNNCellBase, x: torch.Tensor, state: object) -> None:
        """What the state must be for this input: of one input of the program a pair where the layer takes a
        pair, else each its own."""
        shapes = state_shapes(module, batch_of(module, x))
        names = [next(iter(self._tags.get(id(leaf), {})), "") for leaf in pytree.tree_leaves(state)]
        why = f"`{type(module).__name__}` has a state of {module.hidden_size}"
        if len(set(names)) == 1 and names[0]:
            self.needs.setdefault(names[0], Need("state", why=why, shapes=shapes))
            return
        for name, shape in zip(names, shapes, strict=False):
            if name:
                self.needs.setdefault(name, Need("state", why=why, shapes=(shape,)))

    def whose(self, tensor: torch.Tensor) -> str | None:
        """The input that a tensor has its sizes from: one of the tensor's own shape, for a change of elements
        changes none."""
        own = (name for name in self._tags.get(id(tensor), {}) if self._shapes[name] == tuple(tensor.shape))
        return next(own, None)

    def spread(self, tensor: torch.Tensor) -> tuple[str, tuple[int, ...]] | None:
        """The only input that a tensor is made of, where its sizes are the input's: elements that were only
        moved and repeated, or changed one by one and turned; and the input's shape."""
        tags = self._tags.get(id(tensor), {})
        if len(tags) != 1:
            return None
        name, moved = next(iter(tags.items()))
        shape = self._shapes[name]
        return (name, shape) if moved or sorted(shape) == sorted(tensor.shape) else None

    def _turned(self, tensor: torch.Tensor, need: Need) -> tuple[str, Need] | None:
        """What an input that was reshaped before the layer took it must be: its own shape, with what the
        layer looks at of the size that it takes."""
        looks = tensor.dim() - (need.dims if need.kind == "channels" else 0) - 1
        found = (
            self.spread(tensor) if need.kind in ("channels", "features", "sequence") and looks >= 0 else None
        )
        if found is None or found[1] == tuple(tensor.shape) or tensor.shape[looks] == need.size:
            return None
        name, shape = found
        places = [place for place, size in enumerate(shape) if place and size == tensor.shape[looks]]
        shapes = [(*shape[:place], need.size, *shape[place + 1 :]) for place in places]
        if not shapes:
            return None
        return name, Need(
            "like",
            shape=shapes[0],
            shapes=tuple(shapes[1:]),
            dtype=self._dtypes[name],
            why=need.why,
            ground=need.ground,
        )

    def _joined(self, tensors: Sequence[torch.Tensor]) -> Tags:
        joined: dict[str, bool] = {}
        for tensor in tensors:
            for name, pure in self._tags.get(id(tensor), {}).items():
                joined[name] = joined.get(name, True) and pure
        return joined

    def _note(self, name: str, args: Sequence[Any], kwargs: Mapping[str, object]) -> None:
        for position, key, need in needs_of(name, args, kwargs):
            self._need(args[position] if position < len(args) else kwargs.get(key), need)
        for index, limit in index_limits(name, args, kwargs):
            for tag, pure in self._tags.get(id(index), {}).items():
                if not pure and self._dtypes[tag].is_floating_point:
                    continue  # what `topk` picks of it, say
                # After arithmetic the index is not the input: only the smallest range is sure to stay inside.
                most = max(limit if pure else min(limit, 2), 1)  # of nothing there is none to pick
                self.limits[tag] = min(self.limits.get(tag, most), most)

    def _need(self, tensor: Any, need: Need) -> None:
        shared = self._joins.share(tensor, need, self.needs.keys() - self._shared)
        if shared is not None:
            for name, part in shared:
                if name not in self.needs:
                    self.needs[name] = part
                    self._shared.add(name)
            return
        turned = self._turned(tensor, need) if isinstance(tensor, torch.Tensor) else None
        if turned is not None:
            self.needs.setdefault(*turned)
            return
        for tag in self._tags.get(id(tensor), {}):
            # Flattened labels meet flattened scores: their shape says nothing about the input's.
            if need.kind not in ("target", "like", "flat") or tuple(tensor.shape) == self._shapes[tag]:
                self.needs.setdefault(tag, need)

    def _likes(self, function: str, tensors: Sequence[torch.Tensor]) -> Iterator[tuple[str, Need]]:
        """For an input whose data met another tensor in a failed call: the shape that would have fitted that
        one."""
        for tensor, other in itertools.permutations(tensors[:3], 2):
            sources = self._tags.get(id(tensor), {})
            source = next(iter(sources), "")
            if len(sources) != 1 or other.shape == tensor.shape:
                continue
            # its first layer decides, not what it meets later; of what it is joined with only the sum
            decided = source not in self._shared
            if decided and source in self.needs and tensor.shape == self._shapes[source]:
                continue
            own = self._shapes[source]
            fitting = _fitting(own, tuple(tensor.shape), tuple(other.shape), exact=function in JOINING)
            met = self._tags.get(id(other), {})
            whole = decided and (own == tuple(tensor.shape) or own in fitting[:1])
            if not fitting or (source in met and (whole or _is_of(own, fitting))):
                continue
            # A weight of fewer dimensions stands for every row: `x * weight`.
            weight = function not in JOINING and not met
            shape = fitting[0]
            rows = (*own[: len(own) - len(shape)], *shape) if weight else shape
            why = f"it meets a tensor of {_by(other)}"
            yield source, Need("like", shape=rows, dtype=self._dtypes[source], why=why, shapes=fitting)

    def _value(self, name: str, tensor: torch.Tensor) -> object:
        self.made_up += 1
        if self.made_up > _MADE_UP:
            raise EndlessLoop("the program keeps asking for values of tensors")
        if name in ("__bool__", "equal", "allclose"):
            return self.made_up <= _TRUE or self.made_up % 2 == 0
        if name == "tolist":
            return _ones(tuple(tensor.shape), tensor.dtype)
        if name == "numpy":
            with unset_fake_temporarily():
                return torch.ones(tensor.shape, dtype=tensor.dtype).numpy()
        one = _ones((), tensor.dtype)
        return int(one) if name in ("__int__", "__index__") else float(one) if name == "__float__" else one


def _is_of(own: tuple[int, ...], fitting: Sequence[tuple[int, ...]]) -> bool:
    """What comes of the same input has sizes of it, and perhaps one of the model's own."""
    return any({1, *own}.issuperset(shape) for shape in fitting)


def state_shapes(module: nn.RNNBase | nn.RNNCellBase, batch: int | None) -> tuple[tuple[int, ...], ...]:
    """The shapes of a recurrent layer's state, of an LSTM's two; `batch` None: of an input without a
    batch."""
    size = () if batch is None else (batch,)
    if isinstance(module, nn.RNNCellBase):
        return ((*size, module.hidden_size),) * (2 if isinstance(module, nn.LSTMCell) else 1)
    layers = module.num_layers * (2 if module.bidirectional else 1)
    hidden = (layers, *size, module.proj_size or module.hidden_size)
    return (hidden, (layers, *size, module.hidden_size)) if isinstance(module, nn.LSTM) else (hidden,)


def batch_of(module: nn.RNNBase | nn.RNNCellBase, x: torch.Tensor) -> int | None:
    """The batch of a recurrent layer's input; None where it has none."""
    if isinstance(module, nn.RNNCellBase):
        return x.shape[0] if x.dim() > 1 else None
    return x.shape[0 if module.batch_first else 1] if x.dim() == 3 else None


def _fitting(
    source: tuple[int, ...], tensor: tuple[int, ...], other: tuple[int, ...], *, exact: bool = False
) -> tuple[tuple[int, ...], ...]:
    """The input's shapes with which `tensor`, computed from it, would have met `other`, the likeliest first;
    none where that cannot be told.

    Either all of the shape, where the input was only changed element by element, or the one or two sizes that
    they disagree on, each in a place where the input has it; one of them in all these places too; a part of
    the input that came out empty. `exact`: a size of 1 does not stand for any.
    """
    if source == tensor:
        return (other,)
    pairs = [
        (a, b)
        for a, b in zip(reversed(tensor), reversed(other), strict=False)
        if a != b and (exact or 1 not in (a, b))
    ]
    if not 1 <= len(pairs) <= 2:
        return ()
    found: dict[tuple[int, ...], None] = {}
    for places in itertools.permutations(range(len(source)), len(pairs)):
        shape = _changed(source, zip(places, pairs, strict=True))
        if shape is not None:
            found.setdefault(shape)
    size, wanted = pairs[0]
    if len(pairs) == 1 and found and size:
        found.setdefault(tuple(wanted if one == size else one for one in source))
    return tuple(found)


def _changed(source: tuple[int, ...], ways: Iterable[tuple[int, tuple[int, int]]]) -> tuple[int, ...] | None:
    """The shape with other sizes in some places, each as (place, (size there, the one wanted)); None where it
    has not that size there. Of a part that came out empty the whole is too short by what is wanted of it."""
    shape = list(source)
    for place, (size, wanted) in ways:
        if not size and place:
            shape[place] += wanted
        elif source[place] == size:
            shape[place] = wanted
        else:
            return None
    return tuple(shape)


def _by(tensor: torch.Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "no dimensions"


def _ones(shape: tuple[int, ...], dtype: torch.dtype) -> Any:
    if shape:
        return [_ones(shape[1:], dtype) for _ in range(shape[0])]
    return True if dtype is torch.bool else 1.0 if dtype.is_floating_point else 1
