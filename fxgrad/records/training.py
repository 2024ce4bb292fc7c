"""What a watched training script did around its calls, in order: its backwards, its optimizer steps, and what
a backward met that an earlier one had freed.

Frozen, as facts are: values, autograd edges and notes (the calls, in order) are numbers, places are Sites.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fxgrad.records.findings import Site


@dataclass(frozen=True, slots=True)
class Walk:
    """One backward: the values it started from, and every value whose edge lies behind them.

    `note`: the last call before it; `stack`: its frames, innermost first; `partial`: `autograd.grad`, which
    leaves no `.grad`; `leaves`: the leaf edges behind it; `nan`: a loss was not a number;
    `infinite`: the type of a loss that was infinite, "" if none was. `aim`: the edges that the optimizer
    holds for which it ran; empty where that is not known, or was not asked. `narrowed`: `inputs=` says which
    leaves get a gradient.
    """

    note: int
    stack: tuple[Site, ...]
    losses: tuple[int, ...]
    live: frozenset[int]
    leaves: frozenset[int]
    failed: bool = False
    partial: bool = False
    nan: bool = False
    infinite: str = ""
    aim: frozenset[int] = frozenset()
    narrowed: bool = False

    @property
    def site(self) -> Site | None:
        """Its own line."""
        return self.stack[0] if self.stack else None


@dataclass(frozen=True, slots=True)
class OptimizerStep:
    """One step of an optimizer. `note`: the last call before it; `states`: what the gradients of its
    trainable parameters were as it began, `leaves` their edges.

    `cleared`: where gradients were dropped or zeroed after the last backward, None if they were not; `had`: a
    backward had left some; `written`: they were zeroed by a call that is not there for it.
    """

    note: int
    site: Site | None
    states: frozenset[str]
    leaves: frozenset[int]
    cleared: Site | None
    had: bool
    written: bool = False


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
class Vain:
    """An optimizer that stepped and holds `count` tensors that no backward gives a gradient. `sources`: what
    shares their data, by name, and whether a model has it as a parameter; `built`: where it was built."""

    count: int
    sources: Mapping[str, bool]
    built: Site | None


@dataclass(frozen=True, slots=True)
class GivenUp:
    """An optimizer that stepped and holds nothing but `count` parameters that a model has given up, which has
    others of the same shapes; `built`: where it was built."""

    count: int
    built: Site | None


@dataclass(frozen=True, slots=True)
class Exchanged:
    """A network that an optimizer holds and nothing calls, and one of the same shapes that gets gradients
    which no optimizer uses: each by its path, with its parameters. `built`: where the optimizer was."""

    held: str
    names: tuple[str, ...]
    trained: str
    theirs: tuple[str, ...]
    built: Site | None


@dataclass(frozen=True, slots=True)
class Unmoved:
    """A network, by its path, that gets gradients in several steps while no optimizer holds it and nothing
    else writes it. `names`: its parameters that require grad; `built`: where the optimizer of others was."""

    path: str
    names: tuple[str, ...]
    built: Site | None = None


@dataclass(frozen=True, slots=True)
class Compiled:
    """What compiled code raised where the same code ran eagerly before: the error's words, its line, and that
    of the call of `torch.compile`."""

    message: str
    raised: Site | None
    site: Site | None


@dataclass(frozen=True, slots=True)
class SentAway:
    """A tensor with a history that a data set hands to another process. `read`: the line that reads it.

    `leaf`: it is no result: what requires grad by itself; `name`: its variable's; `made`: the line that
    computed it; `collated`: that puts items together, in the worker.
    """

    read: Site | None
    leaf: bool
    name: str | None
    made: Site | None
    collated: bool = False


@dataclass(frozen=True, slots=True)
class Withheld:
    """Parameters whose whole got a gradient that FSDP2 did not hand to the part which the optimizer holds.

    `returned`: the type of what a split module returned, in which FSDP2 finds no tensor, and the line of the
    call; "" and None where it returned no such thing.
    """

    names: tuple[str, ...]
    returned: str
    called: Site | None


@dataclass(frozen=True, slots=True)
class Dropped:
    """Parameters that a backward gave gradients, which `zero_grad()` dropped before a step with others."""

    names: tuple[str, ...]
    cleared: Site | None
    walk: Site | None
    step: Site | None


@dataclass(frozen=True, slots=True)
class Training:
    """All of it. Mappings are by a parameter's name.

    `emptied`: the parameters that had a gradient, which was gone as a step began; `hooked`: those
    of them whose own hooks took it away inside the backward; `edges`: their leaf edges;
    `frozen`: where the script froze what it did freeze; `stale`: those of them that were frozen for an
    earlier backward and are held by an optimizer. `closures`: file and function of what optimizer steps were
    given to call; `both_ways`: the conditions that went both ways in the steps that were watched, with the
    parameters that took part in some; `replicates`: gradients are averaged with DistributedDataParallel;
    `unfinished`: what no backward has reached may yet have been reached. None, or empty:
    there was no such thing.
    """

    walks: tuple[Walk, ...]
    steps: tuple[OptimizerStep, ...]
    edges: Mapping[str, int] = field(default_factory=dict)
    emptied: tuple[str, ...] = ()
    hooked: tuple[str, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    frozen: Mapping[str, Site] = field(default_factory=dict)
    stale: Mapping[str, Site] = field(default_factory=dict)
    closures: frozenset[tuple[str, str]] = frozenset()
    both_ways: Mapping[Site, tuple[str, ...]] = field(default_factory=dict)
    vain: tuple[Vain, ...] = ()
    given_up: tuple[GivenUp, ...] = ()
    second_time: SecondTime | None = None
    compiled: Compiled | None = None
    sent_away: SentAway | None = None
    exchanged: tuple[Exchanged, ...] = ()
    unmoved: tuple[Unmoved, ...] = ()
    withheld: Withheld | None = None
    replicates: bool = False
    unfinished: bool = False

    def losses(self) -> tuple[Walk, ...]:
        """The backwards that went through and left gradients."""
        return tuple(walk for walk in self.walks if not (walk.partial or walk.failed))
