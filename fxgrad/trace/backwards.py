"""Around a backward: what it is about to reach, read off the graph while that is whole, and what it left.

`around` is entered by every way to a backward (`Tensor.backward`, `autograd.backward`); `grad` runs an
`autograd.grad`. A walk that does not keep the graph leaves its mark on every autograd node that it visits.
Hooks on autograd nodes only look: on a custom Function's to see for which inputs it returns nothing, on every
node where zeros are to be explained. They do not keep the observer: it holds tensors, whose nodes hold their
hooks where no garbage collector sees it.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch.autograd.graph import Node

from fxgrad.torch_api.autograd_graph import grad_fn_of, one_back
from fxgrad.torch_api.calls import ADDED_TO_GRAD, DERIVATIVE, HOOK_LOOKED, HOOKED, creates_graph
from fxgrad.torch_api.internals import version_of
from fxgrad.torch_api.tree import tensors_in
from fxgrad.trace.driver import WatchDriver
from fxgrad.trace.edges import Behind, is_custom, note_freed, number_of
from fxgrad.trace.gradients import Handle, better, looked_at_first, state_of, values_of
from fxgrad.trace.notes import Backward, Note, Request
from fxgrad.trace.rounds import Turn
from fxgrad.trace.slots import Slot
from fxgrad.trace.stale_tensors import hidden, kept_and_written

Gradient = tuple[torch.Tensor, torch.Tensor | None]
_Arrived = tuple[Slot, tuple[int, float, float]]  # of a leaf, with what its values were

_GRAD = inspect.signature(torch.autograd.grad)


@dataclass(frozen=True, slots=True)
class Walk:
    """How a backward was asked to walk. `inputs`: the tensors it goes no further than, None for every
    leaf."""

    target: str
    retained: bool
    inputs: object = None


def walk_of(target: str, arguments: dict[str, object]) -> Walk:
    """From the arguments of `backward` or `autograd.grad`, by name."""
    retained = arguments.get("retain_graph")
    created = bool(arguments.get("create_graph"))
    return Walk(target, created if retained is None else bool(retained), arguments.get("inputs"))


@contextlib.contextmanager
def around(observer: WatchDriver, losses: object, walk: Walk, turn: Turn | None = None) -> Iterator[None]:
    """Around a backward from the tensors in `losses` that is noted; one inside another is a part of it."""
    if not observer.active or observer.quiet:
        yield
        return
    made: Backward | None = None
    leaves: list[torch.Tensor] = []
    with observer.guarded():
        made, leaves = (
            _unnoted(observer, losses) if observer.gradients_only else _walk(observer, losses, walk)
        )
    failure: BaseException | None = None
    try:
        with _Running(observer, losses, leaves):
            yield
    except BaseException as error:
        failure = error
        raise
    finally:
        if made is not None and observer.active:
            made.failed = failure is not None
            observer.cleared = observer.exchanged = ()
            with observer.guarded():
                _ended(observer, made, [(leaf, leaf.grad) for leaf in leaves])
                if turn is not None:
                    turn.slots = tuple(observer.ledger.read(leaf)[1] for leaf in leaves)
                    observer.rounds.walked(turn, -1 if walk.retained else made.note)
                observer.rounds.ended(may_compare=_may_compare(observer))
        if failure is not None:
            observer.on_raise(failure)


def again(observer: WatchDriver, losses: object, walk: Callable[[], Walk], turn: Turn) -> _Again:
    """Around a backward that belongs to a round which repeats others (`fxgrad.trace.rounds`)."""
    return _Again(observer, losses, walk, turn)


class _Again:
    """Only the leaves that had no gradient other than zeros are looked at; `walk` is asked where it fails,
    which is noted."""

    __slots__ = ("_leaves", "_losses", "_observer", "_running", "_turn", "_walk")

    def __init__(self, observer: WatchDriver, losses: object, walk: Callable[[], Walk], turn: Turn) -> None:
        self._observer, self._losses, self._walk, self._turn = observer, losses, walk, turn

    def __enter__(self) -> None:
        found = [slot() for slot in self._turn.slots if slot.after != "some"]
        self._leaves = [leaf for leaf in found if leaf is not None]
        self._running = _Running(self._observer, self._losses, self._leaves)
        self._running.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        observer = self._observer
        self._running.__exit__(kind, error, traceback)
        if observer.active:
            observer.cleared = observer.exchanged = ()
            with observer.guarded():
                if error is not None:
                    self._failed()
                else:
                    observer.rounds.freed(self._turn)
                observer.on_repeat([(leaf, leaf.grad) for leaf in self._leaves])
                observer.rounds.ended(may_compare=_may_compare(observer))
        if error is not None:
            observer.on_raise(error)

    def _failed(self) -> None:
        self._observer.rounds.wake()
        made, _ = _walk(self._observer, self._losses, self._walk())
        made.failed = True


class _Running:
    """While a backward runs nothing else is noted but the gradients that hooks take away."""

    __slots__ = ("_arrived", "_handles", "_leaves", "_losses", "_observer")

    def __init__(self, observer: WatchDriver, losses: object, leaves: list[torch.Tensor]) -> None:
        self._observer, self._losses, self._leaves = observer, losses, leaves

    def __enter__(self) -> None:
        observer = self._observer
        observer.nested.append(self._leaves)
        observer.started = self._losses
        observer.quiet += 1
        self._arrived: list[_Arrived] = []
        self._handles = _arriving(observer, self._leaves, self._arrived) if self._leaves else []

    def __exit__(self, *args: object) -> None:
        observer = self._observer
        for handle in self._handles:
            handle.remove()
        observer.quiet -= 1
        observer.started = None
        observer.nested.pop()
        if self._arrived:
            with observer.guarded():
                _note_gone(self._arrived)


def turn_of(observer: WatchDriver, asked: object, items: Iterable[object], losses: object) -> Turn | None:
    """The turn of a backward from `losses` that is about to run, see `fxgrad.trace.rounds`. `asked`: how it
    is called, besides `items`."""
    if observer.gradients_only:
        return None
    with observer.guarded():
        rounds = observer.rounds
        turn = rounds.next(asked, sys._getframe(1), items)
        if turn is not None:
            ending = _ending(losses)
            if rounds.comparing and ending != turn.ending:
                rounds.note(turn)
            turn.ending = ending
        return turn
    return None


def _ending(losses: object) -> str:
    """Whether one of the losses is infinite or NaN: `"inf"`, `"nan"`."""
    for loss in tensors_in(losses):
        if _has_value(loss):
            value = loss.detach().item()
            if value != value:
                return "nan"
            if abs(value) == math.inf:
                return "inf"
    return ""


def _may_compare(observer: WatchDriver) -> bool:
    return not (observer.closely or observer.gradients_only)


def _note_gone(arrived: Iterable[_Arrived]) -> None:
    """What hooks of the program's have made of gradients that were there, on leaves with these values: a hook
    that writes the leaf has used the gradient."""
    for slot, values in arrived:
        leaf = slot()
        if leaf is None or state_of(leaf.grad) == "some":
            continue
        used = values_of(leaf) != values
        slot.within = "used" if used or slot.within == "used" else "taken"


def _arriving(observer: WatchDriver, leaves: Iterable[torch.Tensor], arrived: list[_Arrived]) -> list[Handle]:
    """Note the gradients that hooks of the program may use and clear before the backward ends."""
    watching = weakref.ref(observer)

    def look(leaf: torch.Tensor) -> None:
        observer = watching()
        if observer is not None and observer.active:
            with observer.guarded():
                slot = observer.ledger.read(leaf)[1]
                state = state_of(leaf.grad)
                slot.after = better(slot.after, state)
                if state == "some":
                    arrived.append((slot, values_of(leaf)))

    distinct = {id(leaf): leaf for leaf in _left_on(observer, leaves)}.values()
    return [handle for leaf in distinct if (handle := looked_at_first(leaf, look)) is not None]


def _left_on(observer: WatchDriver, leaves: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Those that the gradients of these leaves will be left on: of what was put together from parts, the
    part."""
    for leaf in leaves:
        slot = observer.ledger.tensors.get(leaf)
        part = observer.ledger.part_of(slot) if slot is not None else None
        yield leaf if part is None else part


