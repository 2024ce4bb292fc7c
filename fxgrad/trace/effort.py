"""What a step of a program costs to compute: the multiplications of its products and convolutions, told from
the shapes of what it read and made.

An estimate, for a choice between two ways to the same answer. Not counted: everything but the layers of torch
with weights, convolutions and products of matrices, and what runs inside of a region that is one node.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import nn

from fxgrad.trace.slots import Slot

_SMALL = 100_000  # elements: a step that makes fewer is cheap in any program that ends its first step
_WEIGHTED = (
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "linear",
)
_PRODUCTS = (
    "matmul",
    "mm",
    "bmm",
    "addmm",
    "baddbmm",
    "einsum",
    "__matmul__",
    "scaled_dot_product_attention",
)


class TooCostly(BaseException):
    """The program computes more on real values than its answer is worth: fake ones tell it as well. A
    BaseException, for user code should not catch it; where it does so all the same, the run raises it at its
    end (`Effort.spent`)."""


class Effort:
    """What may still be computed: multiplications."""

    def __init__(self, budget: float) -> None:
        self._left = budget

    @property
    def spent(self) -> bool:
        """Whether there is nothing left: what ran since went another way, if the program caught the error."""
        return self._left < 0

    def spend(self, kind: str, target: str, slots: Sequence[Slot], out: object) -> None:
        """A step of this kind has made `out` of what the slots hold.

        Raises:
            TooCostly: all is spent.
        """
        made = next(_tensors(out), None)
        if made is None or made.numel() < _SMALL:
            return
        self._left -= multiplications(kind, target, [slot.tensor for slot in slots], made)
        if self.spent:
            raise TooCostly


def multiplications(kind: str, target: str, reads: Sequence[torch.Tensor], made: torch.Tensor) -> float:
    """Of a step that makes `made`; where it is none of those counted, one for each element."""
    name = target.rpartition(".")[2]
    if kind != "module" and name in _PRODUCTS and reads and reads[0].dim():
        return float(made.numel()) * reads[0].shape[-1]
    weights = _weights(kind, name, reads)
    if not weights or not made.dim():
        return float(made.numel())
    # each place of the result is made by all weights; channels come second after a convolution, else last
    channels = made.shape[1 if weights[0].dim() > 2 and made.dim() > 2 else -1]
    return float(made.numel()) / max(channels, 1) * sum(weight.numel() for weight in weights)


def _weights(kind: str, name: str, reads: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """What each place of the result is made by. A table that is looked up by integers costs nothing."""
    if kind == "module" and reads and reads[0].is_floating_point():
        return [read for read in reads if isinstance(read, nn.Parameter) and read.dim() > 1]
    return list(reads[1:2]) if kind != "module" and name in _WEIGHTED else []


def _tensors(out: object) -> Iterator[torch.Tensor]:
    if isinstance(out, torch.Tensor):
        yield out
    elif isinstance(out, tuple | list):
        for item in out:
            yield from _tensors(item)
