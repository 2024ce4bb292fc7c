"""What is private to torch and asked of its core: each name once, typed, with what it is for.

Every name is there on torch 2.11.0, 2.12.1, 2.13.0, 2.14.1 and 2.15.0; where versions differ, that is settled
here and nowhere else. Modules, graphs and transforms are in `module_internals`, the seam of `Function.apply`
in `functions`, what lies on several processes in `distributed`. Nothing here imports more of torch than
`import torch` does. `tests/torch_api/test_internals.py` finds uses in other files and asks for every name.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    UnsupportedOperatorException,
    _device_handler,
    in_kernel_invocation_manager,
    unset_fake_temporarily,
)
from torch.autograd.graph import Node
from torch.fx.node import Argument
from torch.utils._python_dispatch import TorchDispatchMode

# Classes and modules that other files use under torch's own names.
__all__ = [
    "DataDependentOutputException",
    "DynamicOutputShapeException",
    "FakeTensor",
    "FakeTensorMode",
    "TorchDispatchMode",
    "UnsupportedOperatorException",
    "pytree",
    "unset_fake_temporarily",
]

_C: Any = torch._C  # torch annotates few of its functions

# ------------------------------------------------------------------------------------------- modes and stacks

# Around calls of our own: neither function modes nor subclasses see them.
DisableTorchFunction = torch._C.DisableTorchFunction
# Where programs look that class up: (module, attribute). The second leaves modes on.
WITHOUT_TORCH_FUNCTION = (_C, "DisableTorchFunction")
DisableTorchFunctionSubclass: type = _C.DisableTorchFunctionSubclass
# Whether function modes and subclasses are asked on this thread, as that class and its kin have it: (asks,
# sets).
torch_function_state: tuple[Callable[[], object], Callable[[object], None]] = (
    _C._get_torch_function_state,
    _C._set_torch_function_state,
)
# The stack of function modes, outermost first; and how many dispatch modes there are.
function_mode_count: Callable[[], int] = _C._len_torch_function_stack
function_mode_at: Callable[[int], object] = _C._get_function_stack_at
push_function_mode: Callable[[object], None] = _C._push_on_torch_function_stack
pop_function_mode: Callable[[], object] = _C._pop_torch_function_stack
dispatch_mode_count: Callable[[], int] = _C._len_torch_dispatch_stack
pop_dispatch_mode: Callable[[], object] = _C._pop_torch_dispatch_stack
# Inside `vmap`, `grad` and their kind tensors are wrappers: nothing of them is recorded.
transforms_active: Callable[[], bool] = _C._are_functorch_transforms_active


def unwrapped(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor inside the wrappers of all transforms, which has the history that there is without them."""
    while _C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = _C._functorch.get_unwrapped(tensor)
    return tensor


def default_device_mode() -> Any:
    """The mode that `torch.set_default_device` keeps on; None where nobody called it."""
    return getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)


# --------------------------------------------------------------------------------- grad mode, autocast, flags


def dual_levels() -> int:
    """The innermost level of forward-mode differentiation; -1 outside of all."""
    level: int = torch.autograd.forward_ad._current_level
    return level


@contextlib.contextmanager
def inference_regions_left() -> Iterator[None]:
    """Regions of `inference_mode` that the block enters on this thread and does not leave end with it.

    A region that its object alone ends, when that is let go of after the block, puts the thread's dispatch
    keys back as they were when it was entered: with the key of a mode that is long gone every later call of
    torch fails. A block inside a mode ends its regions in it.
    """
    entered: list[tuple[int, Any]] = []
    region = _C._InferenceMode  # looked up whenever one is made

    def make(enabled: bool) -> object:
        made = region(enabled)
        entered.append((threading.get_ident(), made))
        return made

    _C._InferenceMode = make
    try:
        yield
    finally:
        _C._InferenceMode = region
        for thread, made in reversed(entered):
            if thread == threading.get_ident():
                made.__exit__(None, None, None)  # of one that was left it does nothing


