"""What torch's own errors mean: every sentence of torch's that is matched, as a `Kind`; errors of fake tensors.

A kind is told by phrases of torch 2.11 to 2.15, which say the same in all of them. `says` asks a message for
kinds, the functions below read what a message names. A recorded error keeps its message alone, so all of this
works on text. `is_value_error`, `is_kernel_error`: a value that a fake tensor does not have, a fake kernel at
fault. Not handled: errors of the program itself, and Python's.
"""

from __future__ import annotations

import re
import traceback
from dataclasses import dataclass

from fxgrad.records import Site
from fxgrad.records.errors import TraceError


@dataclass(frozen=True, slots=True)
class Kind:
    """One thing that torch says: any of the phrases is in the message."""

    phrases: tuple[str, ...]


def says(message: str, *kinds: Kind, any_case: bool = False) -> bool:
    """Whether a message is of one of the kinds."""
    return kind_of(message, kinds, any_case=any_case) is not None


def kind_of(message: str, kinds: tuple[Kind, ...], *, any_case: bool = False) -> Kind | None:
    """The first of the kinds that a message is of."""
    text = message.lower() if any_case else message
    for kind in kinds:
        if any((phrase.lower() if any_case else phrase) in text for phrase in kind.phrases):
            return kind
    return None


# ---------------------------------------------------------------------------------------- backward's refusals

OVERWRITTEN = Kind(("modified by an inplace operation",))
DETACHED_SAVED = Kind(("saved tensor that has been detached in-place",))
SECOND_TIME = Kind(("through the graph a second time",))
NO_GRAD_FN = Kind(("does not require grad and does not have a grad_fn",))
NO_GRAD = Kind(("does not require grad",))
NOT_SCALAR = Kind(("implicitly created only for scalar",))
NOT_USED = Kind(("appears to not have been used in the graph",))
NO_FORMULA = Kind(("no autograd formula",))
NO_DERIVATIVE = Kind(("derivative for",))
# What a Function's backward returned.
WRONG_COUNT = Kind(("incorrect number of gradients",))
WRONG_GRADIENT = Kind(("returned an invalid gradient",))
TOO_FEW = Kind(("not enough gradients",))
LEGACY_FUNCTION = Kind(("Legacy autograd function",))
NO_BACKWARD = Kind(("implement either the backward or vjp",))
# A tensor with a history on its way from or to another process.
IN_WORKER = Kind(("in DataLoader worker process",))
ACROSS_PROCESSES = Kind(("does not support crossing process boundaries",))
# DistributedDataParallel waits for gradients that never came.
UNREDUCED = Kind(("finished reduction in the prior iteration",))

# --------------------------------------------------------------------------------------------- refused writes

VIEW_OF_LEAF = Kind(("a view of a leaf Variable",))
LEAF = Kind(("a leaf Variable that requires grad",))  # said of views of leaves too
SEVERAL_VIEWS = Kind(("returns multiple views",))
FUNCTION_VIEW = Kind(("created inside a custom Function",))
NO_GRAD_VIEW = Kind(("view was created in no_grad mode",))
INFERENCE_VIEW = Kind(("view was created in inference mode",))
OVERLAP = Kind(("more than one element of the written-to tensor",))
INPUT_OVERLAP = Kind(("some elements of the input tensor and the written-to tensor refer",))
DETACHED_VIEW = Kind(("Can't detach views in-place",))
OUT_ARGUMENT = Kind(("functions with out=... arguments don't support",))
IN_PLACE = Kind(("is being used in an in-place operation",))
BEING_MODIFIED = Kind(("is being modified inplace",))
# An output that is a view: it was written, or its base was.
OUTPUT_VIEW = Kind(("is a view and",))
MODIFIED_VIEW = Kind(
    (
        "is a view and is being modified inplace",
        "is a view and its base or another view of its base has been modified inplace",
    )
)
MODIFIED = Kind(("modified inplace",))
ANY_IN_PLACE = Kind(("inplace operation",))  # said in the advice of other refusals too

# --------------------------------------------------------------------------------- refused without a backward

