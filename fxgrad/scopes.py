"""What functions and classes reach beside their arguments: globals by name, variables around them, class attributes, memoised results.

A forward that calls a helper runs the helper's code: the globals that it assigns and the containers that it fills are within reach too. Of
the user's own files every function, class and object is followed that a name leads to; of a library, the functions that a model's methods
name themselves, and of their globals what holds tensors or is empty, as a cache is before its first use.
"""

from __future__ import annotations

import contextlib
import functools
import random
import sys
import types
from collections import deque
from collections.abc import Iterator
from typing import Any

import torch

from fxgrad.memo import Memoised, undo_memo
from fxgrad.sites import is_user_code
from fxgrad.undo import Act, undo_class, undo_globals

# Too large to be gone through at every run, and without state of their own that a forward leaves behind, memoised results aside.
_LIBRARIES = frozenset(("torch", "builtins", "transformers", "numpy", *sys.stdlib_module_names))
_CONTAINERS = (list, dict, set, deque)
_GENERATORS = (torch.Generator, random.Random)
_FUNCTIONS = (types.FunctionType, types.MethodType, functools.partial, Memoised)

Named = tuple[str, Any]


class Scopes:
    """The scopes met in one walk. `acts` put back what is not a container: assigned globals, class attributes, memoised results."""

    def __init__(self) -> None:
        self.acts: list[Act] = []
        self._classes: dict[type, list[Named]] = {}

    def around(self, function: types.FunctionType) -> Iterator[Named]:
        """What a function names, the variables around it, its defaults and attributes; into other functions it goes from an own one."""
        own = is_own(function.__module__)
        yield from (("", value) for value in function.__defaults__ or ())
        yield from (("", value) for value in (function.__kwdefaults__ or {}).values())
        if own and vars(function):
            yield "", vars(function)
        for name, value in _variables(function):
            if isinstance(value, types.ModuleType):
                yield from self._of_module(value, _names(function.__code__), follow=own)
            else:
                yield name, value
        yield from self._named(function, own=own, follow=own)

    def _named(self, function: types.FunctionType, *, own: bool, follow: bool) -> Iterator[Named]:
        if own and (act := undo_globals(function)) is not None:
            self.acts.append(act)
        scope = function.__globals__
        names = _names(function.__code__)
        for name in names:
            value = scope.get(name)
            if isinstance(value, types.ModuleType):
                yield from self._of_module(value, names, follow=follow)
            else:
                yield from self._worth(name, value, own=own, follow=follow)

    def _of_module(self, module: types.ModuleType, names: tuple[str, ...], *, follow: bool) -> Iterator[Named]:
        """What the attributes that a function names mean in a module of the user's."""
        if is_own(module.__name__):
            members = vars(module)
            for name in names:
                if name in members:
                    yield from self._worth(name, members[name], own=True, follow=follow)

    def _worth(self, name: str, value: Any, *, own: bool, follow: bool) -> Iterator[Named]:
        """A global that may change, or that leads to one."""
        if holds_tensors(value) or (isinstance(value, _CONTAINERS) and (own or not value)):
            yield name, value
        elif isinstance(value, type):
            if own and is_own(value.__module__):
                yield from self.of_class(value)
        elif isinstance(value, _FUNCTIONS):
            if follow and not _of_a_library(getattr(value, "__module__", None)):
                yield name, value
        elif own and (is_own(type(value).__module__) or isinstance(value, _GENERATORS) or type(value).__module__ == "numpy"):
            yield name, value

    def memoised(self, function: Any) -> Any:
        """Note the entries of a memoised function; gives the function behind it."""
        if (act := undo_memo(function)) is not None:
            self.acts.append(act)
        return function.__wrapped__

    def of_class(self, cls: type) -> list[Named]:
        """What the methods of a class and of its bases reach around `self`: class attributes, globals, variables around it."""
        known = self._classes.get(cls)
        if known is None:
            known = self._classes[cls] = []
            for base in cls.__mro__:
                if _of_a_library(base.__module__):
                    continue
                own = is_own(base.__module__)
                if own:
                    self.acts.append(undo_class(base))
                    known += [(n, v) for n, v in vars(base).items() if isinstance(v, _CONTAINERS) or holds_tensors(v)]
                for value in vars(base).values():
                    for function in _behind(value):
                        if own or isinstance(function, Memoised):
                            known.append(("", function))
                        else:
                            known += self._named(function, own=False, follow=True)
                            known += [(n, v) for n, v in _variables(function) if holds_tensors(v)]
        return known


def _of_a_library(module: str | None) -> bool:
    return (module or "").partition(".")[0] in _LIBRARIES and module != "__main__"


def _behind(value: Any) -> Iterator[Any]:
    """The functions that a class attribute stands for."""
    if isinstance(value, staticmethod | classmethod):
        value = value.__func__
    if isinstance(value, property):
        for accessor in (value.fget, value.fset):
            yield from _behind(accessor)
    if isinstance(value, functools.cached_property):
        value = value.func
    if isinstance(value, types.FunctionType | Memoised):
        yield value


@functools.cache
def is_own(module: str | None) -> bool:
    """Whether a module is the user's own: no library installed beside torch."""
    loaded = sys.modules.get(module or "")
    file = getattr(loaded, "__file__", None)
    if file is None:
        return getattr(loaded, "__spec__", None) is None  # typed in or made by `exec`; what is built in has a spec
    return is_user_code(file) and "site-packages" not in file and "dist-packages" not in file


def _variables(function: types.FunctionType) -> Iterator[Named]:
    """The variables around a function that have a value."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # an empty cell
            yield name, cell.cell_contents


# By id, with the code kept alive: the hash of a code object goes through all its constants, at every look-up.
_known_names: dict[int, tuple[tuple[str, ...], types.CodeType]] = {}


def _names(code: types.CodeType) -> tuple[str, ...]:
    """The globals and attributes that a code object and the functions inside it name."""
    known = _known_names.get(id(code))
    if known is None:
        inner = (name for constant in code.co_consts if isinstance(constant, types.CodeType) for name in _names(constant))
        known = _known_names[id(code)] = (tuple(dict.fromkeys((*code.co_names, *inner))), code)
    return known[0]


def holds_tensors(value: Any) -> bool:
    """Whether a value is a tensor or a module, or a container with one in it."""
    if isinstance(value, list | tuple):
        return any(isinstance(v, torch.Tensor | torch.nn.Module) for v in value)
    if isinstance(value, dict):
        return any(isinstance(v, torch.Tensor | torch.nn.Module) for v in value.values())
    return isinstance(value, torch.Tensor | torch.nn.Module)
