"""The loss of a program: the one that was given, or what its output offers as one, or the sum of its floating
tensors.

Not handled: what a given loss returns; it is called as it is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch

from fxgrad.records import Site
from fxgrad.records.errors import InputError
from fxgrad.source import definition_site, return_sites
from fxgrad.source.objects import code_of, origin
from fxgrad.torch_api import tree

SUMMED = "the sum of the model's floating outputs"  # how the loss was found, where nothing better offers


def loss_of(given: Callable[..., object] | None, output: object) -> Any:
    """The loss by the function that was `given`, else the default one.

    Raises:
        InputError: as `default_loss`; and whatever the function raises.
    """
    return given(output) if given is not None else default_loss(output)[0]


def default_loss(output: object, model: object = None) -> tuple[torch.Tensor, str]:
    """A scalar of the output, and how it was found, for the report.

    Raises:
        InputError: the output is None, or has no floating tensor; at the last `return` of the `model` that
        gave it, or at its `def` where it has none.
    """
    for how, candidate in (
        ("the output's .loss", getattr(output, "loss", None)),
        ('the output\'s ["loss"]', output.get("loss") if isinstance(output, Mapping) else None),
        ("the model's output", output),
    ):
        if isinstance(candidate, torch.Tensor) and candidate.numel() == 1:
            return candidate, how
    leaves, _ = tree.flatten(output)
    floating = [tensor for tensor in leaves if tensor.is_floating_point()]
    if output is None:
        raise InputError(
            "the model returns None",
            site=returning(model),
            hint="is a `return` missing at the end of its forward?",
        )
    if not floating:
        raise InputError(
            "the model returns no floating tensor to differentiate",
            site=returning(model),
            hint="pass loss=..., a function from the output to a scalar tensor",
        )
    total = floating[0].sum()
    for tensor in floating[1:]:
        total = total + tensor.sum()
    return total, SUMMED


def weighed(output: object) -> torch.Tensor:
    """The same sum with another weight for each element, the same ones at each call: what a sum weighs evenly
    (a softmax, a centred value) is told apart from what no loss would train."""
    draws = torch.Generator().manual_seed(0)
    leaves, _ = tree.flatten(output)
    floating = (tensor for tensor in leaves if tensor.is_floating_point())
    terms = [(tensor * torch.rand(tensor.shape, generator=draws).to(tensor)).sum() for tensor in floating]
    total: torch.Tensor = functools.reduce(torch.add, terms)
    return total


def returning(model: object) -> Site | None:
    """Where what the model returns is written; None where that is not the user's."""
    function = getattr(type(model), "forward", None) if isinstance(model, torch.nn.Module) else model
    code = code_of(function)
    if code is None or origin(code.co_filename) != "user":
        return None
    returns = return_sites(code.co_filename, code.co_firstlineno)
    return returns[-1] if returns else definition_site(function)


def no_tensor(loss: object) -> TypeError:
    """What a backward of something else than a tensor comes to."""
    return TypeError(f"the loss is a {type(loss).__name__}, not a tensor: it has no backward")
