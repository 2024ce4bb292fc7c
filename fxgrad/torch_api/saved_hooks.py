"""Hooks of ours on the tensors that autograd saves, which stand aside where torch takes none.

`torch.func.grad`, `vjp`, `jacrev` and `hessian` refuse to run under hooks on saved tensors. A program that calls them has none of its own:
`saved_hooks` takes its pair off while such a transform runs. What autograd saves in there goes unhooked.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.autograd.graph

from fxgrad.torch_api.functions import patched
from fxgrad.torch_api.internals import pop_saved_tensors_hooks, push_saved_tensors_hooks, top_saved_tensors_hooks


@contextlib.contextmanager
def saved_hooks(pack: Callable[[torch.Tensor], Any], unpack: Callable[[Any], torch.Tensor]) -> Iterator[None]:
    """`torch.autograd.graph.saved_tensors_hooks`, off inside `torch.func`'s transforms. Hooks of the program's own are refused there as ever."""
    original = torch.autograd.graph.disable_saved_tensors_hooks

    @contextlib.contextmanager
    def disable(message: str) -> Iterator[None]:
        ours = (pack, unpack) == top_saved_tensors_hooks()
        if ours:
            pop_saved_tensors_hooks()
        try:
            with original(message):
                yield
        finally:
            if ours:
                push_saved_tensors_hooks(pack, unpack)

    with patched(torch.autograd.graph, "disable_saved_tensors_hooks", disable), torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield
