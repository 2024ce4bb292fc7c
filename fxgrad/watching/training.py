"""What a watch has noted around the calls of a script, as the frozen records that rules read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from fxgrad.passes.analyses.optimizers import held_by
from fxgrad.records import Facts, Site
from fxgrad.records.training import (
    Exchanged,
    GivenUp,
    OptimizerStep,
    SecondTime,
    Training,
    Unmoved,
    Vain,
    Walk,
    Withheld,
)
from fxgrad.source.sites import innermost, site_of, sites_of
from fxgrad.torch_api import registry
from fxgrad.torch_api.distributed import is_replica, is_split
from fxgrad.torch_api.errors import SECOND_TIME, says
from fxgrad.trace.freed_graphs import met_again, walked_anew
from fxgrad.trace.notes import Backward, Taken
from fxgrad.trace.observer import Observer
from fxgrad.trace.slots import Slot, WatchedTensors
from fxgrad.trace.watched_facts import Watched
from fxgrad.watching.compiled import compiled
from fxgrad.watching.dropped import dropped, edges_of
from fxgrad.watching.exchanged import exchanged
from fxgrad.watching.freezes import freezes
from fxgrad.watching.left_out import unmoved
from fxgrad.watching.seen import Seen
from fxgrad.watching.turns import both_ways, names_of
from fxgrad.watching.worker_errors import sent_away
from fxgrad.world.living import registered_anywhere


def training_of(seen: Seen, root: nn.Module, watched: Watched, error: BaseException | None) -> Training:
    """The records; `error` is what ended the script."""
    observer, events = seen.observer, seen.events
    held = {id(parameter) for optimizer in events.optimizers for parameter in held_by(optimizer)}
    frozen, stale = freezes(observer, root, held)
    swapped = _exchanged(seen, root, watched)
    hooked = tuple(_hooked(watched, observer, root))
    gone = set(watched.cleared).difference(hooked)
    closures = {(os.path.abspath(code.co_filename), code.co_qualname) for code in events.closures}
    return Training(
        walks=tuple(map(_walk, observer.backwards)),
        steps=tuple(map(_step, observer.taken)),
        edges=watched.edges,
        emptied=watched.cleared,
        hooked=hooked,
        dropped=dropped(observer, {name: edge for name, edge in watched.edges.items() if name in gone}),
        frozen=frozen,
        stale=stale,
        closures=frozenset(closures),
        both_ways=both_ways(names_of(seen.late, root), observer, root),
        vain=tuple(_vain(optimizer, seen, root) for optimizer in seen.vain),
        given_up=tuple(_given_up(seen, root)),
        second_time=_second_time(watched.facts, observer, (optimizer for optimizer, _ in seen.optimizers)),
        compiled=compiled(seen.compiled_error, events.compiled),
        exchanged=swapped,
        unmoved=_unmoved(seen, root, watched.facts, swapped),
        withheld=_withheld(seen, root),
        sent_away=sent_away(error, observer.ledger, seen.names),
        unfinished=seen.unfinished,
        replicates=events.replicates
        or any(is_replica(module) for module in (*seen.given, *events.outermost.values())),
    )


def _hooked(watched: Watched, observer: Observer, root: nn.Module) -> Iterator[str]:
    """The parameters that a hook took the gradient from."""
    named = dict(registry.named_parameters(root, remove_duplicate=False))
    for name in watched.cleared:
        slot = observer.ledger.tensors.get(named[name])
        if slot is not None and slot.within == "taken":
            yield name


def _exchanged(seen: Seen, root: nn.Module, watched: Watched) -> tuple[Exchanged, ...]:
    starved = {name for p in watched.facts.parameters if p.gradient == "none" for name in p.names}
    found = exchanged(seen, root, watched.edges, frozenset(starved))
    return tuple(replace(one, built=built_at(seen, optimizer)) for optimizer, one in found)


def _unmoved(seen: Seen, root: nn.Module, facts: Facts, swapped: Iterable[Exchanged]) -> tuple[Unmoved, ...]:
    """What is not told already, at the first optimizer that steps."""
    told = {name for one in swapped for name in one.theirs}
    stepping = next((optimizer for optimizer, stepped in seen.optimizers if stepped), None)
    built = built_at(seen, stepping) if stepping is not None else None
    found = unmoved(seen, root, facts)
    return tuple(replace(one, built=built) for one in found if told.isdisjoint(one.names))


def _walk(b: Backward) -> Walk:
    return Walk(
        note=b.note,
        stack=sites_of(b.spots),
        losses=b.losses,
        live=b.live,
        leaves=b.leaves,
        failed=b.failed,
        partial=b.partial,
        nan=b.nan,
        infinite=b.infinite,
        narrowed=b.narrowed,
    )


def _step(taken: Taken) -> OptimizerStep:
    site, cleared = innermost(taken.spots), innermost(taken.cleared)
    return OptimizerStep(taken.note, site, taken.states, taken.leaves, cleared, taken.had, taken.written)


def built_at(seen: Seen, optimizer: Optimizer) -> Site | None:
    """The line that built an optimizer; None where that was not seen."""
    spots = seen.events.made.get(optimizer, ())
    own = {f"{kind.__qualname__}.__init__" for kind in type(optimizer).__mro__}
    built = next((spot for spot in spots if spot[0].co_qualname not in own), spots[0] if spots else None)
    return site_of(built) if built is not None else None


def _vain(optimizer: Optimizer, seen: Seen, root: nn.Module) -> Vain:
    tensors = list(held_by(optimizer))
    return Vain(len(tensors), _sources(tensors, seen, root), built_at(seen, optimizer))


def _given_up(seen: Seen, root: nn.Module) -> Iterator[GivenUp]:
    """The optimizers that step over what a model has no longer, all of it, while it has others of these
    shapes. One number may be held for a scheduler's sake."""
    shapes = {parameter.shape for parameter in registry.parameters(root) if not is_lazy(parameter)}
    for optimizer in (optimizer for optimizer, steps in seen.optimizers if steps):
        held = list(held_by(optimizer))
        # a lazy parameter has no shape to ask for
        if any(map(is_lazy, held)) or not shapes.issuperset(p.shape for p in held):
            continue
        if sum(p.numel() for p in held) < 2:
            continue
        if all(_never_fed(seen, p) for p in held) and not registered_anywhere({id(p) for p in held}):
            yield GivenUp(len(held), built_at(seen, optimizer))


