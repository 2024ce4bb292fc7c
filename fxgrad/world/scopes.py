"""What functions and classes reach beside their arguments: globals by name, variables around them, class
attributes, memoised results.

A forward that calls a helper runs the helper's code: the globals that it assigns and the containers that it
fills are within reach too. Of the user's own files every function, class and object is followed that a name
leads to, through modules and imports inside functions too; of an installed package, the functions that the
user's functions and a model's methods name themselves, and of their globals what holds tensors or is empty,
as a cache is before its first use. Not followed: names that are put together at run time (`getattr(module,
text)`).
"""

from __future__ import annotations

import dis
import functools
import os
import sys
import types
from collections import deque
from collections.abc import Iterator
from typing import Any

import torch

from fxgrad.source.objects import module_of
from fxgrad.source.sites import ByCode, is_user_code
from fxgrad.world.memoised import Memoised, undo_memo
from fxgrad.world.namespaces import Namespaces, of_a_run, undo_held
from fxgrad.world.undo import MISSING, Act, items, made_by_user, refill, undo_class, undoer

# Too large to be gone through at every run, and without state of their own that a forward leaves behind,
# memoised results aside.
_LIBRARIES = frozenset(("torch", "builtins", "transformers", "numpy", *sys.stdlib_module_names))
_CONTAINERS = (list, dict, set, deque)
FUNCTIONS = (types.FunctionType, types.MethodType, functools.partial, Memoised)
_PLAIN = frozenset(
    (str, bytes, int, float, complex, bool, type(None), types.BuiltinFunctionType, torch.dtype, torch.device)
)

Named = tuple[str, object]


