"""What is analysed, in one shape: `Program`, from a model or a callable, its inputs, its loss and its
optimizer.

A plain callable has the modules and parameters that it closes over. Not handled: modules in containers or
attributes of what it closes over.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from fxgrad.program.inputs import inputs_of
from fxgrad.program.mistakes import refuse_no_loss, refuse_no_model
from fxgrad.program.wrapped import refuse_parts, unwrapped
from fxgrad.records import Inputs
from fxgrad.records.errors import InputError
from fxgrad.torch_api import registry, tree
from fxgrad.world.reach import Reach, World


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """What is analysed: `root` holds every module by name, `call` runs the model, `signature` is the model's
    own.

    `world`: what is around it, kept from its runs. `open_checkpoints`: record what runs inside a checkpointed
    function step by step, instead of the checkpoint as one step.
    """

    model: Any
    root: nn.Module
    call: Callable[..., object]
    signature: inspect.Signature
    inputs: Inputs
    loss: Callable[..., object] | None
    optimizer: Any = None
    open_checkpoints: bool = False
    world: World = field(default_factory=World)

    def preserved(self, *more: object) -> AbstractContextManager[Reach]:
        """Around a run: all within reach of the program, and of `more`, is as before when the block ends,
        however it ends."""
        inputs = self.inputs.args, dict(self.inputs.kwargs)
        return self.world.preserved((self.model, self.root, self.loss, *inputs, self.optimizer), more)

    def flat_inputs(self) -> tuple[list[torch.Tensor], tree.Structure]:
        """The tensors of the inputs, and how they are put together."""
        return tree.flatten((self.inputs.args, dict(self.inputs.kwargs)))


def program(
    model: Any, inputs: object, loss: Callable[..., object] | None, optimizer: object = None
) -> Program:
    """The user's arguments in one shape.

    Raises:
        InputError: `model` is not callable or a class, lies in parts on several processes, `inputs` is
        neither tuple, dict nor `Inputs`, or
            `loss` is no function of the output alone.
    """
    refuse_no_model(model)
    refuse_no_loss(loss)
    given = inputs_of(inputs)
    model = unwrapped(model)
    if isinstance(model, nn.Module):
        refuse_parts(model)
        _refuse_uninitialised(model)
        return Program(model, model, model, _signature(model.forward), given, loss, optimizer)
    root = _closure_root(model)
    refuse_parts(root)
    return Program(model, root, model, _signature(model), given, loss, optimizer)


def tensors_of_program(target: Program) -> Iterator[torch.Tensor]:
    """Parameters, buffers and the tensors of the inputs."""
    yield from registry.parameters(target.root)
    yield from registry.buffers(target.root)
    yield from target.flat_inputs()[0]


def placement(target: Program) -> torch.device | None:
    """The device that meta tensors are taken to be on, where other tensors of the program are on one: who
    mixes them means shapes, for a call of the model would only say that the devices differ. None: no meta
    tensor, or nothing else.
    """
    devices = dict.fromkeys(tensor.device for tensor in tensors_of_program(target))
    others = [device for device in devices if device.type != "meta"]
    return others[0] if others and len(others) < len(devices) else None


def _refuse_uninitialised(model: nn.Module) -> None:
    """A lazy module's parameters have no shape until its first call, which would change the user's model."""
    for name, tensor in (*registry.named_parameters(model), *registry.named_buffers(model)):
        if torch.nn.parameter.is_lazy(tensor):
            raise InputError(
                f"`{name}` has no shape yet: its module is lazy",
                hint="call the model once on real inputs, then analyse it",
            )


def _signature(function: Callable[..., object]) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return inspect.signature(lambda *args, **kwargs: None)


def _closure_root(function: Callable[..., object]) -> nn.Module:
    """The modules and parameters a plain callable closes over, under the names it has for them."""
    root = nn.Module()
    owner = getattr(function, "__self__", None)
    code = inspect.unwrap(function)
    found: dict[str, object] = {}
    if owner is not None and not isinstance(owner, nn.Module):
        found.update(getattr(owner, "__dict__", {}))
    if isinstance(owner, nn.Module):
        return owner
    if not inspect.isfunction(code):
        found.update(getattr(function, "__dict__", {}))
    else:
        variables = inspect.getclosurevars(code)
        found.update(variables.globals)
        found.update(variables.nonlocals)
    for name, value in found.items():
        if isinstance(value, nn.Module) and name.isidentifier() and not hasattr(root, name):
            root.add_module(name, value)
        elif isinstance(value, nn.Parameter) and name.isidentifier() and not hasattr(root, name):
            root.register_parameter(name, value)
    return root
