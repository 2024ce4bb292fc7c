"""What a model file may define beside the model: `example_inputs`, `loss`, `optimizer` and `expect`, as
values or functions.

A function is called with the model if it takes an argument, `loss` apart: that is itself the function from
output to loss. Something of the wrong kind under one of these names (a training script's `loss` tensor) is
not used, and a note says so. Made from a namespace, which may be the dict that a factory returned. Not
handled: names other than these four.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fxgrad.program.inputs import required
from fxgrad.program.load.execute import call
from fxgrad.records import Inputs, Site
from fxgrad.records.errors import LoadError


@dataclass(frozen=True, slots=True, eq=False)
class Extras:
    """What was found, None where nothing usable was; `notes` say what was passed over."""

    inputs: Inputs | None = None
    loss: Callable[..., object] | None = None
    optimizer: Any = None
    expect: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()


def extras(namespace: Mapping[str, object], model: object, *, fresh: bool) -> Extras:
    """The extras in a namespace. `fresh`: the model was built after the namespace, whose optimizer cannot be
    for it.

    Raises:
        LoadError: a function among them fails, or `loss` needs more than the model's output.
    """
    notes: list[str] = []
    return Extras(
        inputs=_inputs(namespace, model, notes),
        loss=_loss(namespace, notes),
        optimizer=_optimizer(namespace, model, notes, fresh=fresh),
        expect=_expect(namespace, model, notes),
        notes=tuple(notes),
    )


def _value(namespace: Mapping[str, object], name: str, model: object) -> object:
    """The value under the name, of a function what it returns."""
    value = namespace.get(name)
    if isinstance(value, types.FunctionType | types.MethodType):
        return call(value, f"calling {name}()", *((model,) if _takes_one(value) else ()))
    return value


def _takes_one(function: Callable[..., object]) -> bool:
    """Whether it has a positional parameter; one with a default (`lr=0.1`) is not for the model."""
    parameters = list(inspect.signature(function).parameters.values())
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return (
        bool(parameters)
        and parameters[0].kind in positional
        and parameters[0].default is inspect.Parameter.empty
    )


def _inputs(namespace: Mapping[str, object], model: object, notes: list[str]) -> Inputs | None:
    value = _value(namespace, "example_inputs", model)
    if value is None or isinstance(value, Inputs):
        return value
    if isinstance(value, torch.Tensor):
        return Inputs((value,))
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return Inputs((), dict(value))
    if isinstance(value, tuple | list):
        return Inputs(tuple(value))
    notes.append(_passed_over("example_inputs", value, "a tuple, a dict or fxgrad.Inputs"))
    return None


def _loss(namespace: Mapping[str, object], notes: list[str]) -> Callable[..., object] | None:
    value = namespace.get("loss")
    if value is None:
        return None
    if not callable(value) or isinstance(value, torch.Tensor | types.ModuleType):
        notes.append(_passed_over("loss", value, "a function from the model's output to a scalar"))
        return None
    return one_argument_loss(value, "loss")


def one_argument_loss(value: Any, name: str) -> Callable[..., object]:
    """The loss as a function of the model's output alone; a class of losses is instantiated.

    Raises:
        LoadError: it needs a target or other arguments.
    """
    if isinstance(value, type):
        value = call(value, f"building {name}()")
    needed = required(value.forward if isinstance(value, nn.Module) else value)
    if len(needed) > 1:
        given = f"`{name}` takes {', '.join(needed)}, but a loss is called with the model's output alone"
        code = getattr(value, "__code__", None)
        site = Site(code.co_filename, code.co_firstlineno) if code else None
        raise LoadError(
            given,
            site=site,
            hint=f"write `def loss(output): return {name}(output, target)` with a made-up target",
        )
    found: Callable[[Any], Any] = value
    return found


def _optimizer(namespace: Mapping[str, object], model: Any, notes: list[str], *, fresh: bool) -> object:
    found = namespace.get("optimizer")
    if isinstance(found, type) and issubclass(found, torch.optim.Optimizer):
        return call(found, f"building {found.__name__}(model.parameters())", model.parameters())
    value = _value(namespace, "optimizer", model)
    if value is None:
        return None
    if not _is_optimizer(value):
        notes.append(
            _passed_over("optimizer", value, "a torch.optim.Optimizer or a function that returns one")
        )
        return None
    if fresh and value is found:
        notes.append("`optimizer` was built before the model and holds another model's parameters: not used")
        return None
    return value


def _is_optimizer(value: object) -> bool:
    """One optimizer, several in a list or dict, or anything that has parameter groups."""
    if isinstance(value, Mapping):
        return bool(value) and all(map(_is_optimizer, value.values()))
    if isinstance(value, tuple | list):
        return bool(value) and all(map(_is_optimizer, value))
    return hasattr(value, "param_groups")


def _expect(namespace: Mapping[str, object], model: object, notes: list[str]) -> tuple[str, ...] | None:
    value = _value(namespace, "expect", model)
    if value is None:
        return None
    if isinstance(value, str):
        return (value,)
    if isinstance(value, tuple | list | set | frozenset) and all(isinstance(item, str) for item in value):
        return tuple(sorted(value) if isinstance(value, set | frozenset) else value)
    notes.append(_passed_over("expect", value, "a list of parameter names or globs"))
    return None


def _passed_over(name: str, value: object, wanted: str) -> str:
    return f"`{name}` is of type {type(value).__name__}, not {wanted}: not used"
