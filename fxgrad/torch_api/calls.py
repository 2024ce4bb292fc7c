"""What kind of call a torch function is, and how a graph names it.

The recorder asks: does this only query a tensor, decide on data, leave torch, or belong in the graph? `graph_target` gives the
`call_method` name or the `call_function` target under which generated code finds the same function again. Also here: the two functions
that graphs of ours call in place of torch's own (`run_backward`, `new_leaf_view`). Keeps no list of differentiable operations.
"""

from __future__ import annotations

import functools
import operator
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.fx.graph
import torch.fx.node
from torch._subclasses.fake_tensor import FakeTensor

from fxgrad.records import Site
from fxgrad.records.errors import TraceError


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Calls that only ask about a tensor: nothing of them belongs in a graph.
QUERIES = _words(
    "dim ndimension is_floating_point is_complex is_contiguous is_conj is_neg is_signed is_pinned is_shared is_sparse is_inference "
    "stride storage_offset untyped_storage storage data_ptr element_size get_device type_as_tuple has_names _is_view __repr__ __str__ "
    "__format__ __hash__ is_same_size is_set_to nelement_size is_tensor is_storage result_type can_cast promote_types _typed_storage "
    "is_distributed is_leaf __reduce_ex__ __dir__ is_coalesced sparse_dim dense_dim _nested_tensor_size is_autocast_enabled "
    "_has_compatible_shallow_copy_type _is_all_true has_torch_function names"
)
DECISIONS = _words("__bool__ is_nonzero equal allclose __contains__")
ESCAPES = _words("item tolist numpy __array__ __float__ __int__ __index__ __complex__ __dlpack__ __array_interface__")
SIZES = _words("size numel nelement __len__")
# Kept in the graph although they return no tensor and bump no version.
EFFECTS = _words(
    "_set_grad_enabled register_hook retain_grad backward requires_grad_ manual_seed register_post_accumulate_grad_hook record_stream "
    "_foreach_zero_ _fused_sgd_ _fused_adam_ _fused_adamw_ _fused_adagrad_"
)
# Operators over Python functions that torch.compile captures whole; both branches of a `cond` get gradients.
CAPTURED_WHOLE = _words("cond while_loop scan associative_scan map_impl")
# Calls back into Python code of the program: the recorder must stay on, quietly, to swap tensors there.
CALLS_BACK = frozenset(["backward"])
# Where `autograd.Function.apply` ends, by name at every call: a program may have taken `F.apply` itself long ago (`f = F.apply`).
FUNCTION_BASE: Any = torch.autograd.Function.__mro__[1]

# The kinds of error by which torch says that a fake tensor has no value.
VALUE_ERRORS = (
    "DataDependentOutputException",
    "DynamicOutputShapeException",
    "UnsupportedFakeTensorException",
    "UnsupportedOperatorException",
    "GuardOnDataDependentSymNode",
)
# Where torch computes a fake tensor's shape: an error raised in these is the kernel's, not the program's.
_KERNEL_FILES = (
    "torch/_meta_registrations.py",
    "torch/_subclasses/fake_tensor.py",
    "torch/_subclasses/fake_impls.py",
    "torch/_prims/",
    "torch/_prims_common/",
    "torch/_refs/",
    "torch/_decomp/",
    "torch/_library/",
)


def target_name(func: Any, name: str) -> str:
    """The call as the facts name it: `Tensor.add_`, `torch.nn.functional.relu`."""
    if name == "__set__":
        return "Tensor.__set__"
    if getattr(torch.Tensor, name, None) is func:
        return f"Tensor.{name}"
    module = getattr(func, "__module__", None) or ""
    return f"{module}.{name}" if module else name


def graph_target(func: Any, name: str) -> tuple[str, Any]:
    """("call_method", name) or ("call_function", callable) for a torch function."""
    try:
        return _graph_target(func, name)
    except TypeError:  # an unhashable callable
        return "call_function", func


