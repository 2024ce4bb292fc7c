"""Two ways to carry out a rewrite's calls: into a new graph, or at once on fake tensors to see whether they
fit.

A rewrite is written once against `Ops`; `GraphOps` makes nodes of its calls, `FakeOps` runs them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Protocol

import torch
import torch.fx
from torch import nn

from fxgrad.torch_api.graph_modules import empty_module


class Ops(Protocol):
    """The calls a rewrite may make; values are nodes of the new graph, or fake tensors."""

    def method(self, name: str, *args: object, **kwargs: object) -> object: ...

    def function(self, target: Callable[..., object], *args: object, **kwargs: object) -> Any: ...

    def module(self, path: str, module: nn.Module, *args: object, **kwargs: object) -> Any: ...


class GraphOps:
    """Appends nodes to `graph`; `made` lists them. A module that a rewrite brings is registered on `owner`
    under its path.

    Containers on that path are replaced by copies of themselves: `owner` shares its modules with the model it
    came from.
    """

    def __init__(self, graph: torch.fx.Graph, owner: torch.fx.GraphModule) -> None:
        self.graph = graph
        self.owner = owner
        self.made: list[torch.fx.Node] = []

    def method(self, name: str, *args: Any, **kwargs: Any) -> torch.fx.Node:
        return self._note(self.graph.call_method(name, args, kwargs))

    def function(self, target: Callable[..., object], *args: Any, **kwargs: Any) -> torch.fx.Node:
        return self._note(self.graph.call_function(target, args, kwargs))

    def module(self, path: str, module: nn.Module, *args: Any, **kwargs: Any) -> torch.fx.Node:
        holder: nn.Module = self.owner
        *above, last = path.split(".")
        for name in above:
            made = _shallow(holder.get_submodule(name))
            holder._modules[name] = made
            holder = made
        holder._modules.setdefault(last, module)
        return self._note(self.graph.create_node("call_module", path, args, kwargs))

    def _note(self, node: torch.fx.Node) -> torch.fx.Node:
        self.made.append(node)
        return node


def _shallow(module: nn.Module) -> nn.Module:
    made = copy.copy(module)
    made._modules = dict(module._modules)
    return made


class FakeOps:
    """Runs each call as it is made."""

    def method(self, name: str, *args: object, **kwargs: object) -> object:
        return getattr(args[0], name)(*args[1:], **kwargs)

    def function(self, target: Callable[..., object], *args: object, **kwargs: object) -> Any:
        return target(*args, **kwargs)

    def module(self, path: str, module: nn.Module, *args: object, **kwargs: object) -> Any:
        return module(*args, **kwargs)


def sibling(graph_module: torch.fx.GraphModule) -> torch.fx.GraphModule:
    """A GraphModule over the same parameters, buffers, modules and attributes, with an empty graph of its
    own."""
    made = empty_module(type(graph_module).__name__, type(graph_module))
    for name, value in vars(graph_module).items():
        if name in ("_parameters", "_buffers", "_modules", "meta"):
            made.__dict__[name] = dict(value)
        elif name == "_non_persistent_buffers_set":
            made.__dict__[name] = set(value)
        elif name not in made.__dict__ or name == "training":
            made.__dict__[name] = value
    return made
