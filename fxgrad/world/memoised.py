"""Results that `functools.lru_cache` and `cache` keep: what a run adds is taken out again, for it was
computed from the run's stand-ins.

A mask memoised by its length would else be a fake tensor in the user's next training step. The entries are
found where the C code keeps them, among the objects that the garbage collector knows the function by. Of
libraries only those functions are put back that kept a tensor or gave None, as one does that is called for
what it does; whether a package is installed need not be asked again. Not put back: the counters of
`cache_info()`, and what a full cache has dropped for new entries.
"""

from __future__ import annotations

import functools
import gc
import operator
import sys
import weakref
from typing import Any

from fxgrad.world.heap import whole_heap
from fxgrad.world.namespaces import of_a_run
from fxgrad.world.undo import Act

Memoised: Any = type(functools.lru_cache(lambda: None))  # its class has no public name

_PURE = (
    "torch",
    "sympy",
    "fxgrad",
    "typing",
    "importlib",
    "re",
    "functools",
    "_operator",
    "numpy",
    "mpmath",
    "inspect",
    "os",
)
_found: list[weakref.ref[Any]] = []
_loaded = 0


def undo_memo(function: Any, *, own: bool = True) -> Act | None:
    """The act that takes out what was added since; None where the entries cannot be seen. `own`: the user's
    function, not a library's."""
    entries = _entries(function)
    if entries is None:
        return None
    before = list(entries)
    # a list of objects, which keeps them alive: a new one has another id
    seen = [] if own else gc.get_referents(function)

    def act() -> None:
        if len(entries) == len(before) and all(map(operator.is_, entries, before)):
            return
        kept = set(map(id, before))
        added = [key for key in entries if id(key) not in kept]
        if not own:
            # Of a bounded cache the results are seen only from the function, of an unbounded one only in the
            # dictionary.
            known = set(map(id, seen))
            found = [
                *(v for v in gc.get_referents(function) if id(v) not in known),
                *added,
                *(entries[key] for key in added),
            ]
            if not any(value is None or of_a_run(value) for value in found):
                return
        for key in added:
            entries.pop(key, None)

    return act


def _entries(function: Any) -> dict[Any, Any] | None:
    attributes = vars(function)
    return next(
        (held for held in gc.get_referents(function) if type(held) is dict and held is not attributes), None
    )


def of_libraries() -> list[Any]:
    """The memoised functions of libraries that may keep tensors; looked for again when a module was imported
    since."""
    global _loaded
    if _loaded != len(sys.modules):
        _loaded = len(sys.modules)
        with whole_heap():  # an analysis has frozen what was there before it
            _found[:] = [weakref.ref(f) for f in gc.get_objects() if type(f) is Memoised and not _is_pure(f)]
    return [function for ref in _found if (function := ref()) is not None]


def _is_pure(function: Any) -> bool:
    """Of a package that memoises no tensors."""
    return (getattr(function, "__module__", None) or "").partition(".")[0] in _PURE