def nested(observer: WatchDriver, losses: object) -> None:
    """A reentrant checkpoint runs a backward of its own inside one: what it reaches is reached."""
    if observer.active and observer.nested and losses is not observer.started:
        with observer.guarded():
            observer.nested[-1].extend(_behind(observer, list(tensors_in(losses))).leaves)


def grad(observer: WatchDriver, func: Any, args: tuple[object, ...], kwargs: Mapping[str, object]) -> object:
    """`autograd.grad`: its results are values like others, and it leaves no `.grad`. Without `create_graph`
    it is a backward too."""
    call = _GRAD.bind(*args, **kwargs)
    if not isinstance(call.arguments["inputs"], torch.Tensor | Mapping):
        call.arguments["inputs"] = tuple(call.arguments["inputs"])  # a generator can be looked at only once
    inputs = list(tensors_in(call.arguments["inputs"]))
    observer.again = True
    given = (*call.args, *call.kwargs.values())
    turn = turn_of(observer, (DERIVATIVE, *call.kwargs), given, call.arguments["outputs"])
    if turn is not None and observer.rounds.comparing:
        return _grad_again(observer, turn, func, call, inputs)
    reads = observer.before(call.args, call.kwargs)
    out, made = _grad_noted(observer, turn, func, call, inputs)
    note = observer.after("op", DERIVATIVE, reads, out)
    if note is not None:
        note.grad = creates_graph(args, kwargs)
    with observer.guarded():
        if turn is not None:
            observer.rounds.noted(turn, out)
        if made is not None:
            observer.rounds.ended(may_compare=_may_compare(observer))
    return out


