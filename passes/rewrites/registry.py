"""What a node calls, as torch's own registry of operators has it: its name, what it writes, and the same
without the writing.

An operator is called as a tensor's method, as a function of torch, or, in graphs of `torch.export` and
`make_fx`, by itself: one overload (`torch.ops.aten.add_.Tensor`) or a packet that chooses one by the
arguments (`torch.ops.aten.add_`). `out_of_place` gives each in its own kind. Only torch's own names are
known: an operator or a function of the user's is its own matter, whatever it is called.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
import torch.fx

from fxgrad.torch_api.internals import OpOverload, OpOverloadPacket, overload_name, schema_of


def target_name(node: torch.fx.Node) -> str:
    """The operator's name without its package and overload."""
    if node.op in ("call_method", "call_module"):
        return str(node.target)
    packet = getattr(node.target, "overloadpacket", node.target)
    return str(getattr(packet, "__name__", ""))


@cache
def functional_name(name: str) -> str | None:
    """The operator that `name` (`add_`) is the in-place form of, if the registry has one with the same
    arguments."""
    if not name.endswith("_") or name.endswith("__"):
        return None
    inplace, functional = getattr(torch.ops.aten, name, None), getattr(torch.ops.aten, name[:-1], None)
    if inplace is None or functional is None:
        return None
    plain = {_signature(getattr(functional, o)) for o in functional.overloads()}
    return name[:-1] if any(_signature(getattr(inplace, o)) in plain for o in inplace.overloads()) else None


def _signature(overload: object) -> tuple[object, ...]:
    """Names and types of the arguments, those left out that only say where a result goes."""
    return tuple((a.name, str(a.type)) for a in schema_of(overload).arguments if not a.is_out)


def out_of_place(node: torch.fx.Node) -> tuple[str, Any] | None:
    """The kind of node and the target that compute what an in-place node writes, from the same arguments;
    None if torch has none."""
    name = functional_name(target_name(node))
    if name is None:
        return None
    operator = getattr(torch.ops.aten, name)
    if node.op == "call_method":
        return ("call_method", name) if hasattr(torch.Tensor, name) else ("call_function", operator)
    if node.op != "call_function":
        return None
    if _is_operator(node.target):
        found = _same_arguments(node.target, operator) if _is_atens(node.target) else None
        return ("call_function", found) if found is not None else None
    if getattr(torch.Tensor, name + "_", None) is node.target:
        return "call_function", getattr(torch.Tensor, name, operator)
    home = _home(node.target)
    return ("call_function", getattr(home, name, operator)) if home is not None else None


def without_out(target: object) -> Any:
    """An operator's overload that computes what this one puts into its `out` arguments; any other callable as
    it is."""
    if not isinstance(target, OpOverload):
        return target
    packet = target.overloadpacket
    alike = [o for o in _overloads(packet) if o is not target and _signature(o) == _signature(target)]
    return next((o for o in alike if not any(a.is_out for a in schema_of(o).arguments)), target)


def out_arguments(node: torch.fx.Node) -> tuple[str, ...]:
    """The keywords of a call that say where its results go: `out`, or what an operator's overload calls
    them."""
    if isinstance(node.target, OpOverload):
        names = [a.name for a in schema_of(node.target).arguments if a.is_out]
        return tuple(name for name in names if node.kwargs.get(name) is not None)
    return ("out",) if node.kwargs.get("out") is not None else ()


def written(node: torch.fx.Node) -> tuple[torch.fx.Node, ...] | None:
    """The argument nodes that an operator's schema says it writes, torch's own or the user's; None: no
    operator, or no one schema."""
    if not _is_operator(node.target):
        return None
    found = [_written_by(o, node) for o in _overloads(node.target) if _takes(o, node)]
    return found[0] if found and found[0] and all(f == found[0] for f in found) else None


def _written_by(overload: object, node: torch.fx.Node) -> tuple[torch.fx.Node, ...]:
    made: list[torch.fx.Node] = []
    for i, argument in enumerate(schema_of(overload).arguments):
        if argument.alias_info is None or not argument.alias_info.is_write:
            continue
        value = node.args[i] if i < len(node.args) else node.kwargs.get(argument.name)
        made += [
            n
            for n in (value if isinstance(value, list | tuple) else (value,))
            if isinstance(n, torch.fx.Node)
        ]
    return tuple(made)


def _takes(overload: object, node: torch.fx.Node) -> bool:
    """Whether the overload has the names and the number of a call's arguments."""
    arguments = schema_of(overload).arguments
    names = {a.name for a in arguments[len(node.args) :]}
    return len(node.args) <= len(arguments) and names.issuperset(node.kwargs)


def positional(node: torch.fx.Node) -> tuple[object, ...] | None:
    """The arguments of a call in the order of its operator's schema, those by keyword too; None where they
    fit no overload."""
    if not node.kwargs:
        return tuple(node.args)
    for overload in _overloads(getattr(torch.ops.aten, target_name(node), None)):
        if not _takes(overload, node):
            continue
        arguments = schema_of(overload).arguments[len(node.args) :]
        last = max(i for i, a in enumerate(arguments) if a.name in node.kwargs)
        rest = arguments[: last + 1]
        if all(a.name in node.kwargs or a.has_default_value() for a in rest):
            return (*node.args, *(node.kwargs.get(a.name, a.default_value) for a in rest))
    return None


def _is_operator(target: object) -> bool:
    return isinstance(target, OpOverload | OpOverloadPacket)


def _is_atens(target: object) -> bool:
    return str(target).partition(".")[0] == "aten"


def _overloads(target: object) -> Iterator[object]:
    """The overload that a target is, or those that it chooses from."""
    if isinstance(target, OpOverload):
        yield target
    elif isinstance(target, OpOverloadPacket):
        yield from (getattr(target, name) for name in target.overloads())  # type: ignore[no-untyped-call]  # torch's own


def _same_arguments(target: object, functional: object) -> object:
    """Of the operator `functional` what takes the arguments of `target`: an overload for an overload, the
    packet for a packet."""
    if not isinstance(target, OpOverload):
        return functional
    alike = [
        o
        for o in _overloads(functional)
        if _signature(o) == _signature(target) and not any(a.is_out for a in schema_of(o).arguments)
    ]
    return next((o for o in alike if overload_name(o) == overload_name(target)), alike[0] if alike else None)


def _home(function: object) -> object:
    """The module of torch's that a function of torch's is in."""
    name = getattr(function, "__module__", None)
    if not isinstance(name, str) or name.partition(".")[0] != "torch":
        return None
    return importlib.import_module(name)
