"""Leaves the user's world as it was: shallow copies of every mutable Python object within reach, put back after the run.

A forward stores tensors on modules, appends to lists, fills dictionaries, draws random numbers. `preserve(roots)` walks from the model,
the loss and the inputs over modules, containers, plain objects, closures and bound methods, notes what each holds (`fxgrad.undo`), and
restores it on the way out, with the global switches (`fxgrad.switches`), also after an error or Ctrl-C. Tensors are never copied here: the
run works on stand-ins. Of module-level globals those are followed that the functions and methods within reach name themselves: modules,
tensors and containers of them, and in the user's own files every container and every name that a function assigns. Not handled: other
state in globals, iterators, files, and state in C extensions.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import types
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from fxgrad.sites import is_user_code
from fxgrad.switches import kept_switches
from fxgrad.undo import Act, items, refill, slots, undo, undo_class, undo_globals, undo_slots

LIMIT = 200_000  # objects; a configuration tree is thousands, a data set kept on a model is cut off here

_ATOMS = (str, bytes, int, float, complex, bool, type(None), torch.dtype, torch.device, types.ModuleType, type)
_EXACT_ATOMS = frozenset(_ATOMS)
_OPAQUE_PACKAGES = ("torch._C", "builtins", "threading", "logging", "_thread", "weakref", "re", "io", "_io", "multiprocessing")
_LIBRARIES = ("torch", "builtins", "transformers", "collections", "abc", "typing")
_CONTAINERS = (list, dict, set, deque)


class Reach:
    """What the walk found: `tensors` by id, `modules`, who holds what, and the acts that put everything back."""

    def __init__(self) -> None:
        self.tensors: dict[int, torch.Tensor] = {}
        self.modules: list[torch.nn.Module] = []
        self.where: dict[int, tuple[Any, str]] = {}  # tensor id -> (the object that holds it, attribute or key)
        self.parents: dict[int, tuple[Any, str]] = {}  # any object's id -> the same, so that a path can be climbed
        self._acts: list[Act] = []
        self._dicts: list[tuple[dict[Any, Any], list[tuple[Any, Any]]]] = []  # the bulk of all objects: no act each
        self._seen: dict[int, Any] = {}
        self._scopes: dict[type, list[tuple[str, Any]]] = {}

    def walk(self, *roots: Any) -> None:
        """Note everything within reach of `roots`, breadth first."""
        queue: deque[tuple[Any, Any, str]] = deque((root, None, "") for root in roots)
        while queue:
            item, holder, key = queue.popleft()
            if id(item) in self._seen or isinstance(item, _ATOMS):
                continue
            if len(self._seen) >= LIMIT:
                return
            self._seen[id(item)] = item
            self.parents[id(item)] = (holder, key)
            if isinstance(item, torch.Tensor):
                self.tensors[id(item)] = item
                self.where[id(item)] = (holder, key)
                continue
            if isinstance(item, torch.nn.Module):
                self.modules.append(item)
            queue.extend(self._children(item, holder, key))

    def _children(self, item: Any, holder: Any, key: str) -> Iterator[tuple[Any, Any, str]]:
        if isinstance(item, dict):
            yield from self._dict(item, holder, key)
            return
        act = undo(item)
        if act is not None:
            self._acts.append(act)
        if isinstance(item, list | deque | set | tuple | frozenset):
            yield from ((v, holder, f"{key}[{i}]") for i, v in enumerate(item) if type(v) not in _EXACT_ATOMS)
        elif isinstance(item, functools.partial):
            yield from ((v, holder, key) for v in (item.func, item.args, item.keywords))
        elif isinstance(item, types.MethodType):
            yield from ((v, holder, key) for v in (item.__self__, item.__func__))
        elif isinstance(item, types.FunctionType):
            yield from self._function(item, holder, key)
        elif act is None and not type(item).__module__.startswith(_OPAQUE_PACKAGES):
            yield from self._attributes(item)

    def _dict(self, item: dict[Any, Any], holder: Any, key: str) -> Iterator[tuple[Any, Any, str]]:
        held = items(item)
        self._dicts.append((item, held))
        owner = holder if holder is not None else item
        # A dictionary that the user keeps under a name is part of the way; a module's own registries are not.
        named = key and key not in ("_parameters", "_buffers", "_modules")
        for name, value in held:
            if type(value) not in _EXACT_ATOMS:
                yield value, owner, f"{key}[{name!r}]" if named else str(name)
        if type(item) not in (dict, OrderedDict):
            yield from self._attributes(item)

    def _function(self, item: types.FunctionType, holder: Any, key: str) -> Iterator[tuple[Any, Any, str]]:
        for name, cell in zip(item.__code__.co_freevars, item.__closure__ or (), strict=True):
            with contextlib.suppress(ValueError):  # an empty cell
                yield cell.cell_contents, item, name
        yield from ((v, holder, key) for v in item.__defaults__ or ())
        yield from ((v, item, name) for name, v in self._scope_of(item))

    def _attributes(self, item: Any) -> Iterator[tuple[Any, Any, str]]:
        attributes = getattr(item, "__dict__", None)
        if isinstance(attributes, dict):
            held = items(attributes)
            self._dicts.append((attributes, held))
            for name, value in held:
                # Most of a module's attributes are empty registries of hooks: they need no visit of their own.
                if type(value) is OrderedDict and not value:
                    self._dicts.append((value, []))
                elif type(value) not in _EXACT_ATOMS:
                    yield value, item, name
        if _is_own(type(item).__module__) and (filled := slots(item)):
            self._acts.append(undo_slots(item, filled))
            yield from ((value, item, name) for name, value in filled.items())
        yield from ((value, item, name) for name, value in self._class_scope(type(item)))

    def _class_scope(self, cls: type) -> list[tuple[str, Any]]:
        """What the methods of a class and of its bases reach around `self`: class attributes, globals, variables around it."""
        known = self._scopes.get(cls)
        if known is None:
            known = self._scopes[cls] = []
            for base in cls.__mro__:
                if base.__module__.startswith(_LIBRARIES):
                    continue
                if _is_own(base.__module__):
                    self._acts.append(undo_class(base))
                    known += [(n, v) for n, v in vars(base).items() if isinstance(v, _CONTAINERS) or _holds_tensors(v)]
                for function in _functions(vars(base).values()):
                    known += [*self._scope_of(function), *_cells(function)]
        return known

    def _scope_of(self, function: types.FunctionType) -> Iterator[tuple[str, Any]]:
        """The globals that a function names and that may change: where it is the user's own, containers of anything."""
        own = _is_own(function.__module__)
        if own and (act := undo_globals(function)) is not None:
            self._acts.append(act)
        for name in _names(function.__code__):
            value = function.__globals__.get(name)
            if _holds_tensors(value) or (own and isinstance(value, _CONTAINERS)):
                yield name, value

    def restore(self) -> None:
        """Put every noted object back. Containers are changed in place, so that the user's references stay good."""
        for item, held in self._dicts:
            refill(item, held)
        for act in self._acts:
            act()


