"""Things done in the wrong order in a training step: a step before its backward, gradients cleared between
backward and step.

Definitions:
 1. A step comes *too early* for a backward if that backward goes back through a value that was computed
    before the step from a parameter the step's optimizer holds. Where torch can tell (a saved weight changed)
    the backward raises and FXG205 names both lines from there; this finds it where torch cannot.
    What a module keeps that was computed once is no such value: no step can come before it (FXG109 says so).
 2. Gradients were *cleared* for a step if a backward had left some, none is left as the step begins, and
    something dropped them between.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter

from fxgrad.records import Facts, NodeFact, Site
from fxgrad.records.facts import UNSEEN
from fxgrad.records.training import OptimizerStep, Training, Walk


@dataclass(frozen=True, slots=True)
class Change:
    """Leaves are other values from note `note` on. `nothing`: a step that had no gradients to use. `found`:
    no call made it, it was found made; it came after the last call that looked, more is not known."""

    note: int
    leaves: frozenset[int]
    what: str
    site: Site | None
    nothing: bool = False
    found: bool = False


@dataclass(frozen=True, slots=True)
class Early:
    """Definition 1: the change, the backward that it came before, and the call that used what it changed."""

    change: Change
    walk: Walk
    used: NodeFact


def too_early(facts: Facts, training: Training) -> tuple[Early, ...]:
    """What came too early: of each line the first with gradients to use, and the first with none."""
    changes = [*changes_of_steps(training), *changes_of_writes(facts)]
    of_leaf: dict[int, list[tuple[int, int]]] = {}  # by leaf edge: (note, position in `changes`)
    for place, change in enumerate(changes):
        for leaf in change.leaves:
            of_leaf.setdefault(leaf, []).append((change.note, place))
    if not of_leaf:
        return ()
    for noted in of_leaf.values():
        noted.sort()
    uses = uses_of(facts, of_leaf)
    found: dict[tuple[Site | None, bool], Early] = {}
    late = frozenset(place for place, change in enumerate(changes) if change.found)
    for walk in training.walks:
        if walk.failed or walk.partial:
            continue
        for place, used in sorted(_between(walk, uses, of_leaf, late).items()):
            change = changes[place]
            early = Early(change, walk, facts.node_named[f"n{used}"])
            found.setdefault((change.site, change.nothing), early)
    return tuple(found.values())


def emptied(training: Training) -> list[OptimizerStep]:
    """Definition 2: the steps that gradients were cleared for, one for each line that cleared them."""
    found: dict[Site, OptimizerStep] = {}
    for step in training.steps:
        if "some" not in step.states and step.cleared is not None and step.had:
            found.setdefault(step.cleared, step)
    return list(found.values())


def lost_by(training: Training, leaves: Collection[int]) -> tuple[str, ...]:
    """The parameters with these leaf edges whose gradients were gone as their step began."""
    return tuple(name for name in training.emptied if training.edges.get(name) in leaves)


def last_walk(training: Training, step: OptimizerStep) -> Site | None:
    """The line of the last backward before a step."""
    earlier = [walk.site for walk in training.walks if walk.note < step.note and walk.stack]
    return earlier[-1] if earlier else None


def changes_of_steps(training: Training) -> Iterator[Change]:
    for step in training.steps:
        # `step.note` is the last call before it, which may be the one that uses a leaf.
        yield Change(step.note + 1, step.leaves, "step", step.site, nothing="some" not in step.states)


def changes_of_writes(facts: Facts) -> Iterator[Change]:
    """The calls outside of modules that rewrote leaves."""
    for node in facts.nodes:
        if not node.writes or node.module or node.target == "Tensor.__set__":
            continue
        made = [facts.values[v] for v in node.makes]
        leaves = frozenset(value.grad for value in made if value.is_leaf and value.grad is not None)
        if leaves:
            yield Change(_number(node), leaves, "write", node.site, found=node.target == UNSEEN)


def uses_of(facts: Facts, leaves: Collection[int]) -> dict[int, list[tuple[int, int, bool]]]:
    """By value, from which of these leaves it was computed, by which call (its number), and whether that call
    looked at the leaf: what was computed where nobody looked tells nothing of when."""
    found: dict[int, list[tuple[int, int, bool]]] = {}
    once = _computed_once(facts)
    for node in facts.nodes:
        for flow in node.flows:
            leaf = facts.values[flow.source].grad
            if leaf is None or leaf not in leaves or not flow.open or flow.target in once:
                continue
            if not facts.values[flow.target].is_leaf:
                found.setdefault(flow.target, []).append((leaf, _number(node), node.target != UNSEEN))
    return found


def _computed_once(facts: Facts) -> set[int]:
    """What a module keeps that was computed before the first forward, and the values on the way to it."""
    found = {external.value for external in facts.externals if not external.is_leaf}
    if found:
        for node in reversed(facts.nodes):
            found.update(flow.source for flow in node.flows if flow.target in found)
    return found


def _between(
    walk: Walk,
    uses: Mapping[int, list[tuple[int, int, bool]]],
    changes: Mapping[int, list[tuple[int, int]]],
    late: Collection[int],
) -> dict[int, int]:
    """Definition 1: by its position, every change between the first call that this backward goes back through
    and the backward; with the number of that call. Of the changes that were found `late` those alone that
    come after a call that has looked."""
    first: dict[tuple[int, bool], int] = {}
    for value in walk.live:
        for leaf, number, looked in uses.get(value, ()):
            for key in ((leaf, False), (leaf, True))[: 1 + looked]:
                first[key] = min(number, first.get(key, number))
    found: dict[int, int] = {}
    for (leaf, looked), number in first.items():
        begun = bisect_right(changes[leaf], number, key=itemgetter(0))
        end = bisect_right(changes[leaf], walk.note, key=itemgetter(0))
        for _, place in changes[leaf][begun:end]:
            if looked or place not in late:
                found[place] = min(number, found.get(place, number))
    return found


def _number(node: NodeFact) -> int:
    return int(node.name[1:])
