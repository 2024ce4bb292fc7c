""" "Backward through the graph a second time": which backward freed the graph, where the next one met it, and
 of which kind that is.

The facts are autograd's own (`trace.freed_graphs`): which nodes an earlier backward walked, and which of them
have lost what they saved. Kinds:
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

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch.optim import Optimizer

from fxgrad.records import Facts, NodeFact, Site
from fxgrad.source.assigned import is_returned, loop_between, names_of_value
from fxgrad.source.sites import site_of, sites_of
from fxgrad.torch_api.errors import SECOND_TIME, says
from fxgrad.trace.freed_graphs import MetAgain, met_again, walked_anew
from fxgrad.trace.ledger import UNSEEN
from fxgrad.trace.notes import Backward
from fxgrad.trace.observer import Observer
from fxgrad.watching.steps import held_by

Kind = Literal["closure", "built", "state", "once", "looked at", "same", "apart", "together"]


@dataclass(frozen=True, slots=True)
class Walk:
    """One of the two backwards: its own line, its frames, what it was called on, and the edges of the leaves
    it trains (or would).

    `aim`: the edges that the optimizer holds for which it ran; empty where that is not known.
    """

    backward: Backward
    site: Site
    stack: tuple[Site, ...]
    aim: frozenset[int]


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


def meeting(facts: Facts, observer: Observer, optimizers: Iterable[Optimizer]) -> Meeting | None:
    """What happened; None where the error is another, or the graph was freed before the watch."""
    failed = observer.backwards[-1] if observer.backwards else None
    if (
        failed is None
        or not failed.failed
        or not failed.spots
        or facts.error is None
        or not says(facts.error.message, SECOND_TIME)
    ):
        return None
    held = [edges_of(observer, optimizer) for optimizer in optimizers]
    for met in met_again(observer.ledger, failed):
        found = _meeting(facts, observer, held, met, failed)
        if found is not None:
            return found
    return None


def edges_of(observer: Observer, optimizer: Optimizer) -> frozenset[int]:
    """The leaf edges of what an optimizer holds."""
    slots = (observer.ledger.tensors.get(tensor) for tensor in held_by(optimizer))
    return frozenset(-slot.leaf for slot in slots if slot is not None)


def _meeting(
    facts: Facts, observer: Observer, held: Sequence[frozenset[int]], met: MetAgain, failed: Backward
) -> Meeting | None:
    maker = facts.node_named.get(f"n{met.maker}")
    earlier = {b.note: b for b in observer.backwards if b.spots}
    walks = [earlier[note] for note in met.freed_by if note in earlier]
    if (
        maker is None
        or maker.site is None
        or maker.kind == "attribute"
        or maker.target == UNSEEN
        or not walks
    ):
        return None  # older than the watch: the rule on facts names what holds it
    freeing = next((b for b in walks if b.spots == failed.spots), walks[-1])
    first, second = _walk(freeing, observer), _walk(failed, observer)
    here = shared_line(maker.stack, second.stack) or maker.site
    new, leaves = walked_anew(observer.ledger, failed)
    return Meeting(
        kind=_kind(facts, observer, met, maker, (first, second), held, new),
        met=met,
        name=called(maker, met.output),
        first=first,
        second=second,
        maker=maker,
        reader=facts.node_named.get(f"n{met.reader}"),
        here=here,
        loop=loop_between(second.stack[_depth(second.stack, here)], here),
        stepped=_stepped(observer, freeing, failed),
        changed=is_changed(facts, observer, met, freeing, failed),
        once=(met.leaves - leaves).intersection(frozenset().union(*held) or met.leaves),
        held=tuple(held),
    )


def _walk(backward: Backward, observer: Observer) -> Walk:
    stack = sites_of(backward.spots)
    return Walk(backward, stack[0], stack, _aim(backward, observer))


def _aim(backward: Backward, observer: Observer) -> frozenset[int]:
    """What the one optimizer holds that stepped after it and before the next; else the one whose gradients
    were cleared just before it."""
    notes = [b.note for b in observer.backwards if not b.partial]
    after = min((note for note in notes if note > backward.note), default=observer.ledger.count + 1)
    stepped = {taken.leaves for taken in observer.taken if backward.note < taken.note <= after}
    if len(stepped) == 1:
        return next(iter(stepped))
    before = max((note for note in notes if note < backward.note), default=0)
    cleared = _cleared(observer, before, backward)
    return next(iter(cleared)) if len(cleared) == 1 else frozenset()


def _cleared(observer: Observer, before: int, backward: Backward) -> set[frozenset[int]]:
    """The edges of each optimizer whose gradients were cleared before a backward that it gets some of."""
    found: set[frozenset[int]] = set()
    for note, ref in observer.zeroed:
        optimizer = ref() if before <= note <= backward.note else None
        edges = edges_of(observer, optimizer) if optimizer is not None else frozenset()
        if edges & backward.leaves:
            found.add(edges)
    return found


def _kind(
    facts: Facts,
    observer: Observer,
    met: MetAgain,
    maker: NodeFact,
    walks: tuple[Walk, Walk],
    held: Sequence[frozenset[int]],
    new: frozenset[int],
) -> Kind:
    first, second = walks
    if _in_closure(observer, second.backward) and not _within(maker.stack, second.stack):
        return "closure"
    if built_at(maker, second.stack) is not None:
        return "built"
    if _recurs(facts, maker, first, new):
        return "state"
    apart = met.reader >= 0 and is_apart(met, first, second, held)
    if first.backward.spots == second.backward.spots and not _is_older(new, first):
        return "apart" if apart and _is_anothers(first, met, held) else "once"
    if first.backward.partial and not is_changed(facts, observer, met, first.backward, second.backward):
        return "looked at"
    if met.reader < 0 or met.value in first.backward.losses:
        return "same"
    return "apart" if apart else "together"


def _is_older(new: frozenset[int], first: Walk) -> bool:
    """Whether all that the second walks for the first time was made before the first backward."""
    return bool(new) and max(new) < first.backward.note


def _is_anothers(walk: Walk, met: MetAgain, held: Sequence[frozenset[int]]) -> bool:
    """Whether the optimizer that steps for a loss is none of those that hold what lies behind the tensor."""
    behind = frozenset().union(*(held[index] for index in owners(met.leaves, held)))
    return bool(walk.aim) and not walk.aim & behind


def _in_closure(observer: Observer, backward: Backward) -> bool:
    """Whether an optimizer's step called what goes backward: the line of the step stands around it."""
    return any(
        taken.note < backward.note and taken.spots and taken.spots[0] in backward.spots[1:]
        for taken in observer.taken
    )


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
    time."""
    for node in facts.nodes:
        number = int(node.name[1:])
        if number not in new or node.stack != maker.stack or node.name == maker.name:
            continue
        if number > first.backward.note or _comes_from(facts, node, maker):
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
    beside = owners((first.backward.leaves & second.backward.leaves) - met.leaves, held)
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
    return bool(walk.aim & walk.backward.leaves) and not walk.aim & own


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


def _stepped(observer: Observer, first: Backward, second: Backward) -> Site | None:
    for taken in observer.taken:
        if (
            first.note < taken.note < second.note
            and taken.spots
            and taken.leaves & (first.leaves | second.leaves)
        ):
            return site_of(taken.spots[0])
    return None


def is_changed(facts: Facts, observer: Observer, met: MetAgain, first: Backward, second: Backward) -> bool:
    """Whether a leaf behind the tensor was written between the two walks, by an optimizer or by hand."""
    if any(first.note < taken.note < second.note and taken.leaves & met.leaves for taken in observer.taken):
        return True
    between = [node for node in facts.nodes if node.writes and first.note < int(node.name[1:]) < second.note]
    written = (facts.values[value] for node in between for value in node.makes)
    return any(value.is_leaf and value.grad in met.leaves for value in written)
