"""What `fxgrad run` runs, as Python would find it: a script by its path, or a module by its name (`-m`).

    script    its folder is first on `sys.path`, `sys.argv[0]` is the path as it was given
    module    the working directory is first, `sys.argv[0]` is the module's file; `__spec__` and `__package__`
              are set, so relative imports work; a package is its `__main__`, and the packages above are
              imported first

Not handled: folders and archives with a `__main__.py`, given by their path.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import os
import sys
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from typing import Any

from fxgrad.records.errors import LoadError


@dataclass(frozen=True, slots=True)
class Target:
    """`code` is what Python raised instead where there is none: the user's to see."""

    code: types.CodeType | BaseException
    file: str  # absolute
    title: str
    first_argument: str
    folder: str
    spec: ModuleSpec | None = None


def script(path: str) -> Target:
    """The script at `path`.

    Raises:
        LoadError: there is no such file, or it cannot be read.
    """
    file = os.path.abspath(path)
    try:
        with io.open_code(file) as stream:
            source = stream.read()
    except OSError as error:
        raise LoadError(
            f"cannot read {path}: {error.strerror}", hint="give the path of a Python script that can be read"
        ) from error
    code: types.CodeType | BaseException
    try:
        code = compile(source, file, "exec", dont_inherit=True)
    except SyntaxError as error:
        code = error
    return Target(code, file, os.path.basename(path), path, os.path.dirname(file))


def module(name: str) -> Target:
    """The module `name`, looked for as `python -m name` does.

    Raises:
        LoadError: there is no such module, or it is not Python.
    """
    folder = os.getcwd()
    with _first_on_path(folder):
        try:
            inner, spec = name, _spec(name)
            if spec is not None and spec.submodule_search_locations is not None:
                inner = f"{name}.__main__"
                spec = _spec(inner)
            loader: Any = spec.loader if spec is not None else None
            code = loader.get_code(inner) if hasattr(loader, "get_code") else None
        except Exception as error:  # of the user's own: a package above, or the module's syntax
            return Target(error, os.path.abspath(name), name, name, folder)
    if spec is None or code is None or spec.origin is None:
        hint = "give its name as `python -m` takes it, in the folder where that works"
        if os.path.isfile(name) or name.endswith(".py"):
            hint = "without -m for a file"
        raise LoadError(f"there is no module {name} that can be run", hint=hint)
    return Target(code, os.path.abspath(spec.origin), name, spec.origin, folder, spec)


def _spec(name: str) -> ModuleSpec | None:
    """None where the module, or a package above it, is not there."""
    above = name.rpartition(".")[0]
    try:
        if above:
            importlib.import_module(above)
    except ModuleNotFoundError as error:
        if error.name and f"{above}.".startswith(f"{error.name}."):
            return None
        raise
    try:
        return importlib.util.find_spec(name)
    except (ModuleNotFoundError, ValueError):  # what is above is no package; no name, or no spec
        return None


@contextlib.contextmanager
def as_main(target: Target, argv: Sequence[str]) -> Iterator[types.ModuleType]:
    """`__main__`, `sys.argv` and `sys.path[0]` as the target expects them; as before afterwards."""
    main = types.ModuleType("__main__")
    main.__dict__.update(__file__=target.file, __builtins__=__builtins__, __cached__=None)
    if target.spec is not None:
        spec = target.spec
        main.__dict__.update(
            __spec__=spec, __package__=spec.parent, __loader__=spec.loader, __cached__=spec.cached
        )
    before, arguments = sys.modules.get("__main__"), sys.argv[:]
    sys.modules["__main__"] = main
    sys.argv[:] = [target.first_argument, *argv]
    try:
        with _first_on_path(target.folder):
            yield main
    finally:
        sys.argv[:] = arguments
        if before is not None:
            sys.modules["__main__"] = before


@contextlib.contextmanager
def _first_on_path(folder: str) -> Iterator[None]:
    first = sys.path[:1]
    sys.path[:1] = [folder]
    try:
        yield
    finally:
        sys.path[:1] = first
