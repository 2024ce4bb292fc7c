"""A program that asks for CUDA on a machine without it: what it puts on `cuda` stays on the CPU.

For analysing what a CI runner could not run: no gradient depends on where a tensor lies. Not handled: calls
of `torch.cuda` itself, and code that asks a tensor whether it is on a GPU (it is not).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from fxgrad.records import Site
from fxgrad.records.errors import FxgradError, InputError
from fxgrad.source.excerpt import place
from fxgrad.source.sites import innermost, user_spots
from fxgrad.torch_api.errors import NO_CUDA, says

_CPU = torch.device("cpu")


class CudaOnCpu(TorchFunctionMode):
    """While it is entered, `.cuda()` and `device="cuda"` mean the CPU; `site` is where that was asked for
    first."""

    def __init__(self) -> None:
        super().__init__()
        self.site: Site | None = None

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        kwargs = dict(kwargs or {})
        moved = getattr(func, "__name__", "") == "cuda"
        if moved or any(map(_is_cuda, (*args, *kwargs.values()))):
            spots = user_spots(sys._getframe(1)) if self.site is None else ()
            self.site = innermost(spots) or self.site
        if moved:
            return args[0].to(_CPU)
        return func(*(_here(arg) for arg in args), **{key: _here(value) for key, value in kwargs.items()})

    @property
    def said(self) -> str:
        """For the report."""
        where = f" ({place(self.site)})" if self.site is not None else ""
        return f"there is no CUDA here: what the program puts on `cuda` stays on the CPU{where}"


def _is_cuda(value: object) -> bool:
    return (isinstance(value, torch.device) and value.type == "cuda") or (
        isinstance(value, str) and value.partition(":")[0] == "cuda"
    )


def _here(value: object) -> object:
    return _CPU if _is_cuda(value) else value


def lacks_cuda(error: FxgradError | str) -> bool:
    """Whether a program failed, or may have, with that error or message, because this machine has no CUDA.

    Fake tensors may be put on it all the same, always so by a torch that is built for CUDA, and then no input
    is found that fits.
    """
    if torch.cuda.is_available():
        return False
    said = str(error)
    unfit = isinstance(error, InputError) and (torch.version.cuda is not None or "cuda" in said)
    return unfit or says(said, NO_CUDA)
