"""The garbage collector while runs are made: what there was before stays out of its passes, and comes back after.

Not handled: a user who has frozen objects keeps them so, and then nothing is done here.
"""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Iterator

# Python 3.12 begins with some hundred frozen objects of its own; to freeze on purpose is to freeze all that a program imported.
_OWN = 2_000
LOOK_AGAIN = 20.0  # processor seconds; to go through all objects takes some tenths of one
_since = 0.0
_settled = False


@contextlib.contextmanager
def settled_heap() -> Iterator[None]:
    """The objects there are now stay out of garbage collection: a run makes enough new ones to set off passes over all that was imported.

    What the block leaves as garbage, and all of fx's graphs refer to themselves, is freed at its end, before the others are back: afterwards
    they all count as old. Python goes through the old ones by how often it has been through the young ones, and forgets that as objects are
    settled: in a process that does little else they would never be gone through, and so it is done here now and then.
    A user who has frozen objects (`gc.freeze`) keeps them so, and then nothing is done here.
    """
    global _since, _settled
    if gc.get_freeze_count() > _OWN:
        yield
        return
    begun, collected = time.process_time(), gc.isenabled()
    gc.freeze()
    _settled = True
    try:
        yield
    finally:
        _settled = False
        if collected:
            gc.collect()
            gc.collect()  # what only autograd's nodes referred to, which the first has freed
        gc.unfreeze()
        _since += time.process_time() - begun
        if collected and _since > LOOK_AGAIN:
            _since = 0.0
            gc.collect()


@contextlib.contextmanager
def whole_heap() -> Iterator[None]:
    """The garbage collector sees all objects again, for a block inside one of `settled_heap`."""
    if not _settled:
        yield
        return
    gc.unfreeze()
    try:
        yield
    finally:
        gc.freeze()