@functools.lru_cache(maxsize=4096)
def _graph_target(func: Any, name: str) -> tuple[str, Any]:
    if name == "__setitem__":
        return "call_function", operator.setitem
    if name == "__getitem__":
        return "call_function", operator.getitem
    if getattr(torch.Tensor, name, None) is func:
        return "call_method", name
    if getattr(func, "__module__", None) == "torch._tensor" and hasattr(torch.Tensor, name):
        return "call_method", name  # `Tensor.__pow__` is a wrapper of `Tensor.pow` that carries the inner name
    return "call_function", func if _is_found_by_name(func) else named(func, name)


def _is_found_by_name(func: Any) -> bool:
    """Whether the text that `torch.fx` writes for a function of torch leads back to it."""
    if not torch.fx.graph._is_from_torch(func):
        return True
    try:
        parts = torch.fx.node._get_qualified_name(func).split(".")
        found: Any = functools.reduce(getattr, parts[1:], torch)
    except (AttributeError, RuntimeError):
        return False
    return parts[0] == "torch" and (found is func or found == func)


def named(function: Any, name: str) -> Callable[..., Any]:
    """`function` as a graph target with a name of its own, for one that generated code could not find."""

    def call(*args: Any, **kwargs: Any) -> Any:
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
    known = {"__float__": "float()", "__int__": "int()", "__index__": "an index", "__array__": "NumPy", "__bool__": "a condition"}
    return known.get(name) or (f"`.{name}()`" if name in ("item", "tolist", "numpy") else f"`{name.strip('_')}`")


def is_value_error(error: BaseException) -> bool:
    """Whether torch says that a fake or meta tensor has no value."""
    if type(error).__name__ in VALUE_ERRORS:
        return True
    text = str(error)
    return any(phrase in text for phrase in _VALUE_PHRASES) or "fake tensor" in text.lower()


_VALUE_PHRASES = (
    "meta tensor",
    "Meta tensor",
    "Cannot copy out of meta",
    "doesn't have storage",
    ".numpy() is not supported",
    ".tolist() is not supported",
    "aten._local_scalar_dense",
    "data is not allocated yet",
    "shape_env must not be None",  # a nested tensor's ragged size
    "Tried to backward() through example input",  # a fake stand-in has no history from before the run
)


def is_kernel_error(error: BaseException) -> bool:
    """Whether a fake tensor's kernel raised: it may be wrong where the real one is not (grouped_mm demands bfloat16 in torch 2.13)."""
    frames = traceback.extract_tb(error.__traceback__)
    return any(file in frame.filename.replace("\\", "/") for frame in frames[-8:] for file in _KERNEL_FILES)


def captured_whole(site: Site | None) -> TraceError:
    """The refusal of an operator that cannot be recorded call by call."""
    return TraceError(
        "torch.cond and its kind run only where torch.compile captures them whole: they cannot be recorded call by call",
        site=site,
        hint="write the branch as a Python `if` for the analysis",
    )


def new_leaf_view(source: torch.Tensor, size: tuple[int, ...], stride: tuple[int, ...], offset: int, requires_grad: bool) -> torch.Tensor:
    """A detached view of `source`'s storage, a new leaf: a tensor that torch made of it outside its function interface."""
    return source.detach().as_strided(size, stride, offset).requires_grad_(requires_grad)


def new_leaf(source: torch.Tensor, requires_grad: bool) -> torch.Tensor:
    """What `Variable(t)` and `nn.Parameter(t)` make: a new leaf over the same data."""
    return source.detach().requires_grad_(requires_grad)


def run_backward(
    tensors: Any,
    gradient: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Any = None,
    grad_tensors: Any = None,
    **rest: Any,
) -> None:
    """`torch.autograd.backward` without its dispatch to the recorder, which would come back here for ever."""
    tensors = (tensors,) if isinstance(tensors, torch.Tensor) else tuple(tensors)
    gradient = gradient if gradient is not None else grad_tensors
    gradient = (gradient,) if isinstance(gradient, torch.Tensor) else tuple(gradient or [None] * len(tensors))
    if inputs is not None:
        inputs = (inputs,) if isinstance(inputs, torch.Tensor) else tuple(inputs)
        if not inputs:
            raise RuntimeError("`inputs` argument to `backward` cannot be empty.")
    grads = torch.autograd._make_grads(tensors, gradient, is_grads_batched=False)
    torch.autograd.graph._engine_run_backward(
        tensors,
        grads,
        create_graph if retain_graph is None else retain_graph,
        create_graph,
        inputs or (),
        allow_unreachable=True,
        accumulate_grad=True,
    )


