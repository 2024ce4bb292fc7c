"""What torch's own errors mean: every sentence of torch's that is matched, as a `Kind`; errors of fake
tensors.

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
    """One thing that torch says: any of the phrases is in the message. ` ... ` stands for whatever is
    between."""

    phrases: tuple[str, ...]


def says(message: str, *kinds: Kind, any_case: bool = False) -> bool:
    """Whether a message is of one of the kinds."""
    return kind_of(message, kinds, any_case=any_case) is not None


def kind_of(message: str, kinds: tuple[Kind, ...], *, any_case: bool = False) -> Kind | None:
    """The first of the kinds that a message is of."""
    text = message.lower() if any_case else message
    for kind in kinds:
        if any(_is_in(phrase.lower() if any_case else phrase, text) for phrase in kind.phrases):
            return kind
    return None


def _is_in(phrase: str, text: str) -> bool:
    start = 0
    for part in phrase.split(" ... "):
        found = text.find(part, start)
        if found < 0:
            return False
        start = found + len(part)
    return True


# ---------------------------------------------------------------------------------------- backward's refusals

OVERWRITTEN = Kind(("modified by an inplace operation",))
DETACHED_SAVED = Kind(("saved tensor that has been detached in-place",))
SECOND_TIME = Kind(("through the graph a second time",))
NO_GRAD_FN = Kind(("does not require grad and does not have a grad_fn",))
NO_GRAD = Kind(("does not require grad",))
NOT_SCALAR = Kind(("implicitly created only for scalar",))
COMPLEX_LOSS = Kind(("only for real scalar outputs",))
COMPLEX_OUTPUT = Kind(("automatic differentiation for outputs with complex dtype",))
GRADIENT_SHAPE = Kind(("Mismatch in shape: grad_output[",))
NO_INPUTS = Kind(
    (
        "argument to `grad()` cannot be empty",
        "argument to `backward()` cannot be empty",
        "requires non-empty inputs",
    )
)
NOT_DIFFERENTIATED = Kind(("One of the differentiated Tensors does not require grad",))
NOT_USED = Kind(("appears to not have been used in the graph",))
NO_FORMULA = Kind(("no autograd formula",))
NO_DERIVATIVE = Kind(("derivative for ... is not implemented",))
NAN_GRADIENT = Kind(("returned nan values in its",))  # said under anomaly detection
NEGATIVE_SLOPE = Kind(("calculation is triggered with a negative slope",))
CUDNN_EVAL = Kind(("RNN backward can only be called in training mode",))
CUDNN_TWICE = Kind(("Double backwards is not supported for CuDNN RNNs",))
FLEX_CPU = Kind(("FlexAttention does not support backward on",))
FORKED = Kind(("autograd's threading in combination with fork",))
POISONED = Kind(("node that was poisoned by swap_tensors",))
ASSIGNED_GRADIENT = Kind(("assigned grad has data", "attempting to assign a gradient"))
# What a Function's backward returned.
WRONG_COUNT = Kind(("incorrect number of gradients",))
WRONG_GRADIENT = Kind(("returned an invalid gradient",))
TOO_FEW = Kind(("not enough gradients",))
LEGACY_FUNCTION = Kind(("Legacy autograd function",))
NO_BACKWARD = Kind(("implement either the backward or vjp",))

# ------------------------------------------------------------------------------------- checkpoints, processes

CHECKPOINT_CHANGED = Kind(
    (
        "Recomputed values for the following tensors have different metadata",
        "A different number of tensors was saved during the original forward and recomputation",
        "trying to save more tensors during recomputation than",
    )
)
CHECKPOINT_GRAD = Kind(("torch.utils.checkpoint is incompatible with .grad()",))
CHECKPOINT_NEEDLESS = Kind(("none of output has requires_grad=True, this checkpoint() is not necessary",))
CHECKPOINT_UNPACKED = Kind(("Unpack is being triggered for a tensor that was already unpacked once",))
# A tensor with a history on its way from another process.
IN_WORKER = Kind(("in DataLoader worker process",))
# DistributedDataParallel waits for gradients that never came; has one come twice; has none to wait for.
UNREDUCED = Kind(("finished reduction in the prior iteration",))
READY_TWICE = Kind(("mark a variable ready only once", "marked as ready twice"))
NOT_NEEDED = Kind(("DistributedDataParallel is not needed when a module",))
GRAPH_CHANGED = Kind(("our training graph has changed in this iteration",))
MIXED_FLAT = Kind(("Must flatten tensors with uniform `requires_grad`",))
FSDP_TWICE = Kind(("FSDP does not support gradients of gradients",))

# ------------------------------------------------------------------------------- optimizers, gradient scalers

SPARSE_GRADIENT = Kind(("does not support sparse grad", "not compatible with sparse gradients"))
DENSE_GRADIENT = Kind(("SparseAdam does not support dense gradients",))
SHARED_GROUPS = Kind(("parameters appear in more than one parameter group",))
NOT_TENSORS = Kind(("optimizer can only optimize Tensors",))
FOREACH = Kind(("_foreach ops don't support autograd",))
NO_CLOSURE = Kind(("missing 1 required positional argument: 'closure'",))
NO_INF_CHECKS = Kind(("No inf checks were recorded",))
UNSCALED_TWICE = Kind(("unscale_() has already been called",))
UNSCALED_LATE = Kind(("unscale_() is being called after step()",))
STEPPED_TWICE = Kind(("step() has already been called since the last update()",))
UNSCALED_LOSS = Kind(("but _scale is None",))
HALF_GRADIENTS = Kind(("Attempting to unscale FP16 gradients",))
NOT_FINITE = Kind(("is non-finite, so it cannot be clipped",))

# ---------------------------------------------------------------------------------- transforms, compiled code

FORWARD_AD = Kind(("Trying to use forward AD with ... that does not support it",))
NO_LEVEL = Kind(("make sure to enter_dual_level",))
NO_JVP = Kind(("must implement the jvp function",))
SETUP_CONTEXT = Kind(("must override the setup_context staticmethod",))
VMAP_FUNCTION = Kind(
    ("does not have vmap support", "override the vmap staticmethod or set generate_vmap_rule")
)
VMAP_IN_PLACE = Kind(("vmap: inplace arithmetic",))
VMAP_ITEM = Kind(("vmap over calling .item()",))
VMAP_BRANCH = Kind(("attempting to use a Tensor in some data-dependent control flow",))
VMAP_RANDOM = Kind(("called random operation while in randomness error mode",))
GRAD_IN_VMAP = Kind(("Please call autograd.grad() outside torch.vmap",))
BACKWARD_IN_TRANSFORM = Kind(("backward() called inside a functorch transform",))
TRANSFORM_SCALAR = Kind(("Expected f(*args) to return a scalar",))
TRANSFORM_TENSOR = Kind(("Expected f(*args) to return a Tensor", "Expected f(*args) to return a tensor"))
TRANSFORM_FLAG = Kind(("attempting to call Tensor.requires_grad_()",))
TRANSFORM_FLOATS = Kind(("must be floating-point or complex Tensors",))
TRANSFORM_HOOKS = Kind(("yet support saved tensor hooks",))
INDEPENDENT = Kind(("is independent of the input", "is independent of input"))
COMPILED_TWICE = Kind(("does not currently support double backward",))
DONATED = Kind(("compiled with non-empty donated buffers",))
CUDA_GRAPHS = Kind(("accessing tensor output of CUDAGraphs that has been overwritten",))

# ------------------------------------------------------------------------------------------------------ hooks

TENSOR_HOOK = Kind(("cannot register a hook on a tensor that doesn't require gradient",))
LEAF_HOOK = Kind(("post accumulate grad hooks cannot be registered on non-leaf tensors",))
RETAIN_GRAD = Kind(("can't retain_grad on Tensor that has requires_grad=False",))
TWO_KINDS_OF_HOOKS = Kind(("Cannot use both regular backward hooks and full backward hooks",))
HOOK_RESULT = Kind(
    (
        "Backward hook returned an invalid number of grad_input",
        "Backward pre hook returned an invalid number of grad_output",
        "should always return None or None for all gradients",
    )
)
HOOK_VALUE = Kind(
    (
        "hook ... has changed the size of value",
        "hook ... has changed the type of value",
        "expected Variable, but hook returned",
        "expected tuple, but hook returned",
        "hook ... has returned an incorrect number of values",
        "can't replace a None gradient with a non-None value",
    )
)
HOOKED_VIEW = Kind(("of BackwardHookFunction ... is a view and", "of BackwardHookFunction is a view and"))
PACK_HOOK = Kind(("saved tensor pack hook is modifying its input in place",))

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
DIRTY = Kind(("marked as dirty during the forward method were not returned",))
RESIZED = Kind(("cannot resize variables that require grad",))
ELEMENTWISE = Kind(("() on Variable that requires grad",))
ANY_IN_PLACE = Kind(("inplace operation",))  # said in the advice of other refusals too

# --------------------------------------------------------------------------------- refused without a backward

INFERENCE_TENSOR = Kind(("nference tensor",))
INFERENCE_SAVED = Kind(("Inference tensors cannot be saved for backward",))
INFERENCE_WRITE = Kind(("Inplace update to inference tensor outside InferenceMode",))
INFERENCE_FLAG = Kind(("Setting requires_grad=True on inference tensor",))
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
PARAMETER_REPLACED = Kind(("cannot assign ... as parameter",))
NON_LEAF_PARAMETER = Kind(("Cannot assign non-leaf Tensor to parameter",))
DEEPCOPY = Kind(("support the deepcopy protocol",))
SERIALIZED = Kind(("refusing to serialize non-leaf tensor",))
# Python's own words: a number for a loss, and None where a tensor was expected.
NOT_A_LOSS = Kind(("object has no attribute 'backward'",))
NONE = Kind(
    (
        "'NoneType' object has no attribute",
        "unsupported operand type(s) for ... 'NoneType'",
        "'NoneType' object is not",
        "'NoneType' object does not",
        "must be Tensor, not NoneType",
        "but got NoneType",
        "element of type NoneType",
    )
)

# --------------------------------------------------------------------------------------------------- warnings

WARNED_NON_LEAF_GRAD = Kind((".grad attribute of a Tensor that is not a leaf Tensor is being accessed",))
WARNED_CHECKPOINT = Kind(("None of the inputs have requires_grad=True. Gradients will be None",))
WARNED_SCHEDULER = Kind(("`lr_scheduler.step()` before `optimizer.step()`",))
WARNED_HOOK_OUTPUTS = Kind(
    ("Full backward hook is firing when gradients are computed with respect to module outputs",)
)
WARNED_OLD_HOOK = Kind(("Using a non-full backward hook when",))
WARNED_COPY = Kind(("To copy construct from a tensor, it is recommended to use",))
WARNED_NUMBER = Kind(("Converting a tensor with requires_grad=True to a scalar",))
WARNED_CYCLE = Kind(("backward() with create_graph=True will create a reference cycle",))
WARNED_UNUSED_FLAG = Kind(("was specified in DDP constructor, but did not find any unused parameters",))
WARNED_NO_KERNEL = Kind(("an autograd kernel was not registered to the Autograd key",))
WARNED_COMPLEX = Kind(("Casting complex values to real discards the imaginary part",))

# Words that more than one of the kinds above has; a report is made of any.
BROADLY = (NO_GRAD, MODIFIED, IN_PLACE, INFERENCE_TENSOR, INFERENCE_MODE, NO_AUTODIFF, AS_PARAMETER)
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
        # What TorchScript leaves of the error of a fake tensor that was asked for its value: no class, no
        # words.
        "\nRuntimeError: \n",
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
_NATIVE = re.compile(r"derivative for '?([\w:.]+?)(?:: \w+)?'? is not implemented")
_ELEMENT = re.compile(r"element (\d+) of (?:tensors|variables) does not require grad")
_INDEX = re.compile(r"at index (\d+) appears to not have been used")
_FUNCTION = re.compile(r"Function '(\w+)' returned nan")
_READY = re.compile(r"with name ([\w.]+) has been marked as ready twice")
_EXPECTED = re.compile(r"expected version (\d+)")
_HOOK = re.compile(r"hook '(.*?)' has")
_HOOK_TYPES = re.compile(r"has changed the type of value \(was (\S+) got (\S+)\)")
_HOOK_RETURNED = re.compile(r"but hook returned '(.*?)'")
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


def element_without_history(message: str) -> int | None:
    """Which of the tensors that a derivative was asked of has no history."""
    match = _ELEMENT.search(message)
    return int(match.group(1)) if match is not None else None


def asked_index(message: str) -> int | None:
    """The index of the tensor that `autograd.grad` was asked for and that was not used."""
    match = _INDEX.search(message)
    return int(match.group(1)) if match is not None else None


def nan_function(message: str) -> str | None:
    """The autograd node whose derivative is NaN."""
    match = _FUNCTION.search(message)
    return match.group(1) if match is not None else None


def ready_parameter(message: str) -> str | None:
    """The parameter whose gradient DistributedDataParallel was given twice, by its name in the wrapped
    module."""
    match = _READY.search(message)
    return match.group(1) if match is not None else None


def hook_named(message: str) -> str | None:
    """The function that is the hook whose result does not fit, where torch names it."""
    match = _HOOK.search(message)
    return match.group(1) if match is not None else None


def hook_types(message: str) -> tuple[str, str] | None:
    """The type of a gradient, and of what a hook made of it."""
    match = _HOOK_TYPES.search(message)
    return (match[1], match[2]) if match is not None else None


def hook_returned(message: str) -> str | None:
    """The Python type that a hook returned in place of a tensor, or a tuple of them."""
    match = _HOOK_RETURNED.search(message)
    return match.group(1) if match is not None else None


def hook_resized(message: str) -> bool:
    """Whether a hook made a tensor of another size."""
    return says(message, HOOK_VALUE) and "changed the size" in message


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
    return (
        any(phrase in text for phrase in _VALUE_PHRASES)
        or "fake tensor" in text.lower()
        or "FakeTensor" in text
    )


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
    """Whether a fake tensor's kernel raised: it may be wrong where the real one is not (grouped_mm demands
    bfloat16 in torch 2.13). That no formula is registered is true of a real one too."""
    if says(str(error), NO_FORMULA):
        return False
    frames = traceback.extract_tb(error.__traceback__)
    return any(file in frame.filename.replace("\\", "/") for frame in frames[-8:] for file in _KERNEL_FILES)


def captured_whole(site: Site | None, name: str = "") -> TraceError:
    """The refusal of an operator that cannot be recorded call by call; `name` is the dispatcher's, "" where
    it is not known."""
    said = {"": "torch.cond and its kind", "cond": "torch.cond", "map_impl": "map"}.get(name, name)
    runs = (
        "run only where torch.compile captures them whole: they"
        if not name
        else "runs only where torch.compile captures it whole: it"
    )
    branch = "the branch as a Python `if`" if name in ("", "cond") else "the loop in Python"
    return TraceError(
        f"{said} {runs} cannot be recorded call by call", site=site, hint=f"write {branch} for the analysis"
    )


def out_of_memory(site: Site | None) -> TraceError:
    """The refusal where a device's memory is full: the plain step may fit, beside private copies of its
    tensors it does not."""
    return TraceError(
        "the device's memory is full: the step runs on private copies of the model's tensors, beside their "
        "originals",
        site=site,
        hint="pass a smaller batch, or a copy of the model on the CPU; an analysis with "
        'values="fake" (--values fake) takes no memory of the device',
    )
