""" "Backward through the graph a second time": which backward freed the graph, where the next one met it, and
 of which kind that is.

The facts are autograd's own (`records.training.SecondTime`): which nodes an earlier backward walked, and
which of them have lost what they saved. Kinds:
 1. *closure*: an optimizer calls its closure several times in a step, and the tensor was computed outside of
    it.
 2. *built*: an `__init__` computed the tensor from parameters, once.
 3. *state*: the line that made the tensor has run again since, and what it made then is of this loss too: it
    is kept from step to step.
 4. *once*: a line outside the loop (or one that keeps what it computed first) made it, and the loop goes
    backward through it every time.
 5. *looked at*: `autograd.grad` walked it and did not keep the graph for the loss that was to come.
 6. *same*: the very loss, or a part of it, has been differentiated before.
 7. *apart*: two losses of one step share it, and different optimizers hold what lies behind it and around it
    (a GAN's).
 8. *together*: two losses of one step share it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from fxgrad.records import Facts, NodeFact, Site
from fxgrad.records.facts import UNSEEN
from fxgrad.records.training import MetAgain, SecondTime, Training, Walk
from fxgrad.source.assigned import is_returned, loop_between, names_of_value

Kind = Literal["closure", "built", "state", "once", "looked at", "same", "apart", "together"]


@dataclass(frozen=True, slots=True)
class Meeting:
    """Where the second walk came to a freed graph. `first` freed it; `maker` made the tensor, `reader` took
    it up for the second (None: the walk begins at it). `here` is the line of the making in the function that
    both walks were called in; `loop` the loop that has run past it."""

    kind: Kind
    met: MetAgain
    name: str
    first: Walk
    second: Walk
    maker: NodeFact
    reader: NodeFact | None
    here: Site
    loop: Site | None
    stepped: Site | None  # a step between the two, of an optimizer that holds what lies behind either
    changed: bool  # what lies behind the tensor was written between the two
    # the leaf edges behind it that the second reaches by no other way: a detach would stop them
    once: frozenset[int]
    held: tuple[frozenset[int], ...]  # leaf edges by optimizer


def meeting(facts: Facts, training: Training | None) -> Meeting | None:
    """What happened; None where no backward failed so, or the graph was freed before the watch."""
    again = training.second_time if training is not None else None
    if training is None or again is None:
        return None
    return next((found for met in again.met if (found := _meeting(facts, training, again, met))), None)


def _meeting(facts: Facts, training: Training, again: SecondTime, met: MetAgain) -> Meeting | None:
    maker = facts.node_named.get(f"n{met.maker}")
    failed = training.walks[-1]
    earlier = {walk.note: walk for walk in training.walks if walk.stack}
    walks = [earlier[note] for note in met.freed_by if note in earlier]
    if (
        maker is None
        or maker.site is None
        or maker.kind == "attribute"
        or maker.target == UNSEEN
        or not walks
    ):
        return None  # older than the watch: what holds it is named in its place
    freeing = next((walk for walk in walks if walk.stack == failed.stack), walks[-1])
    first, second = (replace(walk, aim=_aim(walk, training, again)) for walk in (freeing, failed))
    here = shared_line(maker.stack, second.stack) or maker.site
    held = again.held
    return Meeting(
        kind=_kind(facts, training, met, maker, (first, second)),
        met=met,
        name=called(maker, met.output),
        first=first,
        second=second,
        maker=maker,
        reader=facts.node_named.get(f"n{met.reader}"),
        here=here,
        loop=loop_between(second.stack[_depth(second.stack, here)], here),
        stepped=_stepped(training, first, second),
        changed=is_changed(facts, training, met, first, second),
        once=(met.leaves - again.leaves).intersection(frozenset().union(*held) or met.leaves),
        held=held,
    )


def _aim(walk: Walk, training: Training, again: SecondTime) -> frozenset[int]:
    """What the one optimizer holds that stepped after it and before the next; else the one whose gradients
    were cleared just before it."""
    notes = [other.note for other in training.walks if not other.partial]
    after = min((note for note in notes if note > walk.note), default=again.count + 1)
    stepped = {step.leaves for step in training.steps if walk.note < step.note <= after}
    if len(stepped) == 1:
        return next(iter(stepped))
    before = max((note for note in notes if note < walk.note), default=0)
    cleared = {edges for note, edges in again.zeroed if before <= note <= walk.note and edges & walk.leaves}
    return next(iter(cleared)) if len(cleared) == 1 else frozenset()


def _kind(facts: Facts, training: Training, met: MetAgain, maker: NodeFact, walks: tuple[Walk, Walk]) -> Kind:
    first, second = walks
    again = training.second_time
    assert again is not None
    new, held = again.made_anew, again.held
    if _in_closure(training, second) and not _within(maker.stack, second.stack):
        return "closure"
    if built_at(maker, second.stack) is not None:
        return "built"
    if _recurs(facts, maker, first, new):
        return "state"
    apart = met.reader >= 0 and is_apart(met, first, second, held)
    if first.stack == second.stack and not _is_older(new, first):
        return "apart" if apart and _is_anothers(first, met, held) else "once"
    if first.partial and not is_changed(facts, training, met, first, second):
        return "looked at"
    return _kind_of_two(met, first, apart=apart)


def _kind_of_two(met: MetAgain, first: Walk, *, apart: bool) -> Kind:
    """Of two losses, where nothing else is behind it."""
    if met.reader < 0 or met.value in first.losses:
        return "same"
    return "apart" if apart else "together"


def _is_older(new: frozenset[int], first: Walk) -> bool:
    """Whether all that the second walks for the first time was made before the first backward."""
    return bool(new) and max(new) < first.note


def _is_anothers(walk: Walk, met: MetAgain, held: Sequence[frozenset[int]]) -> bool:
    """Whether the optimizer that steps for a loss is none of those that hold what lies behind the tensor."""
    behind = frozenset().union(*(held[index] for index in owners(met.leaves, held)))
    return bool(walk.aim) and not walk.aim & behind


def _in_closure(training: Training, walk: Walk) -> bool:
    """Whether an optimizer's step called what goes backward: the line of the step stands around it."""
    return any(step.note < walk.note and step.site in walk.stack[1:] for step in training.steps)


