"""The passes: analyses over facts, rules that turn them into findings, rewrites of graphs.

`RULES` is the registry, one module a rule; `LOOK_UPS` pairs them with what they say of errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fxgrad.passes.analyses.death import (
    absent,
    checkpoints,
    derivatives,
    hooks,
    leaves,
    no_gradient,
    optimizers,
)
from fxgrad.passes.analyses.death.record import Death
from fxgrad.passes.context import Rule
from fxgrad.passes.ended import Cause
from fxgrad.passes.rules import (
    fxg001_unused_suppression,
    fxg002_program_raises,
    fxg101_unused_parameter,
    fxg102_frozen_parameter,
    fxg103_detached_path,
    fxg104_no_grad_path,
    fxg105_non_differentiable_op,
    fxg106_integer_cast,
    fxg107_left_torch,
    fxg108_rewrapped_tensor,
    fxg109_unregistered_tensor,
    fxg110_unregistered_module,
    fxg111_reassigned_parameter,
    fxg112_function_drops_gradient,
    fxg113_op_without_autograd,
    fxg114_reentrant_checkpoint,
    fxg115_branch_skips_parameter,
    fxg116_loss_without_grad,
    fxg201_overwritten_saved_tensor,
    fxg202_inplace_on_leaf,
    fxg203_hidden_write,
    fxg204_mutated_input,
    fxg205_step_before_backward,
    fxg301_optimizer_misses_parameter,
    fxg302_optimizer_stale_parameter,
    fxg303_optimizer_idle_parameter,
    fxg401_zero_gradient_op,
    fxg501_ddp_unused_parameter,
)
from fxgrad.torch_api import errors
from fxgrad.torch_api.errors import Kind

RULES: tuple[Rule, ...] = (
    fxg001_unused_suppression,
    fxg002_program_raises,
    fxg101_unused_parameter,
    fxg102_frozen_parameter,
    fxg103_detached_path,
    fxg104_no_grad_path,
    fxg105_non_differentiable_op,
    fxg106_integer_cast,
    fxg107_left_torch,
    fxg108_rewrapped_tensor,
    fxg109_unregistered_tensor,
    fxg110_unregistered_module,
    fxg111_reassigned_parameter,
    fxg112_function_drops_gradient,
    fxg113_op_without_autograd,
    fxg114_reentrant_checkpoint,
    fxg115_branch_skips_parameter,
    fxg116_loss_without_grad,
    fxg201_overwritten_saved_tensor,
    fxg202_inplace_on_leaf,
    fxg203_hidden_write,
    fxg204_mutated_input,
    fxg205_step_before_backward,
    fxg301_optimizer_misses_parameter,
    fxg302_optimizer_stale_parameter,
    fxg303_optimizer_idle_parameter,
    fxg401_zero_gradient_op,
    fxg501_ddp_unused_parameter,
)

# What is looked for where an error of this kind ended a watched script, and whose finding it is.
LOOK_UPS: tuple[tuple[Rule, Kind, Callable[[Death], Iterator[Cause]]], ...] = (
    (fxg002_program_raises, errors.NAN_GRADIENT, derivatives.nan),
    (fxg002_program_raises, errors.CHECKPOINT_CHANGED, checkpoints.changed),
    (fxg002_program_raises, errors.HOOK_VALUE, hooks.changed),
    (fxg002_program_raises, errors.READY_TWICE, checkpoints.ready_twice),
    (fxg002_program_raises, errors.SPARSE_GRADIENT, optimizers.sparse),
    (fxg002_program_raises, errors.DENSE_GRADIENT, optimizers.dense),
    (fxg002_program_raises, errors.UNSCALED_LOSS, optimizers.unscaled_loss),
    (fxg002_program_raises, errors.DEEPCOPY, leaves.copied),
    (fxg101_unused_parameter, errors.NONE, no_gradient.unreached),
    (fxg102_frozen_parameter, errors.NO_INF_CHECKS, optimizers.frozen),
    (fxg102_frozen_parameter, errors.NON_LEAF_FLAG, leaves.flagged),
    (fxg102_frozen_parameter, errors.NONE, no_gradient.frozen),
    (fxg102_frozen_parameter, errors.NONE, absent.of_hook),
    (fxg104_no_grad_path, errors.NO_GRAD_FN, derivatives.nothing_recorded),
    (fxg106_integer_cast, errors.NO_FLOATS, leaves.integers),
    (fxg107_left_torch, errors.NUMPY_OF_HISTORY, leaves.to_numpy),
    (fxg111_reassigned_parameter, errors.NONE, no_gradient.no_leaf),
    (fxg111_reassigned_parameter, errors.NONE, no_gradient.computed),
    (fxg201_overwritten_saved_tensor, errors.DETACHED_SAVED, derivatives.detached),
    (fxg201_overwritten_saved_tensor, errors.NEGATIVE_SLOPE, derivatives.negative_slope),
    (fxg205_step_before_backward, errors.NO_INF_CHECKS, optimizers.no_backward),
    (fxg205_step_before_backward, errors.NONE, no_gradient.at_the_wrong_time),
    (fxg301_optimizer_misses_parameter, errors.NO_PARAMETERS, leaves.none_given),
    (fxg302_optimizer_stale_parameter, errors.NON_LEAF_OPTIMIZED, leaves.optimized),
    (fxg302_optimizer_stale_parameter, errors.NO_INF_CHECKS, optimizers.others_held),
    (fxg303_optimizer_idle_parameter, errors.NO_INF_CHECKS, optimizers.cleared),
)
