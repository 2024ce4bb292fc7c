"""What kind of call a torch function is, and how a graph names it.

The recorder asks: does this only query a tensor, decide on data, leave torch, or belong in the graph?
`add_call` writes it, as the `call_method` name or the `call_function` target under which generated code finds
the same function again. Keeps no list of differentiable operations.
"""

from __future__ import annotations

import functools
import inspect
import operator
import traceback
from collections.abc import Callable, Mapping
from types import BuiltinFunctionType, MethodDescriptorType
from typing import Any

import torch
import torch.fx
import torch.fx.graph
import torch.fx.node

from fxgrad.torch_api.internals import OPERATORS, TENSOR_MODULE, FakeTensor, has_kernel
from fxgrad.torch_api.module_internals import fill_node, is_from_torch, name_stem, qualified_name

# What a function mode is handed: the function, and what it is called with.
Function = Callable[..., object]
Args = tuple[object, ...]
Kwargs = Mapping[str, object]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Calls that only ask about a tensor: nothing of them belongs in a graph.
QUERIES = _words(
    "dim ndimension is_floating_point is_complex is_contiguous is_conj is_neg is_signed is_pinned is_shared "
    "is_sparse is_inference "
    "stride storage_offset untyped_storage storage data_ptr element_size get_device type_as_tuple has_names "
    "_is_view __repr__ __str__ "
    "__format__ __hash__ is_same_size is_set_to nelement_size is_tensor is_storage result_type can_cast "
    "promote_types _typed_storage "
    "is_distributed is_leaf __reduce_ex__ __dir__ is_coalesced sparse_dim dense_dim _nested_tensor_size "
    "is_autocast_enabled "
    "_has_compatible_shallow_copy_type _is_all_true has_torch_function names"
)


DECISIONS = _words("__bool__ is_nonzero equal allclose __contains__")


ESCAPES = _words(
    "item tolist numpy __array__ __float__ __int__ __index__ __complex__ __dlpack__ __array_interface__"
)


# Of these a fake tensor makes something else than data does: an error, or a crash of the process.
TAKE_DATA = _words("__reduce_ex__ __reduce__ share_memory_ apply_ map_ __format__")


SIZES = _words("size numel nelement __len__")


# They mark a stretch of the program for torch's profiler, as every optimizer's `zero_grad` does.
MARKS = _words("_record_function_enter_new _record_function_exit._RecordFunction")


# Kept in the graph although they return no tensor and bump no version.
EFFECTS = _words(
    "_set_grad_enabled register_hook retain_grad backward requires_grad_ manual_seed "
    "register_post_accumulate_grad_hook record_stream "
    "_foreach_zero_ _fused_sgd_ _fused_adam_ _fused_adamw_ _fused_adagrad_"
)


# What a step that takes a derivative is called; its results have a history where it was asked for one.
DERIVATIVE = "torch.autograd.grad"
# A hook on a tensor, which in a watch has made zeros of a gradient; and one of which that is not known.
HOOKED = "Tensor.register_hook"
HOOK_LOOKED = "Tensor.register_hook, looked at"
# The write of a backward into the `.grad` that an earlier one left.
ADDED_TO_GRAD = "torch.autograd.accumulate"
_DERIVATIVE = inspect.signature(torch.autograd.grad)


def creates_graph(args: tuple[object, ...], kwargs: Mapping[str, object]) -> bool:
    """Whether these arguments of `torch.autograd.grad` ask for a derivative that is differentiable itself."""
    try:
        arguments = _DERIVATIVE.bind(*args, **kwargs).arguments
    except TypeError:
        return False
    return bool(arguments.get("create_graph"))


# Operators over Python functions that torch.compile captures whole; both branches of a `cond` get gradients.
CAPTURED_WHOLE = _words("cond while_loop scan associative_scan map_impl")


def target_name(func: Callable[..., object], name: str) -> str:
    """The call as the facts name it: `Tensor.add_`, `torch.nn.functional.relu`."""
    return _c_name(func, name) if type(func) in _OF_C else _target_name(func, name)


# Their names depend on nothing that a patch can change.
_OF_C = (MethodDescriptorType, BuiltinFunctionType)


def _target_name(func: Callable[..., object], name: str) -> str:
    if name == "__set__":
        return "Tensor.__set__"
    if _is_method(func, name):
        return f"Tensor.{name}"
    module = getattr(func, "__module__", None) or ""
    return f"{module}.{name}" if module else name


_c_name = functools.lru_cache(maxsize=4096)(_target_name)


