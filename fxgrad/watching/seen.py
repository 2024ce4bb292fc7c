"""All that a watch has gathered when it is over."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from fxgrad.trace.events import Events
from fxgrad.trace.observer import Observer
from fxgrad.watching.variable_names import Names


@dataclass(frozen=True, slots=True)
class Seen:
    """`optimizers`: those that take part, each with whether it has stepped; `files`: the user's own."""

    observer: Observer
    events: Events
    names: Names
    given: tuple[nn.Module, ...]
    optimizers: tuple[tuple[torch.optim.Optimizer, bool], ...]
    files: tuple[str, ...]
    title: str
    mark: int = 0  # the first note of the step that was watched closely
    assumptions: tuple[str, ...] = ()
    unfinished: bool = False  # what no backward has reached may yet have been reached
    further: int = 0  # steps in which gradients alone were looked at
    late: tuple[torch.Tensor, ...] = ()  # what had no gradient before them and then got one
    # that step and hold nothing that a backward gives a gradient
    vain: tuple[torch.optim.Optimizer, ...] = ()
    beside: bool = False  # a step ran compiled after those that were watched
    compiled_error: BaseException | None = None  # what that raised
    lasting: frozenset[int] = frozenset()  # leaf edges that the backwards of several steps reached
    untouched: frozenset[int] = (
        frozenset()
    )  # leaf edges of what nothing has written since a backward reached it
