"""How a watched script ended by an error: what its look-ups may ask for, and what they give.

The user's own objects are in it, to be read only: the error with its frames, and the tensors that live.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from fxgrad.records import Raised, Site, Step


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """A tensor that a watched script has used, None where it is gone: its value, its leaf edge, and the best
    its gradient was after a backward ("" before the first that reached it)."""

    tensor: torch.Tensor | None
    value: int
    leaf: int
    after: str


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """A call that asked for gradients and got None, or raised: `autograd.grad`, or a look at `.grad`.

    `tensors`: those that it was asked for, in their order; `missing`: the positions without a gradient, none
    where it raised; `note`, `outputs` and `live` are those of a `Walk`; `grad`: gradients were recorded.
    """

    note: int
    site: Site | None
    tensors: tuple[Known, ...]
    missing: tuple[int, ...]
    outputs: tuple[int, ...]
    live: frozenset[int]
    grad: bool


@dataclass(frozen=True, slots=True, eq=False)
class Ended:
    """The error that ended a watched script, as it is and as a record, and what its look-ups ask for.

    `requests`: calls that asked for gradients in vain; `cleared`: where gradients were dropped after the last
    backward; `tensors`: those that live, by their id; `name_of`: the variable that holds a tensor;
    `hooks`: the names of the functions registered as hooks on tensors, and where.
    """

    error: BaseException
    raised: Raised
    requests: tuple[Request, ...]
    cleared: Site | None
    optimizers: tuple[torch.optim.Optimizer, ...]
    tensors: Mapping[int, Known]
    name_of: Callable[[torch.Tensor], str | None]
    hooks: tuple[tuple[str, Site], ...] = ()


@dataclass(frozen=True, slots=True)
class Cause:
    """Why the script died, the line to mend, how, and the parameters it is about; a rule gives it its
    code."""

    message: str
    site: Site | None
    advice: str
    parameters: tuple[str, ...] = ()
    path: tuple[Step, ...] = ()
