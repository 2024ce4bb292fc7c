"""One step of the program as it is: forward, loss and backward without a recorder, on private copies of the
data. Eager has the last word.

`plain_step` gives the error that the step raised, None where it ran, after the caller has read what the step
left. A recorder's run that raised may have done so by the recorder's own doing; what this step does is a
fact. The program has as many frames to recurse in as in a call of the user's own (Python 3.12 and later: of
Python's; C has a limit of its own). Not handled: tensors without data, and subclasses that take no other data
(`fxgrad.world.private`); the caller looks first.
"""

from __future__ import annotations

import contextvars
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from types import FrameType

import torch

from fxgrad.program.loss import default_loss, no_tensor
from fxgrad.program.program import Program
from fxgrad.records import Inputs, Phase, Raised
from fxgrad.records.facts import Delivered
from fxgrad.source.objects import origin
from fxgrad.source.sites import traceback_sites
from fxgrad.torch_api import registry, tree
from fxgrad.torch_api.errors import out_of_memory
from fxgrad.trace.gradients import better, looked_at_first, state_of
from fxgrad.trace.run import _LOCK, _eager_compile, _leave_contexts, _saved_tensors_hooks
from fxgrad.world.private import foreign_histories, private_data, takes_a_history_for_good
from fxgrad.world.standins import StandIns
from fxgrad.world.switches import kept_modes


@dataclass(slots=True, eq=False)
class Left:
    """What the step has come to: its phase, and its results as far as there are any."""

    phase: Phase = "forward"
    # as `input_tensors` has them; copies of the user's where those are views
    inputs: Sequence[torch.Tensor] = ()
    output: object = None
    loss: object = None


@dataclass(slots=True, eq=False)
class Truth:
    """What one plain step did: its error, or by parameter name "none", "zero" or "some"."""

    error: Raised | None = None
    gradients: dict[str, str] = field(default_factory=dict)


class NotPrivateError(Exception):
    """Among what the program reaches beside its inputs is a tensor whose history no one could give back if
    the program wrote it in place."""


def truth(target: Program) -> Truth | None:
    """What a plain step of the program does; None where none can be made."""
    found = Truth()

    arrived: dict[int, Delivered] = {}

    def note(left: Left) -> None:
        if isinstance(left.loss, torch.Tensor):
            found.gradients.update(
                {name: better(state_of(p.grad), arrived.get(id(p), "")) for name, p in parameters}
            )

    def note_arrived(parameter: torch.Tensor) -> None:
        arrived[id(parameter)] = better(state_of(parameter.grad), arrived.get(id(parameter), ""))

    def look_first(inputs: Sequence[torch.Tensor]) -> None:
        for parameter in {id(p): p for _, p in parameters}.values():
            looked_at_first(parameter, note_arrived)

    # those of before the step: it may put others in their place
    parameters = list(registry.named_parameters(target.root, remove_duplicate=False))
    try:
        found.error = plain_step(target, note, prepare=look_first)
    except NotPrivateError:
        return None
    return found


def plain_step(
    target: Program,
    note: Callable[[Left], None],
    *,
    prepare: Callable[[Sequence[torch.Tensor]], None] | None = None,
    around: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Raised | None:
    """Run one step, then `note` what it left, with the private copies still in place.

    `prepare` is called before the step with the inputs, on private copies of their data; `around` is entered
    around forward and backward. The user's tensors, objects and global state are as before when it returns or
    raises.

    Raises:
        NotPrivateError: see there.
        TraceError: the device's memory does not hold the copies.
    """
    left = Left()
    with _LOCK, target.preserved() as reach, reach.ctrl_c.waits():
        tensors, originals = reach.tensors.values(), input_tensors(target)
        given = frozenset(map(id, originals))
        if any(takes_a_history_for_good(t) for t in tensors if id(t) not in given):
            raise NotPrivateError
        foreign = foreign_histories(tensors)
        # the user will want that graph for a backward
        retain = any(t.grad_fn is not None for t in tensors if id(t) not in foreign)
        hooks = _saved_tensors_hooks()
        left.inputs = (
            _copies(originals, foreign) if any(map(takes_a_history_for_good, originals)) else originals
        )
        with (
            private_data([t for t in tensors if not takes_a_history_for_good(t)], None),
            _eager_compile(),
            kept_modes(),
        ):
            if prepare is not None:
                prepare(left.inputs)
            args, kwargs = with_inputs(target, left.inputs)
            sys.setrecursionlimit(sys.getrecursionlimit() + _own_frames())  # `preserve` puts it back
            try:
                with reach.ctrl_c.comes(), around():
                    contextvars.copy_context().run(_step, target, left, args, kwargs, retain)
            # beside the originals, which the program's own step is not
            except torch.OutOfMemoryError as error:
                _leave_contexts(error, hooks)
                raise out_of_memory(_as_raised(error, left.phase).site) from error
            except Exception as error:  # whatever the program raises is what it does
                _leave_contexts(error, hooks)
                return _as_raised(error, left.phase)
            note(left)
    return None


_BETWEEN = 2  # frames from there to the program's call, less those of a call that the user would make


def _own_frames() -> int:
    """The frames between the user's call and here: the program's own step would not have them above it."""
    frame: FrameType | None = sys._getframe(1)
    count = 0
    while frame is not None and origin(frame.f_code.co_filename) == "none":
        count += 1
        frame = frame.f_back
    return count + _BETWEEN


def _copies(originals: Sequence[torch.Tensor], foreign: frozenset[int]) -> list[torch.Tensor]:
    """Stand-ins of the inputs, without their gradients."""
    copier = StandIns(None)
    copier.foreign = foreign
    made = [copier.make(t) for t in originals]
    for copy in made:
        if copy.is_leaf:
            copy.grad = None
    return made


def _step(
    target: Program, left: Left, args: tuple[object, ...], kwargs: dict[str, object], retain: bool
) -> None:
    left.output = target.call(*args, **kwargs)
    left.phase = "loss"
    # Not by `loss_of`: a frame more, and a loss that recurses would have one less than in a call of the
    # user's own.
    given = target.loss
    left.loss = given(left.output) if given is not None else default_loss(left.output, target.model)[0]
    left.phase = "backward"
    if not isinstance(left.loss, torch.Tensor):
        raise no_tensor(left.loss)
    left.loss.backward(retain_graph=retain)  # type: ignore[no-untyped-call]  # torch leaves it unannotated


def _as_raised(error: Exception, phase: Phase) -> Raised:
    stack = traceback_sites(error.__traceback__)
    return Raised(phase, type(error).__name__, str(error), stack[0] if stack else None, stack)


def input_tensors(target: Program) -> list[torch.Tensor]:
    leaves, _ = target.flat_inputs()
    return list({id(t): t for t in leaves}.values())


def with_inputs(
    target: Program, copies: Sequence[torch.Tensor]
) -> tuple[tuple[object, ...], dict[str, object]]:
    both: Inputs | tuple[object, ...] = (target.inputs.args, dict(target.inputs.kwargs))
    leaves, structure = tree.flatten(both)
    order = {key: i for i, key in enumerate(dict.fromkeys(id(t) for t in leaves))}
    args, kwargs = tree.unflatten(structure, [copies[order[id(t)]] for t in leaves])
    return args, kwargs
