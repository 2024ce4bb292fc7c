"""One of the processes that `tests/test_distributed.py` starts with torchrun: what real DDP and FSDP2 do, as JSON in the file of rank 0."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, str(Path(__file__).parent))

import programs

import fxgrad

INDICES = re.compile(r"did not receive grad for rank \d+: ([\d ]+)")


def missed(model: nn.Module, sign: float = 1.0) -> dict[str, Any]:
    """The names that DistributedDataParallel complains of as the second iteration begins, and what a watch says of that."""
    wrapped = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(wrapped.parameters(), 0.01)
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    found: list[str] = []
    watched = fxgrad.watch(wrapped, optimizer, steps=2)
    try:
        with watched:
            for _ in range(2):
                optimizer.zero_grad()
                programs.loss_of(wrapped(programs.data(dist.get_rank(), sign))).backward()
                optimizer.step()
    except RuntimeError as error:
        match = INDICES.search(str(error))
        if match is None:
            raise
        found = [names[int(index)] for index in match.group(1).split()]
    report = watched.report
    said = [f for f in report.findings if f.code == "FXG501"] if report is not None else []
    return {"raised": sorted(found), "watched": [[f.severity, sorted(f.parameters)] for f in said]}


def gradients(model: nn.Module) -> dict[str, list[float]]:
    """By name, whole: a sharded gradient is gathered."""
    found = {}
    for name, parameter in model.named_parameters():
        grad = parameter.grad
        assert grad is not None, name
        found[name.removeprefix("module.")] = (grad.full_tensor() if hasattr(grad, "full_tensor") else grad).flatten().tolist()
    return found


def trained(model: nn.Module) -> dict[str, list[float]]:
    """Gradients of a second step, after one update."""
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(2):
        optimizer.zero_grad()
        programs.loss_of(model(programs.data(dist.get_rank()))).backward()
        kept = gradients(model)
        optimizer.step()
    return kept


def fixed() -> nn.Module:
    model = programs.build(programs.Dying)
    return fxgrad.fix(model, (programs.data(0),), loss=programs.loss_of).module


def main() -> None:
    dist.init_process_group("gloo")
    result: dict[str, Any] = {kind.__name__: missed(programs.build(kind)) for kind in programs.PROGRAMS}
    for sign in (1.0, -1.0):
        result[f"Branching {sign > 0}"] = missed(programs.build(programs.Branching), sign)
    result["ddp"] = trained(DistributedDataParallel(fixed()))
    result["fsdp"] = trained(fully_shard(fixed(), mesh=init_device_mesh("cpu", (dist.get_world_size(),))))
    if dist.get_rank() == 0:
        Path(sys.argv[1]).write_text(json.dumps(result))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
    # Gloo's threads may still hold tensors of an iteration that DistributedDataParallel broke off. One freed while the
    # interpreter is being torn down aborts the process (pytorch/pytorch#179291), after all that is tested here.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
