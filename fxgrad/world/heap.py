"""The garbage collector while runs are made: what there was before stays out of its passes, and comes back
after, or when the program asks.

Not handled: a user who has frozen objects keeps them so, and then nothing is done here. The few hundred that
Python 3.12 begins with are frozen no more after the first analysis.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import sys
import time
from collections.abc import Callable, Iterator

from fxgrad.world.interrupts import held

# Python 3.12 begins with some hundred frozen objects of its own; to freeze on purpose is to freeze all that a
# program imported.
_OWN = 2_000
LOOK_AGAIN = 20.0  # processor seconds; to go through all objects takes some tenths of one
_since = 0.0
_settled = False

# What shows which objects there are: not those that are settled. A program may ask (trackers of memory do).
_ASKING = {
    name: getattr(gc, name)
    for name in ("get_objects", "get_referrers", "get_freeze_count", "freeze", "unfreeze")
}


@contextlib.contextmanager
def settled_heap() -> Iterator[None]:
    """The objects there are now stay out of garbage collection: a run makes enough new ones to set off passes
    over all that was imported.

    What the block leaves as garbage, and all of fx's graphs refer to themselves, is freed at its end, before
    the others are back: afterwards they all count as old. Python goes through the old ones by how often it
    has been through the young ones, and forgets that as objects are settled: in a process that does little
    else they would never be gone through, and so it is done here now and then. A program that asks the
    collector for objects gets all of them, and from then on nothing is settled. Where somebody holds a
    function that asks (`from gc import get_objects`), or a user has frozen objects (`gc.freeze`) and keeps
    them so, nothing is done.
    """
    global _since, _settled
    if _settled or gc.get_freeze_count() > _OWN or _held_by_somebody():
        yield
        return
    begun, collected = time.process_time(), gc.isenabled()
    with held() as ctrl_c:
        for name, function in _ASKING.items():
            setattr(gc, name, _unsettling(function))
        _ASKING["freeze"]()
        _settled = True
        try:
            with ctrl_c.comes():
                yield
        finally:
            _settled = False
            for name, function in _ASKING.items():
                setattr(gc, name, function)
            if collected:
                gc.collect()
                gc.collect()  # what only autograd's nodes referred to, which the first has freed
            gc.unfreeze()
            _since += time.process_time() - begun
            if collected and _since > LOOK_AGAIN:
                _since = 0.0
                gc.collect()


def _unsettling(function: Callable[..., object]) -> Callable[..., object]:
    @functools.wraps(function)
    def ask(*args: object, **kwargs: object) -> object:
        global _settled
        if _settled:
            _settled = False
            _ASKING["unfreeze"]()
        return function(*args, **kwargs)

    return ask


def _held_by_somebody() -> bool:
    """Whether any but the module `gc` and this one hold a function that asks: counted beside an object that
    two dictionaries hold."""
    two = _PROBE, dict(_PROBE)
    (own,) = _references(two[0])
    return max(_references(_ASKING)) > own


_PROBE = {"held": object()}


def _references(held: dict[str, object]) -> list[int]:
    return [sys.getrefcount(item) for item in held.values()]


def undo_freezing() -> Callable[[], None]:
    """The act that frees what a program has frozen, where nothing was: neither by the user nor here."""
    count, unfreeze = _ASKING["get_freeze_count"], _ASKING["unfreeze"]
    # to count those that are settled here is to go through all of them
    frozen = not _settled and count() > _OWN

    def undo() -> None:
        if not frozen and not _settled and count() > _OWN:
            unfreeze()

    return undo


@contextlib.contextmanager
def whole_heap() -> Iterator[None]:
    """The garbage collector sees all objects again, for a block inside one of `settled_heap`."""
    global _settled
    if not _settled:
        yield
        return
    _settled = False
    _ASKING["unfreeze"]()
    try:
        yield
    finally:
        _ASKING["freeze"]()
        _settled = True