def _within(maker: tuple[Site, ...], walk: tuple[Site, ...]) -> bool:
    """Whether the maker ran in the function that called backward."""
    return in_function_of(maker, walk[0]) is not None


def built_at(maker: NodeFact, walk: tuple[Site, ...]) -> Site | None:
    """The line in an `__init__` that made it, where backward was not called from that `__init__`."""
    for site in maker.stack:
        if site.function.endswith("__init__") and not any(s.function == site.function for s in walk):
            return site
    return None


def _recurs(facts: Facts, maker: NodeFact, first: Walk, new: frozenset[int]) -> bool:
    """Whether the same line made, from it or after the first backward, what the second walks for the first
    time; or made that itself, and has run again."""
    for node in facts.nodes:
        number = int(node.name[1:])
        if node.stack != maker.stack or node.name == maker.name:
            continue
        if number in new and (number > first.note or _comes_from(facts, node, maker)):
            return True
        if number > first.note and int(maker.name[1:]) in new:  # what it makes now is for the next step
            return True
    return False


def _comes_from(facts: Facts, node: NodeFact, maker: NodeFact) -> bool:
    """Whether a gradient goes back from what `node` made to what `maker` made."""
    pending, seen = list(node.makes), set(node.makes)
    while pending:
        value = pending.pop()
        if value in maker.makes:
            return True
        made = facts.maker_of.get(value)
        for flow in made.flows if made is not None else ():
            if flow.open and flow.target == value and flow.source not in seen:
                seen.add(flow.source)
                pending.append(flow.source)
    return False


def owners(leaves: frozenset[int], held: Sequence[frozenset[int]]) -> frozenset[int]:
    """The optimizers, by index, that hold any of the leaves; of those that share, the first."""
    found = set()
    for leaf in leaves:
        index = next((index for index, edges in enumerate(held) if leaf in edges), None)
        if index is not None:
            found.add(index)
    return frozenset(found)


def is_apart(met: MetAgain, first: Walk, second: Walk, held: Sequence[frozenset[int]]) -> bool:
    """Kind 7: several optimizers' parameters lie behind it; or one's do, and the other's are of both losses
    beside it, or all that one trains."""
    behind = owners(met.leaves, held)
    if len(behind) != 1:
        return len(behind) > 1
    beside = owners((first.leaves & second.leaves) - met.leaves, held)
    own = held[next(iter(behind))]
    return bool(beside - behind) or any(_is_for_others(walk, own) for walk in (first, second))


def not_for(own: frozenset[int], first: Walk, second: Walk) -> Walk | None:
    """Of the two, the loss that the optimizer of `own` does not step for."""
    for walk, other in ((first, second), (second, first)):
        if _is_for_others(walk, own) or (not walk.aim and other.aim & own):
            return walk
    return None


def _is_for_others(walk: Walk, own: frozenset[int]) -> bool:
    """Whether another optimizer than that of `own` steps for a loss, and gets gradients from it."""
    return bool(walk.aim & walk.leaves) and not walk.aim & own


def shared_line(maker: tuple[Site, ...], walk: tuple[Site, ...]) -> Site | None:
    """The maker's line in the innermost function that both ran in."""
    for outer in walk:
        found = in_function_of(maker, outer)
        if found is not None:
            return found
    return None


def in_function_of(stack: Sequence[Site], other: Site) -> Site | None:
    """The innermost line of a stack in the function of another line."""
    return next((site for site in stack if (site.file, site.function) == (other.file, other.function)), None)


def _depth(stack: tuple[Site, ...], here: Site) -> int:
    """Which frame of a stack runs the function of `here`; the innermost where none does."""
    found = in_function_of(stack, here)
    return stack.index(found) if found is not None else 0


def called(node: NodeFact, output: int) -> str:
    """What the user calls a result: the target it is assigned to, in the function that made it or in one it
    was returned to; else ""."""
    for site in node.stack:
        names = names_of_value(site)
        if names:
            return names[min(output, len(names) - 1)]
        if not is_returned(site):
            return ""
    return ""


def _stepped(training: Training, first: Walk, second: Walk) -> Site | None:
    reached = first.leaves | second.leaves
    for step in training.steps:
        if first.note < step.note < second.note and step.site is not None and step.leaves & reached:
            return step.site
    return None


def is_changed(facts: Facts, training: Training, met: MetAgain, first: Walk, second: Walk) -> bool:
    """Whether a leaf behind the tensor was written between the two walks, by an optimizer or by hand."""
    if any(first.note < step.note < second.note and step.leaves & met.leaves for step in training.steps):
        return True
    between = [node for node in facts.nodes if node.writes and first.note < int(node.name[1:]) < second.note]
    written = (facts.values[value] for node in between for value in node.makes)
    return any(value.is_leaf and value.grad in met.leaves for value in written)
