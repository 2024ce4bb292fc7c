"""The user's own tensor objects on private copies of their data, for a block: what runs on them is the program as it is, without stand-ins.

Where a tensor has a history from before, backward walks on into the graph of the user's: what it leaves on the leaves there is taken away too.
Not handled: subclasses that refuse another tensor's data; those raise.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from fxgrad.torch_api.internals import DisableTorchFunction, is_view, set_version, version_of
from fxgrad.world.standins import SHARED_STORAGE_LIMIT, StandIns


@contextlib.contextmanager
def private_data(tensors: Any, dtype: torch.dtype | None) -> Iterator[None]:
    """The user's tensors hold private copies of their data (floating ones in `dtype`), and no gradient, while the block runs.

    The objects stay the same: whatever refers to them, a closure, a hook, a leaf module, finds the copies.
    """
    tensors = list(tensors)
    copier = StandIns(None)
    kept: list[Callable[[], None]] = []
    with gradients_set_aside(leaves_behind(tensors)):
        try:
            for tensor in tensors:
                if tensor.is_inference():
                    kept.append(_contents(tensor))
                    continue
                kept.append(_restorer(tensor))
                data = copier._copy(tensor)
                tensor.data = data.to(dtype) if dtype is not None and data.is_floating_point() else data
                if tensor.is_leaf:
                    tensor.grad = None
            yield
        finally:
            for restore in kept:
                restore()


def _contents(tensor: torch.Tensor) -> Callable[[], None]:
    """An inference tensor takes no other data; only other inference code can write it."""
    with torch.inference_mode():
        before = tensor.clone()

    def restore() -> None:
        with torch.inference_mode():
            tensor.copy_(before)

    return restore


def leaves_behind(tensors: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """The leaves to which the histories of `tensors` lead."""
    queue = [t.grad_fn for t in tensors if t.grad_fn is not None]
    seen: set[Any] = set(queue)
    found: list[torch.Tensor] = []
    while queue:
        function: Any = queue.pop()
        variable = getattr(function, "variable", None)  # that of an AccumulateGrad
        if isinstance(variable, torch.Tensor):
            found.append(variable)
        for after, _ in function.next_functions:
            if after is not None and after not in seen:
                seen.add(after)
                queue.append(after)
    return found


@contextlib.contextmanager
def gradients_set_aside(leaves: Iterable[torch.Tensor]) -> Iterator[None]:
    """`leaves` have no gradient when the block begins, and the very one they had when it ends."""
    with DisableTorchFunction():
        kept = [(leaf, leaf.grad) for leaf in leaves]
        for leaf, grad in kept:
            if grad is not None:
                leaf.grad = None
    try:
        yield
    finally:
        with DisableTorchFunction():
            for leaf, grad in kept:
                if leaf.grad is not grad:
                    leaf.grad = grad


def can_be_lent(tensor: torch.Tensor) -> bool:
    """Whether a tensor may lie on other memory for a while; a big one is not copied where nobody uses it."""
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter) or tensor.is_meta or tensor.is_inference():
        return False
    plain = tensor.layout is torch.strided and not tensor.is_quantized and tensor.is_leaf and not is_view(tensor)
    return plain and tensor.untyped_storage().nbytes() <= SHARED_STORAGE_LIMIT


class Lent:
    """The user's tensors lie on the memory of their stand-ins until `end`: what writes them where no mode looks writes the stand-ins.

    Not handled: tensors that such a write could give a history for good (views, results of an earlier computation), inference tensors,
    subclasses and layouts of their own.
    """

    def __init__(self) -> None:
        self._kept: list[Callable[[], None]] = []

    def lend(self, tensor: torch.Tensor, made: torch.Tensor) -> None:
        """Let a tensor lie where its stand-in does."""
        with DisableTorchFunction():
            if type(made) is type(tensor) and can_be_lent(tensor):
                self._kept.append(_restorer(tensor))
                tensor.data = made.data

    def end(self) -> None:
        """Each tensor has its own memory again."""
        with DisableTorchFunction():
            while self._kept:
                self._kept.pop()()


def _restorer(tensor: torch.Tensor) -> Callable[[], None]:
    data, leaf, requires_grad = tensor.data, tensor.is_leaf, tensor.requires_grad
    grad = tensor.grad if leaf else None
    version = None if tensor.is_inference() else version_of(tensor)
    hooks = [(name, held, dict(held or {})) for name in _HOOKS for held in (getattr(tensor, name),)] if leaf else []

    def restore() -> None:
        if leaf and not tensor.is_leaf:
            tensor.detach_()  # a write with a gradient gave it a history
        if leaf:
            tensor.grad = None
        tensor.data = data
        if leaf:
            tensor.requires_grad_(requires_grad)
            tensor.grad = grad
        for name, held, before in hooks:
            now = getattr(tensor, name)
            if now is not None and dict(now) != before:
                now.clear()
                now.update(before)
            if now is not held:
                setattr(tensor, name, held)
        if version is not None and version_of(tensor) != version:  # a graph of the user's that waits for its backward compares it
            set_version(tensor, version)

    return restore


_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")
