"""Python objects of a graph as text for a file that must stand alone: imports, copied sources, plain
constants.

Made from the objects themselves and `inspect`. A function or class is copied with whatever module-level names
it uses, as far as those can be imported or copied too. Not handled: closures, lambdas, objects without
source; they are refused by name.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import math
import re
import sys
import textwrap
import types
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch

from fxgrad.records.errors import FixError

_PLAIN = (int, float, bool, str, bytes, type(None), complex)
_HINT = "export works where the graph needs nothing but torch; keep the module in the program that made it"


@dataclass(slots=True, eq=False)
class Definitions:
    """The top of the file: `imports` and `texts` in the order they are needed. `bound`: what each name stands
    for."""

    imports: dict[str, None] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    bound: dict[str, Any] = field(default_factory=dict)

    def reference(self, item: object) -> str:
        """The expression by which the file names the object, its import or source noted.

        Raises:
            FixError: it can be neither imported nor copied.
        """
        if isinstance(item, types.ModuleType):
            self.imports[f"import {item.__name__}"] = None
            return item.__name__
        if isinstance(item, _PLAIN):
            return repr(item)
        name = getattr(item, "__qualname__", "") or getattr(item, "__name__", "")
        module = getattr(item, "__module__", "") or ""
        if _is_importable(module, name, item):
            top = name.partition(".")[0]
            self._bind(top, getattr(sys.modules[module], top))
            if module != "builtins":
                self.imports[f"from {module} import {top}"] = None
            return name
        if isinstance(item, types.FunctionType | type) and name.isidentifier():
            return self._copied(name, item)
        raise FixError(f"the graph holds `{name or type(item).__name__}`, which no file can name", hint=_HINT)

    def _bind(self, name: str, item: object) -> None:
        if self.bound.setdefault(name, item) is not item:
            raise FixError(f"two things in the graph are called `{name}`", hint=_HINT)

    def _copied(self, name: str, item: Any) -> str:
        self._bind(name, item)
        if name in self.texts:
            return name
        try:
            text = textwrap.dedent(inspect.getsource(item))
        except (OSError, TypeError) as error:
            raise FixError(f"the source of `{name}` cannot be read", hint=_HINT) from error
        if isinstance(item, types.FunctionType) and item.__closure__:
            raise FixError(f"`{name}` closes over variables of another function", hint=_HINT)
        self.texts[name] = ""  # its place, should it use itself
        scope = (
            vars(sys.modules[item.__module__])
            if item.__module__ in sys.modules
            else getattr(item, "__globals__", {})
        )
        for word in _global_names(text):
            if word in scope and word != name:
                self._use(word, scope[word])
        self.texts.pop(name)
        self.texts[name] = text.strip("\n")
        return name

    def _use(self, word: str, item: object) -> None:
        """A module-level name of copied text, bound to the same thing in the file."""
        if isinstance(item, types.ModuleType):
            self._bind(word, item)
            self.imports[
                f"import {item.__name__}" if word == item.__name__ else f"import {item.__name__} as {word}"
            ] = None
        elif isinstance(item, _PLAIN):
            self._bind(word, item)
            self.texts[word] = f"{word} = {item!r}"
        else:
            said = self.reference(item)
            if said != word:
                self._bind(word, item)
                self.texts[word] = f"{word} = {said}"


def _is_importable(module: str, name: str, item: object) -> bool:
    """Whether another process could import it: not from a script, from fxgrad, nor under the private names of
    loaded files."""
    root = module.partition(".")[0]
    if (
        root in ("", "__main__", "fxgrad", "builtins")
        or root.startswith("_fxgrad_")
        or module not in sys.modules
    ):
        return root == "builtins" and hasattr(builtins, name)
    spec = getattr(sys.modules[module], "__spec__", None)
    if spec is None or not (
        root == "torch" or "site-packages" in (spec.origin or "") or root in sys.stdlib_module_names
    ):
        return False
    found: Any = sys.modules[module]
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is item or found is not None and found == item


def _global_names(text: str) -> list[str]:
    """Names that a definition reads and does not bind itself, annotations left out."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
    stored = {
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)
    }
    stored |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    read = [
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    ]
    return [word for word in dict.fromkeys(read) if word not in stored]


def literal(item: Any, definitions: Definitions) -> str:
    """A constant as source: numbers, strings, dtypes, devices, tuples, lists, dicts and slices of them.

    Raises:
        FixError: it has no such text.
    """
    if item is Ellipsis:
        return "..."
    if isinstance(item, float) and not math.isfinite(item):
        return f'float("{item}")'
    if isinstance(item, torch.dtype | torch.layout | torch.memory_format):
        return str(item)
    if isinstance(item, torch.device):
        return f"torch.{item!r}"
    if isinstance(item, _PLAIN):
        return repr(item)
    if isinstance(item, slice):
        return f"slice({', '.join(_literals((item.start, item.stop, item.step), definitions))})"
    if type(item) in (tuple, torch.Size):
        inner = _literals(item, definitions)
        return f"({inner[0]},)" if len(inner) == 1 else f"({', '.join(inner)})"
    if type(item) is list:
        return f"[{', '.join(_literals(item, definitions))}]"
    if type(item) is dict:
        pairs = zip(_literals(item.keys(), definitions), _literals(item.values(), definitions), strict=True)
        return "{" + ", ".join(f"{key}: {value}" for key, value in pairs) + "}"
    return definitions.reference(item)


def _literals(items: Iterable[object], definitions: Definitions) -> list[str]:
    return [literal(item, definitions) for item in items]


def identifier(text: str) -> str:
    """A valid Python name like the text."""
    name = re.sub(r"\W", "_", text)
    return name if name.isidentifier() else f"_{name}"
