"""Parameters of a module that no optimizer holds anything of, and that were all the same written to be
trained: a learnt temperature, the weights of several losses, the centres of a metric loss.

A whole network that no optimizer holds is often meant so: a critic that is only asked, a perceptual loss,
what an adversarial input is made for. A module counts here where all of this is true:
 1. An optimizer that steps trains another module.
 2. It is in training mode, every parameter of it that requires grad gets a gradient, in each step where there
    are several, and nothing writes them between: no update by hand, no average.
 3. Its values were not copied from another tensor: no state dict was loaded into it.
 4. Some of these parameters stand in a class that is none of torch's layers; all of them do, or what it
    returns is a single number, as a loss is.
So does a Parameter that a variable holds and no module. Of a network for which 1 to 3 are true in several
steps, and 4 is not, and whose gradients `autograd.grad` is not asked for, nobody can tell whether it was
forgotten or is meant to stay: it is *unmoved*, and that is said, not judged.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import torch
from torch import nn

from fxgrad.passes.analyses.optimizers import held_by
from fxgrad.records import Facts
from fxgrad.records.training import Unmoved
from fxgrad.source.objects import module_of
from fxgrad.torch_api import registry
from fxgrad.torch_api.calls import DERIVATIVE
from fxgrad.trace.leaf_modules import is_own
from fxgrad.watching.seen import Seen
from fxgrad.world.living import registered_anywhere

_LISTS = (nn.ParameterList, nn.ParameterDict)


def loose(seen: Seen) -> list[torch.Tensor]:
    """Parameters that a variable of the script holds and no module: such a one was written to be trained, if
    it gets a gradient in several steps and nothing writes it."""
    found = _forgotten(seen)
    registered = registered_anywhere(found)
    return [tensor for number, tensor in found.items() if number not in registered]


def _forgotten(seen: Seen) -> dict[int, torch.Tensor]:
    """By id, the Parameters of variables that get gradients, and that no optimizer holds and nothing
    writes."""
    held = {id(p) for optimizer, _ in seen.optimizers for p in held_by(optimizer)}
    as_it_was = seen.untouched & seen.lasting
    found: dict[int, torch.Tensor] = {}
    for slot in seen.observer.ledger.tensors.living():
        tensor = slot() if slot.after == "some" and -slot.leaf in as_it_was else None
        if isinstance(tensor, nn.Parameter) and id(tensor) not in held and seen.names.of_tensor(tensor):
            found[id(tensor)] = tensor
    return found


def left_out(seen: Seen, root: nn.Module, facts: Facts) -> frozenset[str]:
    """Their names in `root`."""
    free, trains = _unheld(seen, root)
    if not trains:
        return frozenset()
    forgotten = _forgotten(seen)
    found = {name for name, p in _of_no_module(root) if id(p) in forgotten}
    for _, module, names in _standing(seen, free, facts):
        if _is_written_to_train(seen, module):
            found.update(names)
    state = _gradients(facts)
    return frozenset(name for name in found if state.get(name) == "some")


def unmoved(seen: Seen, root: nn.Module, facts: Facts) -> Iterator[Unmoved]:
    """The networks that nothing moves, of which that is all that can be said."""
    free, trains = _unheld(seen, root)
    if not trains or not seen.lasting:
        return
    state, asked = _gradients(facts), _asked(seen)
    for path, module, names in _standing(seen, free, facts):
        if _is_written_to_train(seen, module) or not asked.isdisjoint(map(id, registry.parameters(module))):
            continue
        if any(state.get(name) == "some" for name in names):
            yield Unmoved(path, names)


def _asked(seen: Seen) -> frozenset[int]:
    """By id, the tensors that `autograd.grad` was given: their gradients are used."""
    ledger = seen.observer.ledger
    read = {number for note in ledger.notes if note.target == DERIVATIVE for number in note.reads}
    edges = {value.grad for number in read if (value := ledger.values[number]) is not None}
    living = ((slot, slot()) for slot in ledger.tensors.living())
    return frozenset(id(tensor) for slot, tensor in living if -slot.leaf in edges)


def _gradients(facts: Facts) -> dict[str, str]:
    return {name: p.gradient for p in facts.parameters for name in p.names}


def _standing(
    seen: Seen, free: Iterable[tuple[str, nn.Module]], facts: Facts
) -> Iterator[tuple[str, nn.Module, tuple[str, ...]]]:
    """Of these modules those of definitions 2 and 3, with the names of their parameters that require grad."""
    state, copied = _gradients(facts), _copied(seen)
    for path, module in free:
        own = {name: p for name, p in registry.named_parameters(module, prefix=path) if p.requires_grad}
        reached = bool(own) and all(state.get(name) in ("some", "zero") for name in own)
        if reached and _stay(seen, own.values(), copied):
            yield path, module, tuple(own)


def _unheld(seen: Seen, root: nn.Module) -> tuple[list[tuple[str, nn.Module]], bool]:
    """The models in training mode that no optimizer holds a part of, by name; and whether others train."""
    held = {id(p) for optimizer, _ in seen.optimizers for p in held_by(optimizer)}
    stepped = {id(p) for optimizer, steps in seen.optimizers if steps for p in held_by(optimizer)}
    free, trains = [], False
    for path, module in _models(root):
        numbers = {id(parameter) for parameter in registry.parameters(module)}
        trains = trains or not numbers.isdisjoint(stepped)
        if module.training and numbers.isdisjoint(held):
            free.append((path, module))
    return free, trains


def _models(root: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The outermost modules of the user's in the tree of a watch, whose own modules are plain."""
    for name, module in registry.named_modules(root):
        above = name.rpartition(".")[0]
        if name and type(module) is not nn.Module and type(root.get_submodule(above)) is nn.Module:
            yield name, module


