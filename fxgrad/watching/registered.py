"""The parameters and layers of a program's models as its first forward found them: the ones that its optimizers were given.

A forward may put others in their places (`self.weight = nn.Parameter(...)`). A name stands for what was registered under it, so the report is
made with those back where they were, as far as an optimizer holds them; then the program has its own again. Not handled: what was replaced
before the first forward, which is what the optimizer holds or does not hold (FXG302).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn


class Registered:
    """What each module had, by module."""

    def __init__(self) -> None:
        self._had: dict[nn.Module, tuple[dict[str, nn.Parameter | None], dict[str, nn.Module | None]]] = {}

    def note(self, model: nn.Module) -> None:
        """Its first forward is about to begin."""
        for module in model.modules():
            if module not in self._had:
                self._had[module] = (dict(module._parameters), dict(module._modules))

    def clear(self) -> None:
        """Let go of all."""
        self._had.clear()

    @contextlib.contextmanager
    def in_place(self, held: set[int]) -> Iterator[None]:
        """What a forward replaced is back, where `held` has the ids of its parameters."""
        swapped: list[tuple[dict[str, object], str, object]] = []
        for module, (parameters, modules) in self._had.items():
            for name, parameter in parameters.items():
                if parameter is not None and id(parameter) in held and module._parameters.get(name, parameter) is not parameter:
                    swapped.append((module._parameters, name, parameter))  # type: ignore[arg-type]
            for name, part in modules.items():
                taken = part is not None and module._modules.get(name, part) is not part
                if taken and part is not None and any(id(p) in held for p in part.parameters()):
                    swapped.append((module._modules, name, part))  # type: ignore[arg-type]
        before = [(table, name, table[name]) for table, name, _ in swapped]
        try:
            for table, name, item in swapped:
                table[name] = item
            yield
        finally:
            for table, name, item in before:
                table[name] = item
