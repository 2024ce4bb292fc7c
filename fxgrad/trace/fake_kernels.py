"""Where torch's fake kernels differ from the real ones: in-place calls that count no version, writes that
real kernels refuse.

Seen on torch 2.11 to 2.13. Not handled: wrong shapes and dtypes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from fxgrad.torch_api.errors import INPUT_OVERLAP_MESSAGE, OVERLAP_MESSAGE
from fxgrad.torch_api.internals import memory_key, overlaps_itself, version_of


def finish_fake_write(name: str, args: Sequence[object], versions: Mapping[int, int]) -> None:
    """What real kernels do at an in-place call and fake ones leave out: `_foreach_` writes count, overlapping
    memory is refused.

    Args:
        versions: each tensor's version before the call, by id.

    Raises:
        RuntimeError: as torch's own, for a write into a tensor whose elements share memory.
    """
    if not name.endswith("_") or name.endswith("__") or not args:
        return
    if name.startswith("_foreach_") and isinstance(args[0], list | tuple):
        for tensor in args[0]:
            if versions.get(id(tensor)) == version_of(tensor):
                torch.autograd.graph.increment_version(tensor)
    elif isinstance(args[0], torch.Tensor) and name not in _LAX and overlaps_itself(args[0]):
        raise RuntimeError(OVERLAP_MESSAGE)
    elif (
        isinstance(args[0], torch.Tensor)
        and name not in _LAX
        and any(_overlaps_in_part(args[0], other) for other in args[1:])
    ):
        raise RuntimeError(INPUT_OVERLAP_MESSAGE)


def _is_dense(tensor: torch.Tensor) -> bool:
    """Whether its elements fill one span of memory, in whatever order."""
    step = 1
    for stride, size in sorted(
        (stride, size) for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size != 1
    ):
        if stride != step:
            return False
        step *= size
    return True


def _overlaps_in_part(written: torch.Tensor, read: object) -> bool:
    """What torch's kernels refuse (`get_overlap_status`, ATen/MemoryOverlap.cpp): both dense, of one memory,
    and not the same span of it."""
    if not isinstance(read, torch.Tensor) or read is written or 0 in (written.numel(), read.numel()):
        return False
    if written.layout is not torch.strided or read.layout is not torch.strided:
        return False
    if memory_key(written) != memory_key(read):
        return False
    if not all(_is_dense(t) for t in (written, read)):
        return False
    (start, end), (begin, stop) = (
        (t.storage_offset() * t.element_size(), (t.storage_offset() + t.numel()) * t.element_size())
        for t in (written, read)
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