def _grad_noted(
    observer: WatchDriver,
    turn: Turn | None,
    func: Any,
    call: inspect.BoundArguments,
    inputs: list[torch.Tensor],
) -> tuple[object, Backward | None]:
    """Its results, and its record as a backward."""
    made: Backward | None = None
    asked, walk = call.arguments, walk_of(DERIVATIVE, call.arguments)
    with observer.guarded():
        if not asked.get("create_graph"):
            made = _partial(observer, asked["outputs"], walk)
    observer.quiet += 1
    try:
        out = func(*call.args, **call.kwargs)
    except Exception:
        with observer.guarded():
            made = made or _partial(observer, asked["outputs"], walk)
            _note_request(observer, made, inputs, ())
        raise
    finally:
        observer.quiet -= 1
    results, missing = _results(out)
    with observer.guarded():
        if made is not None:
            made.failed = False
            _ended(observer, made, list(zip(inputs, results, strict=False)))
        if missing:
            made_or_asked = made or _walk(observer, asked["outputs"], walk, keep=False)[0]
            _note_request(observer, made_or_asked, inputs, missing)
        if turn is not None:
            turn.missing = missing
            observer.rounds.walked(turn, -1 if made is None or walk.retained else made.note)
    return out, made


def _results(out: Any) -> tuple[list[torch.Tensor | None], tuple[int, ...]]:
    """What `autograd.grad` gave, and at which positions it gave None."""
    results = list(out.values()) if isinstance(out, Mapping) else list(out)
    return results, tuple(position for position, result in enumerate(results) if result is None)


def _grad_again(
    observer: WatchDriver, turn: Turn, func: Any, call: inspect.BoundArguments, inputs: list[torch.Tensor]
) -> object:
    """The same of one that repeats others: nothing of it is noted but what it tells of a leaf that had no
    gradient, and what it gives for the first time."""
    asked = call.arguments
    walk = walk_of(DERIVATIVE, asked)
    observer.quiet += 1
    try:
        out = func(*call.args, **call.kwargs)
    except Exception:
        with observer.guarded():
            observer.rounds.wake()
            _note_request(observer, _partial(observer, asked["outputs"], walk), inputs, ())
        raise
    finally:
        observer.quiet -= 1
    results, missing = _results(out)
    with observer.guarded():
        if not observer.rounds.repeated(turn, results):
            reads = observer.before(call.args, call.kwargs)
            observer.after("op", DERIVATIVE, reads, out)
            observer.rounds.noted(turn, out)
        if missing != turn.missing:
            made = _walk(observer, asked["outputs"], walk, keep=False)[0]
            _note_request(observer, made, inputs, missing)
        if not asked.get("create_graph"):
            observer.rounds.freed(turn)
            observer.on_repeat(_unseen(observer, inputs, results))
            observer.rounds.ended(may_compare=_may_compare(observer))
    return out