# What a graph calls to switch modes: functions that generated code finds by name, unlike a context manager.
set_grad_enabled: Callable[[bool], None] = _C._set_grad_enabled
enter_inference_mode: Callable[[bool], object] = torch.autograd.grad_mode._enter_inference_mode
exit_inference_mode: Callable[[object], None] = torch.autograd.grad_mode._exit_inference_mode
InferenceRegion: type = _C._InferenceMode  # what the first gives, and `torch.inference_mode` holds
enter_autocast: Callable[..., object] = torch.amp.autocast_mode._enter_autocast
exit_autocast: Callable[[object], None] = torch.amp.autocast_mode._exit_autocast

# `torch.compiler.is_compiling()` and `is_exporting()` answer these attributes of `torch.compiler`.
COMPILER_FLAGS = ("_is_compiling_flag", "_is_exporting_flag")
# Flags of the process with no public pair of functions that is as cheap: (asks, sets).
FLAGS: tuple[tuple[Callable[[], object], Callable[[object], None]], ...] = (
    (_C._is_multithreading_enabled, _C._set_multithreading_enabled),
    (_C._get_mkldnn_enabled, _C._set_mkldnn_enabled),
    (_C._get_cudnn_enabled, _C._set_cudnn_enabled),
    (_C._get_cudnn_benchmark, _C._set_cudnn_benchmark),
    (_C._get_cudnn_deterministic, _C._set_cudnn_deterministic),
    (_C._get_flash_sdp_enabled, _C._set_sdp_use_flash),
    (_C._get_mem_efficient_sdp_enabled, _C._set_sdp_use_mem_efficient),
    (_C._get_math_sdp_enabled, _C._set_sdp_use_math),
    (_C._get_deterministic_fill_uninitialized_memory, _C._set_deterministic_fill_uninitialized_memory),
    (_C._get_float32_matmul_precision, _C._set_float32_matmul_precision),
    (_C._get_cudnn_allow_tf32, _C._set_cudnn_allow_tf32),
    (_C._get_cudnn_sdp_enabled, _C._set_sdp_use_cudnn),
    (_C._get_cublas_allow_tf32, _C._set_cublas_allow_tf32),
    (_C._get_mkldnn_deterministic, _C._set_mkldnn_deterministic),
    (_C._get_nnpack_enabled, _C._set_nnpack_enabled),
    (_C._check_sparse_tensor_invariants, _C._set_check_sparse_tensor_invariants),
    (_C._get_graph_executor_optimize, _C._set_graph_executor_optimize),
    *(
        (partial(getattr, torch.compiler, flag), partial(setattr, torch.compiler, flag))
        for flag in COMPILER_FLAGS
    ),
)
# How tensors print; `torch.set_printoptions` has no counterpart that asks.
PRINT_OPTIONS: object = torch._tensor_str.PRINT_OPTS


def autocast_arguments(context: torch.autocast) -> tuple[Argument, ...]:
    """The arguments by which `enter_autocast` makes the same region again."""
    return context.device, context.fast_dtype, context._enabled, context._cache_enabled


def plain_torchscript() -> None:
    """TorchScript programs run as they are written, without its optimizer."""
    _C._set_graph_executor_optimize(False)


def steady_cudnn() -> None:
    """cuDNN takes algorithms that add up in a fixed order."""
    _C._set_cudnn_deterministic(True)
    _C._set_cudnn_benchmark(False)


# ------------------------------------------------------------------------------------ saved tensors, versions

# The type of autograd's nodes that accumulate into a leaf: a custom Function's node may have any attribute,
# `variable` too.
AccumulateGrad: Any = _C._functions.AccumulateGrad

# Takes off the innermost pair of hooks on saved tensors.
pop_saved_tensors_hooks: Callable[[], None] = _C._autograd._pop_saved_tensors_default_hooks
push_saved_tensors_hooks: Callable[..., None] = _C._autograd._push_saved_tensors_default_hooks
# An autograd node's attributes that give a saved tensor without unpacking it begin so.
RAW_SAVED = "_raw_saved_"


