"""Where torch's fake kernels differ from the real ones: in-place calls that count no version, writes that real kernels refuse, and the
kernels that torch lacks or knows for one dtype alone (`OWN`).

Seen on torch 2.11 to 2.13. Not handled: wrong shapes and dtypes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

# Runs torch's own fake kernel on these arguments.
Dispatch = Callable[..., Any]


def _grouped_mm(dispatch: Dispatch, *args: Any, **kwargs: Any) -> Any:
    """The experts' matrix product: torch's fake kernel (2.11 to 2.13) takes bfloat16 alone, the real ones these dtypes too."""
    if args[0].dtype not in (torch.float32, torch.float16):
        return dispatch(*args, **kwargs)
    low = (argument.to(torch.bfloat16) for argument in args[:2])
    return dispatch(*low, *args[2:], **kwargs).to(args[0].dtype)


def _cudnn_rnn_backward(dispatch: Dispatch, *args: Any, **kwargs: Any) -> Any:
    """The gradients of cuDNN's recurrent nets, shaped as what they are of: torch has no fake kernel and would run the real one, on the card."""
    source, weights, hidden, cell, wanted = args[0], args[1], args[4], args[5], args[-1]
    made = [torch.empty_like(tensor) if want and tensor is not None else None for tensor, want in zip((source, hidden, cell), wanted, strict=False)]
    return (*made, [torch.empty_like(weight) for weight in weights] if wanted[3] else [])


OWN: Mapping[Any, Callable[..., Any]] = {
    torch.ops.aten._grouped_mm.default: _grouped_mm,
    torch.ops.aten._cudnn_rnn_backward.default: _cudnn_rnn_backward,
}


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