def _unseen(
    observer: WatchDriver, inputs: list[torch.Tensor], results: Iterable[torch.Tensor | None]
) -> list[Gradient]:
    """The gradients of leaves that are known and had none before."""
    known = observer.ledger.tensors.by_id
    found: list[Gradient] = []
    for tensor, result in zip(inputs, results, strict=False):
        slot = known.get(id(tensor))
        if slot is not None and slot.after != "some":
            found.append((tensor, result))
    return found


def _partial(observer: WatchDriver, outputs: object, walk: Walk) -> Backward:
    """The record of an `autograd.grad` that is about to run, or has raised."""
    made, _ = _walk(observer, outputs, walk)
    made.partial = made.failed = True
    return made


def _note_request(
    observer: WatchDriver, made: Backward, inputs: list[torch.Tensor], missing: tuple[int, ...]
) -> None:
    slots = tuple(observer.ledger.read(tensor)[1] for tensor in inputs)
    observer.requests.append(
        Request(made.note, made.spots, slots, missing, made.losses, made.live, torch.is_grad_enabled())
    )


def _walk(
    observer: WatchDriver, losses: object, walk: Walk, *, keep: bool = True
) -> tuple[Backward, list[torch.Tensor]]:
    """The record of a backward that is about to run, and the leaves it will reach; `keep`: it is one of those
    that count."""
    ledger = observer.ledger
    ledger.kinds.clear()
    reads = [ledger.read(tensor) for tensor in tensors_in(losses)]
    tensors = [tensor for tensor, _, _ in reads]
    note = ledger.note("op", walk.target)
    note.reads = [value for _, _, value in reads]
    behind = _behind(observer, tensors)
    observer.rounds.enter(behind.functions)
    keys = {*behind.keys, *(key for value in note.reads if (key := ledger.keys[value]) is not None)}
    live = frozenset(value for key in keys for value in ledger.edges.values.get(key, ()))
    _watch(observer, behind.functions)
    _note_stale(observer, behind.functions)
    ledger.losses.update(note.reads)
    if keep and not walk.retained:
        note_freed(_visited(observer, behind.functions, walk.inputs), note.number)
    made = Backward(
        note.number,
        note.spots,
        tuple(note.reads),
        live,
        tuple(_functions(tensors)),
        nan=any(_is_nan(tensor) for tensor in tensors),
        infinite=_infinite_type(tensors),
        leaves=frozenset(number for number, _ in keys if number < 0),
        narrowed=walk.inputs is not None,
    )
    if keep:
        ledger.keep(note)
        observer.backwards.append(made)
    return made, [*behind.leaves, *_own_leaves(tensors)]


def _watch(observer: WatchDriver, functions: Iterable[Node]) -> None:
    """The autograd nodes that are looked at as they run."""
    for function in functions:
        if observer.closely:
            _watch_node(observer, function)
        if is_custom(function):
            _watch_custom(observer, function)


def _note_stale(observer: WatchDriver, functions: list[Node]) -> None:
    """What was saved for the walk and written since, where autograd's own counters do not tell."""
    ledger = observer.ledger
    if ledger.hidden:
        observer.saved += hidden(ledger, functions)
    observer.saved += kept_and_written(ledger, [function for function in functions if is_custom(function)])


def _functions(tensors: Iterable[torch.Tensor]) -> list[Node]:
    return [function for tensor in tensors if (function := grad_fn_of(tensor)) is not None]


