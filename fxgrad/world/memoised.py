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
import types
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

from fxgrad.source.objects import module_of
from fxgrad.world.heap import whole_heap
from fxgrad.world.namespaces import of_a_run
from fxgrad.world.undo import Act

Memoised: Any = type(functools.lru_cache(lambda: None))  # its class has no public name
Entries = dict[object, object]  # one for the function's whole life, `cache_clear()` empties it

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
_found: list[tuple[weakref.ref[object], Entries]] = []
_loaded = 0


def undo_memo(function: object, *, own: bool = True) -> Act | None:
    """The act that takes out what was added since; None where the entries cannot be seen. `own`: the user's
    function, not a library's."""
    entries = _entries(function)
    return None if entries is None else undo_entries([(function, entries, own)])


def undo_entries(functions: Iterable[tuple[object, Entries, bool]]) -> Act:
    """The same of several at once, each with its entries and whether it is the user's own."""
    # what a function refers to is a list of objects, which keeps them alive: a new one has another id
    noted = [
        (function, entries, own, list(entries), gc.get_referents(function) if entries and not own else [])
        for function, entries, own in functions
    ]

    def act() -> None:
        for function, entries, own, before, seen in noted:
            if len(entries) != len(before) or not all(map(operator.is_, entries, before)):
                _take_out(function, entries, own, before, seen)

    return act


def _take_out(
    function: object, entries: Entries, own: bool, before: list[object], seen: list[object]
) -> None:
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


def _entries(function: object) -> Entries | None:
    attributes = vars(function)
    return next(
        (held for held in gc.get_referents(function) if type(held) is dict and held is not attributes), None
    )


def of_libraries() -> Iterator[tuple[object, Entries]]:
    """The memoised functions of libraries that may keep tensors, and their entries: of all objects once, then
    of what the modules brought that were imported since."""
    global _loaded
    if _loaded != len(sys.modules):
        _loaded = len(sys.modules)
        new = {name: module for name, module in sys.modules.items() if name not in _looked_through}
        if len(new) <= _FEW:
            found = _brought_by(new.values())
        else:
            with whole_heap():  # an analysis has frozen what was there before it
                found = [f for f in gc.get_objects() if type(f) is Memoised]
        _looked_through.update(new)
        known = {id(ref()) for ref, _ in _found}
        for function in found:
            entries = _entries(function) if id(function) not in known and not _is_pure(function) else None
            if entries is not None:
                _found.append((weakref.ref(function, _forget), entries))
    for ref, entries in list(_found):
        function = ref()
        if function is not None:
            yield function, entries


def _forget(gone: weakref.ref[object]) -> None:
    _found[:] = [kept for kept in _found if kept[0] is not gone]


# to go through all objects takes some tenths of a second, and as long as to look through some hundred modules
_FEW = 100
_looked_through: set[str] = set()
_FOLLOWED = frozenset(
    (
        *(types.FunctionType, types.MethodType, types.CellType, functools.partial, Memoised),
        *(dict, list, tuple, set, frozenset, classmethod, staticmethod, property, functools.cached_property),
    )
)


def _brought_by(modules: Iterable[types.ModuleType]) -> list[object]:
    """The memoised functions within reach of modules: of their globals, through closures, decorators,
    containers, their own classes and instances of these; no further into other modules."""
    modules = [module for module in modules if isinstance(module, types.ModuleType)]
    names = {module.__name__ for module in modules}
    seen = {id(vars(m)): m for m in list(sys.modules.values()) if isinstance(m, types.ModuleType)}
    pending: list[Any] = [value for module in modules for value in vars(module).values()]
    found = []
    while pending:
        item = pending.pop()
        kind = type(item)
        if id(item) in seen or not (
            kind in _FOLLOWED or module_of(item if issubclass(kind, type) else kind) in names
        ):
            continue
        seen[id(item)] = item
        if kind is Memoised:
            found.append(item)
        pending.extend(gc.get_referents(item))
    return found


def _is_pure(function: object) -> bool:
    """Of a package that memoises no tensors."""
    return (getattr(function, "__module__", None) or "").partition(".")[0] in _PURE
