"""The user's own tensor objects on private copies of their data, for a block: what runs on them is the
program as it is, without stand-ins.

Where a tensor has a history from before that leads to others of the program's, backward walks on into the
graph of the user's: what it leaves on the leaves there is taken away too. Not handled: subclasses that refuse
another tensor's data; those raise.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch.autograd.graph import Node
from torch.nn.parameter import is_lazy

from fxgrad.torch_api.autograd_graph import leaf_of, nodes_behind
from fxgrad.torch_api.internals import DisableTorchFunction, is_view, set_version, version_of
from fxgrad.torch_api.tensors import lay_on
from fxgrad.world.standins import SHARED_STORAGE_LIMIT, StandIns, each_element_once
from fxgrad.world.swap import Swap


@contextlib.contextmanager
def private_data(
    tensors: Iterable[torch.Tensor], dtype: torch.dtype | None
) -> Iterator[Mapping[int, torch.Tensor]]:
    """The user's tensors hold private copies of their data (floating ones in `dtype`), and no gradient, while
    the block runs.

    The objects stay the same: whatever refers to them, a closure, a hook, a leaf module, finds the copies.
    Those that a write could change for good have stand-ins instead, which torch's functions are handed in
    their place; yields these, by the ids of the originals.
    """
    # what has no data yet, has none to keep apart
    tensors = [tensor for tensor in tensors if not is_lazy(tensor)]
    copier = StandIns(None)
    copier.foreign = foreign_histories(tensors)
    kept: list[Callable[[], None]] = []
    with gradients_set_aside(leaves_behind(tensors)):
        made = {id(t): _in_dtype(copier.make(t), dtype) for t in tensors if takes_a_history_for_good(t)}
        try:
            for tensor in tensors:
                if id(tensor) in made:
                    continue
                if tensor.is_inference():
                    kept.append(_contents(tensor))
                    continue
                kept.append(_restorer(tensor))
                tensor.data = _in_dtype(copier.copied(tensor), dtype)
                if tensor.is_leaf:
                    tensor.grad = None
            with Swap(made) if made else contextlib.nullcontext():
                yield made
        finally:
            for restore in kept:
                restore()


def takes_a_history_for_good(tensor: torch.Tensor) -> bool:
    """Whether nothing would give a tensor its own autograd history back, once the program wrote it in place:
    one that has a history, or a view without one."""
    if is_lazy(tensor) or tensor.is_inference() or not (tensor.is_floating_point() or tensor.is_complex()):
        return False
    return not tensor.is_leaf or (is_view(tensor) and not tensor.requires_grad)


def _in_dtype(tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    return tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor


def _contents(tensor: torch.Tensor) -> Callable[[], None]:
    """An inference tensor takes no other data; only other inference code can write it."""
    with torch.inference_mode():
        elements = each_element_once(tensor)
        before = elements.clone()

    def restore() -> None:
        with torch.inference_mode():
            elements.copy_(before)

    return restore


def leaves_behind(tensors: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """The leaves to which the histories of `tensors` lead."""
    nodes = nodes_behind([t.grad_fn for t in tensors if t.grad_fn is not None])
    return [leaf for node in nodes if (leaf := leaf_of(node)) is not None]


def foreign_histories(tensors: Iterable[torch.Tensor]) -> frozenset[int]:
    """The ids of those of `tensors` whose history leads to none of the others: a backward through it is not
    the program's own, and what runs in it (hooks, checkpoints) may change what nobody noted."""
    tensors = list(tensors)
    leaves, nodes = (
        {id(t) for t in tensors if t.is_leaf},
        {t.grad_fn for t in tensors if t.grad_fn is not None},
    )
    return frozenset(
        id(t) for t in tensors if t.grad_fn is not None and not _leads_to(t.grad_fn, leaves, nodes)
    )


def _leads_to(start: Node, leaves: set[int], nodes: set[Node]) -> bool:
    return any(
        id(leaf_of(node)) in leaves or (node in nodes and node is not start) for node in nodes_behind([start])
    )


@contextlib.contextmanager
def gradients_set_aside(leaves: Iterable[torch.Tensor]) -> Iterator[frozenset[int]]:
    """`leaves` have no gradient when the block begins, and the very one they had when it ends; yields the ids
    of those that had one."""
    with DisableTorchFunction():
        kept = [(leaf, leaf.grad) for leaf in leaves]
        for leaf, grad in kept:
            if grad is not None:
                leaf.grad = None
    try:
        yield frozenset(id(leaf) for leaf, grad in kept if grad is not None)
    finally:
        with DisableTorchFunction():
            for leaf, grad in kept:
                if leaf.grad is not grad:
                    leaf.grad = grad


def can_be_lent(tensor: torch.Tensor) -> bool:
    """Whether a tensor may lie on other memory for a while; a big one is not copied where nobody uses it."""
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter) or tensor.is_meta or tensor.is_inference():
        return False
    plain = (
        tensor.layout is torch.strided and not tensor.is_quantized and tensor.is_leaf and not is_view(tensor)
    )
    return plain and tensor.untyped_storage().nbytes() <= SHARED_STORAGE_LIMIT


class Lent:
    """The user's tensors lie on the memory of their stand-ins until `end`: what writes them where no mode
    looks writes the stand-ins.

    Not handled: tensors that such a write could give a history for good (views, results of an earlier
    computation), inference tensors, subclasses and layouts of their own.
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
    """For a leaf that counts its writes: what is none is never lent (`can_be_lent`), and has a stand-in or
    keeps its contents where data is private (`takes_a_history_for_good`)."""
    data, requires_grad, grad, version = tensor.data, tensor.requires_grad, tensor.grad, version_of(tensor)
    hooks = [(name, held, dict(held or {})) for name in _HOOKS for held in (getattr(tensor, name),)]

    def restore() -> None:
        if not tensor.is_leaf:
            tensor.detach_()  # a write with a gradient gave it a history
        tensor.grad = None
        lay_on(tensor, data)
        tensor.requires_grad_(requires_grad)
        tensor.grad = grad
        for name, held, before in hooks:
            now = getattr(tensor, name)
            if now is not None and dict(now) != before:
                now.clear()
                now.update(before)
            if now is not held:
                setattr(tensor, name, held)
        # a graph of the user's that waits for its backward compares it
        if version_of(tensor) != version:
            set_version(tensor, version)

    return restore


_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")
