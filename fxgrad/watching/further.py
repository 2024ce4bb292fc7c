"""Steps beyond those asked for: what has no gradient in the first may get one in a later.

A layer that is dropped at random, tasks that take turns, an expert without tokens, a gate that a schedule
opens: one step says nothing of them. So while something that should train has none, or only zeros, further
steps run, and in those gradients alone are looked at: no call is noted, and the script keeps its speed.
Bounded by `FURTHER` steps, and by `SECONDS` once `AT_LEAST` of them have run.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterable

import torch

from fxgrad.trace.ledger import Ledger

FURTHER = 16
AT_LEAST = 4
SECONDS = 20.0


class Further:
    """The further steps of one watch: `count` of them so far, and what they were for."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.count = 0
        self._end = 0.0
        self._unsettled: list[weakref.ref[torch.Tensor]] = []

    def wanted(self, trainable: Iterable[torch.Tensor]) -> bool:
        """Whether one more step is to run, for what of `trainable` has no gradient other than zeros yet."""
        unsettled = [
            tensor for tensor in trainable if tensor.requires_grad and self._state(tensor) in ("none", "zero")
        ]
        if not self.count:
            self._unsettled = [weakref.ref(tensor) for tensor in unsettled if self._state(tensor) == "none"]
            self._end = time.monotonic() + SECONDS
        late = self.count >= AT_LEAST and time.monotonic() > self._end
        return bool(unsettled) and self.count < FURTHER and not late

    def late(self) -> list[torch.Tensor]:
        """What had no gradient at first and got one in a further step."""
        living = [tensor for ref in self._unsettled if (tensor := ref()) is not None]
        return [tensor for tensor in living if self._state(tensor) == "some"]

    def _state(self, tensor: torch.Tensor) -> str:
        """The best its gradient was; one that was cleared before the step counts as had."""
        slot = self._ledger.tensors.get(tensor)
        if slot is None:
            return "none"
        return "some" if "some" in (slot.begun, slot.after) else slot.begun or slot.after or "none"
