"""Copies of edited files in place of the user's, for one trial: where a loader is given a file's name, and
where any module imports one.

Not handled: files that the program opens and runs by itself.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import os
import re
import sys
from collections.abc import Sequence
from typing import Any


def with_copies(item: object, copies: dict[str, str]) -> Any:
    """What a loader is given, with the copy's name wherever an edited file is named: `model.py:Net` too."""
    if isinstance(item, dict):
        return {key: with_copies(value, copies) for key, value in item.items()}
    if isinstance(item, list | tuple):
        return [with_copies(part, copies) for part in item]
    if not isinstance(item, str):
        return item
    for found in re.finditer(r"\.py(?=:|$)", item):  # not in `~/.pyenv/…`
        real = os.path.realpath(item[: found.end()])
        for file, copy in copies.items():
            if os.path.realpath(file) == real:
                return copy + item[found.end() :]
    return item


class Redirected(importlib.abc.MetaPathFinder):
    """Imports an edited file's copy wherever any other finder finds the file."""

    def __init__(self, copies: dict[str, str]) -> None:
        self.copies = copies

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> Any:
        """What the other finders say, with the copy as origin."""
        for finder in sys.meta_path:
            spec = finder.find_spec(name, path, target) if finder is not self else None
            if spec is None:
                continue
            copy = self.copies.get(os.path.realpath(spec.origin)) if spec.origin else None
            if copy is None:
                return spec
            return importlib.util.spec_from_file_location(
                name, copy, submodule_search_locations=spec.submodule_search_locations
            )
        return None
