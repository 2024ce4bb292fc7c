"""Graph modules of torch whose text goes when they go: torch alone keeps the code of every one for good."""

from __future__ import annotations

import inspect
import linecache
import weakref

import torch
import torch.fx
from torch import nn

from fxgrad.torch_api.module_internals import texts_of_graphs


def empty_module(name: str, kind: type[torch.fx.GraphModule] = torch.fx.GraphModule) -> torch.fx.GraphModule:
    """A graph module without a graph, of a class called `name` below `kind`, or below torch's own where
    `kind` is made in another way."""
    own = next(base for base in kind.__mro__ if _is_made_as_torchs(base))
    module: torch.fx.GraphModule = own(nn.Module(), torch.fx.Graph(), class_name=name)
    _text_goes_with(module)
    return module


def _is_made_as_torchs(kind: type) -> bool:
    """Whether a call of the class makes what one of `GraphModule` does; each instance of that has a class of
    its own, which is left out."""
    constructors = (kind.__init__, type(kind).__call__)  # type: ignore[misc]
    return constructors == (torch.fx.GraphModule.__init__, type.__call__) and not kind.__qualname__.endswith(
        "GraphModuleImpl"
    )


def set_graph(module: torch.fx.GraphModule, graph: torch.fx.Graph) -> None:
    """`module.graph = graph`."""
    module.graph = graph
    _text_goes_with(module)


_texts: dict[int, weakref.ref[object]] = {}


def _text_goes_with(module: torch.fx.GraphModule) -> None:
    """torch keeps the text of every graph module's code for tracebacks, for good: here until the code is
    gone."""
    code = inspect.unwrap(type(module).forward).__code__
    key, name = id(code), code.co_filename

    def forget(_: object) -> None:
        _texts.pop(key, None)
        for texts in (texts_of_graphs(), linecache.cache):
            texts.pop(name, None)

    _texts[key] = weakref.ref(code, forget)


def take_apart(graph: torch.fx.Graph) -> None:
    """Free what a graph holds as soon as nobody else does: its nodes refer to one another in circles, which
    wait for the garbage collector. Only of a graph that nobody uses any more."""
    for node in reversed(graph.nodes):
        node.users.clear()
        graph.erase_node(node)
    vars(graph).clear()
