"""Running the user's file or importing their module, and calling what it defines, with every failure turned
into a LoadError.

A file runs as `python file.py` would run it (its folder first on `sys.path`, `sys.argv` its own), except that
`__name__` is not `"__main__"`, so a guarded training loop does not start. Not handled: isolation; the file
can do what any program can.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
import types
import zlib
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from fxgrad.records import Site
from fxgrad.records.errors import FxgradError, LoadError
from fxgrad.source.sites import line_of_error

_PRIVATE = "_fxgrad_"


@contextlib.contextmanager
def script_state(folders: Sequence[str], argv: Sequence[str]) -> Iterator[None]:
    """`sys.path` (with `folders` first), `sys.argv` and the working directory as a script finds them, and all
    as before afterwards.

    Modules that came from the folders are forgotten at the end: the next file may have another `utils.py`
    beside it.
    """
    path, arguments, modules = sys.path[:], sys.argv[:], set(sys.modules)
    working = os.getcwd()
    sys.path[:0] = folders
    sys.argv[:] = argv
    try:
        yield
    finally:
        sys.path[:] = path
        sys.argv[:] = arguments
        os.chdir(working)
        for folder in folders:
            _forget(set(sys.modules) - modules, folder)


def _forget(names: set[str], folder: str) -> None:
    if os.path.basename(folder) in ("site-packages", "dist-packages"):
        return
    # whole packages: a part that stays would be all that is left of its own
    gone = {first for first in {name.partition(".")[0] for name in names} if _is_beside(first, folder)}
    for name in names:
        if name.partition(".")[0] in gone:
            del sys.modules[name]


def _is_beside(name: str, folder: str) -> bool:
    """Whether `folder` itself made the module of that name importable: a virtual environment may lie below
    it."""
    if name.startswith(_PRIVATE):  # the model's own file: its classes are looked up later
        return False
    package = sys.modules.get(name)
    origin = getattr(package, "__file__", None)
    places = [origin] if origin else list(getattr(package, "__path__", ()))
    beside = [place.removesuffix(os.sep + "__init__.py") for place in places]
    return any(os.path.dirname(os.path.realpath(place)) == os.path.realpath(folder) for place in beside)


def run_file(file: str) -> types.ModuleType:
    """The module that the file defines, kept in `sys.modules` under a private name so that its classes can be
    looked up.

    Raises:
        LoadError: the file cannot be read, parsed or run to its end.
    """
    try:
        with io.open_code(file) as stream:
            source = stream.read()
    except OSError as error:
        raise LoadError(
            f"cannot read {file}: {error.strerror}", hint="give the path of a Python file that can be read"
        ) from error
    # Not the file's own name: `torch.py` must not replace torch.
    name = f"{_PRIVATE}{Path(file).stem}_{zlib.crc32(file.encode()):08x}"
    spec = spec_from_file_location(name, file, loader=SourceFileLoader(name, file))
    if spec is None:
        raise LoadError(f"{file} cannot be loaded as a Python module")
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        with failing_as_load_error(f"running {os.path.basename(file)}"):
            exec(compile(source, file, "exec", dont_inherit=True), module.__dict__)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def import_module(name: str) -> types.ModuleType:
    """The module of that dotted name.

    Raises:
        LoadError: there is none, or importing it fails.
    """
    importlib.invalidate_caches()
    try:
        with failing_as_load_error(f"importing {name}", package=name.partition(".")[0]):
            return importlib.import_module(name)
    except LoadError as error:
        missing = error.__cause__
        if isinstance(missing, ModuleNotFoundError) and f"{name}.".startswith(f"{missing.name}."):
            reason = f"there is no module `{missing.name}`"
            hint = "give path/to/file.py, or package.module:name from the folder that holds the package"
            raise LoadError(reason, hint=hint) from missing
        raise


def call(function: Callable[..., object], doing: str, *args: object) -> object:
    """`function(*args)`.

    Raises:
        LoadError: it raises; the reason begins with `doing`.
    """
    with failing_as_load_error(doing):
        return function(*args)


@contextlib.contextmanager
def failing_as_load_error(doing: str, *, package: str = "") -> Iterator[None]:
    """Whatever the user's code raises, `sys.exit` included, as a LoadError at its last user line. `package`:
    what is imported, from the folder that holds it."""
    try:
        yield
    except FxgradError:
        raise
    except SystemExit as error:
        hint = 'put what should only run as a script under `if __name__ == "__main__":`'
        if _of_argparse(error):
            hint = "give the arguments that it asks for after `--`, as in fxgrad report FILE.py -- --data DIR"
        raise LoadError(
            f"{doing} ends in sys.exit({error.code!r})", site=line_of_error(error), hint=hint
        ) from error
    except SyntaxError as error:
        raise LoadError(
            f"{type(error).__name__}: {error.msg}", site=_syntax_site(error), hint="mend the syntax"
        ) from error
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), "")
        reason = f"{doing} raises {type(error).__name__}{f': {first}' if first else ''}"
        raise LoadError(reason, site=line_of_error(error), hint=_hint(error, package)) from error


def _of_argparse(error: SystemExit) -> bool:
    """Whether it was raised while the program's arguments were read."""
    at = error.__traceback__
    while at is not None:
        if at.tb_frame.f_globals.get("__name__") == "argparse":
            return True
        at = at.tb_next
    return False


def _hint(error: Exception, package: str) -> str:
    if isinstance(error, ImportError) and "relative import" in str(error):
        return (
            "the file belongs to a package: give package.module:name, from the folder that holds the package"
        )
    if isinstance(error, ModuleNotFoundError):
        install = f"install it for {sys.executable}"
        if package and (error.name or "").partition(".")[0] != package:
            return install
        return f"{install}, or give package.module:name from the folder that holds the package"
    return "--traceback shows the whole error"


def _syntax_site(error: SyntaxError) -> Site | None:
    if not error.filename or not error.lineno:
        return None
    column, end_line, end_column = error.offset or 0, error.end_lineno or 0, error.end_offset or 0
    if end_line < error.lineno or column < 1 or end_column < 1:
        end_line = end_column = 0
    return Site(os.path.abspath(error.filename), error.lineno, max(column, 0), end_line, end_column)