class Scopes:
    """The scopes met in one walk. `restore` puts back what is not a container: assigned globals, class
    attributes, cells, memoised results."""

    def __init__(self) -> None:
        self._acts: list[Act] = []
        self._namespaces = Namespaces()
        self._cells: dict[int, tuple[types.CellType, object]] = {}
        self._classes: dict[type, list[Named]] = {}

    def globals(self) -> list[dict[str, object]]:
        """The globals of the functions met, the user's and those of the packages that the user's lead to."""
        return self._namespaces.noted()

    def restore(self) -> Iterator[Act]:
        """The acts that put all back."""
        yield self._namespaces.restore
        for cell, held in self._cells.values():
            yield functools.partial(_fill, cell, held)
        yield from self._acts

    def around(self, function: types.FunctionType) -> Iterator[Named]:
        """What a function names, the variables around it, its defaults and attributes; into other functions
        it goes from an own one. Of an installed package's only what may change: one that is built of
        functions around objects is not gone through."""
        own = is_own(function.__module__)
        beside = [
            ("", value)
            for value in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
        ]
        for name, value in (*beside, *self._variables(function)):
            if isinstance(value, types.ModuleType):
                yield from self._of_module(value, _names(function.__code__)[0], follow=own, met=set())
            elif own or is_own(_module_of(value)):
                yield name, value
            else:
                yield from self._worth(name, value, own=False, follow=False)
        if own or function.__dict__:
            yield "", vars(function)
        yield from self._named(function, own=own, follow=own)

    def _variables(self, function: types.FunctionType) -> Iterator[Named]:
        """The variables around a function that have a value; `nonlocal` may give them another."""
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            value = _content(cell)
            self._cells.setdefault(id(cell), (cell, value))
            if value is not MISSING:
                yield name, value

    def _named(self, function: types.FunctionType, *, own: bool, follow: bool) -> Iterator[Named]:
        scope = function.__globals__
        self._namespaces.note(scope, own=own)
        names, imported = _names(function.__code__)
        met: set[types.ModuleType] = set()
        for name in names:
            value = scope.get(name)
            if isinstance(value, types.ModuleType):
                yield from self._of_module(value, names, follow=follow, met=met)
            else:
                yield from self._worth(name, value, own=own, follow=follow)
        if follow:
            for level, name in imported:
                for loaded in _loaded(scope, level, name):
                    yield from self._of_module(loaded, names, follow=follow, met=met)

    def _of_module(
        self, module: types.ModuleType, names: tuple[str, ...], *, follow: bool, met: set[types.ModuleType]
    ) -> Iterator[Named]:
        """What the attributes that a function names mean in a module of the user's, or of a package beside
        torch that is not too large. `met`: the modules that the function has led to so far; each is gone into
        once."""
        own = is_own(module.__name__)
        if module in met or (not own and (not follow or _of_a_library(module.__name__))):
            return
        met.add(module)
        scope = vars(module)
        self._namespaces.note(scope, own=own)
        for name in names:
            value = scope.get(name)
            if not isinstance(value, types.ModuleType):
                yield from self._worth(name, value, own=own, follow=follow)
            else:  # a package's module, or what else it imports
                yield from self._of_module(value, names, follow=follow, met=met)

    def imported(self, module: types.ModuleType) -> Iterator[Named]:
        """What a module that was just loaded holds, of the user's or of a package beside torch that is not
        too large."""
        own = is_own(module.__name__)
        if not own and _of_a_library(module.__name__):
            return
        self._namespaces.note(vars(module), own=own)
        for name, value in items(vars(module)):
            if not isinstance(value, types.ModuleType):
                yield from self._worth(name, value, own=own, follow=own)

    def _worth(self, name: str, value: Any, *, own: bool, follow: bool) -> Iterator[Named]:
        """A global that may change, or that leads to one."""
        if type(value) in _PLAIN:
            return
        if isinstance(value, type):
            if own and is_own(module_of(value)):
                yield from self.of_class(value)
            elif not _of_a_library(module_of(value)) and value not in self._classes:
                self._classes[value] = []
                self._acts.append(undo_class(value, of_a_run))
        elif isinstance(value, FUNCTIONS):
            if follow and not _of_a_library(getattr(value, "__module__", None)):
                yield name, value
        elif own or holds_tensors(value) or (isinstance(value, _CONTAINERS) and not value):
            yield name, value
        elif isinstance(value, _CONTAINERS):
            self._acts.append(_undo_of_library(value))

    def memoised(self, function: Any) -> tuple[object, ...]:
        """Note the entries of a memoised function; gives the function behind it, if that is the user's."""
        own = is_own(function.__module__)
        if (act := undo_memo(function, own=own)) is not None:
            self._acts.append(act)
        return (function.__wrapped__,) if own else ()

    def of_class(self, cls: type) -> list[Named]:
        """What the methods of a class and of its bases reach around `self`: class attributes, globals,
        variables around it."""
        known = self._classes.get(cls)
        if known is None:
            known = self._classes[cls] = []
            for base in cls.__mro__:
                home = module_of(base)
                if not home:
                    continue
                if _of_a_library(home) and not (home == "builtins" and made_by_user(base)):
                    continue
                own = is_own(home) or home == "builtins"
                if own:
                    self._acts.append(undo_class(base))
                for name, value in list(vars(base).items()):
                    self._of_attribute(known, name, value, own=own, follow=issubclass(cls, torch.nn.Module))
        return known

    def _of_attribute(self, known: list[Named], name: str, value: Any, *, own: bool, follow: bool) -> None:
        functions = list(_behind(value))
        for function in functions:
            if own or isinstance(function, Memoised):
                known.append(("", function))
            else:
                known += self._named(function, own=False, follow=follow)
                known += [(n, v) for n, v in self._variables(function) if holds_tensors(v)]
        if own and not functions and not name.startswith("__"):
            known += self._worth(name, value, own=True, follow=True)


def _module_of(value: object) -> str:
    found = getattr(value, "__module__", None) if isinstance(value, FUNCTIONS) else None
    return found if isinstance(found, str) else module_of(type(value))


def _undo_of_library(container: object) -> Act:
    if isinstance(container, dict):
        held = items(container)
        return undo_held(container, lambda: refill(container, held))
    note = undoer(type(container))
    act = note(container) if note is not None else None
    return undo_held(container, act) if act is not None else lambda: None


def _of_a_library(module: str | None) -> bool:
    package = (module or "").partition(".")[0]
    # a file of the user's may be called `code.py`
    return package in _LIBRARIES and package != "__main__" and not is_own(package)


def _behind(value: object) -> Iterator[Any]:
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


_own: dict[str, bool] = {}


def is_own(module: str | None) -> bool:
    """Whether a module is the user's own: no library installed beside torch."""
    known = _own.get(module or "")
    return known if known is not None else _is_own(module or "")


