"""Parameters of a watched program as facts, and the leaves that take part and that no `parameters()` lists.

A gradient is what `.grad` was as a step of the parameter's optimizer began; where none stepped, what a
backward left. Which values of a parameter count as used decides whether it is told to be unused: see `_used`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import torch
from torch import nn

from fxgrad.records import External, ParameterFact, Raised, Value
from fxgrad.records.errors import InputError
from fxgrad.torch_api import registry
from fxgrad.torch_api.autograd_graph import grad_fn_of
from fxgrad.torch_api.distributed import is_sharded
from fxgrad.torch_api.internals import sequence_number
from fxgrad.torch_api.tensors import shape_of
from fxgrad.trace.events import Events
from fxgrad.trace.ledger import Ledger
from fxgrad.trace.shared_facts import attribute_of, is_constant, reached_from, registered
from fxgrad.trace.slots import Slot
from fxgrad.world.reach import Reach


def parameters(
    ledger: Ledger,
    events: Events,
    root: nn.Module,
    values: Sequence[Value],
    error: Raised | None,
    reaching: Collection[int],
    *,
    unfinished: bool = False,
) -> Iterable[ParameterFact]:
    """One fact per parameter of `root`, with the gradient it really had.

    `reaching`: the values whose data gets to the loss; `unfinished`: where it has no gradient, one may be to
    come.
    """
    used, aside = _used(ledger, values, reaching)
    modules = dict(registry.named_modules(root))
    for one in registered(root):
        parameter = one.parameter
        slot = ledger.tensors.get(parameter)
        read: Sequence[int] = ()
        if slot is not None:
            read = used.get(-slot.leaf, ())
            if not read and not any(holder in events.called for holder in _around(modules, one.names)):
                read = aside.get(-slot.leaf, ())
        yield ParameterFact(
            name=one.names[0],
            names=one.names,
            shape=shape_of(parameter),
            requires_grad=_could_train(parameter, slot, events),
            module=one.path,
            module_type=type(one.owners[0]).__name__,
            module_called=any(owner in events.called for owner in one.owners if owner is not None),
            values=tuple(read),
            gradient=_state(slot, is_cut_off=error is not None, unfinished=unfinished),  # type: ignore[arg-type]
            sharded=is_sharded(parameter),
        )


def _could_train(parameter: nn.Parameter, slot: Slot | None, events: Events) -> bool:
    """Frozen only for the other network's turn, it could when its own step began. What is frozen of a
    parameter that lies in parts is the whole, and the part says nothing of it."""
    if slot is None:
        return parameter.requires_grad
    if is_sharded(parameter) and slot.leaf in events.observer.frozen and slot.begun != "some":
        return False
    return parameter.requires_grad or bool(slot.begun)


def _state(slot: Slot | None, *, is_cut_off: bool, unfinished: bool) -> str:
    """Which gradient a parameter had; "unknown" where the program ended first, or has yet to go on."""
    begun = slot.begun if slot is not None else ""
    if is_cut_off and not begun:
        return "unknown"
    after = slot.after if slot is not None else ""
    state = begun or after or "none"
    if state == "none" and after == "some":
        state = "some"  # backward gave it one; who cleared it is another matter
    return "unknown" if unfinished and state == "none" else state


_NO_USE = frozenset(("Tensor.data", "Tensor.detach", "Tensor.clone", "Tensor.copy_", "Tensor.__set__"))


def _used(
    ledger: Ledger, values: Sequence[Value], reaching: Collection[int]
) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
    """By leaf edge, the values that a module or a step with gradients read; where there is none, those that
    any step read. Second, those read outside of modules, without gradients, of which nothing gets to the
    loss.

    A copy into an average, an initialisation or an optimizer's update is no use of a parameter, nor is a norm
    that is logged.
    """
    found: dict[int, list[int]] = {}
    others: dict[int, list[int]] = {}
    copied: dict[int, list[int]] = {}
    aside: dict[int, list[int]] = {}
    for note in ledger.notes:
        for read in note.reads:
            edge = values[read].grad
            if edge is None or edge >= 0 or values[read].storage in note.writes:
                continue
            if note.module is None and note.target in _NO_USE:
                table = copied
            elif note.module is not None or any(flow.open and flow.source == read for flow in note.flows):
                table = found
            else:
                table = others
            if table is not found and read not in reaching:
                table = aside
            if read not in table.setdefault(edge, []):
                table[edge].append(read)
    # Where nothing else reads a parameter, its copy is how it is used: `{k: v.detach() for k, v in
    # parameters}` for a functional call.
    return {**copied, **others, **found}, aside


def _around(modules: Mapping[str, nn.Module], names: Iterable[str]) -> Iterator[nn.Module]:
    """The modules that hold what is called so, whatever lies between."""
    for name in names:
        while name:
            name = name.rpartition(".")[0]
            if name in modules:
                yield modules[name]


def _unlisted(ledger: Ledger, root: nn.Module, first_call: int) -> Iterator[tuple[int, torch.Tensor]]:
    """Leaves that a gradient reached and what was computed before a sequence number, with their values, but
    for registered parameters."""
    known = {id(parameter) for parameter in registry.parameters(root)}
    # FSDP2 keeps whole parameters beside the parts that are registered: they have one edge.
    slots = (ledger.tensors.get(parameter) for parameter in registry.parameters(root))
    leaves = {slot.leaf for slot in slots if slot is not None}
    for slot in ledger.tensors.living():
        tensor = slot()
        if tensor is None or id(tensor) in known or (tensor.is_leaf and slot.leaf in leaves):
            continue
        # What `autograd.grad` was asked about may be an activation that a hook keeps: no leaf, and no weight.
        if slot.after in ("zero", "some") if tensor.is_leaf else _made_before(tensor, first_call):
            yield slot.value, tensor


def externals(ledger: Ledger, events: Events, root: nn.Module, paths: dict[int, str]) -> Iterable[External]:
    """Leaves that a gradient reached, that no `parameters()` lists and that a module holds all the same; and
    what it holds that was computed from Parameters before its first call."""
    found = list(_unlisted(ledger, root, max(events.first_calls.values(), default=0)))
    if not found:
        return
    reach = Reach()
    # too much to restore, but nothing is restored here: what was found is enough to name places
    with contextlib.suppress(InputError):
        reach.walk(root)
    modules = dict(registry.named_modules(root))
    for value, tensor in found:
        owner, keys = reached_from(reach.parents, paths, tensor)
        if owner is None or not (tensor.is_leaf or _made_before(tensor, _first_call(events, modules, owner))):
            continue
        is_parameter, floating = isinstance(tensor, nn.Parameter), tensor.is_floating_point()
        yield External(
            value,
            ".".join(keys),
            is_parameter,
            True,
            tensor.is_leaf,
            floating,
            owner,
            attribute_of(keys),
            is_constant(tensor),
        )


def _made_before(tensor: torch.Tensor, number: int) -> bool:
    function = grad_fn_of(tensor)
    return function is not None and sequence_number(function) < number


def _first_call(events: Events, modules: Mapping[str, nn.Module], path: str) -> int:
    """Autograd's count of nodes as the module, or the nearest around it that was called, was first called; 0
    where none was."""
    while True:
        module = modules.get(path)  # no name of a module for a part of a name with a dot in it
        number = events.first_calls.get(module) if module is not None else None
        if number is not None or not path:
            return number or 0
        path = path.rpartition(".")[0]
