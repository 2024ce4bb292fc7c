"""What both drivers' facts are made of in one way: a noted call, a call of a module, the parameters by name,
and from where a tensor was reached.

`fxgrad.trace.facts` makes facts of a recorded run from these, `fxgrad.trace.watched_facts` of a watched
program. What each finds in a way of its own: the page of this room says which, and why.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from fxgrad.records import Call, Flow, NodeFact, NodeKind, Phase, Raised
from fxgrad.source.sites import Spot, sites_of
from fxgrad.torch_api import registry
from fxgrad.torch_api.errors import element_without_history, without_derivative
from fxgrad.trace.notes import Called


class Noted(Protocol):
    """What `Step` and `Note` have in common."""

    kind: str
    target: str
    spots: tuple[Spot, ...]
    inference: bool
    sampled: bool
    reads: list[int]
    makes: list[int]
    writes: list[int]
    differentiated: list[int]
    constants: tuple[object, ...]


def node_fact(
    noted: Noted,
    name: str,
    module: str,
    flows: Iterable[Flow],
    *,
    grad: bool,
    phase: Phase = "forward",
    operands: tuple[tuple[int | str, int], ...] = (),
    settings: tuple[tuple[int | str, object], ...] = (),
) -> NodeFact:
    """What one call did. `module`: the path of the user's module that it ran in."""
    stack = sites_of(noted.spots)
    kind: NodeKind = noted.kind  # type: ignore[assignment]  # who notes a call gives it one of these
    return NodeFact(
        name=name,
        kind=kind,
        target=noted.target,
        site=stack[0] if stack else None,
        stack=stack,
        module=module,
        phase=phase,
        grad_enabled=grad,
        inference=noted.inference,
        reads=each_once(noted.reads),
        makes=tuple(noted.makes),
        flows=tuple(flows),
        writes=tuple(noted.writes),
        differentiated=tuple(noted.differentiated),
        sampled=noted.sampled,
        constants=noted.constants,
        operands=operands,
        settings=settings,
    )


def each_once(items: Sequence[int]) -> tuple[int, ...]:
    """The items in their order, without repetitions."""
    return tuple(items) if len(items) < 2 else tuple(dict.fromkeys(items))


def calls_of(called: Iterable[Called], paths: Mapping[int, str]) -> Iterator[Call]:
    """The calls of modules. `paths`: their names, by id."""
    for call in called:
        path, stack = paths.get(id(call.module), ""), sites_of(call.spots)
        site = stack[0] if stack else None
        yield Call(path, type(call.module).__name__, site, stack, call.values, call.depth)


@dataclass(frozen=True, slots=True)
class Registered:
    """One parameter of a module, under every name that it has, and the modules that hold it under these."""

    parameter: nn.Parameter
    names: tuple[str, ...]
    owners: tuple[nn.Module | None, ...]

    @property
    def path(self) -> str:
        """That of the first of these modules."""
        return self.names[0].rpartition(".")[0]


def registered(root: nn.Module) -> Iterator[Registered]:
    """The parameters of `root`, each once."""
    names: dict[int, tuple[nn.Parameter, list[str]]] = {}
    for name, parameter in registry.named_parameters(root, remove_duplicate=False):
        names.setdefault(id(parameter), (parameter, []))[1].append(name)
    modules = dict(registry.named_modules(root))
    for parameter, aliases in names.values():
        owners = tuple(modules.get(alias.rpartition(".")[0]) for alias in aliases)
        yield Registered(parameter, tuple(aliases), owners)


def is_about_its_tensor(error: Raised) -> bool:
    """Whether a derivative raised for how the tensor was computed of which it was asked: it has no history,
    or an operation in that has no derivative."""
    return element_without_history(error.message) is not None or without_derivative(error.message) is not None


def is_constant(tensor: torch.Tensor) -> bool:
    """Whether all its elements are equal; also where it has none to look at: a fake one, a subclass around
    such."""
    if tensor.device.type == "meta" or tensor.layout is not torch.strided or tensor.numel() == 0:
        return True
    with torch.no_grad():
        try:
            return bool((tensor == tensor.flatten()[0]).all())
        except Exception:  # there is no value, or the subclass answers otherwise: it may raise anything
            return True


_TABLES = ("_parameters", "_buffers", "_modules")


def reached_from(
    parents: Mapping[int, tuple[object, str]], paths: Mapping[int, str], tensor: torch.Tensor
) -> tuple[str | None, Sequence[str]]:
    """The registered module that a tensor was reached from, None if from elsewhere, and the keys that lead
    from there to it."""
    steps: list[str] = []
    item: object = tensor
    for _ in range(32):
        holder, key = parents.get(id(item), (None, ""))
        if holder is None:
            return None, steps[::-1]
        if key and key not in _TABLES:
            steps.append(key)
        if id(holder) in paths:
            return paths[id(holder)], steps[::-1]
        item = holder
    return None, ()


def attribute_of(keys: Sequence[str]) -> str:
    """The attribute of the module that these keys start at."""
    return keys[0].partition("[")[0] if keys else ""
