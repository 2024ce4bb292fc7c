"""Calls that take a Python function of the program: checkpoints and the transforms of `torch.func`, each one
node over a `Closure` of it.

What a transform gives back may be a function too (`vjp`): it carries its node, so that calling it is one more
node and transforming it refers to this run's. `interceptions` and `checkpoint_intercepted` are for
`fxgrad.trace.seams`. Inside an active transform nothing is recorded.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import operator
import threading
from collections.abc import Callable, Iterator, Mapping
from types import FunctionType

import torch
from torch.fx.node import Argument

from fxgrad.records import NodeKind
from fxgrad.torch_api.functions import patched
from fxgrad.torch_api.internals import transforms_active
from fxgrad.torch_api.module_internals import TRANSFORMS, TRANSFORMS_WITH_FUNCTIONS
from fxgrad.trace.arguments import bound_closure
from fxgrad.trace.entries import object_node
from fxgrad.trace.recorder import Recorder
from fxgrad.trace.regions import opaque, passes
from fxgrad.trace.targets import Closure, call_object


def interceptions(recorder: Recorder) -> Iterator[tuple[object, str, object]]:
    """(module, attribute, replacement) for the transforms."""
    for module, name in (*TRANSFORMS, *TRANSFORMS_WITH_FUNCTIONS):
        holder = importlib.import_module(module)
        if hasattr(holder, name):
            yield holder, name, _transform(recorder, getattr(holder, name))
    yield from recorder.derivatives.interceptions()


@contextlib.contextmanager
def checkpoint_intercepted(recorder: Recorder) -> Iterator[None]:
    """`checkpoint` is bound by name in user code; its `_disable_dynamo` wrapper looks this attribute up at
    every call."""
    import torch.utils.checkpoint as module

    inner = module.checkpoint.__wrapped__  # type: ignore[attr-defined]
    with patched(
        inner, "__dynamo_disable", _transform(recorder, inner, kind="checkpoint", target=module.checkpoint)
    ):
        yield


def _transform(
    recorder: Recorder,
    original: Callable[..., object],
    kind: NodeKind = "transform",
    target: Callable[..., object] | None = None,
) -> Callable[..., object]:
    """A call whose first argument is a Python function of the program: one node over a `Closure` of that
    function."""
    target = target if target is not None else original

    @functools.wraps(original)
    def call(function: Callable[..., object], *args: object, **kwargs: object) -> object:
        if passes(recorder) or transforms_active():
            if recorder.active and threading.get_ident() == recorder.thread:
                args, kwargs = recorder.swap(args), recorder.swap(kwargs)
            return original(function, *args, **kwargs)
        if kind == "checkpoint" and recorder.open_checkpoints and _keeps_gradients(recorder, args, kwargs):
            return function(*args, **{k: v for k, v in kwargs.items() if k not in _CHECKPOINT_OPTIONS})
        closure = Closure(function)
        known = getattr(function, "graph_node", None)
        holder = known if known is not None else object_node(recorder, closure)

        def node(node_args: tuple[Argument, ...], node_kwargs: dict[str, Argument]) -> torch.fx.Node:
            return recorder.graph.call_function(target, (holder, *node_args), node_kwargs)

        def run(*sub_args: object, **sub_kwargs: object) -> object:
            return original(function, *sub_args, **sub_kwargs)

        out, step, hidden = opaque(
            recorder, kind, getattr(original, "__name__", "transform"), node, run, args, kwargs
        )
        step.constants = (function, dict(kwargs))
        # Its parameters and other tensors from before the run it holds itself; those made in this run it must
        # be given.
        inner = {
            key: (t, slot)
            for key, (t, slot) in hidden.items()
            if slot.node.op != "get_attr" and slot.value in step.reads
        }
        if inner and known is None:
            with recorder.graph.inserting_before(step.node):
                step.node.replace_input_with(holder, bound_closure(recorder, closure, inner))
        return _with_functions(recorder, step.node, out)

    return call


def _with_functions(recorder: Recorder, node: torch.fx.Node, out: object) -> object:
    """A transform's result, the functions in it replaced by ones that are recorded when called."""
    if not isinstance(out, tuple) or not any(isinstance(item, FunctionType) for item in out):
        return out
    return tuple(
        _recorded(recorder, item, recorder.graph.call_function(operator.getitem, (node, i)))
        if isinstance(item, FunctionType)
        else item
        for i, item in enumerate(out)
    )


def _recorded(recorder: Recorder, function: FunctionType, graph_node: torch.fx.Node) -> Callable[..., object]:
    @functools.wraps(function)
    def call(*args: object, **kwargs: object) -> object:
        if passes(recorder) or transforms_active():
            return function(*recorder.swap(args), **recorder.swap(kwargs))

        def node(node_args: tuple[Argument, ...], node_kwargs: dict[str, Argument]) -> torch.fx.Node:
            return recorder.graph.call_function(call_object, (graph_node, *node_args), node_kwargs)

        return opaque(recorder, "transform", function.__name__, node, function, args, kwargs)[0]

    call.graph_node = graph_node  # type: ignore[attr-defined]
    return call


_CHECKPOINT_OPTIONS = frozenset(
    ["use_reentrant", "preserve_rng_state", "context_fn", "determinism_check", "debug", "early_stop"]
)


def _keeps_gradients(recorder: Recorder, args: tuple[object, ...], kwargs: Mapping[str, object]) -> bool:
    """Whether a checkpoint does to gradients what a plain call does; the reentrant form needs an argument
    that requires grad."""
    reentrant = kwargs.get("use_reentrant")
    if reentrant is False:
        return True
    return any(isinstance(a, torch.Tensor) and recorder.slot_of(a).tensor.requires_grad for a in args)
