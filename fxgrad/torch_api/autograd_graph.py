"""Autograd's own graph: one step back from a node, the leaf that a node accumulates into, and all that lies
behind.

What walks a whole graph is here (`fxgrad.trace.edges` goes back over one call at a time). Walks are loops,
for a chain of ten thousand nodes must not recurse. What they yield is held by whoever asks: the Python object
of a node comes and goes while the node lives on, so an id is good only as long as the object is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch.autograd.graph import Node

from fxgrad.torch_api.internals import AccumulateGrad


def one_back(function: Node) -> list[tuple[Node, int]]:
    """The nodes that `function` hands gradients on to, each with the number of the output that the gradient
    is of."""
    return [(inner, number) for inner, number in function.next_functions if inner is not None]


def leaf_of(function: object) -> torch.Tensor | None:
    """The leaf that a node of autograd's accumulates into; None for every other node."""
    if not isinstance(function, AccumulateGrad):
        return None
    leaf: torch.Tensor = function.variable
    return leaf


def nodes_behind(functions: Iterable[Node]) -> Iterator[Node]:
    """The nodes behind `functions`, these included, each once."""
    queue = list(functions)
    seen = set(queue)
    while queue:
        function = queue.pop()
        yield function
        for inner, _ in function.next_functions:
            if inner is not None and inner not in seen:
                seen.add(inner)
                queue.append(inner)


def kept_on(function: object) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors that a custom Function keeps as attributes of its `ctx`, alone or in a list, by attribute:
    torch neither guards nor frees them, unlike what `ctx.save_for_backward` saves."""
    for name, value in vars(function).items():
        for item in value if isinstance(value, list | tuple) else (value,):
            if isinstance(item, torch.Tensor):
                yield name, item


def grad_fn_of(tensor: torch.Tensor) -> Node | None:
    """The tensor's autograd node; None for a leaf, and for a view whose base was rewritten in a way that
    autograd refuses."""
    try:
        return tensor.grad_fn
    except RuntimeError:
        return None
