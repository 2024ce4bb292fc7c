"""From live objects to the user's files: where modules, functions and classes were defined.

Made from the objects themselves (code objects, `__file__`), without parsing. Files of torch, fxgrad and the
standard library are left out; installed packages come after the user's own. Not handled: functions that a
function reaches only through its globals, and classes without any method whose module was never entered in
`sys.modules`.
"""

from __future__ import annotations

import collections
import functools
import inspect
import os
import sys
import sysconfig
import types
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePath
from typing import Any, Literal

import torch

from fxgrad.source.parsing import absolute

_PACKAGE = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
# passes may be a link
_FOLDERS = (os.path.dirname(torch.__file__), _PACKAGE, os.path.join(_PACKAGE, "passes"))
_LEFT_OUT = tuple(os.path.join(os.path.realpath(folder), "") for folder in _FOLDERS)
_STANDARD = os.path.join(os.path.realpath(sysconfig.get_path("stdlib")), "")
_MODULE: Callable[[type], object] = vars(type)["__module__"].__get__  # asks no metaclass of the user's
_NOTEBOOK_CELLS = ("<ipython-input", "<python-input")
_ATOMS = frozenset(
    (
        bool,
        int,
        float,
        complex,
        str,
        bytes,
        type(None),
        torch.dtype,
        torch.device,
        torch.Tensor,
        torch.nn.Parameter,
    )
)
_CONTAINERS = frozenset((dict, collections.OrderedDict, list, tuple, set, frozenset))
_LARGEST_CONTAINER = 10_000  # a longer list holds data, not layers

Origin = Literal["user", "installed", "none"]


@functools.lru_cache(maxsize=4096)
def origin(file: str) -> Origin:
    """Whose file it is: `none` for torch, fxgrad, the standard library and code that has no file."""
    if not file or (file.startswith("<") and not file.startswith(_NOTEBOOK_CELLS)):
        return "none"
    real = os.path.realpath(file)
    if real.startswith(_LEFT_OUT):
        return "none"
    if not {"site-packages", "dist-packages"}.isdisjoint(PurePath(real).parts):
        return "installed"
    return "none" if real.startswith(_STANDARD) else "user"


def files_of(*objects: object) -> tuple[str, ...]:
    """The files that define what the objects are made of, in the order met, installed packages last.

    Of a module: its classes and their bases, those of its submodules (also of those kept in plain lists and
    dicts), and functions it holds (hooks, a replaced `forward`). Of a function: its own file, its closure's,
    its defaults', what it wraps. Of a bound method or a `functools.partial`: its parts. Of an instance of a
    user's class: its class, and what it holds.
    """
    found: dict[str, None] = {}
    seen: dict[int, object] = {}  # holds the objects, so that no number is used again
    pending = list(reversed(objects))
    while pending:
        item = pending.pop()
        if id(item) in seen:
            continue
        seen[id(item)] = item
        if type(item) not in _CONTAINERS:
            found.update(dict.fromkeys(_files(item)))
        pending.extend(part for part in reversed(list(_parts(item))) if not _says_nothing(part))
    files = [file for file in found if origin(file) != "none"]
    return tuple(sorted(files, key=lambda file: origin(file) == "installed"))


def loaded_files() -> tuple[str, ...]:
    """The user's own files among those that the process has imported, as its modules name them."""
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    named = [absolute(file) for file in files if isinstance(file, str) and file.endswith(".py")]
    return tuple(dict.fromkeys(file for file in named if origin(file) == "user"))


def _says_nothing(part: object) -> bool:
    """Whether it is data or empty, as most of what a module holds is."""
    return type(part) in _ATOMS or (type(part) in _CONTAINERS and not part)


def module_of(cls: type) -> str:
    """The module that a class says it was made in; "" where what it has under the name says that of its
    instances: a property of the user's, a descriptor of Cython's."""
    found = _MODULE(cls)
    return found if isinstance(found, str) else ""


def class_file(cls: type) -> str:
    """Where the class was defined, under the name its code objects have; "" if unknown."""
    known = _class_files.get(id(cls))
    if known is None:
        key = id(cls)
        known = (_class_file(cls), weakref.ref(cls, lambda _: _class_files.pop(key, None)))
        _class_files[key] = known
    return absolute(known[0])


# by id: a metaclass of the user's may have no hash
_class_files: dict[int, tuple[str, weakref.ref[type]]] = {}


def _class_file(cls: type) -> str:
    for member in vars(cls).values():
        code = code_of(member)
        if code is None or not code.co_qualname.startswith(f"{cls.__qualname__}."):
            continue
        if not code.co_filename.startswith("<string"):  # a method that a dataclass generated
            return code.co_filename
    module = sys.modules.get(module_of(cls))
    return getattr(module, "__file__", None) or ""


def code_of(member: object) -> types.CodeType | None:
    """The code of a function, whatever wraps it: method kinds, properties, decorators made with
    `functools.wraps`."""
    if isinstance(member, staticmethod | classmethod | types.MethodType):
        member = member.__func__
    elif isinstance(member, property):
        member = member.fget
    elif isinstance(member, functools.cached_property):
        member = member.func
    try:
        # Only these are asked for __wrapped__: on any other object the question may run the user's
        # __getattr__.
        if isinstance(member, types.FunctionType | functools._lru_cache_wrapper):
            member = inspect.unwrap(member) if "__wrapped__" in vars(member) else member
    except ValueError:  # a cycle of __wrapped__
        return None
    return member.__code__ if isinstance(member, types.FunctionType) else None


def user_classes(cls: type) -> tuple[type, ...]:
    """The class and its bases in method resolution order, less torch's, fxgrad's and the standard
    library's."""
    return tuple(base for base in cls.__mro__ if origin(class_file(base)) != "none")


def _files(item: object) -> Iterator[str]:
    if isinstance(item, type):
        yield from (class_file(base) for base in item.__mro__)
    code = item if isinstance(item, types.CodeType) else code_of(item)
    if code is not None:
        yield absolute(code.co_filename)


def _parts(item: object) -> Iterable[object]:
    match item:
        case torch.nn.Module():
            return (type(item), *vars(item).values())
        case types.FunctionType():
            cells = (cell.cell_contents for cell in item.__closure__ or () if _is_filled(cell))
            defaults = (*(item.__defaults__ or ()), *(item.__kwdefaults__ or {}).values())
            return (*cells, *defaults, getattr(item, "__wrapped__", None))
        case types.MethodType():
            return (item.__func__, item.__self__)
        case functools.partial():
            return (item.func, *item.args, *item.keywords.values())
        case dict() if dict.__len__(item) <= _LARGEST_CONTAINER:
            return tuple(dict.values(item))
        case list() | tuple() | set() | frozenset() if len(held := _elements(item)) <= _LARGEST_CONTAINER:
            return held
        case type() | types.ModuleType() | torch.Tensor() | None:
            return ()
    if module_of(type(item)) == "builtins" or origin(class_file(type(item))) != "user":
        return ()
    return (type(item), *getattr(item, "__dict__", {}).values())


def _elements(item: object) -> tuple[object, ...]:
    """What a container holds. A subclass may count and iterate in another way, or not at all: the kind it
    derives from is asked."""
    kind: Any = next(base for base in (list, tuple, set, frozenset) if isinstance(item, base))
    return tuple(kind.__iter__(item))


def _is_filled(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:  # a variable of the enclosing function that was not assigned yet
        return False
    return True
