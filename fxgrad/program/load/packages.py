"""The package that a file with relative imports is part of: the folder to import from and the dotted name.

From the file's own text, and the `__init__.py` files above it; a folder without one counts as far as the imports climb. Not handled: packages
put together from several folders.
"""

from __future__ import annotations

import ast
from pathlib import Path

from fxgrad.source import parsed


def package_of(file: str) -> tuple[str, str] | None:
    """The folder that holds the package, and the file's dotted name in it. None: the file has no relative import, or no name can be imported."""
    tree = parsed(file)
    levels = [node.level for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)] if tree else []
    climbs = max(levels, default=0)
    if not climbs:
        return None
    path = Path(file).resolve()
    parts = [path.stem] if path.stem != "__init__" else []
    folder = path.parent
    while climbs > 0 or (folder / "__init__.py").exists():
        if not folder.name.isidentifier() or folder == folder.parent:
            return None
        parts.insert(0, folder.name)
        folder = folder.parent
        climbs -= 1
    return str(folder), ".".join(parts)
