"""What people put around a model before they train it: functions from a model to what is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.optim.swa_utils import AveragedModel

AVERAGED = "AveragedModel"  # stands beside the model, which trains as it is


class Own(nn.Module):
    """A user's wrapper: what it does not have itself it hands on."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.inner, name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner(*args, **kwargs)


def replicated(model: nn.Module) -> nn.Module:
    _alone()
    return nn.parallel.DistributedDataParallel(model)


def sharded(model: nn.Module) -> nn.Module:
    _alone()
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    return model


def compiled(model: nn.Module) -> Any:
    return torch.compile(model, backend="eager")


def _alone() -> None:
    """A process group of this process alone."""
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "DataParallel": nn.DataParallel,
    "DistributedDataParallel": replicated,
    "fully_shard": sharded,
    "torch.compile": compiled,
    AVERAGED: AveragedModel,
    "__getattr__": Own,
}
REPLACES = frozenset({"fully_shard"})  # the parameters by others: what an optimizer held before is not what trains
ONLY_TRAINED = frozenset({"fully_shard", AVERAGED})  # `analyze` refuses what lies in parts; an average is no model that trains
