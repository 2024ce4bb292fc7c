"""Fake kernels that torch lacks, has for one dtype alone, or that take what real ones refuse: shapes, dtypes
and errors as the real kernels give them. `OWN`: by operator.

Each says on which versions torch's own was missing. Not handled: everything else that torch cannot fake,
which is refused where it is met.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from fxgrad.torch_api.errors import INDEX_MESSAGE
from fxgrad.torch_api.internals import CUDNN_RNN_BACKWARD, GROUPED_MM

# Runs torch's own fake kernel on these arguments.
Dispatch = Callable[..., Any]


def _grouped_mm(dispatch: Dispatch, *args: Any, **kwargs: Any) -> object:
    """The experts' matrix product: torch's fake kernel (2.11 to 2.13) takes bfloat16 alone, the real ones
    these dtypes too."""
    if args[0].dtype not in (torch.float32, torch.float16):
        return dispatch(*args, **kwargs)
    low = (argument.to(torch.bfloat16) for argument in args[:2])
    return dispatch(*low, *args[2:], **kwargs).to(args[0].dtype)


def _cudnn_rnn_backward(dispatch: Dispatch, *args: Any, **kwargs: object) -> object:
    """The gradients of cuDNN's recurrent nets, shaped as what they are of: torch has no fake kernel and would
    run the real one, on the card."""
    source, weights, hidden, cell, wanted = args[0], args[1], args[4], args[5], args[-1]
    made = [
        torch.empty_like(tensor) if want and tensor is not None else None
        for tensor, want in zip((source, hidden, cell), wanted, strict=False)
    ]
    return (*made, [torch.empty_like(weight) for weight in weights] if wanted[3] else [])


def _embedding(dispatch: Dispatch, *args: Any, **kwargs: object) -> object:
    """A row an index: torch's fake kernel of 2.11 takes indices of any dtype, the real one and later fake
    ones integers."""
    if args[1].dtype not in (torch.int64, torch.int32):
        raise RuntimeError(INDEX_MESSAGE.format(args[1].type()))
    return dispatch(*args, **kwargs)


def _index(dispatch: Dispatch, *args: Any, **kwargs: Any) -> object:
    """`x[mask.byte()]`: real kernels take a mask of uint8 for one of bool, torch's fake one (2.13) for no
    index at all."""
    picked = [
        one.bool() if isinstance(one, torch.Tensor) and one.dtype is torch.uint8 else one for one in args[1]
    ]
    return dispatch(args[0], picked, *args[2:], **kwargs)


OWN: Mapping[object, Callable[..., object]] = {
    GROUPED_MM: _grouped_mm,
    CUDNN_RNN_BACKWARD: _cudnn_rnn_backward,
    torch.ops.aten.embedding.default: _embedding,
    torch.ops.aten.index.Tensor: _index,
}