_TORCHS_OWN = ("aten", "prims", "prim", "_C")
_AUTOGRAD_KEYS = ("Autograd", "AutogradCPU", "AutogradCUDA", "AutogradOther", "CompositeImplicitAutograd")


def custom_operator(target: str) -> str | None:
    """`space::name` of the custom operator that a step calls, by the step's target; None for anything else, torch's own included."""
    head, _, path = target.partition("torch._ops.")
    space, _, name = path.partition(".")
    if head or not name or space in _TORCHS_OWN:
        return None
    return f"{space}::{name.removesuffix('.default')}"


def has_formula(operator: str) -> bool:
    """Whether the dispatcher has an autograd kernel for it. Without one torch runs the plain kernel and warns in backward."""
    try:
        return any(torch._C._dispatch_has_kernel_for_dispatch_key(operator, key) for key in _AUTOGRAD_KEYS)
    except RuntimeError:  # gone since the run: nothing is known
        return True


def numel(tensor: torch.Tensor) -> int:
    """`Tensor.numel` as a graph target."""
    return tensor.numel()


def finish_fake_write(name: str, args: Sequence[Any], versions: Mapping[int, int]) -> None:
    """What real kernels do at an in-place call and fake ones leave out: `_foreach_` writes count, overlapping memory is refused.

    Args:
        versions: each tensor's version before the call, by id.

    Raises:
        RuntimeError: as torch's own, for a write into a tensor whose elements share memory.
    """
    if not name.endswith("_") or name.endswith("__") or not args:
        return
    if name.startswith("_foreach_") and isinstance(args[0], list | tuple):
        for tensor in args[0]:
            if versions.get(id(tensor)) == tensor._version:
                torch.autograd.graph.increment_version(tensor)
    elif isinstance(args[0], torch.Tensor) and name not in _LAX and torch._debug_has_internal_overlap(args[0]) == 1:
        raise RuntimeError(
            "unsupported operation: more than one element of the written-to tensor refers to a single memory location. "
            "Please clone() the tensor before performing the operation."
        )
    elif isinstance(args[0], torch.Tensor) and name not in _LAX and any(_overlaps_in_part(args[0], other) for other in args[1:]):
        raise RuntimeError(
            "unsupported operation: some elements of the input tensor and the written-to tensor refer to a single memory location. "
            "Please clone() the tensor before performing the operation."
        )


def _is_dense(tensor: torch.Tensor) -> bool:
    """Whether its elements fill one span of memory, in whatever order."""
    step = 1
    for stride, size in sorted((stride, size) for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size != 1):
        if stride != step:
            return False
        step *= size
    return True


def _overlaps_in_part(written: torch.Tensor, read: Any) -> bool:
    """What torch's kernels refuse (`get_overlap_status`, ATen/MemoryOverlap.cpp): both dense, of one memory, and not the same span of it."""
    if not isinstance(read, torch.Tensor) or read is written or 0 in (written.numel(), read.numel()):
        return False
    if written.layout is not torch.strided or read.layout is not torch.strided:
        return False
    if written.untyped_storage()._cdata != read.untyped_storage()._cdata:
        return False
    if not all(_is_dense(t) for t in (written, read)):
        return False
    (start, end), (begin, stop) = (
        (t.storage_offset() * t.element_size(), (t.storage_offset() + t.numel()) * t.element_size()) for t in (written, read)
    )
    if (start, end) == (begin, stop):
        return written.stride() != read.stride()
    return start < stop and begin < end


# Run on an expanded tensor each (torch 2.13): these do not ask whether elements share memory.
_LAX = frozenset(
    [
        *("fill_", "zero_", "masked_fill_", "index_fill_", "index_put_", "tril_", "triu_"),
        *("detach_", "requires_grad_", "t_", "transpose_", "squeeze_", "unsqueeze_", "resize_"),
    ]
)