def _is_own(module: str) -> bool:
    loaded = sys.modules.get(module)
    if loaded is None:
        return True  # typed in or made by `exec`; asked again, for a module of that name may come
    file = getattr(loaded, "__file__", None)
    if file is None:
        found = getattr(loaded, "__spec__", None) is None  # what is built in has a spec
    else:
        found = (
            is_user_code(file)
            and "site-packages" not in file
            and "dist-packages" not in file
            and not _is_installed(module)
        )
    _own[module] = found
    return found


def _is_installed(module: str) -> bool:
    """Whether an installer put the module where it is, as `pip install --target` does in any folder."""
    top = getattr(sys.modules.get(module.partition(".")[0]), "__file__", None)
    if top is None:
        return False
    folder = os.path.dirname(os.path.abspath(top))
    return _has_records(os.path.dirname(folder) if os.path.basename(top).startswith("__init__.") else folder)


@functools.lru_cache(256)
def _has_records(folder: str) -> bool:
    try:
        return any(name.endswith(".dist-info") for name in os.listdir(folder))
    except OSError:  # a module inside an archive
        return False


def _content(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # empty
        return MISSING


def _fill(cell: types.CellType, held: object) -> None:
    if _content(cell) is held:
        return
    if held is MISSING:
        del cell.cell_contents
    else:
        cell.cell_contents = held


Imported = tuple[tuple[int, str], ...]  # how many packages up, and the name after `from` or `import`
_known_names = ByCode()


def _names(code: types.CodeType) -> tuple[tuple[str, ...], Imported]:
    """The globals and attributes that a code object and the functions inside it name, and the modules that
    they import."""
    known = _known_names.get(id(code))
    if known is not None:
        found: tuple[tuple[str, ...], Imported] = known[0]
        return found
    inner = [_names(constant) for constant in code.co_consts if isinstance(constant, types.CodeType)]
    names = dict.fromkeys((*code.co_names, *(name for names, _ in inner for name in names)))
    imported = dict.fromkeys((*_imports(code), *(one for _, several in inner for one in several)))
    found = _known_names.note(code, (tuple(names), tuple(imported)))
    return found


_IMPORT = dis.opmap["IMPORT_NAME"]


def _imports(code: types.CodeType) -> Iterator[tuple[int, str]]:
    if _IMPORT not in code.co_code[::2]:
        return
    numbers: list[int] = []  # the level is the last number loaded before
    for step in dis.get_instructions(code):
        if step.opname.startswith("LOAD_") and type(step.argval) is int:
            numbers.append(step.argval)
        elif step.opcode == _IMPORT:
            yield (numbers[-1] if numbers else 0), step.argval


def _loaded(scope: dict[str, Any], level: int, name: str) -> Iterator[types.ModuleType]:
    """The modules that an import inside a function means, as far as they are loaded."""
    package = (scope.get("__package__") or "") if level else ""
    if level > 1:
        package = package.rsplit(".", level - 1)[0]
    full = f"{package}.{name}".strip(".")
    for loaded in (sys.modules.get(full), sys.modules.get(full.partition(".")[0])):
        if isinstance(loaded, types.ModuleType):
            yield loaded


def held_tensors(function: object) -> Iterator[torch.Tensor]:
    """The tensors that a function takes along: in the variables around it, its defaults, what it is bound to
    or was partially given.

    Containers and functions among these are gone into, other objects and modules are not.
    """
    waiting, seen = deque([function]), set()
    while waiting:
        item = waiting.popleft()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, torch.Tensor):
            yield item
        elif isinstance(item, types.FunctionType):
            waiting += (
                *map(_content, item.__closure__ or ()),
                *(item.__defaults__ or ()),
                *(item.__kwdefaults__ or {}).values(),
            )
        elif isinstance(item, types.MethodType):
            waiting += (item.__func__, *getattr(item.__self__, "__dict__", {}).values())
        elif isinstance(item, functools.partial):
            waiting += (item.func, *item.args, *item.keywords.values())
        elif isinstance(item, list | tuple):
            waiting += item
        elif isinstance(item, dict):
            waiting += item.values()


def holds_tensors(value: object) -> bool:
    """Whether a value is a tensor or a module, or a container with one in it."""
    if isinstance(value, list | tuple):
        return any(isinstance(v, torch.Tensor | torch.nn.Module) for v in value)
    if isinstance(value, dict):
        return any(isinstance(v, torch.Tensor | torch.nn.Module) for v in value.values())
    return isinstance(value, torch.Tensor | torch.nn.Module)