def _is_method(func: Callable[..., object], name: str) -> bool:
    """Whether it is a method of tensors, also where something else stands under its name for now."""
    return getattr(torch.Tensor, name, None) is func or (
        type(func) is MethodDescriptorType and issubclass(torch.Tensor, func.__objclass__)
    )


def add_call(
    graph: torch.fx.Graph,
    func: Callable[..., object],
    name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> torch.fx.Node:
    """Write the call of a torch function."""
    try:
        op, target = _graph_target(func, name)
    except TypeError:  # an unhashable callable
        op, target = "call_function", func
    return add_node(graph, op, target, args, kwargs)


def add_node(
    graph: torch.fx.Graph,
    op: str,
    target: Any,
    args: tuple[Any, ...] = (),
    kwargs: dict[str, Any] | None = None,
) -> torch.fx.Node:
    """`Graph.create_node`, without what it does anew at each: make a name of the target, and walk the
    arguments for a warning."""
    try:
        stem = _stem(target)
    except TypeError:
        stem = None
    node = graph.create_node(op, target, name=stem)
    if args or kwargs:
        fill_node(node, args, kwargs or {})
    return node


_stem = functools.lru_cache(maxsize=8192)(name_stem)


@functools.lru_cache(maxsize=4096)
def _graph_target(func: Callable[..., object], name: str) -> tuple[str, object]:
    """("call_method", name) or ("call_function", callable) for a torch function."""
    if name == "__setitem__":
        return "call_function", operator.setitem
    if name == "__getitem__":
        return "call_function", operator.getitem
    if _is_method(func, name):
        return "call_method", name
    if getattr(func, "__module__", None) == TENSOR_MODULE and hasattr(torch.Tensor, name):
        # `Tensor.__pow__` is a wrapper of `Tensor.pow` that carries the inner name
        return "call_method", name
    return "call_function", func if _is_found_by_name(func) else named(func, name)


def _is_found_by_name(func: Callable[..., object]) -> bool:
    """Whether the text that `torch.fx` writes for a function of torch leads back to it."""
    if not is_from_torch(func):
        return True
    try:
        parts = qualified_name(func).split(".")
        found: Any = functools.reduce(getattr, parts[1:], torch)
    except (AttributeError, RuntimeError):
        return False
    return parts[0] == "torch" and (found is func or found == func)


def named(function: Callable[..., object], name: str) -> Callable[..., Any]:
    """`function` as a graph target with a name of its own, for one that generated code could not find."""

    def call(*args: object, **kwargs: object) -> object:
        return function(*args, **kwargs)

    call.__name__ = call.__qualname__ = name
    call.__module__ = __name__
    call.function = function  # type: ignore[attr-defined]
    return call


_FAKE_TOLIST = FakeTensor.tolist.__code__  # reads item by item


def spoken(name: str) -> str:
    """How a person would write the call that reads a value."""
    if name == "item" and any(frame.f_code is _FAKE_TOLIST for frame, _ in traceback.walk_stack(None)):
        name = "tolist"
    known = {
        "__float__": "float()",
        "__int__": "int()",
        "__index__": "an index",
        "__array__": "NumPy",
        "__bool__": "a condition",
    }
    return known.get(name) or (
        f"`.{name}()`" if name in ("item", "tolist", "numpy") else f"`{name.strip('_')}`"
    )


TORCHS_OWN = (
    "aten",
    "prims",
    "prim",
    "_C",
    "c10d",
    "_c10d_functional",
    "_c10d_functional_autograd",
    "_dtensor",
    "fsdp",
    "symm_mem",
)


_AUTOGRAD_KEYS = ("Autograd", "AutogradCPU", "AutogradCUDA", "AutogradOther", "CompositeImplicitAutograd")


def custom_operator(target: str) -> str | None:
    """`space::name` of the custom operator that a step calls, by the step's target; None for anything else,
    torch's own included."""
    head, _, path = target.partition(OPERATORS)
    space, _, name = path.partition(".")
    if head or not name or space in TORCHS_OWN:
        return None
    return f"{space}::{name.removesuffix('.default')}"


def has_formula(operator: str) -> bool:
    """Whether the dispatcher has an autograd kernel for it. Without one torch runs the plain kernel and warns
    in backward."""
    try:
        return any(has_kernel(operator, key) for key in _AUTOGRAD_KEYS)
    except RuntimeError:  # gone since the run: nothing is known
        return True


def is_custom_function(target: object) -> bool:
    """Whether a call_function target applies a user's `autograd.Function`."""
    cls = getattr(target, "function", None) or getattr(target, "__self__", None)
    return isinstance(cls, type) and issubclass(cls, torch.autograd.Function)
