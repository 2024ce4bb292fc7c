"""Parameters that lie on several processes, the modules that put them there, and the store of a launcher's
agent.

DTensor, DistributedDataParallel, FSDP1 and FSDP2 (`fully_shard`). What is asked of a torch without
torch.distributed is answered no.
"""

from __future__ import annotations

import dataclasses
import datetime
import sys
from typing import Any

import torch
import torch.distributed

from fxgrad.torch_api.internals import pytree

# the class whose instances average gradients over processes; None where this torch has none
REPLICATED: Any = None
if torch.distributed.is_available():
    from torch.nn.parallel import DistributedDataParallel

    REPLICATED = DistributedDataParallel

_PARAM = "torch.distributed.fsdp._fully_shard._fsdp_param"
_GROUP = "torch.distributed.fsdp._fully_shard._fsdp_param_group"


def is_sharded(tensor: torch.Tensor) -> bool:
    """Whether this process holds a part of the tensor: a DTensor that is split or whose parts are yet to be
    summed, or what FSDP1 keeps of a parameter that it has flattened into another (on most ranks nothing)."""
    if getattr(tensor, "_fsdp_flattened", False):
        return True
    placements = getattr(tensor, "placements", None) if hasattr(tensor, "_local_tensor") else None
    return placements is not None and not all(placement.is_replicate() for placement in placements)


def gathering() -> tuple[object, object] | None:
    """FSDP2's classes for one parameter and for those gathered together; None where the program has not
    imported it, or torch has others."""
    param = getattr(sys.modules.get(_PARAM), "FSDPParam", None)
    group = getattr(sys.modules.get(_GROUP), "FSDPParamGroup", None)
    known = (
        hasattr(param, "to_unsharded") and hasattr(group, "unshard") and hasattr(group, "wait_for_unshard")
    )
    return (param, group) if known else None


def whole_and_part(param: object) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Of one of FSDP2's parameters what forward uses, and what the optimizer holds."""
    whole, part = getattr(param, "_unsharded_param", None), getattr(param, "sharded_param", None)
    return (whole, part) if isinstance(whole, torch.Tensor) and isinstance(part, torch.Tensor) else None


def shows_tensors(out: object) -> bool:
    """Whether FSDP2 finds a tensor with a history in what a module returns, by which it learns of the
    backward: in torch's structures and in dataclasses, and in no other object."""
    leaves = pytree.tree_leaves(out)
    fields = [leaf for leaf in leaves if dataclasses.is_dataclass(leaf) and not isinstance(leaf, type)]
    inner = (getattr(leaf, one.name) for leaf in fields for one in dataclasses.fields(leaf))
    return any(isinstance(leaf, torch.Tensor) and leaf.requires_grad for leaf in leaves) or any(
        map(shows_tensors, inner)
    )


def part_held(param: object) -> torch.Tensor | None:
    """Of one of FSDP2's parameters what the optimizer holds."""
    part = getattr(param, "sharded_param", None)
    return part if isinstance(part, torch.Tensor) else None


def agent_store(host: str, port: int, size: int, prefix: str, seconds: float) -> object:
    """The TCPStore that a launcher's agent serves, under a prefix; None where it does not answer within
    `seconds`."""
    from torch._C._distributed_c10d import PrefixStore, TCPStore

    try:
        store = TCPStore(host, port, size, False, datetime.timedelta(seconds=seconds), wait_for_workers=False)
    except RuntimeError:
        return None
    return PrefixStore(prefix, store)


def is_split(tensor: torch.Tensor) -> bool:
    """Whether the tensor is a DTensor, of which this process holds its part (or a copy)."""
    return hasattr(tensor, "_local_tensor") and hasattr(tensor, "placements")


def local_part(tensor: torch.Tensor) -> torch.Tensor:
    """This process's part of a DTensor; any other tensor as it is."""
    return getattr(tensor, "_local_tensor", tensor)


def split_by(module: torch.nn.Module) -> str | None:
    """What splits the module's parameters over processes while it runs: FSDP in one of its two forms; None if
    nothing does."""
    whole = getattr(
        sys.modules.get("torch.distributed.fsdp.fully_sharded_data_parallel"),
        "FullyShardedDataParallel",
        None,
    )
    if whole is not None and isinstance(module, whole):
        return "FullyShardedDataParallel"
    parts = getattr(sys.modules.get("torch.distributed.fsdp._fully_shard._fully_shard"), "FSDPModule", None)
    return "fully_shard" if parts is not None and isinstance(module, parts) else None


def is_replica(module: torch.nn.Module) -> bool:
    """Whether the module averages gradients over processes."""
    return REPLICATED is not None and isinstance(module, REPLICATED)


def world_size() -> int:
    """How many processes the default group has; 1 without one."""
    running = torch.distributed.is_available() and torch.distributed.is_initialized()
    return int(torch.distributed.get_world_size()) if running else 1


def is_collective(target: str) -> bool:
    """Whether a step is one of torch's exchanges between processes, none of which has a derivative."""
    return target.startswith("torch.distributed.distributed_c10d.")
