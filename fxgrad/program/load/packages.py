"""The package that a file is part of by its own imports, relative ones or of the package's name: the folder
to import from, the dotted name.

From the file's own text, and the `__init__.py` files above it; a folder without one counts as far as the
imports climb. Not handled: packages put together from several folders.
"""

from __future__ import annotations

import ast
from pathlib import Path

from fxgrad.source import parsed


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
            return None
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