def top_saved_tensors_hooks() -> object:
    """The innermost pair of hooks on saved tensors, None where there are none; also where hooks are
    forbidden."""
    return _C._autograd._top_saved_tensors_default_hooks(True)


def next_sequence_number() -> int:
    """The number that the next autograd node of this thread will have."""
    number: int = _C._autograd._get_sequence_nr()
    return number


def sequence_number(function: Node) -> int:
    """By which autograd nodes of one thread stand in the order in which they were made."""
    number: int = function._sequence_nr()
    return number


def version_of(tensor: torch.Tensor) -> int:
    """The version counter; -1 for an inference tensor, which counts none."""
    try:
        return tensor._version
    except RuntimeError:
        return -1


# the same without a frame of Python's; raises RuntimeError for an inference tensor
counter_of: Callable[[torch.Tensor], int] = vars(_C.TensorBase)["_version"].__get__


def set_version(tensor: torch.Tensor, version: int) -> None:
    """Put a version counter back, after the data it counts was put back."""
    _C._autograd._unsafe_set_version_counter((tensor,), (version,))


# ----------------------------------------------------------------------------------------- storages and views


def storage_id(storage: torch.UntypedStorage) -> int:
    """The address of a storage's own object in C++, which all its Python objects share; a fake one has it
    too."""
    return int(storage._cdata)


def storage_key(tensor: torch.Tensor) -> int | None:
    """What tensors have in common that share memory; None for one without a storage (sparse, some wrappers,
    lazy)."""
    try:
        key: int = tensor.untyped_storage()._cdata
    except (NotImplementedError, RuntimeError, ValueError):
        return None
    return key


def memory_key(tensor: torch.Tensor) -> int:
    """`storage_key`, or a number of its own for a tensor that has no storage."""
    key = storage_key(tensor)
    return -id(tensor) if key is None else key


def is_view(tensor: torch.Tensor) -> bool:
    """Whether autograd takes it for a view of another tensor."""
    return tensor._is_view()


def base_of(tensor: torch.Tensor) -> torch.Tensor | None:
    """The tensor that it is a view of, for autograd."""
    return tensor._base


# Whether it is the dispatcher's wrapper around another tensor, whose writes become new tensors. It cannot be
# given other data: torch ends the process.
is_functional: Callable[[torch.Tensor], bool] = torch._is_functional_tensor
# Views that are conjugated or negated when they are read.
conjugated: Callable[[torch.Tensor], torch.Tensor] = torch._conj
negated: Callable[[torch.Tensor], torch.Tensor] = torch._neg_view


def as_class(cls: type, data: torch.Tensor, requires_grad: bool) -> torch.Tensor:
    """A new leaf of that subclass over the same data; its `__init__` does not run."""
    return torch.Tensor._make_subclass(cls, data, requires_grad)


# The methods of `torch.Tensor` that make one of a subclass: a wrapper, and one that shares another's data.
SUBCLASS_MAKERS = ("_make_wrapper_subclass", "_make_subclass")


# ----------------------------------------------------------------------------------------- engine, dispatcher

# What `torch.autograd.backward` does once it has dispatched: the gradients to begin with, and the walk.
make_gradients: Callable[..., object] = torch.autograd._make_grads
run_engine: Callable[..., tuple[torch.Tensor | None, ...]] = torch.autograd.graph._engine_run_backward
# Whether an operator has a kernel for a dispatch key, by their names.
has_kernel: Callable[[str, str], bool] = _C._dispatch_has_kernel_for_dispatch_key


@contextlib.contextmanager
def recording_below() -> Iterator[None]:
    """In a dispatch mode: what runs in the block is recorded by autograd, as without the mode it would be for
    an operator that has no formula (the plain kernel runs, and what that calls is recorded)."""
    exclude, keys = _C._SetExcludeDispatchKeyGuard, _C.DispatchKey
    with exclude(keys.AutogradFunctionality, False), exclude(keys.ADInplaceOrView, False):
        yield