def _own_leaves(losses: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """The losses that are leaves themselves."""
    return [tensor for tensor in losses if tensor.is_leaf and tensor.requires_grad]


def _has_value(loss: torch.Tensor) -> bool:
    """Whether it is one number that can be read."""
    return loss.numel() == 1 and loss.layout is torch.strided and not loss.is_meta


def _is_nan(loss: torch.Tensor) -> bool:
    return _has_value(loss) and bool(loss.detach().isnan().any())


def _infinite_type(losses: Iterable[torch.Tensor]) -> str:
    """The dtype, without `torch.`, of the first loss that is infinite; "" where none is."""
    for loss in losses:
        if _has_value(loss) and bool(loss.detach().isinf().any()):
            return str(loss.dtype).removeprefix("torch.")
    return ""


def _unnoted(observer: WatchDriver, losses: object) -> tuple[Backward, list[torch.Tensor]]:
    """The same where calls are not noted any more: only the leaves are of interest."""
    started = list(tensors_in(losses))
    leaves = [*_behind(observer, started).leaves, *_own_leaves(started)]
    return Backward(observer.ledger.count, observer.ledger.spots(), ()), leaves


def _behind(observer: WatchDriver, tensors: list[torch.Tensor]) -> Behind:
    return observer.ledger.edges.reachable(_functions(tensors))


def _visited(observer: WatchDriver, functions: list[Node], inputs: object) -> Iterable[Node]:
    """The autograd nodes that a walk to `inputs` runs: those from which one of them is reached; all, where
    none were named."""
    targets = {
        key
        for tensor in tensors_in(inputs)
        if (key := observer.ledger.keys[observer.ledger.read(tensor)[2]]) is not None
    }
    if not targets:
        return functions
    runs: set[int] = set()
    before: dict[int, list[int]] = {}
    pending: list[int] = []
    for function in functions:
        number = number_of(function)
        for inner, output in one_back(function):
            key = observer.ledger.edges.key_of(inner, output)
            before.setdefault(key[0], []).append(number)
            if key in targets:
                pending.append(number)
    while pending:
        number = pending.pop()
        if number not in runs:
            runs.add(number)
            pending += before.get(number, ())
    return [function for function in functions if number_of(function) in runs]


def _ended(observer: WatchDriver, made: Backward, gradients: list[Gradient]) -> None:
    if not made.failed:
        made.started = ()
    if not made.partial and not observer.gradients_only:
        _note_added(observer, gradients)
    observer.on_backward(made, gradients)


def _note_added(observer: WatchDriver, gradients: Iterable[Gradient]) -> None:
    """A backward adds to the `.grad` that an earlier one left, in place: of a program that computed with it
    that is a write."""
    ledger = observer.ledger
    note = ledger.note("op", ADDED_TO_GRAD)
    for _, gradient in gradients:
        slot = ledger.tensors.get(gradient) if gradient is not None else None
        if gradient is not None and slot is not None and version_of(gradient) != slot.version:
            note.reads.append(slot.value)
            ledger.written(note, gradient, slot)
    if note.makes:
        ledger.connect(note)


def _watch_node(observer: WatchDriver, function: Node) -> None:
    """Note what gradient an autograd node is given, output by output."""
    number, watching = number_of(function), weakref.ref(observer)

    def before(gradients: tuple[torch.Tensor | None, ...]) -> None:
        observer = watching()
        if observer is not None and observer.active:
            with observer.guarded():
                for index, gradient in enumerate(gradients):
                    key = (number, index)
                    observer.delivered[key] = better(observer.delivered.get(key, ""), state_of(gradient))

    function.register_prehook(before)


@contextlib.contextmanager
def looked_at_around(observer: WatchDriver, tensor: torch.Tensor) -> Iterator[None]:
    """Around a hook that is put on a tensor which has a history: where it makes zeros of a gradient, there is
    a note of it. Hooks of one tensor run in the order in which they were put there."""
    if tensor.grad_fn is None:
        yield
        return
    note: Note | None = None
    with observer.guarded():
        note = observer.ledger.note("op", HOOK_LOOKED)
        note.reads = [observer.ledger.read(tensor)[2]]
        observer.ledger.connect(note)
    came: list[str] = []
    watching = weakref.ref(observer)

    def before(gradient: torch.Tensor) -> None:
        observer = watching()
        if observer is not None and observer.active:
            with observer.guarded():
                came.append(state_of(gradient))

    def after(gradient: torch.Tensor) -> None:
        observer = watching()
        if note is not None and came and observer is not None and observer.active:
            with observer.guarded():
                if came.pop() == "some" and state_of(gradient) != "some":
                    note.target = HOOKED

    tensor.register_hook(before)  # type: ignore[no-untyped-call]
    yield
    tensor.register_hook(after)  # type: ignore[no-untyped-call]


def _watch_custom(observer: WatchDriver, function: Node) -> None:
    """Note for which of its inputs a custom Function's backward gives nothing."""
    note, given = observer.ledger.edges.maker(function), observer.ledger.edges.inputs_of(function)
    watching = weakref.ref(observer)

    def after(inputs: tuple[object, ...], outputs: object) -> None:
        observer = watching()
        for gradient, values in zip(inputs, given, strict=False):
            if gradient is None and observer is not None and observer.active:
                observer.dropped.update((note, value) for value in values)

    function.register_hook(after)
