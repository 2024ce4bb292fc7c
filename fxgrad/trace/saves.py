"""What autograd keeps and hands on in one run: tensors saved for backward, gradients delivered to nodes and
left on parameters.

The first two are context managers around the forward and the backward of a run. Not handled: what C++ saves
beside its hooks.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch.autograd.graph import Node
from torch.utils.hooks import RemovableHandle

from fxgrad.records.facts import Delivered
from fxgrad.source.statements import read_in_backward
from fxgrad.torch_api.autograd_graph import grad_fn_of, kept_on
from fxgrad.torch_api.internals import DisableTorchFunction, version_of
from fxgrad.torch_api.saved_hooks import saved_hooks
from fxgrad.torch_api.tensors import has_nonzero
from fxgrad.torch_api.tree import tensors_in
from fxgrad.trace.edges import is_custom
from fxgrad.trace.gradients import better, state_of
from fxgrad.trace.observations import RawSave, Step, copied, same_elements
from fxgrad.trace.recorder import Recorder


class Saving(Protocol):
    """A run, as far as it is asked here."""

    saves: list[RawSave]

    @property
    def recorder(self) -> Recorder: ...


@contextlib.contextmanager
def watching_gradients(recorder: Recorder, delivered: dict[tuple[int, int], Delivered]) -> Iterator[None]:
    """Note what every autograd node is given in backward: per edge "none", "zero" or "some"."""
    fake = recorder.standins.fake is not None

    def watch(function: Node) -> RemovableHandle:
        key = id(function)

        def before(grads: tuple[torch.Tensor | None, ...]) -> None:
            with DisableTorchFunction(), torch.no_grad():
                for number, grad in enumerate(grads):
                    state: Delivered
                    if grad is None:
                        state = "none"
                    elif fake or grad.layout is not torch.strided:
                        state = "some"
                    else:
                        state = "some" if has_nonzero(grad) else "zero"
                    delivered[key, number] = state

        return function.register_prehook(before)

    with DisableTorchFunction():
        functions = {id(raw.fn): raw.fn for raw in recorder.values if raw.fn is not None}
        handles = [watch(function) for function in functions.values()]
    try:
        yield
    finally:
        with DisableTorchFunction():
            for handle in handles:
                handle.remove()


def note_arrived(recorder: Recorder) -> Callable[[torch.Tensor, torch.Tensor], None]:
    """For stand-ins of parameters whose hooks may take a gradient away once it is there: an optimizer's step,
    and `zero_grad`."""

    def arrives(original: torch.Tensor, made: torch.Tensor) -> None:
        with DisableTorchFunction():
            state = _state(recorder, made.grad)
        recorder.arrived[id(original)] = better(state, recorder.arrived.get(id(original), ""))

    return arrives


def gradient_of(recorder: Recorder, parameter: torch.Tensor) -> str:
    """What backward left on a parameter, or gave its hooks: "none", "zero" or "some"."""
    made = recorder.standins.get(parameter)
    grad = made.grad if made is not None else None
    return better(
        _state(recorder, parameter.grad if grad is None else grad), recorder.arrived.get(id(parameter), "")
    )


def _state(recorder: Recorder, grad: torch.Tensor | None) -> Delivered:
    if grad is not None and recorder.standins.fake is not None:
        return "some"
    return state_of(grad)


@contextlib.contextmanager
def watching_saves(result: Saving) -> Iterator[None]:
    """Note every tensor saved for backward, with its version at that moment and the step that saved it."""
    recorder = result.recorder
    # Autograd keeps what it was given, and the hooks, until backward reads it, where no garbage collector
    # sees it: a tensor that was given to its own node would never be freed. It gets numbers, and the table of
    # tensors goes with the recorder.
    reference, table = weakref.ref(result), recorder.saved

    def pack(tensor: torch.Tensor) -> int:
        run = reference()
        if run is not None:
            with DisableTorchFunction():
                recorder = run.recorder
                step = recorder.current or (recorder.steps[-1] if recorder.steps else None)
                copy = copied(tensor, recorder.standins.fake is not None)
                run.saves.append(RawSave(step, tensor, version_of(tensor), len(recorder.steps), copy))
        table.append(tensor)
        return len(table) - 1

    def applied(step: Step, out: object) -> None:
        with DisableTorchFunction():
            nodes = {id(node): node for t in tensors_in(out) if (node := grad_fn_of(t)) is not None}
            for node in filter(is_custom, nodes.values()):
                kept = tuple(kept_on(node))
                read = read_in_backward(type(node)) if kept else frozenset()
                for name, tensor in kept:
                    if name in read:
                        copy = copied(tensor, recorder.standins.fake is not None)
                        version, index = version_of(tensor), len(recorder.steps)
                        result.saves.append(RawSave(step, tensor, version, index, copy, name))

    recorder.shared, recorder.applied = [], applied
    with saved_hooks(pack, table.__getitem__):
        yield
    recorder.applied = None
    with DisableTorchFunction():
        written = {storage for step in recorder.steps for storage in step.writes}
        for shared in recorder.shared:
            storage = recorder.storage_number(shared.tensor)
            if storage not in written and not same_elements(shared.copy, shared.tensor):
                shared.step.writes.append(storage)
