"""Other tensors in place of some, in whatever a function calls: stand-ins for originals, values of this run
for recorded ones.

Swapped in arguments and plain containers. Not handled: tensors in attributes of other objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from fxgrad.torch_api.calls import Args, Function, Kwargs
from fxgrad.torch_api.engine import ENGINE


class Swap(TorchFunctionMode):
    """Hands a function the values of this run in place of those of the recorded one."""

    def __init__(self, values: Mapping[int, torch.Tensor]) -> None:
        super().__init__()
        self.values = values

    def __torch_function__(
        self, func: Function, types: object, args: Args = (), kwargs: Kwargs | None = None
    ) -> object:
        args, kwargs = self._swap(args), self._swap(kwargs or {})
        run = ENGINE.get(getattr(func, "__name__", ""))
        if run is None:
            return func(*args, **kwargs)
        with self:  # hooks and checkpoints of the program run in there
            return run(*args, **kwargs)

    def _swap(self, item: object) -> Any:
        if isinstance(item, torch.Tensor):
            return self.values.get(id(item), item)
        if isinstance(item, tuple | list) and not hasattr(item, "_fields"):
            return type(item)(self._swap(x) for x in item)
        if type(item) is dict:
            return {k: self._swap(v) for k, v in item.items()}
        return item