def _functions(values: Iterable[Any]) -> Iterator[types.FunctionType]:
    for value in values:
        if isinstance(value, staticmethod | classmethod):
            value = value.__func__
        if isinstance(value, property):
            yield from _functions((value.fget, value.fset))
        if isinstance(value, types.FunctionType):
            yield value


@functools.cache
def _is_own(module: str | None) -> bool:
    """Whether a module is the user's own: no library installed beside torch."""
    loaded = sys.modules.get(module or "")
    file = getattr(loaded, "__file__", None)
    if file is None:
        return getattr(loaded, "__spec__", None) is None  # typed in or made by `exec`; what is built in has a spec
    return is_user_code(file) and "site-packages" not in file and "dist-packages" not in file


def _cells(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # an empty cell
            if _holds_tensors(cell.cell_contents):
                yield name, cell.cell_contents


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _holds_tensors(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(isinstance(v, torch.Tensor | torch.nn.Module) for v in value)
    if isinstance(value, dict):
        return any(isinstance(v, torch.Tensor | torch.nn.Module) for v in value.values())
    return isinstance(value, torch.Tensor | torch.nn.Module)


@contextlib.contextmanager
def preserve(*roots: Any) -> Iterator[Reach]:
    """Everything within reach of `roots`, and torch's and Python's global state, are as before when the block ends, however it ends."""
    reach = Reach()
    with kept_switches():
        reach.walk(*roots)
        try:
            yield reach
        finally:
            reach.restore()
