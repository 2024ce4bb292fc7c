"""A script that died of a gradient error: of each kind of error, where in what was seen its cause is looked
for.

`CAUSES` pairs kinds with look-ups, and a look-up gives findings at the line of the cause, or none where it
finds nothing: then the error's own line and the words of the table of errors must do. What no look-up is for,
the rules on facts explain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fxgrad.records import Finding
from fxgrad.torch_api import errors
from fxgrad.torch_api.errors import Kind, says
from fxgrad.watching.death import absent, checkpoints, derivatives, leaves, optimizers
from fxgrad.watching.death.record import Death

CAUSES: tuple[tuple[Kind, Callable[[Death], Iterator[Finding]]], ...] = (
    (errors.NOT_USED, absent.not_used),
    (errors.NO_GRAD_FN, derivatives.nothing_recorded),
    (errors.DETACHED_SAVED, derivatives.detached),
    (errors.NAN_GRADIENT, derivatives.nan),
    (errors.NEGATIVE_SLOPE, derivatives.negative_slope),
    (errors.CHECKPOINT_CHANGED, checkpoints.changed),
    (errors.READY_TWICE, checkpoints.ready_twice),
    (errors.SPARSE_GRADIENT, optimizers.sparse),
    (errors.DENSE_GRADIENT, optimizers.dense),
    (errors.NO_INF_CHECKS, optimizers.no_inf_checks),
    (errors.UNSCALED_LOSS, optimizers.unscaled_loss),
    (errors.NON_LEAF_OPTIMIZED, leaves.optimized),
    (errors.NO_PARAMETERS, leaves.none_given),
    (errors.NO_FLOATS, leaves.integers),
    (errors.NUMPY_OF_HISTORY, leaves.to_numpy),
    (errors.DEEPCOPY, leaves.copied),
    (errors.NON_LEAF_FLAG, leaves.flagged),
)

# Raised when every backward of the step has run: what gradients there are is known, and nothing is blocked.
AFTERWARDS = (
    *(
        errors.SPARSE_GRADIENT,
        errors.DENSE_GRADIENT,
        errors.NO_INF_CHECKS,
        errors.UNSCALED_LOSS,
        errors.UNSCALED_LATE,
    ),
    *(
        errors.UNSCALED_TWICE,
        errors.STEPPED_TWICE,
        errors.HALF_GRADIENTS,
        errors.NOT_FINITE,
        errors.NO_CLOSURE,
        errors.FOREACH,
    ),
)


def causes_of(death: Death) -> Iterator[Finding]:
    """What the look-ups find for this error."""
    for kind, look_up in CAUSES:
        if says(death.message, kind):
            yield from look_up(death)
            return
    if absent.is_of_none(death.error):
        yield from absent.used(death)


__all__ = ["AFTERWARDS", "CAUSES", "Death", "causes_of"]
