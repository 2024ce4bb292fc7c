"""A model that a wrapper holds, and one that lies in parts on several processes.

An analysis runs in one process and on copies: a collective of it would wait for processes that analyse
nothing. The module inside `torch.compile` or DistributedDataParallel is the model, whole, and is what is
analysed; its names are its own, without the wrapper's. What FSDP or `parallelize_module` left in this process
is a part, and a part is refused: a verdict on it would be one on its shard.
"""

from __future__ import annotations

from torch import nn

from fxgrad.records.errors import InputError
from fxgrad.torch_api import registry
from fxgrad.torch_api.distributed import is_replica, is_split, split_by, world_size
from fxgrad.torch_api.module_internals import eager_module

_HINT = "pass the model as it is before that, or watch all processes: torchrun -m fxgrad run train.py"


def unwrapped(model: object) -> object:
    """The model inside `torch.compile`'s wrapper, where the eager module is what trains, and inside
    DistributedDataParallel."""
    while isinstance(model, nn.Module):
        inner = model.module if is_replica(model) else eager_module(model)
        if not isinstance(inner, nn.Module):
            return model
        model = inner
    return model


def refuse_parts(root: nn.Module) -> None:
    """Raise for a model of which this process holds a part, or that would wait for other processes.

    Raises:
        InputError: it is one.
    """
    for name, module in registry.named_modules(root):
        what = split_by(module)
        if what is not None:
            raise InputError(
                f"{_called(name)} is sharded by {what}: this process holds a part of it", hint=_HINT
            )
        if is_replica(module) and world_size() > 1:
            raise InputError(
                f"{_called(name)} is in DistributedDataParallel: it waits for the other {world_size() - 1} "
                "processes",
                hint=_HINT,
            )
    for name, tensor in (*registry.named_parameters(root), *registry.named_buffers(root)):
        if is_split(tensor):
            raise InputError(f"`{name}` is a DTensor: this process holds a part of it", hint=_HINT)


def _called(name: str) -> str:
    return f"`{name}`" if name else "the model"