INFERENCE_TENSOR = Kind(("nference tensor",))
INFERENCE_MODE = Kind(("inference mode",))
NO_AUTODIFF = Kind(("support automatic differentiation",))
NUMPY_OF_HISTORY = Kind(("numpy() on Tensor that requires grad",))
NON_LEAF_OPTIMIZED = Kind(("optimize a non-leaf Tensor",))
NO_PARAMETERS = Kind(("empty parameter list",))
NON_LEAF_FLAG = Kind(("can only change requires_grad flags of leaf",))
NO_FLOATS = Kind(("can require gradients",))
FLOATS_ONLY = Kind(("only Tensors of floating point",))
AS_PARAMETER = Kind(("as parameter",))
CANNOT_ASSIGN = Kind(("cannot assign",))

# What a report can explain.
OF_GRADIENTS = (
    *(OVERWRITTEN, SECOND_TIME, NO_GRAD_FN, NO_GRAD, NOT_SCALAR, NOT_USED, NO_FORMULA, NO_DERIVATIVE, UNREDUCED),
    *(LEGACY_FUNCTION, WRONG_COUNT, WRONG_GRADIENT, TOO_FEW, ACROSS_PROCESSES),
    *(LEAF, VIEW_OF_LEAF, SEVERAL_VIEWS, FUNCTION_VIEW, NO_GRAD_VIEW, MODIFIED, IN_PLACE, DETACHED_VIEW),
    *(OVERLAP, INPUT_OVERLAP, INFERENCE_TENSOR, INFERENCE_MODE, NO_AUTODIFF, NUMPY_OF_HISTORY),
    *(NON_LEAF_OPTIMIZED, NO_PARAMETERS, NON_LEAF_FLAG, NO_FLOATS, AS_PARAMETER),
)
# What a model raises because of gradients, whatever inputs it gets; asked in any case.
WHATEVER_THE_INPUTS = (
    *(OVERWRITTEN, SECOND_TIME, NO_GRAD, NO_DERIVATIVE, LEAF, NO_GRAD_VIEW, OUTPUT_VIEW, MODIFIED),
    *(INFERENCE_TENSOR, NUMPY_OF_HISTORY, FLOATS_ONLY, CANNOT_ASSIGN),
)

# ---------------------------------------------------------------------------------------- of inputs and files

# The inputs do not fit the model (sizes, types, indices), Python's words for arguments included.
MISFIT = Kind(
    (
        "mat1 and mat2 shapes",
        "size mismatch",
        "must match the size of tensor",
        "missing 1 required positional",
        "required positional arguments",
        "unexpected keyword argument",
        "positional arguments but",
        "Expected tensor for argument",
        "expected scalar type",
        "must have the same dtype",
        "to have the same dtype",
        "expected input",
        "index out of range in self",
        "is invalid for input of size",
        "Given groups=",
    )
)
# An operator goes on only with data, or with a type that fake kernels do not take.
NO_FAKE = Kind(
    (
        "no fake impl registered",
        "has no fake",
        "is not supported for tensor subclasses",
        "data pointer",
        "Expected inputs of BF16 type",
    )
)
# CUDA is asked for where there is none: a build without it, or a machine without a driver or a GPU.
NO_CUDA = Kind(
    (
        "Torch not compiled with CUDA enabled",
        "not linked with support for cuda",
        "Found no NVIDIA driver",
        "No CUDA GPUs are available",
        "no CUDA-capable device",
    )
)
# `torch.load` refuses a pickle; asked in any case.
PICKLED = Kind(("weights_only", "Weights only load failed"))

# ---------------------------------------------------------------------------------------------- what is named

_CUSTOM = re.compile(r"backward through ([\w:.]+) but no autograd formula")
_NATIVE = re.compile(r"derivative for '?([\w:.]+?)'? is not implemented")
_EXPECTED = re.compile(r"expected version (\d+)")
_COUNT = re.compile(r"expected (\d+), got (\d+)")
_SHAPE = re.compile(r"at index (\d+) - got (\[[\d, ]*\]) but expected shape compatible with (\[[\d, ]*\])")


def without_derivative(message: str) -> str | None:
    """The operator whose derivative is missing: `space::name`, or the name of one of torch's own."""
    match = _CUSTOM.search(message) or _NATIVE.search(message)
    return match.group(1) if match is not None else None