# Where the dispatcher looks for Python's rules, in C++ that lets no exception through: one raised there
# aborts the process.
DISPATCHER_ASKS: str = os.path.dirname(torch._library.__file__)
OpOverload = torch._ops.OpOverload
OpOverloadPacket = torch._ops.OpOverloadPacket
HigherOrderOperator = torch._ops.HigherOrderOperator
# How the name of an operator of the dispatcher begins, with its module's, where a call is named.
OPERATORS = "torch._ops."
# The modules of `Tensor`'s own methods in Python, and of classes in C++.
TENSOR_MODULE = "torch._tensor"
C_MODULE = "torch._C"


def overlaps_itself(tensor: torch.Tensor) -> bool:
    """Whether elements of it certainly share memory, as kernels ask before they write."""
    return bool(torch._debug_has_internal_overlap(tensor) == 1)


def schema_of(overload: Any) -> Any:
    """The signature of an operator's overload, with what it writes."""
    return overload._schema


def overload_name(target: object) -> str | None:
    """The name of an operator's overload ("" is no name here); None for anything else."""
    return getattr(target, "_overloadname", None)


# ----------------------------------------------------------------------------------------------- fake tensors

# The logger that prints a traceback for each fake kernel that raises.
FAKE_LOGGER = "torch._subclasses.fake_tensor"
# Whether a fake mode's tensors give an address (zero) to who asks in C++ for their data, an attribute of the
# mode; else that raises.
GIVES_ADDRESSES = "_allow_unsafe_data_ptr_access"
# The question for a tensor's device, which comes to a mode as a call, and how a fake one answers.
ASKS_DEVICE: object = torch.ops.prim.device.default
fake_device: Callable[[Sequence[object]], object] = _device_handler
# Around a kernel that is to take a mode's fake tensors for the meta tensors that they are.
inside_kernel: Callable[[FakeTensorMode], contextlib.AbstractContextManager[None]] = (
    in_kernel_invocation_manager
)
# The dispatcher's keys of a tensor: which kernels a call on it runs through.
keys_of: Callable[[torch.Tensor], object] = _C._dispatch_key_set
# Operators whose fake kernels or results are ours (`fake_kernels`, `fake_results`).
GROUPED_MM: object = torch.ops.aten._grouped_mm.default
CUDNN_RNN_BACKWARD: object = torch.ops.aten._cudnn_rnn_backward.default
UNSAFE_VIEW: object = torch.ops.aten._unsafe_view.default
# What a gamma distribution draws with, as a step of that kind is named.
STANDARD_GAMMA = "torch._standard_gamma"

# --------------------------------------------------------------------------------------------------- archives


def archive_records(file: str) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """The records of an archive by name, as `torch.load` and `torch.export.load` find them; none where torch
    reads no archive in it."""
    try:
        reader = _C.PyTorchFileReader(file)
    except RuntimeError:
        return
    for name in reader.get_all_records():
        yield name, functools.partial(reader.get_record, name)


# ----------------------------------------------------------------------------------------------------- dynamo

DYNAMO = "torch._dynamo"  # long to import: only ever asked whether it is there


# What torch.compile adds to a module's globals (2.11 to 2.15) begins so. The code that it compiled is kept,
# and looks these up.
COMPILED_NAMES = (
    "__compiled_fn_",
    "__resume_at_",
    "__builtins_dict__",
    "__import_",
    "__gen_rand_values",
    "__warnings_warn_wrapper",
)


def dynamo_is_loaded() -> bool:
    """Whether anything was compiled, or may be: importing it takes a second."""
    return DYNAMO in sys.modules


# What a DataLoader runs in each process that it starts, which it looks up there: (module, attribute).
WORKER_LOOP: tuple[object, str] = (torch.utils.data._utils.worker, "_worker_loop")
WorkerError: type = torch._utils.ExceptionWrapper  # an error as such a process sends it


def iterated(value: object) -> tuple[object, object] | None:
    """The data set and the collating function of a DataLoader's iterator; None for anything else."""
    if not isinstance(value, torch.utils.data.dataloader._BaseDataLoaderIter):
        return None
    return getattr(value, "_dataset", None), getattr(value, "_collate_fn", None)
