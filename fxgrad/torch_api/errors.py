"""What torch's own errors mean: a value that a fake tensor does not have, a fake kernel at fault, an operator nobody can record.

Told by the types and phrases of torch 2.11 to 2.13. Not handled: errors of the program itself.
"""

from __future__ import annotations

import traceback

from fxgrad.records import Site
from fxgrad.records.errors import TraceError

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


def out_of_memory(site: Site | None) -> TraceError:
    """The refusal where a device's memory is full: the plain step may fit, beside private copies of its tensors it does not."""
    return TraceError(
        "the device's memory is full: the step runs on private copies of the model's tensors, beside their originals",
        site=site,
        hint="pass a smaller batch, or a copy of the model on the CPU; an analysis with Options(values='fake') takes no memory of the device",
    )
