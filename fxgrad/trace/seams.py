"""What a TorchFunctionMode does not see, caught while a recorder runs and put back after, however the run
ends.

Calls of modules (leaf modules, module paths), `autograd.Function.apply`, `torch.utils.checkpoint.checkpoint`,
`torch.vmap` and `torch.func.grad`, TorchScript functions, `nn.Parameter(...)`, `Variable(...)`,
`torch.from_numpy`, the place of a warning; `inference_mode`, `autocast` and backward hooks are in
`fxgrad.trace.regions`. Every interception passes straight through on other threads and inside quiet regions
(Note [Quiet regions] in `fxgrad.trace.recorder`).
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.autograd.forward_ad
from torch import nn
from torch.autograd.variable import VariableMeta
from torch.fx.node import Argument

from fxgrad.records import NodeKind
from fxgrad.source.sites import Spot
from fxgrad.torch_api import allowed_writes, registry, symbols, tree
from fxgrad.torch_api.calls import Args, Kwargs, add_node
from fxgrad.torch_api.complex_parts import complex_part
from fxgrad.torch_api.functions import Apply, patched, replaced_apply
from fxgrad.torch_api.internals import DisableTorchFunction, FakeTensor, transforms_active
from fxgrad.torch_api.module_internals import ScriptFunction, is_scripted, source_of_script
from fxgrad.trace import elsewhere, imports, leaf_modules, pack_hooks, python_state, regions, transforms
from fxgrad.trace.entries import numpy_entry, object_node
from fxgrad.trace.notes import Called
from fxgrad.trace.observations import NeedsValue
from fxgrad.trace.recorder import Recorder
from fxgrad.trace.regions import opaque, passes
from fxgrad.trace.sketch import Sketch
from fxgrad.trace.slots import Slot
from fxgrad.trace.targets import call_object, function_apply, new_leaf, new_leaf_view
from fxgrad.world.shown_warnings import at_its_own_line


@contextlib.contextmanager
def intercepted(recorder: Recorder) -> Iterator[None]:
    """All interceptions on, for the calling thread."""
    with contextlib.ExitStack() as stack:
        for holder, name, value in (
            *_module_calls(recorder),
            *_interceptions(recorder),
            *regions.interceptions(recorder),
            *elsewhere.interceptions(recorder),
            *imports.interceptions(recorder),
            *recorder.births.interceptions(recorder.spots_of_birth),
        ):
            stack.enter_context(patched(holder, name, value))
        stack.enter_context(transforms.checkpoint_intercepted(recorder))
        stack.enter_context(replaced_apply(_apply(recorder)))
        stack.enter_context(patched(warnings, "showwarning", at_its_own_line()))
        yield


def _interceptions(recorder: Recorder) -> Iterator[tuple[object, str, object]]:
    yield nn.Parameter, "__new__", staticmethod(_new_parameter(recorder))
    yield VariableMeta, "__call__", _new_variable(recorder)
    yield torch, "from_numpy", _from_numpy(recorder)
    yield torch.nested, "nested_tensor", _nested_tensor(recorder)
    yield torch, "manual_seed", _manual_seed(recorder)
    yield torch.random, "manual_seed", _manual_seed(recorder)
    yield torch.Tensor, "set_", _unasked(recorder, "set_")
    yield torch.Tensor, "as_subclass", _unasked(recorder, "as_subclass")
    yield torch.Tensor, "real", complex_part("real", recorder.thread)
    yield torch.Tensor, "imag", complex_part("imag", recorder.thread)
    yield nn.RNNBase, "flatten_parameters", _flatten_parameters(recorder)
    yield FakeTensor, "data_ptr", _no_address(recorder, "data_ptr")
    yield FakeTensor, "__dlpack__", _no_address(recorder, "__dlpack__")
    yield ScriptFunction, "__call__", _script_call(recorder)
    if recorder.assumptions:
        yield from symbols.CONSUMING
    yield from transforms.interceptions(recorder)
    yield from pack_hooks.interceptions(recorder)


def _flatten_parameters(recorder: Recorder) -> Callable[[nn.RNNBase], None]:
    """cuDNN's layout of a recurrent net's weights: no number changes, but it is made in the user's own
    memory, found by its address."""
    original = nn.RNNBase.flatten_parameters

    def flatten_parameters(module: nn.RNNBase) -> None:
        if threading.get_ident() != recorder.thread:
            original(module)

    return flatten_parameters


def _no_address(recorder: Recorder, name: str) -> Callable[..., object]:
    """Where a fake tensor's data is: torch says at zero, and a kernel of the user's own (Triton, ctypes,
    another library) would go there. torch's own C++ compares addresses of fake tensors and does not come by
    here."""

    original = getattr(FakeTensor, name)

    def address(tensor: torch.Tensor, *args: object, **kwargs: object) -> object:
        if threading.get_ident() != recorder.thread:
            return original(tensor, *args, **kwargs)
        raise NeedsValue(f"`{name}` reads where the data is", recorder.spots())

    return address


# ---------------------------------------------------------------------------------------------------- modules


def _module_calls(recorder: Recorder) -> Iterator[tuple[object, str, object]]:
    """Every call of a module ends in `_call_impl`; patched on the classes in use, because each of the
    thousands of subclasses that `nn.Module` has in a big program would be updated if its own attribute
    changed."""
    known = leaf_modules.Leaves(recorder.root)
    modules = {id(module): module for module in (*registry.modules(recorder.root), *recorder.reach.modules)}
    for module in modules.values():
        # `module.compile()`: the call would go past the class
        if vars(module).get("_compiled_call_impl") is not None:
            yield module, "_compiled_call_impl", None
    # All originals are looked up before the first is replaced: one class in use may be another's base.
    for cls, original in [(cls, cls._call_impl) for cls in {type(module) for module in modules.values()}]:
        yield cls, "_call_impl", _module_call(recorder, known, original)
    if recorder.assumptions:
        yield from python_state.interceptions(recorder, modules.values())


def _module_call(
    recorder: Recorder, known: leaf_modules.Leaves, original: Callable[..., object]
) -> Callable[..., object]:
    def _call_impl(module: nn.Module, *args: object, **kwargs: object) -> object:
        if passes(recorder):
            if recorder.quiet and threading.get_ident() == recorder.thread:
                recorder.called.add(id(module))
                if is_scripted(module):
                    with leaf_modules.scripted(module, recorder.swap):
                        return original(module, *recorder.swap(args), **recorder.swap(kwargs))
            return original(module, *args, **kwargs)
        if isinstance(recorder, Sketch):
            return recorder.module_call(known, original, module, args, kwargs)
        recorder.called.add(id(module))
        path = recorder.paths.get(id(module))
        if transforms_active():
            return _inlined_call(recorder, module, path, original, args, kwargs)
        if is_scripted(module):
            return _script_module_call(recorder, module, path, original, args, kwargs)
        # The model itself is never one node: a graph module that holds it under a name would have other
        # parameter names.
        if path and known.is_leaf(module):
            return _leaf_call(recorder, module, path, original, args, kwargs)
        return _inlined_call(recorder, module, path, original, args, kwargs)

    return _call_impl


def _leaf_call(
    recorder: Recorder,
    module: nn.Module,
    path: str,
    original: Callable[..., object],
    args: Args,
    kwargs: Kwargs,
) -> object:
    def node(node_args: tuple[Argument, ...], node_kwargs: dict[str, Argument]) -> torch.fx.Node:
        return add_node(recorder.graph, "call_module", path, node_args, node_kwargs)

    def run(*sub_args: object, **sub_kwargs: object) -> object:
        return original(module, *sub_args, **sub_kwargs)

    out, step, _ = opaque(recorder, "module", type(module).__name__, node, run, args, kwargs)
    held = vars(module)
    step.settings = tuple((name, held[name]) for name in ("dim", "normalized_shape") if name in held)
    _note_call(recorder, module, out, step.spots)
    return out


def _script_module_call(
    recorder: Recorder,
    module: Any,
    path: str | None,
    original: Callable[..., object],
    args: Args,
    kwargs: Kwargs,
) -> object:
    """TorchScript code is compiled: one node, with the stand-ins put into the compiled module while it
    runs."""

    def node(node_args: tuple[Argument, ...], node_kwargs: dict[str, Argument]) -> torch.fx.Node:
        if path:
            return recorder.graph.call_module(path, node_args, node_kwargs)
        return recorder.graph.call_function(
            call_object, (object_node(recorder, module), *node_args), node_kwargs
        )

    def run(*sub_args: object, **sub_kwargs: object) -> object:
        with leaf_modules.scripted(module, recorder.swap):
            return original(module, *sub_args, **sub_kwargs)

    out, step, _ = opaque(recorder, "module", module.original_name, node, run, args, kwargs)
    if path:
        _note_call(recorder, module, out, step.spots)
    return out


def _inlined_call(
    recorder: Recorder,
    module: nn.Module,
    path: str | None,
    original: Callable[..., object],
    args: Args,
    kwargs: Kwargs,
) -> object:
    spots = recorder.spots_from(sys._getframe(1))
    recorder.path_stack.append(path if path is not None else recorder.path_stack[-1])
    recorder.anchors.append((sys._getframe(), spots))
    try:
        out = original(module, *args, **kwargs)
        regions.legacy_hooks(recorder, module, out)
    finally:
        recorder.path_stack.pop()
        recorder.anchors.pop()
    _note_call(recorder, module, out, spots)
    return out


def _note_call(recorder: Recorder, module: nn.Module, out: object, spots: tuple[Spot, ...]) -> None:
    slots = [recorder.slots.get(id(t)) for t in tree.tensors_in(out)]
    values = tuple(slot.value for slot in slots if slot is not None)
    recorder.calls.append(Called(module, spots, values, len(recorder.path_stack)))


# -------------------------------------------------------------------------------------------------- functions


def _apply(recorder: Recorder) -> Callable[..., object]:
    def apply(cls: type, original: Apply, args: Args, kwargs: Kwargs) -> object:
        if passes(recorder):
            if recorder.active and threading.get_ident() == recorder.thread:
                args, kwargs = recorder.swap(args), recorder.swap(kwargs)
            return original(*args, **kwargs)

        def node(node_args: tuple[Argument, ...], node_kwargs: dict[str, Argument]) -> torch.fx.Node:
            return recorder.graph.call_function(function_apply(cls), node_args, node_kwargs)

        def run(*sub_args: object, **sub_kwargs: object) -> object:
            made = original(*sub_args, **sub_kwargs)
            return made if recorder.allow is None else allowed_writes.own_memory(made, sub_args)

        kind: NodeKind = "checkpoint" if cls.__name__ == "CheckpointFunction" else "function"
        out, step, _ = opaque(recorder, kind, cls.__qualname__, node, run, args, kwargs)
        step.constants = (cls,)
        if recorder.applied is not None:
            recorder.applied(step, out)
        return out

    return apply


def _script_call(recorder: Recorder) -> Callable[..., object]:
    """`torch.jit.script` functions: the Python they were compiled from, where torch kept it, else one
    node."""
    original = ScriptFunction.__call__

    def __call__(function: Any, *args: object, **kwargs: object) -> object:
        source = source_of_script(function)
        if passes(recorder) or transforms_active():
            if recorder.active and threading.get_ident() == recorder.thread:
                args, kwargs = recorder.swap(args), recorder.swap(kwargs)
            return original(function, *args, **kwargs)
        if source is not None:
            return source(*args, **kwargs)
        name = getattr(function, "name", "") or "script_function"

        def node(node_args: tuple[Argument, ...], node_kwargs: dict[str, Argument]) -> torch.fx.Node:
            return recorder.graph.call_function(
                call_object, (object_node(recorder, function), *node_args), node_kwargs
            )

        def run(*sub_args: object, **sub_kwargs: object) -> object:
            return original(function, *sub_args, **sub_kwargs)

        return opaque(recorder, "transform", name, node, run, args, kwargs)[0]

    return __call__


# ----------------------------------------------------------------------------------------------- constructors


def _new_parameter(recorder: Recorder) -> Callable[..., object]:
    original = nn.Parameter.__new__

    def __new__(
        cls: type, data: object = None, requires_grad: bool = True, *rest: object, **kwargs: object
    ) -> object:
        if passes(recorder) or cls is not nn.Parameter or not isinstance(data, torch.Tensor):
            if (
                recorder.active
                and isinstance(data, torch.Tensor)
                and threading.get_ident() == recorder.thread
            ):
                data = recorder.swap(data)
            return original(cls, data, requires_grad, *rest, **kwargs)
        with DisableTorchFunction():
            slot = recorder.slot_of(data)
        return _new_leaf(recorder, slot, original(cls, slot.tensor, requires_grad), "torch.nn.Parameter")

    return __new__


def _new_variable(recorder: Recorder) -> Callable[..., object]:
    original = type.__call__

    def __call__(cls: type, *args: object, **kwargs: object) -> object:
        if passes(recorder) or not args or not isinstance(args[0], torch.Tensor):
            return original(cls, *args, **kwargs)
        with DisableTorchFunction():
            slot = recorder.slot_of(args[0])
        return _new_leaf(
            recorder, slot, original(cls, slot.tensor, *args[1:], **kwargs), "torch.autograd.Variable"
        )

    return __call__


def _new_leaf(recorder: Recorder, slot: Slot, made: torch.Tensor, target: str) -> torch.Tensor:
    if made is slot.tensor:
        return made
    spots = recorder.spots_from(sys._getframe(1))
    with DisableTorchFunction():
        node = _leaf_node(recorder, slot, made)
        step = recorder.add_step(node, "leaf", target, spots)
        step.reads.append(slot.value)
        step.makes.append(recorder.bind(made, node, node.name).value)
    return made


def _leaf_node(recorder: Recorder, slot: Slot, made: torch.Tensor) -> torch.fx.Node:
    source = slot.tensor
    layout = (tuple(made.shape), tuple(made.stride()), made.storage_offset())
    if layout == (tuple(source.shape), tuple(source.stride()), source.storage_offset()):
        return recorder.graph.call_function(new_leaf, (slot.node, made.requires_grad))
    return recorder.graph.call_function(new_leaf_view, (slot.node, *layout, made.requires_grad))


def _unasked(recorder: Recorder, name: str) -> Callable[..., object]:
    """`Tensor.set_` and `Tensor.as_subclass` are the tensor methods that ask no TorchFunctionMode."""
    original = getattr(torch.Tensor, name)

    @functools.wraps(original)
    def method(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if passes(recorder) or transforms_active():
            if recorder.active and not recorder.making and threading.get_ident() == recorder.thread:
                tensor, args, kwargs = recorder.swap(tensor), recorder.swap(args), recorder.swap(kwargs)
            return original(tensor, *args, **kwargs)
        # Not itself: a function that holds itself would keep the whole run as garbage, and what remembers
        # functions would keep it for good.
        return recorder.__torch_function__(original, (), (tensor, *args), kwargs)

    return method


def _nested_tensor(recorder: Recorder) -> Callable[..., object]:
    """What it is made of it asks no mode about."""
    original = torch.nested.nested_tensor

    @functools.wraps(original)
    def nested_tensor(*args: Any, **kwargs: Any) -> object:
        if passes(recorder) or transforms_active():
            return original(*args, **kwargs)
        return recorder.__torch_function__(original, (), args, kwargs)

    return nested_tensor


def _manual_seed(recorder: Recorder) -> Callable[..., object]:
    """A seed set by the forward is part of what it computes. Not seen: `Generator.manual_seed`, a method of a
    C type."""
    original = torch.random.manual_seed

    @functools.wraps(original)
    def manual_seed(seed: int) -> torch.Generator:
        if not passes(recorder):
            _, (held,), _, _ = recorder.converted(seed)
            recorder.graph.call_function(original, (held,))
        return original(seed)

    return manual_seed


def _from_numpy(recorder: Recorder) -> Callable[..., object]:
    original = torch.from_numpy

    @functools.wraps(original)
    def from_numpy(array: object) -> torch.Tensor:
        made = original(array)
        if passes(recorder):
            return made
        with DisableTorchFunction():
            return numpy_entry(recorder, made, "torch.from_numpy", recorder.spots_from(sys._getframe(1)))

    return from_numpy
