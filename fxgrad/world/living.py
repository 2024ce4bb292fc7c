"""Living optimizers and modules, found in the heap: which of some tensors any of them holds.

Asked of the garbage collector. Not handled: objects of other processes, and what no collector tracks.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import torch
from torch import nn

from fxgrad.world.heap import whole_heap


def held_elsewhere(given: Iterable[object], tensors: Collection[int]) -> frozenset[int]:
    """Which of the tensors, by id, other living optimizers hold."""
    known = {id(optimizer) for optimizer in given}

    def held(item: Any) -> Iterator[int]:
        if id(item) not in known:
            yield from (
                id(p) for group in vars(item).get("param_groups", ()) for p in group.get("params", ())
            )

    return _among(torch.optim.Optimizer, held, tensors)


def registered_anywhere(tensors: Collection[int]) -> frozenset[int]:
    """Which of the tensors, by id, living modules register."""
    return _among(nn.Module, lambda item: map(id, (vars(item).get("_parameters") or {}).values()), tensors)


def _among(base: type, keys: Callable[[object], Iterable[int]], wanted: Collection[int]) -> frozenset[int]:
    """The wanted keys that living objects of `base` and its subclasses have."""
    if not wanted:
        return frozenset()
    kinds: set[type] = {base}
    pending: list[type] = [base]
    while pending:
        new: set[type] = {*type.__subclasses__(pending.pop())} - kinds
        kinds |= new
        pending.extend(new)

    def found() -> frozenset[int]:
        # By exact type: the heap of a process that has imported a library of models holds a million objects.
        return frozenset(
            key for item in gc.get_objects() if type(item) in kinds for key in keys(item) if key in wanted
        )

    with whole_heap():
        if not found():
            return frozenset()
        gc.collect()  # one that was replaced lives on in its reference cycles
        return found()
