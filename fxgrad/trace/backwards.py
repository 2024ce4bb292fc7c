"""Around a backward: what it is about to reach, read off the graph while that is whole, and what it left.

`around` is entered by every way to a backward (`Tensor.backward`, `autograd.backward`); `grad` runs an `autograd.grad`. Hooks on autograd
nodes only look: on a custom Function's to see for which inputs it returns nothing, on every node where zeros are to be explained. They do
not keep the observer: it holds tensors, whose nodes hold their hooks where no garbage collector sees it.
"""

from __future__ import annotations

import contextlib
import inspect
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from fxgrad.torch_api.tree import tensors_in
from fxgrad.trace.driver import WatchDriver
from fxgrad.trace.edges import Behind, is_custom, number_of
from fxgrad.trace.gradients import better, state_of
from fxgrad.trace.ledger import grad_fn
from fxgrad.trace.notes import Backward, Request
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
        made, leaves = _walk(observer, losses, "Tensor.backward")
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
    call = _GRAD.bind(*args, **kwargs)
    if not isinstance(call.arguments["inputs"], torch.Tensor | Mapping):
        call.arguments["inputs"] = tuple(call.arguments["inputs"])  # a generator can be looked at only once
    asked, inputs = call.arguments, list(tensors_in(call.arguments["inputs"]))
    reads = observer.before(call.args, call.kwargs)
    made: Backward | None = None
    with observer.guarded():
        if not asked.get("create_graph"):
            made = _partial(observer, asked["outputs"])
    observer.quiet += 1
    try:
        out = func(*call.args, **call.kwargs)
    except Exception:
        with observer.guarded():
            made = made or _partial(observer, asked["outputs"])
            _note_request(observer, made, inputs, ())
        raise
    finally:
        observer.quiet -= 1
    results = list(out.values()) if isinstance(out, Mapping) else list(out)
    missing = tuple(position for position, result in enumerate(results) if result is None)
    with observer.guarded():
        if made is not None:
            made.failed = False
            _ended(observer, made, list(zip(inputs, results, strict=False)))
        if missing:
            _note_request(observer, made or _walk(observer, asked["outputs"], "torch.autograd.grad", keep=False)[0], inputs, missing)
    observer.after("op", "torch.autograd.grad", reads, out)
    return out


def _partial(observer: WatchDriver, outputs: Any) -> Backward:
    """The record of an `autograd.grad` that is about to run, or has raised."""
    made, _ = _walk(observer, outputs, "torch.autograd.grad")
    made.partial = made.failed = True
    return made


def _note_request(observer: WatchDriver, made: Backward, inputs: list[torch.Tensor], missing: tuple[int, ...]) -> None:
    slots = tuple(observer.ledger.read(tensor)[1] for tensor in inputs)
    observer.requests.append(Request(made.note, made.spots, slots, missing, made.losses, made.live, torch.is_grad_enabled()))


def _walk(observer: WatchDriver, losses: Any, target: str, *, keep: bool = True) -> tuple[Backward, list[torch.Tensor]]:
    """The record of a backward that is about to run, and the leaves it will reach; `keep`: it is one of those that count."""
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
    ledger.losses.update(note.reads)
    started = tuple(function for tensor, _, _ in reads if (function := grad_fn(tensor)) is not None)
    made = Backward(note.number, note.spots, tuple(note.reads), live, started)
    if keep:
        ledger.keep(note)
        observer.backwards.append(made)
    return made, [*behind.leaves, *(tensor for tensor, _, _ in reads if tensor.is_leaf and tensor.requires_grad)]


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
