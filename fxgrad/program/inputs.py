"""What a call needs, and its inputs in one shape, from what a user passes. Raises where they do not fit;
looks into no tensor."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence

import torch

from fxgrad.records import Inputs
from fxgrad.records.errors import InputError


def bound_inputs(
    signature: inspect.Signature, args: Sequence[object], kwargs: Mapping[str, object]
) -> tuple[object, ...]:
    """A call's arguments in the order of the signature, so that positional and keyword use come out alike."""
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise InputError(f"the inputs do not fit the model's signature: {error}") from None
    bound.apply_defaults()
    return tuple(bound.arguments.items())


def inputs_of(inputs: object) -> Inputs:
    """What a user passes as inputs, by position and by name.

    Raises:
        InputError: it is neither tuple, dict nor `Inputs`.
    """
    if isinstance(inputs, Inputs):
        return inputs
    if isinstance(inputs, tuple | list):
        return Inputs(tuple(inputs))
    if isinstance(inputs, Mapping):
        return Inputs((), dict(inputs))
    if isinstance(inputs, torch.Tensor):
        return Inputs((inputs,))
    hint = "write `(torch.from_numpy(x),)`" if is_array(inputs) else "write `(x,)` for one positional input"
    raise InputError(
        f"inputs must be a tuple, a dict or fxgrad.Inputs, not {type(inputs).__name__}", hint=hint
    )


def is_array(value: object) -> bool:
    """Whether it is NumPy's, which need not be installed."""
    return type(value).__module__ == "numpy" and type(value).__name__ == "ndarray"


def required(function: Callable[..., object]) -> tuple[str, ...]:
    """The parameters that a call must give; () also where the signature cannot be read."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return ()
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return tuple(p.name for p in parameters if p.default is p.empty and p.kind not in variable)
