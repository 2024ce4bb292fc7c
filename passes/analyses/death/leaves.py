"""Tensors that an operation made where a leaf is wanted, and tensors that can have no gradient."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from fxgrad.passes.analyses.death.record import Death, frames, local, look_up, raising_text
from fxgrad.passes.ended import Cause
from fxgrad.passes.findings import line_of, listed, source_of
from fxgrad.records import Site
from fxgrad.source import attribute_site
from fxgrad.source.parsing import load, nodes, site_of
from fxgrad.torch_api import registry
from fxgrad.torch_api.autograd_graph import leaf_of, nodes_behind

_FLAG = re.compile(r"([\w.\[\]'\"]+)\.requires_grad(?:_\b|\b)")
# How torch names what a parameter is computed from.
_PARTS = ("{}_g", "{}_v", "{}_orig", "parametrizations.{}.")
MOST = 1000  # autograd nodes that are looked at for what a tensor was computed from


def optimized(death: Death) -> Iterator[Cause]:
    """An optimizer is given the result of an operation: the line that made it."""
    tensor = local(death.error, "param", torch.Tensor)
    made = death.maker(tensor)
    text = source_of(made.site) if made is not None else ""
    yield Cause(
        f"the optimizer is given what {f'`{text}`' if text else 'an operation'} computed, no leaf: the "
        "gradient goes to what it came from",
        made.site if made is not None else death.site,
        "compute first, then make the leaf: `(0.1 * torch.randn(3)).requires_grad_()`",
    )


def none_given(death: Death) -> Iterator[Cause]:
    """An optimizer is given nothing."""
    yield Cause(
        "the optimizer is given no parameters: the module has none, or a generator (`model.parameters()`) "
        "was used up before",
        death.site,
        "register layers as attributes or in nn.ModuleList, and call `model.parameters()` anew for every use",
    )


def integers(death: Death) -> Iterator[Cause]:
    """A tensor of integers is asked to require grad."""
    yield Cause(
        "a tensor of integers is asked for a gradient: it has no direction to go in",
        death.site,
        "make it of floats: `torch.tensor([1.0, 2.0])`, or `dtype=torch.float32`",
    )


def to_numpy(death: Death) -> Iterator[Cause]:
    """A tensor with a history is handed to NumPy."""
    yield Cause(
        "a tensor with a history is handed to NumPy, which would lose its gradient",
        death.site,
        "for a log or a plot write `.detach().numpy()`; on the way to the loss stay in torch",
    )


def copied(death: Death) -> Iterator[Cause]:
    """`copy.deepcopy` meets a tensor with a history: where a module keeps it, and what made it."""
    tensor = next(
        (
            value
            for frame in frames(death.error)
            if isinstance(value := frame.f_locals.get("self"), torch.Tensor)
        ),
        None,
    )
    if tensor is None:
        return
    made = death.maker(tensor)
    for path, module in registry.named_modules(death.model):
        attribute = next((name for name, value in vars(module).items() if _holds(value, tensor)), None)
        if attribute is None:
            continue
        kept = _appended(death, attribute) or attribute_site(module, attribute, death.context.files)
        name = f"{path}.{attribute}" if path else attribute
        yield Cause(
            f"`{name}` is kept with its "
            f"history{f': `{source_of(made.site)}` made it' if made is not None else ''}; a tensor that an "
            "operation made cannot be copied",
            kept or (made.site if made is not None else death.site),
            f"keep what is detached in `{attribute}`: `.detach()`, or copy the model before its first "
            "forward",
        )
        return
    if made is not None:
        text = source_of(made.site)
        maker = f", made by `{text}`{line_of(made.site, death.site)}" if text else ""
        yield Cause(
            f"what is copied here holds a tensor with a history{maker}: only leaves can be copied",
            death.site,
            "copy what is detached: `.detach()`, or `.detach().clone()` in place of `copy.deepcopy`",
        )


def _holds(value: Any, tensor: torch.Tensor) -> bool:
    items = value.values() if type(value) is dict else value if type(value) in (list, tuple) else (value,)
    return any(item is tensor for item in items)


def _appended(death: Death, attribute: str) -> Site | None:
    """The call that puts something into the list of that name."""
    for source in map(load, death.context.files):
        for call in nodes(source, ast.Call):
            match call.func:
                case ast.Attribute(value=ast.Attribute(attr=name), attr="append" | "extend" | "insert") if (
                    name == attribute
                ):
                    return site_of(source, call)
    return None


def flagged(death: Death) -> Iterator[Cause]:
    """`requires_grad` is set on a computed tensor: which parameters it is computed from."""
    text, namespace = raising_text(death.error)
    match = _FLAG.search(text)
    name = match.group(1) if match is not None else text
    tensor, owner = look_up(name, namespace), look_up(name.rpartition(".")[0], namespace)
    parts = parts_of(owner, name) if isinstance(owner, nn.Module) else []
    if parts:
        yield Cause(
            f"`{name}` is computed anew in every forward, from {listed(parts)}: only those have the flag",
            death.site,
            f"freeze them: {'; '.join(f'`{part}.requires_grad_(False)`' for part in parts)}",
            tuple(parts),
        )
        return
    sources = sources_of(death, tensor)[:3] if isinstance(tensor, torch.Tensor) else []
    yield Cause(
        f"`{name}` was computed from {listed(sources) if sources else 'tensors that require grad'}, and so "
        "it requires grad: "
        "only a leaf has a flag of its own",
        death.site,
        f"use `{name}.detach()` where no gradient is to go on, or freeze the parameters it is computed from",
        tuple(sources),
    )


def parts_of(owner: nn.Module, name: str) -> list[str]:
    """What `owner.weight` is computed from: by weight_norm, spectral_norm and pruning of old, or by
    parametrizations."""
    variable, _, attribute = name.rpartition(".")
    prefixes = tuple(part.format(attribute) for part in _PARTS)
    return [f"{variable}.{own}" for own, _ in registry.named_parameters(owner) if own.startswith(prefixes)]


def computed_name(death: Death, tensor: torch.Tensor) -> tuple[str, list[str]] | None:
    """The name of a weight that a module computes anew each time, and the parameters that it is made of,
    where the tensor is such a weight: read off a parametrization, or held by a module beside its parts."""
    names = sources_of(death, tensor)
    maker = death.facts.maker_of.get(known.value) if (known := death.known(tensor)) is not None else None
    inside = f".{maker.module}." if maker is not None else ""
    for path, module in registry.named_modules(death.model):
        prefix = f"{path}." if path else ""
        held = [name for name, value in vars(module).items() if value is tensor]
        made = [name for name in _parametrized(module) if f".{prefix}parametrizations.{name}." in inside]
        for name in (*held, *made):
            parts = tuple(prefix + part.format(name) for part in _PARTS)
            if names and all(source.startswith(parts) for source in names):
                return prefix + name, names
    return None


def _parametrized(module: nn.Module) -> list[str]:
    held = module._modules.get("parametrizations")
    return list(held._modules) if held is not None else []


def sources_of(death: Death, tensor: torch.Tensor) -> list[str]:
    """The parameters that a tensor is computed from."""
    known = death.known(tensor)
    if known is None:
        return _sources_in_graph(death, tensor)
    reached = {known.value}
    for node in reversed(death.facts.nodes):
        for flow in node.flows:
            if flow.open and flow.target in reached:
                reached.add(flow.source)
    found = [p.name for p in death.facts.parameters if reached.intersection(p.values)]
    return found or _sources_in_graph(death, tensor)


def _sources_in_graph(death: Death, tensor: torch.Tensor) -> list[str]:
    """The same, read off autograd's graph: the tensor may be older than the watch."""
    nodes = itertools.islice(nodes_behind([tensor.grad_fn] if tensor.grad_fn is not None else []), MOST)
    leaves = [leaf for node in nodes if (leaf := leaf_of(node)) is not None]
    return sorted(name for leaf in leaves if (name := death.parameter_name(leaf)) is not None)
