"""The trial of an exported package: loaded in a fresh process, one step of it is held against one of the
module that it was made from.

The step: the inputs that the module was made for, outputs, buffers, and the gradients of a weighed sum of all
outputs. Not handled: inputs that no pickle holds, classes of pytree nodes that another process cannot import,
models on several devices; they are refused.
"""

from __future__ import annotations

import os
import subprocess
import sys
import types
from collections import namedtuple
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.fx

from fxgrad.fix_graph.export import fresh_process
from fxgrad.fix_graph.proof import SEED, Step, compare, step
from fxgrad.program.program import Program, program, tensors_of_program
from fxgrad.records import Inputs
from fxgrad.records.errors import FixError
from fxgrad.torch_api import tree
from fxgrad.trace.plain import input_tensors, with_inputs

_HINT = "keep the module in the program that made it"
_PLAIN = (bool, int, float, str, types.NoneType)  # what the text compares arguments with


def refuse_other_than(module: torch.fx.GraphModule, inputs: object, job: Path) -> None:
    """Run the package that lies in the folder `job`, which gets two files more.

    Raises:
        FixError: the package does not run, or its step is not the module's.
    """
    target = _called_alone(program(module, inputs, None))
    _give(target, job)
    found = _carried_out(job)
    want = step(module, target)
    apart = compare(want, found, gradients=True, exact=True).apart
    if apart:  # kernels that add up in no fixed order differ from themselves
        steady = compare(want, step(module, target), gradients=True, exact=True).apart
        apart = {what: how for what, how in apart.items() if what not in steady}
    if apart:
        first = "; ".join(f"{what}: {how}" for what, how in list(apart.items())[:3])
        raise FixError(f"the package would not do what the module does: {first}", hint=_HINT)


def _called_alone(target: Program) -> Program:
    """The program on inputs without a history, which another process can have as well, and with the loss of a
    trial."""
    given = [t.detach().requires_grad_(t.requires_grad) for t in input_tensors(target)]
    args, kwargs = with_inputs(target, given)
    return replace(
        target,
        inputs=Inputs(args, kwargs),
        loss=lambda output: fresh_process.weighed(fresh_process.tensors_of(output)),
    )


def _give(target: Program, job: Path) -> None:
    leaves, structure = target.flat_inputs()
    devices = {tensor.device for tensor in tensors_of_program(target)}
    given = {
        "call": _plainly(structure, leaves),
        "tensors": input_tensors(target),
        "device": devices.pop() if len(devices) == 1 else None,
        "dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "seed": SEED,
    }
    try:
        torch.save(given, job / fresh_process.GIVEN)
    except OSError:
        raise
    except Exception as error:  # whatever a pickle says of the inputs
        raise FixError(f"the inputs cannot be handed to another process: {error}", hint=_HINT) from error


def _plainly(structure: tree.Structure, tensors: Sequence[torch.Tensor]) -> Any:
    """The arguments without the user's own classes, which another process need not know: by attributes
    alone."""
    if isinstance(structure, tree.Leaf):
        if structure.index is not None:
            return tensors[structure.index]
        return structure.constant if isinstance(structure.constant, _PLAIN) else None
    children = [_plainly(child, tensors) for child in structure.children]
    if isinstance(structure, tree.Attributes):
        held = dict(zip(structure.names, children, strict=True))
        keyed = {name.key: child for name, child in held.items() if isinstance(name, tree.Key)}
        if not keyed:
            return types.SimpleNamespace(**{str(name): child for name, child in held.items()})
        if len(keyed) == len(held):
            return keyed if isinstance(structure.template, dict) else list(keyed.values())
        kind = type(structure.template).__name__
        raise FixError(f"an input of type {kind} holds tensors under keys and as attributes", hint=_HINT)
    if structure.spec.type is namedtuple:
        return types.SimpleNamespace(**dict(zip(structure.spec.context._fields, children, strict=True)))
    return tree.unflatten(replace(structure, children=tuple(map(tree.Leaf, range(len(children))))), children)


def _carried_out(job: Path) -> Step:
    """What the package's step left in a process of its own."""
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    command = [sys.executable, "-P", fresh_process.__file__, str(job)]
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = _error_line(done.stderr) or f"it ended with status {done.returncode}"
        raise FixError(f"the package would not run in a process of its own: {said}", hint=_HINT)
    return Step(**torch.load(job / fresh_process.FOUND, weights_only=False))


def _error_line(told: str) -> str:
    """The first line of the error under a traceback, whose own lines are indented."""
    lines = told.strip().splitlines()
    below = [number for number, line in enumerate(lines) if line.startswith(" ")]
    rest = lines[below[-1] + 1 :] if below else lines
    return next(iter(rest or lines[-1:]), "")
