"""A call's inputs in one shape, from what a user passes. Raises where they do not fit; looks into no tensor."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from fxgrad.records.errors import InputError


def bound_inputs(signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    """A call's arguments in the order of the signature, so that positional and keyword use come out alike."""
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise InputError(f"the inputs do not fit the model's signature: {error}") from None
    bound.apply_defaults()
    return tuple(bound.arguments.items())
