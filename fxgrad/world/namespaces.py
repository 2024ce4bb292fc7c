"""The globals of modules as they were: what a forward assigns, by `global`, `globals()` or `module.name =
...`, is put back.

A `Namespaces` notes the dictionaries of the modules met in one walk. Of an installed package only what then
holds a tensor or a number of the run goes back to what it was: a flag that says that something was set up
once, in C or in torch's registries, must stay. Not put back: which modules are imported, their names in
packages included.
"""

from __future__ import annotations

import operator
import types
from collections.abc import Callable
from typing import Any

import torch

from fxgrad.torch_api.internals import COMPILED_NAMES
from fxgrad.torch_api.symbols import SYMBOLS
from fxgrad.world.undo import MISSING, attributes


class Namespaces:
    """Each dictionary is noted once, as a whole: that costs less than to ask which function assigns which
    name."""

    def __init__(self) -> None:
        self._noted: dict[int, tuple[dict[str, object], dict[str, object], bool]] = {}

    def note(self, scope: dict[str, object], *, own: bool) -> None:
        """Note the globals of a module; `own`: the user's."""
        if id(scope) not in self._noted:
            self._noted[id(scope)] = (scope, scope.copy(), own)

    def noted(self) -> list[dict[str, object]]:
        """The dictionaries themselves."""
        return [scope for scope, _, _ in self._noted.values()]

    def restore(self) -> None:
        """Put all back, key by key: other threads may be looking things up."""
        for scope, held, own in self._noted.values():
            if len(scope) == len(held) and all(map(operator.is_, scope.values(), held.values())):
                continue
            for name in [*held, *(name for name in list(scope) if name not in held)]:
                now, before = scope.get(name, MISSING), held.get(name, MISSING)
                if name.startswith(COMPILED_NAMES):
                    continue
                if now is before or not (_is_new(now, before) if own else of_a_run(now)):
                    continue
                if before is MISSING:
                    del scope[name]
                else:
                    scope[name] = before


def _is_new(now: object, before: object) -> bool:
    """Whether a change is more than an import: a submodule is imported once, its name in the package would
    not come back."""
    return not (before is MISSING and isinstance(now, types.ModuleType))


def of_a_run(value: object, depth: int = 3) -> bool:
    """Whether a value is or holds a tensor, a module or a symbolic number."""
    if isinstance(value, (torch.Tensor, torch.nn.Module, *SYMBOLS)):
        return True
    if not depth or isinstance(value, str | int | float | type | types.ModuleType | types.FunctionType):
        return False
    if isinstance(value, list | tuple | set | frozenset):
        return any(of_a_run(v, depth - 1) for v in value)
    if isinstance(value, dict):
        return any(of_a_run(v, depth - 1) for pair in value.items() for v in pair)
    return of_a_run(attributes(value) or (), depth - 1)


def undo_held(item: object, put: Callable[[], None]) -> Callable[[], None]:
    """The act that puts a container of an installed package back, if by then it holds what it did not hold,
    of the run."""
    before = set(map(id, _values(item)))
    return lambda: (
        put() if any(id(value) not in before and of_a_run(value) for value in _values(item)) else None
    )


def _values(item: Any) -> list[object]:
    return [v for pair in item.items() for v in pair] if isinstance(item, dict) else list(item)


__all__ = ["Namespaces", "of_a_run", "undo_held"]
