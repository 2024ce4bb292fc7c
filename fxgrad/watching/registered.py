"""The parameters and layers that a model's first forward put others in the place of (`self.weight =
nn.Parameter(...)`).

A name stands for what was registered under it as the model was called, which is what its optimizer was given.
So the report is made with those back where they were, as far as an optimizer holds them or there is none;
then the program has its own again. Not handled: what was replaced before the first forward, which the
optimizer holds or does not hold (FXG302), or only in a later one.

Between a forward and its backward, and in a program that ends there, FSDP2 has whole parameters where the
parts that the optimizer holds belong: the same is done with these.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn

from fxgrad.torch_api import registry
from fxgrad.trace.ledger import Ledger

Place = tuple[dict[str, object], str]  # a table of a module's, and a name in it


class Registered:
    """What the first forwards of the models replaced."""

    def __init__(self) -> None:
        # Tables of modules, and copies of them.
        self._had: list[tuple[dict[str, Any], dict[str, object]]] = []
        self._replaced: list[tuple[Place, object]] = []

    def note(self, model: nn.Module) -> None:
        """Its first forward is about to begin."""
        tables = [
            table for module in registry.modules(model) for table in (module._parameters, module._modules)
        ]
        self._had = [(table, dict(table)) for table in tables if table]

    def compare(self) -> None:
        """That forward has ended."""
        for table, before in self._had:
            for name, item in before.items():
                if item is not None and name in table and table[name] is not item:
                    self._replaced.append(((table, name), item))
        self._had = []

    def clear(self) -> None:
        """Let go of all."""
        self._had = []
        self._replaced = []

    @contextlib.contextmanager
    def in_place(self, held: set[int]) -> Iterator[None]:
        """What was replaced is back. `held`: the ids of what optimizers hold, which of these it is that
        train."""
        own: list[tuple[Place, object]] = []
        try:
            for (table, name), item in self._replaced:
                parameters = registry.parameters(item) if isinstance(item, nn.Module) else (item,)
                if name in table and (not held or any(id(p) in held for p in parameters)):
                    own.append(((table, name), table[name]))
                    table[name] = item
            yield
        finally:
            for (table, name), item in reversed(own):
                table[name] = item


@contextlib.contextmanager
def parts_in_place(ledger: Ledger, models: Iterable[nn.Module]) -> Iterator[None]:
    """The parts are back where whole parameters are registered that were put together from them."""
    own: list[tuple[dict[str, nn.Parameter | None], str, nn.Parameter | None]] = []
    try:
        for table in [module._parameters for module in _below(models)]:
            for name, item in list(table.items()):
                slot = ledger.tensors.get(item) if item is not None else None
                part = ledger.part_of(slot) if slot is not None else None
                if isinstance(part, nn.Parameter) and part is not item:
                    own.append((table, name, item))
                    table[name] = part
        yield
    finally:
        for table, name, item in reversed(own):
            table[name] = item


def _below(models: Iterable[nn.Module]) -> Iterator[nn.Module]:
    for model in models:
        yield from registry.modules(model)
