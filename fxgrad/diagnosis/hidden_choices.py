"""Decisions that no comparison shows: an expert chosen by index, a NumPy condition, a loop over what a mask
selects, a random draw.

Where parameters get no gradient, what the program reads off data is disturbed, one thing at a time: numbers
that leave torch, selections that came out empty, the random generators, at last all weights and inputs. If
then a parameter trains that did not, its gradient depends on that, and the condition's line is the last one
that both runs have in common; where they run the same lines, it is the line that reads the number. Not
handled: values on fake tensors, draws from a generator of the program's own, more than `LINES` lines.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest

from fxgrad.diagnosis.branches import Explored, affordable, without_gradient
from fxgrad.diagnosis.escaped_numbers import reaching_loss
from fxgrad.diagnosis.parting_line import parting
from fxgrad.passes.analyses.causes import is_starved
from fxgrad.passes.context import Branch
from fxgrad.passes.rules.fxg115_branch_skips_parameter import RANDOM
from fxgrad.records import Decision, Facts, Site
from fxgrad.source.sites import innermost
from fxgrad.trace.experiment import Experiment, Nudge, Values
from fxgrad.trace.lab import Lab
from fxgrad.trace.observations import Step
from fxgrad.trace.recorder import NeedsValue
from fxgrad.trace.run import Run

LINES = 8
PER_LINE = 4  # values read on one line: a loop reads many
AMOUNTS = (1, -1, 1000, -1000, 2, -2, 3, -3, 4, -4, 5, -5, 6, -6, 7, -7)  # added to numbers
FIRST = 6  # of these always; the rest where the first show something
SEEDS = (1, 2, 3)
# Last, other weights and inputs altogether: counts of tokens per expert cannot be changed one by one, they
# must add up.
REDRAWN = (
    Experiment("real", noise=1, seed=1),
    Experiment("real", noise=2, seed=2, unsettle="drawn"),
    Experiment("real", noise=3, seed=3, unsettle="drawn"),
)


@dataclass(frozen=True, slots=True)
class _Series:
    """Ways to disturb one thing, the `first` of them always tried; `node` and `site` say what it is."""

    changes: tuple[Experiment, ...]
    first: int
    node: str
    site: Site | None
    selection: bool = False


def reveal(lab: Lab, explored: Explored, facts: Facts, values: Values, limit: int) -> Explored:
    """`explored` with the hidden decisions found beside it."""
    main = explored.main
    starved = _unexplained(facts, explored)
    if not starved or main.recorder.forced or main.error is not None:
        return explored
    search = _Search(
        lab, values, main, facts, starved, explored.paths + affordable(main, limit), explored.paths
    )
    for series in _series(main, values):
        search.follow(series)
    found = [
        f for f in (*search.found, *(d for d in search.doubtful if d.gained - search.undecided)) if f.is_shown
    ]
    here = frozenset(without_gradient(main))
    branches = tuple(
        Branch(Decision(f.site, f.node, True, True), lab.seen(f.run), here - f.names(here), here)
        for f in found
    )
    undecided = explored.undecided.union(*(f.gained for f in found))
    return replace(
        explored,
        branches=explored.branches + branches,
        undecided=undecided,
        paths=search.paths,
        cut_off=explored.cut_off or search.paths >= search.limit,
    )


def _unexplained(facts: Facts, explored: Explored) -> set[str]:
    """Parameters without a gradient whose data was not seen to reach the loss: where it was, what cuts the
    way is the cause."""
    found = (
        p
        for p in facts.parameters
        if p.requires_grad and is_starved(facts, p) and not explored.undecided.intersection(p.names)
    )
    reaching = reaching_loss(facts)
    return {p.name for p in found if reaching.isdisjoint(p.values)}


@dataclass(frozen=True, slots=True)
class _Found:
    """A trial that makes starved parameters train. `site`: where it parts from the program's own run, as far
    as that is in the user's code; `selection`: an empty selection was made to take everything, which is the
    cause wherever it stands."""

    gained: frozenset[str]
    site: Site | None
    node: str
    run: Run
    selection: bool

    @property
    def is_shown(self) -> bool:
        return self.site is not None or self.selection

    def names(self, here: frozenset[str]) -> frozenset[str]:
        """The gained parameters under every name."""
        trained = here - without_gradient(self.run) if self.run.error is None else frozenset()
        return self.gained | trained


class _Search:
    """Tries things within a limit of runs. `found`: proven; `doubtful`: the program raised after the
    parameters were read."""

    def __init__(
        self, lab: Lab, values: Values, main: Run, facts: Facts, starved: set[str], limit: int, paths: int
    ) -> None:
        self.lab, self.values, self.main, self.facts, self.starved = lab, values, main, facts, starved
        self.limit, self.paths = limit, paths
        self.undecided: set[str] = set()
        self.found: list[_Found] = []
        self.doubtful: list[_Found] = []

    def follow(self, series: _Series) -> None:
        """Disturb one thing in several ways; further ones only where the first ones show something."""
        shown = False
        for rank, change in enumerate(series.changes):
            if self.paths >= self.limit or (rank >= series.first and not shown):
                return
            shown |= self._try(series, change)

    def _try(self, series: _Series, change: Experiment) -> bool:
        try:
            other = self.lab.run(change)
        except NeedsValue:
            return False
        self.paths += 1
        gained = _gained(self.lab, self.facts, other, self.starved)
        if not gained - self.undecided:
            return bool(gained)
        site = (
            parting(self.lab, Experiment(self.values), change)
            if other.error is None or series.selection
            else None
        )
        if series.site is None or series.selection:
            site = site or _first_other_step(self.main, other)
        found = _Found(frozenset(gained), site or series.site, series.node, other, series.selection)
        if other.error is None:
            self.undecided |= gained
            self.found.append(found)
        else:
            self.doubtful.append(found)
        return True


def _gained(lab: Lab, facts: Facts, other: Run, starved: set[str]) -> set[str]:
    """Starved parameters that train in the other run; where that raised after all, those that only it
    reads."""
    if other.error is None:
        found = starved - without_gradient(other)
        return set() if starved <= found and len(found) == len(facts.parameters) else found
    if other.error.phase == "backward":
        return set()
    read = {p.name for p in lab.seen(other).parameters if p.values}
    return {p.name for p in facts.parameters if p.name in starved and not p.values and p.name in read}


def _series(main: Run, values: Values) -> Iterator[_Series]:
    if values == "real":
        recorder = main.recorder
        for number, step in _by_line([step for step in recorder.steps if step.kind == "escape"]):
            changes = tuple(Experiment(values, nudge=Nudge(number, amount)) for amount in AMOUNTS)
            yield _Series(changes, FIRST, step.node.name, innermost(step.spots))
        empty = [(i, step) for i, step in enumerate(recorder.selections) if _came_out_empty(main, step)]
        for index, step in _by_line([step for _, step in empty]):
            yield _Series(
                (Experiment(values, nudge=Nudge(empty[index][0], selection=True)),),
                1,
                step.node.name,
                innermost(step.spots),
                selection=True,
            )
        read = [step for step in recorder.steps if step.kind == "escape"] + recorder.selections
        if read:
            yield _Series(REDRAWN, len(REDRAWN), read[0].node.name, None)
    if main.drew:
        yield _Series(tuple(Experiment(values, seed=seed) for seed in SEEDS), len(SEEDS), RANDOM, None)


def _first_other_step(main: Run, other: Run) -> Site | None:
    """Where two runs of the same lines first do different things: an expert chosen by index, a condition and
    its body on one line."""
    for one, another in zip_longest(main.recorder.steps, other.recorder.steps):
        if (
            one is None
            or another is None
            or (one.target, str(one.node.target)) != (another.target, str(another.node.target))
        ):
            return innermost((another or one).spots)
    return None


def _by_line(steps: list[Step]) -> Iterator[tuple[int, Step]]:
    """The first few steps of the first few lines, with their numbers."""
    counts: dict[object, int] = {}
    for number, step in enumerate(steps):
        line = step.spots[0] if step.spots else None
        counts[line] = counts.get(line, 0) + 1
        if counts[line] <= PER_LINE and len(counts) <= LINES:
            yield number, step


def _came_out_empty(main: Run, step: Step) -> bool:
    return any(0 in main.recorder.values[made].shape for made in step.makes)
