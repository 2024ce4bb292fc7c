"""Where a watched program switched gradients off for all that follows, noted so that of several such
statements the one that ran is named.

Only calls that a line of the user's makes are noted with it (`torch.set_grad_enabled(False)`); a region
entered by `with` stands in the text around a step, and is noted as no line, once.
"""

from __future__ import annotations

import sys

import torch

from fxgrad.torch_api.internals import set_grad_enabled
from fxgrad.trace.ledger import Ledger

MOST = 1_000  # of a program that takes turns, what is noted last is no line
_GRAD_MODES = torch.no_grad.__enter__.__code__.co_filename


class SwitchedOff:
    """The statements, as notes in a ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._last: object = None
        self._count = 0

    def note(self) -> None:
        """Gradients are on and about to be switched off. Asked by the handler of a function mode: three
        frames up is what called torch."""
        if self._count > MOST:
            return
        frame, region = sys._getframe(3), False
        while frame.f_back is not None and frame.f_code.co_filename == _GRAD_MODES:
            region = region or frame.f_code.co_name == "__enter__"
            frame = frame.f_back
        spots = () if region else self._ledger.spots()
        if not spots or spots[0][0] is not frame.f_code or self._count == MOST:
            spots = ()
        here = spots[0] if spots else None
        if here != self._last:
            self._last = here
            self._count += 1
            made = self._ledger.note("op", set_grad_enabled.__name__)
            made.spots = spots
            self._ledger.keep(made)
