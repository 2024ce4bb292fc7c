"""What a watched training script did around its calls, in order: its backwards, its optimizer steps, and what
a backward met that an earlier one had freed.

Frozen, as facts are: values, autograd edges and notes (the calls, in order) are numbers, places are Sites.
"""

from __future__ import annotations

from dataclasses import dataclass

from fxgrad.records.findings import Site


@dataclass(frozen=True, slots=True)
class Walk:
    """One backward: the values it started from, and every value whose edge lies behind them.

    `note`: the last call before it; `stack`: its frames, innermost first; `partial`: `autograd.grad`, which
    leaves no `.grad`; `leaves`: the leaf edges behind it; `nan`: a loss was not a number. `aim`: the edges
    that the optimizer holds for which it ran; empty where that is not known, or was not asked.
    """

    note: int
    stack: tuple[Site, ...]
    losses: tuple[int, ...]
    live: frozenset[int]
    leaves: frozenset[int]
    failed: bool = False
    partial: bool = False
    nan: bool = False
    aim: frozenset[int] = frozenset()

    @property
    def site(self) -> Site | None:
        """Its own line."""
        return self.stack[0] if self.stack else None


@dataclass(frozen=True, slots=True)
class OptimizerStep:
    """One step of an optimizer. `note`: the last call before it; `states`: what the gradients of its
    trainable parameters were as it began, `leaves` their edges.

    `cleared`: where gradients were dropped or zeroed after the last backward, None if they were not; `had`: a
    backward had left some.
    """

    note: int
    site: Site | None
    states: frozenset[str]
    leaves: frozenset[int]
    cleared: Site | None
    had: bool


@dataclass(frozen=True, slots=True)
class MetAgain:
    """A tensor whose graph an earlier backward had freed and a later one came to. `maker` and `reader` are
    notes (a `reader` of -1: the walk begins at the tensor), `output` says which result of the maker it is.

    `spent`: the notes that made what is spent, the first made first; `freed_by`: the notes of the backwards
    that walked it; `leaves`: the leaf edges behind it.
    """

    value: int
    maker: int
    output: int
    reader: int
    spent: tuple[int, ...]
    freed_by: tuple[int, ...]
    leaves: frozenset[int]


@dataclass(frozen=True, slots=True)
class SecondTime:
    """A backward that failed where an earlier one had been. `met`: what it met there, that made last first;
    `made_anew`, `leaves`: the notes that made what it walks for the first time, and the leaf edges it hands
    on to.

    `held`: leaf edges by optimizer; `zeroed`: the calls of an optimizer's `zero_grad`, each with the last
    note before it and the optimizer's edges; `count`: the notes there are.
    """

    met: tuple[MetAgain, ...]
    made_anew: frozenset[int]
    leaves: frozenset[int]
    held: tuple[frozenset[int], ...]
    zeroed: tuple[tuple[int, frozenset[int]], ...]
    count: int


@dataclass(frozen=True, slots=True)
class Training:
    """All of it. `emptied`: names of the parameters that had a gradient, which was gone as a step began;
    `closures`: file and function of what optimizer steps were given to call; `second_time`: None where no
    backward failed so."""

    walks: tuple[Walk, ...]
    steps: tuple[OptimizerStep, ...]
    emptied: tuple[str, ...] = ()
    closures: frozenset[tuple[str, str]] = frozenset()
    second_time: SecondTime | None = None
