"""Hooks of ours on the tensors that autograd saves, which stand aside where torch takes none.

`torch.func.grad`, `vjp`, `jacrev` and `hessian` refuse to run under hooks on saved tensors. A program that
calls them has none of its own: `saved_hooks` takes its pair off while such a transform runs. What autograd
saves in there goes unhooked. `saved_copies` are such hooks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.autograd.graph

from fxgrad.torch_api.calls import TORCHS_OWN, Args, Function, Kwargs, has_formula
from fxgrad.torch_api.functions import patched
from fxgrad.torch_api.internals import (
    OpOverload,
    TorchDispatchMode,
    pop_saved_tensors_hooks,
    push_saved_tensors_hooks,
    recording_below,
    schema_of,
    storage_key,
    top_saved_tensors_hooks,
)
from fxgrad.torch_api.tree import tensors_in


@contextlib.contextmanager
def saved_hooks(
    pack: Callable[[torch.Tensor], object], unpack: Callable[[Any], torch.Tensor]
) -> Iterator[None]:
    """`torch.autograd.graph.saved_tensors_hooks`, off inside `torch.func`'s transforms. Hooks of the
    program's own are refused there as ever."""
    original = torch.autograd.graph.disable_saved_tensors_hooks

    @contextlib.contextmanager
    def disable(message: str) -> Iterator[None]:
        ours = (pack, unpack) == top_saved_tensors_hooks()
        if ours:
            pop_saved_tensors_hooks()
        try:
            with original(message):
                yield
        finally:
            if ours:
                push_saved_tensors_hooks(pack, unpack)

    with (
        patched(torch.autograd.graph, "disable_saved_tensors_hooks", disable),
        torch.autograd.graph.saved_tensors_hooks(pack, unpack),
    ):
        yield


class _Copy:
    """A saved tensor's copy; the tensor itself until the operator that saved it has run."""

    __slots__ = ("copy", "tensor")

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor: torch.Tensor | None = tensor
        self.copy = tensor.detach().clone()


class _Fills(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's class is untyped here
    """Autograd saves what an operator is given before it runs; the noise of `rrelu` is written while it runs,
    and is copied again then."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self.fresh: list[_Copy] = []  # saved since the last operator ran
        self.copying = False

    def pack(self, tensor: torch.Tensor) -> _Copy:
        """The hook."""
        self.copying = True
        try:
            made = _Copy(tensor)
        finally:
            self.copying = False
        self.fresh.append(made)
        return made

    def __torch_dispatch__(
        self, func: Function, types: object, args: Args = (), kwargs: Kwargs | None = None
    ) -> object:
        if self.copying:
            return func(*args, **(kwargs or {}))
        saved, self.fresh = self.fresh, []
        with contextlib.nullcontext() if _has_formula(func) else recording_below():
            out = func(*args, **(kwargs or {}))
        for made in saved:
            if made.tensor is not None and storage_key(made.tensor) in _filled(func, args, kwargs or {}):
                made.copy = made.tensor.detach().clone()
            made.tensor = None
        return out


def _has_formula(func: Any) -> bool:
    """Whether the dispatcher has an autograd kernel for it, as it has for each of torch's own that needs
    one."""
    if not isinstance(func, OpOverload) or func.namespace in TORCHS_OWN:
        return True
    return has_formula(schema_of(func).name)


def _filled(func: Function, args: Args, kwargs: Kwargs) -> set[int | None]:
    """The memory of the arguments that an operator writes beside its first and its results."""
    written = [
        (i, a)
        for i, a in enumerate(schema_of(func).arguments)
        if i and a.alias_info is not None and a.alias_info.is_write
    ]
    values = [args[i] if i < len(args) else kwargs.get(a.name) for i, a in written if not a.is_out]
    return {storage_key(tensor) for tensor in tensors_in(values)} - {None}


@contextlib.contextmanager
def saved_copies() -> Iterator[None]:
    """Everything saved for backward is copied when it is saved: what is overwritten later does no harm."""
    fills = _Fills()
    with fills, saved_hooks(fills.pack, lambda made: made.copy):
        yield
