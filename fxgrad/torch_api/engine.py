"""Calls that walk autograd's graph, and in it run Python of the program: hooks, custom backwards, what a
checkpoint computes again.

`ENGINE` has for each such call of torch the same without torch's dispatch to function modes. A mode is off
while it handles a call; one that must see what the program does in there enters itself again and calls these,
which do not come back to it. Not handled: batched gradients, which torch runs under a `vmap` where modes see
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from fxgrad.torch_api.internals import DisableTorchFunction, make_gradients, run_engine


def run_backward(
    tensors: object,
    gradient: object = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: object = None,
    grad_tensors: object = None,
    **rest: object,
) -> None:
    """`torch.autograd.backward` and `Tensor.backward`."""
    tensors = _several(tensors)
    if inputs is not None:
        inputs = _several(inputs)
        if not inputs:
            raise RuntimeError("`inputs` argument to `backward` cannot be empty.")
    run_engine(
        tensors,
        _gradients(tensors, gradient if gradient is not None else grad_tensors),
        create_graph if retain_graph is None else retain_graph,
        create_graph,
        inputs or (),
        allow_unreachable=True,
        accumulate_grad=True,
    )


def run_grad(
    outputs: Any,
    inputs: Any,
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    only_inputs: bool = True,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[torch.Tensor | None, ...]:
    """`torch.autograd.grad`."""
    if is_grads_batched or not only_inputs or (materialize_grads and allow_unused is False):
        with DisableTorchFunction():
            batched: tuple[torch.Tensor | None, ...] = torch.autograd.grad(
                outputs,
                inputs,
                grad_outputs,
                retain_graph,
                create_graph,
                only_inputs,
                allow_unused,
                is_grads_batched,
                materialize_grads,
            )
            return batched
    outputs, inputs = _several(outputs), _several(inputs)
    found: tuple[torch.Tensor | None, ...] = run_engine(
        outputs,
        _gradients(outputs, grad_outputs),
        create_graph if retain_graph is None else retain_graph,
        create_graph,
        inputs,
        materialize_grads if allow_unused is None else allow_unused,
        accumulate_grad=False,
    )
    if materialize_grads:
        return tuple(
            torch.zeros_like(i, requires_grad=create_graph) if g is None else g
            for g, i in zip(found, inputs, strict=True)
        )
    return found


def _several(item: Any) -> tuple[object, ...]:
    return (
        tuple(item)
        if isinstance(item, Sequence)
        and not isinstance(item, torch.Tensor | torch.autograd.graph.GradientEdge)
        else (item,)
    )


def _gradients(tensors: tuple[object, ...], given: object) -> object:
    given = (None,) * len(tensors) if given is None else _several(given)
    return make_gradients(tensors, given, is_grads_batched=False)


# By the call's name, as function modes are told it; `torch.func.grad`, of the same name, is not told to them.
ENGINE: Mapping[str, Callable[..., object]] = {"backward": run_backward, "grad": run_grad}
