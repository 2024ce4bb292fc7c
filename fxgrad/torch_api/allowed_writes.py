"""In-place writes that autograd refuses, carried out all the same: what the program would compute if each
were allowed.

`call` runs one torch call and returns results that may be written: an output that is one of several views of
its input becomes a view of its own, one that a custom Function returned as a view of its input gets its own
memory, `out=` with a gradient becomes a copy. From such a run come the graph of a program that eager does not
run to its end, and the values its repaired form is compared with. Not handled: leaves that require grad
(`Leaves` says how they enter) and views made under `no_grad` and written outside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.fx
from torch.autograd.function import BackwardCFunction

from fxgrad.torch_api.calls import Function, Kwargs
from fxgrad.torch_api.internals import inference_regions_left, is_view, storage_key
from fxgrad.torch_api.tensors import Geometry
from fxgrad.torch_api.tree import tensors_in


class Interpreter(torch.fx.Interpreter):
    """Runs a graph as its generated code does: every call gets lists and dictionaries of its own, which it
    may write into."""

    def run(self, *args: object, initial_env: Any = None, enable_io_processing: bool = True) -> Any:
        """As torch's own, which shows a bar of progress even where it shows none: with tqdm installed that
        starts a thread, which stays."""
        self.env = {} if initial_env is None else initial_env
        self.args_iter = iter(self.graph.process_inputs(*args) if enable_io_processing else args)
        out: Any = None
        with inference_regions_left():  # a graph enters and leaves by calls, and may raise in between
            for node in self.graph.nodes:
                if node not in self.env:
                    self.env[node] = out = self.run_node(node)
                if self.garbage_collect_values:
                    for last_used in self.user_to_last_uses.get(node, ()):
                        del self.env[last_used]
        return self.graph.process_outputs(out) if enable_io_processing else out

    def fetch_args_kwargs_from_env(self, n: torch.fx.Node) -> tuple[tuple[object, ...], dict[str, object]]:
        args, kwargs = super().fetch_args_kwargs_from_env(n)
        return tuple(_own(item) for item in args), {name: _own(item) for name, item in kwargs.items()}


def _own(item: object) -> object:
    if type(item) is tuple:
        return tuple(_own(x) for x in item)
    if isinstance(item, torch.fx.immutable_collections.immutable_list):
        return [_own(x) for x in item]
    if isinstance(item, torch.fx.immutable_collections.immutable_dict):
        return {key: _own(x) for key, x in item.items()}
    return item


def call(func: Function, args: Sequence[object], kwargs: Kwargs) -> object:
    """`func(*args, **kwargs)`; what it returns may be written in place."""
    if (
        kwargs.get("out") is not None
        and torch.is_grad_enabled()
        and any(t.requires_grad for t in tensors_in((args, kwargs)))
    ):
        return _out(func, args, kwargs)
    out = func(*args, **kwargs)
    if not torch.is_grad_enabled() or not isinstance(out, tuple | list):
        return out
    sources = {storage_key(t): t for t in reversed(list(tensors_in((args, kwargs))))}
    sources.pop(None, None)
    made = [_single(item, sources) for item in out]
    if all(a is b for a, b in zip(made, out, strict=True)):
        return out
    return made if isinstance(out, list) else tuple(made)


def own_memory(out: Any, args: Sequence[object]) -> object:
    """What a custom Function returned, without sharing memory with what it was given (an argument itself
    stays what it is)."""
    given = {storage_key(t) for t in tensors_in(args)} - {None}
    same = {id(t) for t in tensors_in(args)}

    def own(item: object) -> object:
        if (
            isinstance(item, torch.Tensor)
            and storage_key(item) in given
            and id(item) not in same
            and item.requires_grad
        ):
            return item.clone()
        return item

    return type(out)(own(item) for item in out) if type(out) in (tuple, list) else own(out)


def _out(func: Any, args: Sequence[object], kwargs: Kwargs) -> object:
    out: Any = kwargs["out"]
    made = func(*args, **{k: v for k, v in kwargs.items() if k != "out"})
    pairs = [(out, made)] if isinstance(out, torch.Tensor) else list(zip(out, made, strict=True))
    for target, value in pairs:
        if target.shape != value.shape:
            target.resize_(value.shape)
        target.copy_(value)
    return out


def _single(item: object, sources: dict[int | None, torch.Tensor]) -> object:
    """A multi-output view as a view of its own."""
    if not isinstance(item, torch.Tensor) or not is_view(item):
        return item
    # a hook of the program's sits there: only a copy keeps it
    if isinstance(item.grad_fn, BackwardCFunction):
        return item.clone()
    source = sources.get(storage_key(item))
    if source is None or source is item or source.dtype != item.dtype:
        return item
    method, args = single_view(Geometry.of(source), Geometry.of(item))
    return getattr(source, method)(*args)


def single_view(source: Geometry, view: Geometry) -> tuple[str, tuple[object, ...]]:
    """The tensor method and arguments by which one view op makes `view` of `source`: select, narrow, or
    as_strided for all else."""
    if source == view:
        return "__getitem__", (...,)
    step = view.offset - source.offset
    for dim, stride in enumerate(source.stride):
        rest = (source.shape[:dim] + source.shape[dim + 1 :], source.stride[:dim] + source.stride[dim + 1 :])
        index = step // stride if stride else 0
        if (view.shape, view.stride) == rest and index * stride == step and 0 <= index < source.shape[dim]:
            return "select", (dim, index)
    if view.stride == source.stride:
        differ = [d for d in range(len(view.shape)) if view.shape[d] != source.shape[d]]
        if len(differ) == 1 and source.stride[differ[0]]:
            dim = differ[0]
            start = step // source.stride[dim]
            if start * source.stride[dim] == step and 0 <= start <= source.shape[dim] - view.shape[dim]:
                return "narrow", (dim, start, view.shape[dim])
    return "as_strided", (view.shape, view.stride, view.offset)