def _of_no_module(root: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """What stands beside the modules in the tree of a watch."""
    for path, holder in registry.named_modules(root):
        for name, parameter in holder._parameters.items() if type(holder) is nn.Module else ():
            if parameter is not None:
                yield f"{path}.{name}" if path else name, parameter


def _is_written_to_train(seen: Seen, module: nn.Module) -> bool:
    """Definition 4."""
    by_hand = [_is_by_hand(holder) for holder in registry.modules(module) if _trainable(holder)]
    return all(by_hand) or (any(by_hand) and _returns_a_number(seen, module))


def _trainable(module: nn.Module) -> bool:
    return any(p is not None and p.requires_grad for p in module._parameters.values())


def _is_by_hand(module: nn.Module) -> bool:
    """Whether somebody wrote `nn.Parameter(...)` for what this module has."""
    return isinstance(module, _LISTS) or not (is_own(module) or module_of(type(module)).startswith("torch."))


def _returns_a_number(seen: Seen, module: nn.Module) -> bool:
    """Whether each call of it that was seen gave one tensor of one element."""
    values = seen.observer.ledger.values
    calls = [call for call in seen.events.calls if call.module is module]
    shapes = [[value.shape for v in call.values if (value := values[v]) is not None] for call in calls]
    return bool(calls) and all(len(one) == 1 and not one[0] for one in shapes)


def _copied(seen: Seen) -> frozenset[int]:
    """The storages that something else was copied into before the first backward."""
    ledger = seen.observer.ledger
    first = seen.observer.backwards[0].note if seen.observer.backwards else 0
    found: set[int] = set()
    for note in ledger.notes:
        if note.number > first or not note.writes or not note.target.endswith("copy_"):
            continue
        read = {value.storage for number in note.reads if (value := ledger.values[number]) is not None}
        if not read.issubset(note.writes):
            found.update(note.writes)
    return frozenset(found)


def _stay(seen: Seen, parameters: Collection[torch.Tensor], copied: Collection[int]) -> bool:
    """Definitions 2 and 3, of what gets a gradient."""
    slots = [seen.observer.ledger.tensors.get(parameter) for parameter in parameters]
    edges = {-slot.leaf for slot in slots if slot is not None and slot.storage not in copied}
    if len(edges) < len(slots) or not seen.untouched.issuperset(edges):
        return False
    return seen.lasting.issuperset(edges) or not seen.lasting
