"""The package that a file is part of by its own imports, relative ones or of the package's name: the folder
to import from, the dotted name; and the folders above it that its other imports are from.

From the file's own text, and the `__init__.py` files above it; a folder without one counts as far as the
imports climb. Not handled: packages put together from several folders.
"""

from __future__ import annotations

import ast
import sys
from importlib.machinery import PathFinder
from pathlib import Path

from fxgrad.source import parsed

_ABOVE = 6  # folders above a file that its project may begin in


def roots_of(file: str) -> tuple[str, ...]:
    """The folders above a file's own that hold what it imports and nothing else does:
    `from layers.norm import Norm` in `models/net.py`, which the project's own script imports from the folder
    of both."""
    tree = parsed(file)
    found: dict[str, None] = {}
    folder = Path(file).resolve().parent
    for name in dict.fromkeys(_imported(tree)) if tree else ():
        first = name.partition(".")[0]
        if (
            first in sys.stdlib_module_names
            or _holds(folder, name)
            or PathFinder.find_spec(first) is not None
        ):
            continue
        above = (one for one in list(folder.parents)[:_ABOVE] if _holds(one, name))
        found.update(dict.fromkeys(str(one) for one in list(above)[:1]))
    return tuple(found)


def _imported(tree: ast.AST) -> list[str]:
    """The dotted names of absolute imports, with what is taken from a module as a last part: that may be a
    module, too."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def _holds(folder: Path, name: str) -> bool:
    """Whether the import of the dotted name finds something from here. A folder without an `__init__.py` is
    as good as what it holds: `from src.models import net` is not of a `src` without `models`."""
    first, _, rest = name.partition(".")
    if (folder / f"{first}.py").exists() or (folder / first / "__init__.py").exists():
        return True
    inner = folder / first
    return _holds(inner, rest) if rest and inner.is_dir() else any(inner.glob("*.py"))


def package_of(file: str) -> tuple[str, str] | None:
    """The folder that holds the package, and the file's dotted name in it. None: no import asks for it, or no
    name can be imported."""
    tree = parsed(file)
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)] if tree else []
    climbs = max((node.level for node in imports), default=0)
    path = Path(file).resolve()
    if not climbs and not _names_its_package(path, imports):
        return None
    parts = [path.stem] if path.stem != "__init__" else []
    folder = path.parent
    while climbs > 0 or (folder / "__init__.py").exists():
        if not folder.name.isidentifier() or folder == folder.parent:
            if climbs > 0:
                return None
            break  # a checkout (`my-project`) with an `__init__.py` is no package that an import names
        parts.insert(0, folder.name)
        folder = folder.parent
        climbs -= 1
    return str(folder), ".".join(parts)


def _names_its_package(path: Path, imports: list[ast.ImportFrom]) -> bool:
    """Whether a file below an `__init__.py` imports from the outermost such folder by name, which is not
    beside it."""
    folder = path.parent
    while (folder.parent / "__init__.py").exists():
        folder = folder.parent
    if not (folder / "__init__.py").exists():
        return False
    return any((node.module or "").partition(".")[0] == folder.name for node in imports)
