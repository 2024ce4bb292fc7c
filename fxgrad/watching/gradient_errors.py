"""Gradient errors that end a program: which exceptions they are, and what was seen up to them, as records.

An error is read off the exception and its traceback; where its cause is looked for is told by kind, see
`fxgrad.passes.analyses.death`. Errors that have nothing to do with gradients (shapes, files, names) are left
to Python's own traceback.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from fxgrad.passes.analyses.death import absent
from fxgrad.passes.analyses.death.record import look_up, raising_text, user_entries
from fxgrad.passes.ended import Ended, Known, Request
from fxgrad.records import Phase, Raised, Site
from fxgrad.source.sites import innermost, own_line, traceback_sites
from fxgrad.torch_api import errors
from fxgrad.torch_api.errors import NOT_A_LOSS, says
from fxgrad.torch_api.explanations import OF_GRADIENTS
from fxgrad.trace.notes import Backward
from fxgrad.trace.observer import Observer
from fxgrad.trace.slots import Slot
from fxgrad.watching.seen import Seen

# Raised when every backward of the step has run: what gradients there are is known, and nothing is blocked.
AFTERWARDS = (
    errors.SPARSE_GRADIENT,
    errors.DENSE_GRADIENT,
    errors.NO_INF_CHECKS,
    errors.UNSCALED_LOSS,
    errors.UNSCALED_LATE,
    errors.UNSCALED_TWICE,
    errors.STEPPED_TWICE,
    errors.HALF_GRADIENTS,
    errors.NOT_FINITE,
    errors.NO_CLOSURE,
    errors.FOREACH,
)


def is_gradient_error(error: BaseException, observer: Observer, modules: Iterator[nn.Module]) -> bool:
    """Whether the report can explain this error. `modules`: those that took part, whose hooks are
    looked at."""
    if says(str(error), NOT_A_LOSS):
        return True
    if absent.is_of_none(error):
        codes = (code for module in modules for code in absent.hook_codes(module))
        return absent.is_explained(error, _requests(observer), codes)
    if not isinstance(error, RuntimeError | ValueError | TypeError | NotImplementedError | AssertionError):
        return False
    return says(str(error), *OF_GRADIENTS)


def number_as_loss(error: BaseException, observer: Observer) -> None:
    """`loss.backward()` of a Python number that was read off a tensor: that number is the loss, for all that
    lies behind it."""
    entry = next(iter(user_entries(error)), None)
    if entry is None or not says(str(error), NOT_A_LOSS):
        return
    text, namespace = raising_text(error)
    value = observer.value_of_number(look_up(text.partition(".backward")[0], namespace))
    if value is None and "'float'" in str(error):
        value = observer.last_number()  # an expression that cannot be looked up: `loss_of(out).backward()`
    if value is not None:
        spots = ((entry.tb_frame.f_code, entry.tb_lasti),)
        observer.backwards.append(Backward(observer.ledger.count, spots, (value,), failed=True))


def raised(error: BaseException, observer: Observer) -> Raised | None:
    """The error as a record; None where the program had gone on past every backward of the step: then nothing
    is blocked."""
    if says(str(error), *AFTERWARDS) or absent.missing_gradient(error) is not None:
        return None
    if absent.is_of_none(error) and any(not backward.partial for backward in observer.backwards):
        return None
    return _record(error, observer)


def _record(error: BaseException, observer: Observer) -> Raised:
    stack = traceback_sites(error.__traceback__)
    failed = bool(observer.backwards and observer.backwards[-1].failed) or says(str(error), NOT_A_LOSS)
    phase: Phase = "backward" if failed else "forward"
    return Raised(phase, type(error).__name__, str(error), own_line(stack), stack, None)


def ended_by(error: BaseException, seen: Seen) -> Ended:
    """The error, with what its look-ups ask for."""
    observer = seen.observer
    known = [_known(slot) for slot in observer.ledger.tensors.living()]
    return Ended(
        error,
        raised=_record(error, observer),
        requests=tuple(_requests(observer)),
        cleared=innermost(observer.cleared),
        optimizers=tuple(optimizer for optimizer, _ in seen.optimizers),
        tensors={id(one.tensor): one for one in known if one.tensor is not None},
        name_of=seen.names.of_tensor,
        hooks=tuple(_hooks(observer)),
    )


def _hooks(observer: Observer) -> Iterator[tuple[str, Site]]:
    for spots, name in observer.hooks.items():
        site = innermost(spots)
        if site is not None:
            yield name, site


def _requests(observer: Observer) -> Iterator[Request]:
    """The calls that asked for gradients in vain, as records."""
    for r in observer.requests:
        tensors = tuple(map(_known, r.slots))
        yield Request(r.note, innermost(r.spots), tensors, r.missing, r.outputs, r.live, r.grad)


def _known(slot: Slot) -> Known:
    """What is known of a tensor, as a record."""
    return Known(slot(), slot.value, slot.leaf, slot.after)
