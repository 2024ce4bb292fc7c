"""What users pass for a model, a loss or inputs that is none, and what to write instead.

Looked at before anything runs. Not handled: a loss whose signature cannot be read.
"""

from __future__ import annotations

import os

import torch
from torch import nn

from fxgrad.program.inputs import is_array, required
from fxgrad.records import Inputs
from fxgrad.records.errors import InputError
from fxgrad.torch_api.internals import pytree
from fxgrad.torch_api.module_internals import is_scripted


def refuse_no_model(model: object) -> None:
    """Raise for what is not a model but can be made one, and for what has no Python lines to name.

    Raises:
        InputError: a class, a text, TorchScript, an exported program, or anything else that cannot be called.
    """
    if isinstance(model, type):
        raise InputError(
            f"the model is the class {model.__name__}, not an instance of it",
            hint=f"pass {model.__name__}(...)",
        )
    if isinstance(model, str | os.PathLike):
        hint = "pass the module itself; a file is for the command line: fxgrad report model.py"
        raise InputError(f"the model is a text, {str(model)!r:.60}", hint=hint)
    if is_scripted(model) or isinstance(model, torch.jit.ScriptFunction):
        raise InputError(
            "the model is TorchScript, which has no Python lines to name",
            hint="pass the module as it is before scripting, or set PYTORCH_JIT=0",
        )
    if type(model).__name__ == "ExportedProgram":  # its module takes long to import
        raise InputError(
            "the model is an ExportedProgram, which cannot be called",
            hint="pass its module: program.module()",
        )
    if not isinstance(model, nn.Module) and not callable(model):
        hint = "pass the module itself, not its state dict or its output"
        raise InputError(
            f"the model must be an nn.Module or a callable, not {type(model).__name__}", hint=hint
        )


def refuse_no_loss(loss: object) -> None:
    """Raise for what is no function from the model's output to a scalar.

    Raises:
        InputError: a class, a tensor, a text, or a criterion that takes a target as well.
    """
    if loss is None:
        return
    name = getattr(loss, "__name__", type(loss).__name__)
    written = "write loss=lambda output: criterion(output, target), with a target of your own"
    if isinstance(loss, type):
        raise InputError(f"the loss is the class {name}, not a function of the model's output", hint=written)
    if isinstance(loss, torch.Tensor):
        raise InputError(
            "the loss is a tensor that was computed before",
            hint="pass a function from the model's output to it",
        )
    if not callable(loss):
        raise InputError(
            f"the loss is of type {type(loss).__name__}, not a function of the model's output", hint=written
        )
    needed = required(loss.forward if isinstance(loss, nn.Module) else loss)
    if len(needed) > 1:
        raise InputError(
            f"the loss {name} takes {', '.join(needed)}, but is called with the model's output alone",
            hint=written,
        )


def refuse_arrays(inputs: Inputs, error: str) -> None:
    """Raise where a program failed, with that message, on an array of NumPy's that it was given: torch takes
    none, but a forward may.

    Raises:
        InputError: it did.
    """
    named = [
        *((f"input {position}", value) for position, value in enumerate(inputs.args)),
        *inputs.kwargs.items(),
    ]
    arrays = [name for name, value in named if any(map(is_array, pytree.tree_leaves(value)))]
    if arrays and "ndarray" in error:
        raise InputError(
            f"{arrays[0]} is a NumPy array, and the model takes tensors", hint="pass torch.from_numpy(array)"
        )