def _never_fed(seen: Seen, tensor: torch.Tensor) -> bool:
    """Whether it is a parameter that its steps have found without a gradient, each time."""
    slot = seen.observer.ledger.tensors.get(tensor) if isinstance(tensor, nn.Parameter) else None
    return slot is not None and slot.begun == "none" and slot.after != "some"


def _sources(tensors: Iterable[torch.Tensor], seen: Seen, root: nn.Module) -> dict[str, bool]:
    """The names of the tensors that share data with these, and whether each is a parameter of the models."""
    own = {id(parameter): name for name, parameter in registry.named_parameters(root)}
    found: dict[str, bool] = {}
    for tensor in tensors:
        for slot in seen.observer.ledger.tensors.sharing(tensor):
            other = slot()
            if other is None or other is tensor:
                continue
            name = own.get(id(other)) or seen.names.of_tensor(other)
            if name is not None:
                found[name] = id(other) in own
    return found


def _withheld(seen: Seen, root: nn.Module) -> Withheld | None:
    """What FSDP2 kept on whole parameters, whose parts have nothing."""
    tensors = seen.observer.ledger.tensors
    parts = {slot.leaf: name for name, slot in _without_gradient(tensors, root)}
    wholes = [slot for slot in tensors.living() if slot.leaf in parts] if parts else []
    kept = {slot.leaf for slot in wholes if (whole := slot()) is not None and whole.grad is not None}
    names = tuple(name for leaf, name in parts.items() if leaf in kept)
    returned, spots = seen.events.opaque or ("", ())
    return Withheld(names, returned, innermost(spots)) if names else None


def _without_gradient(tensors: WatchedTensors, root: nn.Module) -> Iterator[tuple[str, Slot]]:
    """The parts of parameters, by name, that never had one."""
    for name, part in registry.named_parameters(root):
        slot = tensors.get(part) if is_split(part) and part.grad is None else None
        if slot is not None and "some" not in (slot.begun, slot.after):
            yield name, slot


def _second_time(facts: Facts, observer: Observer, optimizers: Iterable[Optimizer]) -> SecondTime | None:
    failed = observer.backwards[-1] if observer.backwards else None
    if failed is None or not failed.failed or not failed.spots:
        return None
    if facts.error is None or not says(facts.error.message, SECOND_TIME):
        return None
    ledger = observer.ledger
    made_anew, leaves = walked_anew(ledger, failed)
    zeroed = ((one.note, one.optimizer()) for one in observer.zeroed)
    return SecondTime(
        met=met_again(ledger, failed),
        made_anew=made_anew,
        leaves=leaves,
        held=tuple(edges_of(observer, optimizer) for optimizer in optimizers),
        zeroed=tuple((note, edges_of(observer, optimizer)) for note, optimizer in zeroed if optimizer),
        count=ledger.count,
    )
