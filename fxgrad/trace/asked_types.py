"""`type(x)` in the program's own code: the class that the value has without a recorder.

A fake tensor is of a class of torch's own, a size a number of ours. `isinstance` does not tell them from what
they stand for, `type` does: `type(x) is torch.Tensor` would go the other way. So modules whose functions the
program reaches have a `type` of ours in their globals while a run lasts. Not handled: `x.__class__`, and
`type` taken from `builtins`, kept in a variable from before, or in a module that defines the name itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import nn

from fxgrad.torch_api.internals import FakeTensor
from fxgrad.torch_api.symbols import SYMBOLS


def asked_type(item: object) -> type:
    """The class of a value as the program would see it without a recorder."""
    cls = type(item)
    if issubclass(cls, FakeTensor):
        return nn.Parameter if isinstance(item, nn.Parameter) else torch.Tensor
    if cls in SYMBOLS:
        return int if isinstance(item, int) else float
    return cls


class AskedType:
    """Stands for `type` wherever that is named: called, subclassed, asked `isinstance(x, type)`, read from,
    or in an annotation."""

    def __call__(self, *args: object, **kwargs: object) -> object:
        return asked_type(args[0]) if len(args) == 1 and not kwargs else type(*args, **kwargs)

    def __instancecheck__(self, item: object) -> bool:
        return isinstance(item, type)

    def __subclasscheck__(self, cls: type) -> bool:
        return issubclass(cls, type)

    def __mro_entries__(self, bases: object) -> tuple[type, ...]:
        return (type,)

    def __getattr__(self, name: str) -> object:
        return getattr(type, name)

    def __getitem__(self, item: object) -> object:
        return type[item]

    def __or__(self, other: object) -> object:
        return type | other

    def __ror__(self, other: object) -> object:
        return other | type

    def __eq__(self, other: object) -> bool:
        return other is self or other is type

    def __hash__(self) -> int:
        return hash(type)


@contextlib.contextmanager
def asked_types(scopes: Iterable[dict[str, object]]) -> Iterator[None]:
    """`type` is ours in these globals while the block runs."""
    ours, changed = AskedType(), []
    for scope in scopes:
        if "type" not in scope:
            scope["type"] = ours
            changed.append(scope)
    try:
        yield
    finally:
        for scope in changed:
            if scope.get("type") is ours:
                del scope["type"]
