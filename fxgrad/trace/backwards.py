"""Around a backward: what it is about to reach, read off the graph while that is whole, and what it left.

`around` is entered by every way to a backward (`Tensor.backward`, `autograd.backward`); `grad` runs an `autograd.grad`. Hooks on autograd
nodes only look: on a custom Function's to see for which inputs it returns nothing, on every node where zeros are to be explained. They do
not keep the observer: it holds tensors, whose nodes hold their hooks where no garbage collector sees it.
"""

from __future__ import annotations

import contextlib
import inspect
import weakref
from collections.abc import Iterator
from typing import Any

import torch

from fxgrad.torch_api.tree import tensors_in
from fxgrad.trace.driver import WatchDriver
from fxgrad.trace.edges import Behind, is_custom, number_of
from fxgrad.trace.gradients import better, state_of
from fxgrad.trace.ledger import grad_fn
from fxgrad.trace.notes import Backward
from fxgrad.trace.stale_tensors import hidden

Gradient = tuple[torch.Tensor, torch.Tensor | None]

_GRAD = inspect.signature(torch.autograd.grad)


@contextlib.contextmanager
def around(observer: WatchDriver, losses: Any) -> Iterator[None]:
    """Around a backward from the tensors in `losses`; one inside another is a part of it."""
    if not observer.active or observer.quiet:
        yield
        return
    observer.before_backward()
    made: Backward | None = None
    leaves: list[torch.Tensor] = []
    with observer.guarded():
        made, leaves = (_unnoted if observer.gradients_only else _walk)(observer, losses, "Tensor.backward")
    observer.nested.append(leaves)
    observer.quiet += 1
    failure: BaseException | None = None
    try:
        yield
    except BaseException as error:
        failure = error
        raise
    finally:
        observer.quiet -= 1
        observer.nested.pop()
        if made is not None and observer.active:
            made.failed = failure is not None
            observer.cleared = ()
            with observer.guarded():
                _ended(observer, made, [(leaf, leaf.grad) for leaf in leaves])
        if failure is not None:
            observer.on_raise(failure)


def nested(observer: WatchDriver, losses: Any) -> None:
    """A reentrant checkpoint runs a backward of its own inside one: what it reaches is reached."""
    if observer.active and observer.nested:
        with observer.guarded():
            observer.nested[-1].extend(_behind(observer, list(tensors_in(losses))).leaves)


def grad(observer: WatchDriver, func: Any, args: Any, kwargs: Any) -> Any:
    """`autograd.grad`: its results are values like others, and it leaves no `.grad`. Without `create_graph` it is a backward too."""
    call = _GRAD.bind(*args, **kwargs).arguments
    observer.again = True
    reads = observer.before(args, kwargs)
    made: Backward | None = None
    with observer.guarded():
        if not call.get("create_graph"):
            made, _ = _walk(observer, call["outputs"], "torch.autograd.grad")
            made.partial = made.failed = True  # until it has run
    observer.quiet += 1
    try:
        out = func(*args, **kwargs)
    finally:
        observer.quiet -= 1
    if made is not None:
        made.failed = False
        with observer.guarded():
            _ended(observer, made, list(zip(tensors_in(call["inputs"]), out, strict=False)))
    observer.after("op", "torch.autograd.grad", reads, out)
    return out


def _walk(observer: WatchDriver, losses: Any, target: str) -> tuple[Backward, list[torch.Tensor]]:
    """The record of a backward that is about to run, and the leaves it will reach."""
    ledger = observer.ledger
    reads = [ledger.read(tensor) for tensor in tensors_in(losses)]
    note = ledger.note("op", target)
    note.reads = [value for _, _, value in reads]
    behind = _behind(observer, [tensor for tensor, _, _ in reads])
    keys = {*behind.keys, *(key for _, _, value in reads if (key := ledger.keys[value]) is not None)}
    live = frozenset(value for key in keys for value in ledger.edges.values.get(key, ()))
    for function in behind.functions:
        if observer.closely:
            _watch_node(observer, function)
        if is_custom(function):
            _watch_custom(observer, function)
    if ledger.hidden:
        observer.saved += hidden(ledger, behind.functions)
    ledger.keep(note)
    ledger.losses.update(note.reads)
    started = tuple(function for tensor, _, _ in reads if (function := grad_fn(tensor)) is not None)
    made = Backward(note.number, note.spots, tuple(note.reads), live, started, nan=any(_is_nan(tensor) for tensor, _, _ in reads))
    observer.backwards.append(made)
    return made, [*behind.leaves, *(tensor for tensor, _, _ in reads if tensor.is_leaf and tensor.requires_grad)]


def _is_nan(loss: torch.Tensor) -> bool:
    return loss.numel() == 1 and loss.layout is torch.strided and not loss.is_meta and bool(torch.isnan(loss.detach()).any())


def _unnoted(observer: WatchDriver, losses: Any, target: str) -> tuple[Backward, list[torch.Tensor]]:
    """The same where calls are not noted any more: only the leaves are of interest."""
    started = list(tensors_in(losses))
    leaves = [*_behind(observer, started).leaves, *(tensor for tensor in started if tensor.is_leaf and tensor.requires_grad)]
    return Backward(observer.ledger.count, observer.ledger.spots(), ()), leaves


def _behind(observer: WatchDriver, tensors: list[torch.Tensor]) -> Behind:
    return observer.ledger.edges.reachable([function for tensor in tensors if (function := grad_fn(tensor)) is not None])


def _ended(observer: WatchDriver, made: Backward, gradients: list[Gradient]) -> None:
    if not made.failed:
        made.started = ()
    observer.on_backward(made, gradients)


def _watch_node(observer: WatchDriver, function: Any) -> None:
    """Note what gradient an autograd node is given, output by output."""
    number, watching = number_of(function), weakref.ref(observer)

    def before(gradients: Any) -> None:
        observer = watching()
        if observer is not None and observer.active:
            with observer.guarded():
                for index, gradient in enumerate(gradients):
                    key = (number, index)
                    observer.delivered[key] = better(observer.delivered.get(key, ""), state_of(gradient))

    function.register_prehook(before)


def _watch_custom(observer: WatchDriver, function: Any) -> None:
    """Note for which of its inputs a custom Function's backward gives nothing."""
    note, given = observer.ledger.edges.maker(function), observer.ledger.edges.inputs_of(function)
    watching = weakref.ref(observer)

    def after(inputs: Any, outputs: Any) -> None:
        observer = watching()
        for gradient, values in zip(inputs, given, strict=False):
            if gradient is None and observer is not None and observer.active:
                observer.dropped.update((note, value) for value in values)

    function.register_hook(after)
