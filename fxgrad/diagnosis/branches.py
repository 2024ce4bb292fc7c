"""Beyond one run: the other outcomes of branches on data.

A decision is a Python `bool()` of a tensor, or a comparison of a number read off one. Exploration re-runs the
program with one decision turned at a time, nested, bounded by a number of paths and by a number of turns per
line (a loop decides there again and again). A path on which the program raises, or after which nothing gets a
gradient, is a guard (`if x.isnan().any(): raise`), not an alternative.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from fxgrad.diagnosis.parting_line import parting
from fxgrad.passes.context import Branch
from fxgrad.records import Decision, Site
from fxgrad.source import line_text
from fxgrad.source.sites import Spot, site_of
from fxgrad.torch_api import registry
from fxgrad.trace.experiment import Experiment, Values
from fxgrad.trace.lab import Lab
from fxgrad.trace.recorder import NeedsValue, RawDecision
from fxgrad.trace.run import Run

TURNS_PER_LINE = 16
_DECIDES = re.compile(r"\b(if|elif|while|assert|max|min|sorted)\b")
FRUITLESS_PER_LINE = 3  # turns in a row that change no parameter's gradient: a loop that waits, a log line


# runs at least; steps and parameters' elements to run over in one search
FEWEST, STEPS, ELEMENTS = 6, 60_000, 400_000_000


@dataclass(frozen=True, slots=True)
class Explored:
    """`main`: the run that the inputs take (the first that does not raise, where they decide nothing);
    `undecided`: parameters whose gradient depends on a decision; `deciding`: the numbers of the decisions of
    `main` that change the loss; `unseen`: an outcome that could not be followed, because it reads a value and
    there is none."""

    main: Run
    branches: tuple[Branch, ...]
    undecided: frozenset[str]
    paths: int
    cut_off: bool
    deciding: frozenset[int] = frozenset()
    unseen: NeedsValue | None = None


def affordable(main: Run, limit: int) -> int:
    """How many more runs a search may take: all of `limit` on a small program, a handful where one run is
    felt."""
    elements = sum(p.numel() for p in registry.parameters(main.program.root))
    return max(FEWEST, min(limit, STEPS // max(len(main.recorder.steps), 1), ELEMENTS // max(elements, 1)))


def outcomes(result: Run) -> tuple[bool, ...]:
    """The outcomes that make a second run take the same path."""
    return tuple(d.outcome for d in result.recorder.decisions)


def explore(lab: Lab, main: Run, *, values: Values, limit: int) -> Explored:
    """Turn every decision of `main`, and those met on the way, once.

    Most turns change no gradient: the other runs are sketches, until one of them shows something.
    """
    if not main.recorder.decisions:
        return Explored(main, (), frozenset(), 1, False)
    if main.error is None:
        found = _search(lab, main, values, limit, sketched=True)
        if found is not None:
            return found
    found = _search(lab, main, values, limit, sketched=False)
    assert found is not None
    return found


def _search(lab: Lab, main: Run, values: Values, limit: int, *, sketched: bool) -> Explored | None:
    """What the turns show; None if sketches are not enough to say."""
    queue = deque(_turns(main, 0))
    lines = _Lines()
    paths, cut_off, unseen = 1, False, None
    tried: list[tuple[_Turn, Run]] = []
    guards: set[tuple[Spot, ...]] = set()  # the code there says that this outcome raises: it needs no run
    while queue:
        if paths >= limit:
            cut_off = True
            break
        turn = queue.popleft()
        if turn.decision.raises is turn.prefix[-1]:
            guards.add(turn.decision.spots)
            continue
        if lines.has_enough(turn):
            continue
        try:
            other = _turned(lab, Experiment(values, forced=turn.prefix), sketched=sketched)
        except NeedsValue as need:
            unseen = unseen or need
            continue
        if other is None or (sketched and not _shows_nothing(other, turn)):
            return None
        paths += 1
        lines.note(turn, other)
        queue.extend(_turns(other, len(turn.prefix)))
        if other.error is not None:
            continue
        if _is_cut_short(main) and not turn.decision.known:
            main = other
        else:
            tried.append((turn, other))
    return replace(
        _compared(lab, values, main, tried, paths + len(guards), cut_off or lines.cut_off), unseen=unseen
    )


class _Lines:
    """How often the decisions of a line were turned: one that shows nothing again and again is left alone."""

    def __init__(self) -> None:
        self._turns: Counter[object] = Counter()
        self._fruitless: Counter[object] = Counter()
        self.cut_off = False  # a line was turned so often that more was left undone, fruit or not

    def has_enough(self, turn: _Turn) -> bool:
        line = _line(turn)
        if self._fruitless[line] >= FRUITLESS_PER_LINE:
            return True
        enough = self._turns[line] >= TURNS_PER_LINE
        self.cut_off |= enough
        return enough

    def note(self, turn: _Turn, other: Run) -> None:
        line = _line(turn)
        self._turns[line] += 1
        self._fruitless[line] = 0 if without_gradient(other) != turn.before else self._fruitless[line] + 1


def _line(turn: _Turn) -> Spot | None:
    return turn.decision.spots[0] if turn.decision.spots else None


def _is_cut_short(run: Run) -> bool:
    """Whether it raised before there was a loss."""
    return run.error is not None and run.error.phase == "forward"


def _turned(lab: Lab, experiment: Experiment, *, sketched: bool) -> Run | None:
    return lab.sketched(experiment) if sketched else lab.run(experiment)


def _shows_nothing(sketch: Run, turn: _Turn) -> bool:
    """Whether the turned decision changes no gradient, or is a guard: the program itself raises."""
    if sketch.error is not None:
        return sketch.raised_in is not None
    return without_gradient(sketch) == turn.before


@dataclass(frozen=True, slots=True)
class _Turn:
    """One decision to turn: `prefix` are the outcomes up to it, `before` the parameters without a gradient
    where it is not turned."""

    prefix: tuple[bool, ...]
    decision: RawDecision
    before: frozenset[str]


def _turns(result: Run, start: int) -> Iterator[_Turn]:
    taken, before = outcomes(result), frozenset(without_gradient(result))
    for index in range(start, len(taken)):
        if start and result.recorder.decisions[index].raises is taken[index]:
            continue  # what was turned before cannot be, says a check: to turn that as well is no path
        yield _Turn((*taken[:index], not taken[index]), result.recorder.decisions[index], before)


def _compared(
    lab: Lab, values: Values, main: Run, tried: Sequence[tuple[_Turn, Run]], paths: int, cut_off: bool
) -> Explored:
    sites: dict[tuple[Spot, ...], Site | None] = {}
    here = without_gradient(main)
    trainable = {
        n for n, p in registry.named_parameters(main.program.root, remove_duplicate=False) if p.requires_grad
    }
    found: list[Branch] = []
    undecided: set[str] = set()
    for turn, other in tried:
        there, raw = without_gradient(other), turn.decision
        if there == here or there >= trainable or main.error is not None:
            continue
        # The inputs decide: what trains on their path trains; what starves there and not elsewhere depends on
        # the branch.
        undecided |= (here - there) if raw.known else (here ^ there)
        if raw.spots not in sites:
            sites[raw.spots] = _condition(lab, values, turn)
        site = sites[raw.spots]
        changed = turn.before ^ there  # by this decision, not by those turned before it
        found.append(
            Branch(
                Decision(site, raw.node, raw.outcome, raw.known),
                lab.seen(other),
                frozenset((there & changed) | (here - changed)),
                frozenset(here),
                raw.reads if _is_of(main, turn) else (),  # values are numbered run by run
            )
        )
    deciding = {len(turn.prefix) - 1 for turn, other in tried if _is_of(main, turn) and differ(main, other)}
    return Explored(main, tuple(found), frozenset(undecided), paths, cut_off, frozenset(deciding))


def _is_of(run: Run, turn: _Turn) -> bool:
    """Whether the run comes to the decision that is turned."""
    return turn.prefix[:-1] == outcomes(run)[: len(turn.prefix) - 1]


def _condition(lab: Lab, values: Values, turn: _Turn) -> Site | None:
    """The condition's place: where the truth value is taken; if it is only stored there, the statement at
    which the runs then part."""
    if not turn.decision.spots:
        return None
    taken = site_of(turn.decision.spots[0])
    if _DECIDES.search(line_text(taken.file, taken.line)):
        return taken
    return (
        parting(lab, Experiment(values, forced=turn.prefix[:-1]), Experiment(values, forced=turn.prefix))
        or taken
    )


def differ(one: Run, other: Run) -> bool:
    """Whether two runs have different losses; on fake values nothing says that they are the same."""
    if one.loss is None or other.loss is None or one.recorder.standins.fake is not None:
        return one.loss is not None and other.loss is not None
    before, after = one.loss.tensor.detach(), other.loss.tensor.detach()
    return before.shape != after.shape or not torch.equal(before.nan_to_num(), after.nan_to_num())


def without_gradient(result: Run) -> set[str]:
    trainable = {name for name, parameter in result.registered if parameter.requires_grad}
    return {n for n, gradient in result.gradients.items() if gradient == "none" and n in trainable}
