"""The rules as their files say them, for who only wants to read: importing them would import torch.

A rule's file is named after its code and name, its documentation is the docstring, its level a constant. That
this is what the rules themselves say, a test holds.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
from dataclasses import dataclass
from pathlib import Path

_FILE = re.compile(r"(fxg\d+)_(\w+)\.py")
_LEVEL = re.compile(r'^SEVERITY\b.*= "(\w+)"', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Entry:
    """A rule that nobody has imported."""

    code: str
    name: str
    file: Path

    @property
    def severity(self) -> str:
        """error, warning or note."""
        found = _LEVEL.search(self._text())
        return found.group(1) if found else ""

    @property
    def documentation(self) -> str:
        """The docstring, without its indentation."""
        head = self._text().partition("\nfrom __future__")[0]
        return inspect.cleandoc(ast.get_docstring(ast.parse(head)) or "")

    @property
    def summary(self) -> str:
        """The first sentence of it."""
        return " ".join(self.documentation.partition("\n\n")[0].split())

    def _text(self) -> str:
        return self.file.read_text(encoding="utf-8")


def entries() -> tuple[Entry, ...]:
    """Every rule, by code."""
    spec = importlib.util.find_spec("fxgrad.passes")  # found, not imported
    folders = spec.submodule_search_locations if spec is not None else None
    found = []
    for file in sorted(Path((folders or [""])[0], "rules").glob("fxg*.py")):
        named = _FILE.fullmatch(file.name)
        if named:
            found.append(Entry(named.group(1).upper(), named.group(2).replace("_", "-"), file))
    return tuple(found)