def expected_version(message: str) -> int | None:
    """The version at which an overwritten tensor had been saved."""
    match = _EXPECTED.search(message)
    return int(match.group(1)) if match is not None else None


def gradient_counts(message: str) -> tuple[str, str] | None:
    """How many gradients a Function's backward was to return, and how many it did."""
    match = _COUNT.search(message)
    return (match[1], match[2]) if match is not None else None


def gradient_shapes(message: str) -> tuple[str, str, str] | None:
    """Of a gradient that a Function's backward returned: its index, its shape, and the argument's."""
    match = _SHAPE.search(message)
    return (match[1], match[2], match[3]) if match is not None else None


def assigned_parameter(message: str) -> str | None:
    """The parameter in whose place a plain tensor was assigned."""
    if not says(message, CANNOT_ASSIGN):
        return None
    _, found, rest = message.partition(AS_PARAMETER.phrases[0])
    parts = rest.split("'")
    return parts[1] if found and len(parts) > 1 else None


def is_captured_whole(error: BaseException) -> bool:
    """Whether an operator that only torch.compile captures failed outside it."""
    return type(error).__name__ == "UncapturedHigherOrderOpError" or "HigherOrderOperator" in str(error)


# ------------------------------------------------------------------------------------------ torch's own words

# What kernels say of a write that they refuse, for those that a fake kernel lets pass.
OVERLAP_MESSAGE = (
    f"unsupported operation: {OVERLAP.phrases[0]} refers to a single memory location. "
    "Please clone() the tensor before performing the operation."
)
INPUT_OVERLAP_MESSAGE = (
    f"unsupported operation: {INPUT_OVERLAP.phrases[0]} to a single memory location. "
    "Please clone() the tensor before performing the operation."
)

INDEX_MESSAGE = (
    "Expected tensor for argument #1 'indices' to have one of the following scalar types: Long, Int; "
    "but got {} instead (while checking arguments for embedding)"
)

# ----------------------------------------------------------------------------------------------- fake tensors

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


def is_value_error(error: BaseException) -> bool:
    """Whether torch says that a fake or meta tensor has no value."""
    if type(error).__name__ in VALUE_ERRORS:
        return True
    text = str(error)
    return any(phrase in text for phrase in _VALUE_PHRASES) or "fake tensor" in text.lower() or "FakeTensor" in text


_VALUE_PHRASES = (
    "meta tensor",
    "Meta tensor",
    "Cannot copy out of meta",
    "doesn't have storage",
    ".numpy() is not supported",
    ".tolist() is not supported",
    "aten._local_scalar_dense",
    "data is not allocated yet",
    "Cannot access data pointer of Tensor",  # somebody in C++ asks for the address of the data
    "shape_env must not be None",  # a nested tensor's ragged size
    "Tried to backward() through example input",  # a fake stand-in has no history from before the run
)


def is_kernel_error(error: BaseException) -> bool:
    """Whether a fake tensor's kernel raised: it may be wrong where the real one is not (grouped_mm demands bfloat16 in torch 2.13)."""
    frames = traceback.extract_tb(error.__traceback__)
    return any(file in frame.filename.replace("\\", "/") for frame in frames[-8:] for file in _KERNEL_FILES)


def captured_whole(site: Site | None, name: str = "") -> TraceError:
    """The refusal of an operator that cannot be recorded call by call; `name` is the dispatcher's, "" where it is not known."""
    said = {"": "torch.cond and its kind", "cond": "torch.cond", "map_impl": "map"}.get(name, name)
    runs = "run only where torch.compile captures them whole: they" if not name else "runs only where torch.compile captures it whole: it"
    branch = "the branch as a Python `if`" if name in ("", "cond") else "the loop in Python"
    return TraceError(f"{said} {runs} cannot be recorded call by call", site=site, hint=f"write {branch} for the analysis")


def out_of_memory(site: Site | None) -> TraceError:
    """The refusal where a device's memory is full: the plain step may fit, beside private copies of its tensors it does not."""
    return TraceError(
        "the device's memory is full: the step runs on private copies of the model's tensors, beside their originals",
        site=site,
        hint="pass a smaller batch, or a copy of the model on the CPU; an analysis with Options(values='fake') takes no memory of the device",
    )
