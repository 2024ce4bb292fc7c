"""Raw notes of a program that is being watched: what each call read, made and wrote, which backwards ran,
which optimizers stepped.

Filled while the user's own program runs on the user's own tensors, so nothing here holds a tensor: values are
numbers, autograd's edges are numbers, and modules get their names when the report is made.
`fxgrad.trace.watched_facts` turns notes into records.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from types import CodeType

from torch import nn
from torch.autograd.graph import Node
from torch.optim import Optimizer

from fxgrad.records import Flow
from fxgrad.records.facts import Delivered
from fxgrad.source.sites import Spot
from fxgrad.trace.leaf_modules import Whole
from fxgrad.trace.slots import Slot

UNKNOWN = -1  # origins: the bits of any others are in it

TIMES = 8  # noted calls of a kind

RANK: dict[Delivered, int] = {"none": 0, "zero": 1, "some": 2}


@dataclass(slots=True, eq=False)
class Note:
    """One call. `module` is the innermost module it ran in; `writes` are storage numbers; `reads` and `makes`
    are value numbers.

    `functions`: the autograd node of each made value, only until its flows are known. `origins`: of its first
    `counted` reads; `cuts`: one of these is differentiated.
    """

    number: int
    kind: str
    target: str
    spots: tuple[Spot, ...]
    module: nn.Module | None
    grad: bool
    inference: bool
    sampled: bool = False
    reads: list[int] = field(default_factory=list)
    makes: list[int] = field(default_factory=list)
    functions: list[Node | None] = field(default_factory=list)
    writes: list[int] = field(default_factory=list)
    flows: list[Flow] = field(default_factory=list)
    differentiated: list[int] = field(default_factory=list)
    constants: tuple[object, ...] = ()
    operands: tuple[tuple[int | str, int], ...] = ()  # of `TOLD_APART` alone
    settings: tuple[tuple[int | str, object], ...] = ()  # of `RELATIVE` alone
    origins: int = 0
    counted: int = 0
    cuts: bool = False


class Kind:
    """The calls of one kind (definition 2 of `fxgrad.trace.repeats`).

    `left`: how many more are noted; `values`: what the last noted one made; `tracked`: how many
    differentiated values there were then. `code`: that of a number that left torch; `whole`: the module,
    where it is the call of one and nothing inside is looked at.
    """

    __slots__ = ("code", "left", "origins", "tracked", "values", "whole")

    def __init__(self, origins: int) -> None:
        self.left = TIMES
        self.origins = origins
        self.values: tuple[int, ...] = ()
        self.tracked = -1
        self.code: CodeType | None = None
        self.whole: Whole | None = None


@dataclass(slots=True, eq=False)
class Called:
    """One finished call of a module; `depth` counts from 1, the outermost."""

    module: nn.Module
    spots: tuple[Spot, ...]
    values: tuple[int, ...]
    depth: int


@dataclass(slots=True, eq=False)
class Decided:
    """A branch on data inside a module."""

    spots: tuple[Spot, ...]
    note: int
    outcome: bool


@dataclass(slots=True, eq=False)
class Backward:
    """One backward: the values it started from, and every value whose edge lies behind them.

    `started`: the autograd nodes it began at, kept only where it raised. `partial`: `autograd.grad`, which
    leaves no `.grad`. `leaves`: the leaf edges behind it. `nan`: a loss was not a number;
    `infinite`: the type of a loss that was infinite, "" if none was; `narrowed`: `inputs=` says which leaves
    get a gradient.
    """

    note: int
    spots: tuple[Spot, ...]
    losses: tuple[int, ...]
    live: frozenset[int] = frozenset()
    started: tuple[Node, ...] = ()
    failed: bool = False
    nan: bool = False
    infinite: str = ""
    partial: bool = False
    leaves: frozenset[int] = frozenset()
    narrowed: bool = False


@dataclass(slots=True, eq=False)
class Taken:
    """One optimizer step. `states`: what the gradients of its trainable parameters were as it began, `leaves`
    their edges.

    `cleared`: where gradients were dropped or zeroed after the last backward, () if they were not; `had`: a
    backward had left some; `written`: they were zeroed by a call that is not there for it.
    """

    note: int
    spots: tuple[Spot, ...]
    states: frozenset[str]
    leaves: frozenset[int]
    cleared: tuple[Spot, ...]
    had: bool
    written: bool = False


@dataclass(frozen=True, slots=True)
class Zeroed:
    """One call of an optimizer's `zero_grad`; `walks`: how many backwards there had been."""

    note: int
    optimizer: weakref.ref[Optimizer]
    spots: tuple[Spot, ...]
    walks: int


@dataclass(slots=True, eq=False)
class Request:
    """A call that asked for gradients and got None, or raised: `autograd.grad`, or a look at `.grad`.

    `slots`: the tensors that it was asked for, in their order; `missing`: the positions without a gradient,
    none where it raised. `note`, `outputs` and `live` are those of a `Backward`. `grad`: whether gradients
    were recorded where it ran.
    """

    note: int
    spots: tuple[Spot, ...]
    slots: tuple[Slot, ...]
    missing: tuple[int, ...]
    outputs: tuple[int, ...] = ()
    live: frozenset[int] = frozenset()
    grad: bool = True
