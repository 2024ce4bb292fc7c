"""The passes: analyses over facts, rules that turn them into findings, rewrites of graphs.

`RULES` is the registry, one module a rule. `ENDED`: what rules say of the error that ended a watched script, beside
what they found before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from fxgrad.passes.context import Context, Rule
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
from fxgrad.records import Facts, Finding

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

ENDED: tuple[Callable[[Facts, Context, Sequence[Finding]], Iterator[Finding]], ...] = (
    fxg002_program_raises.ended,
    fxg101_unused_parameter.ended,
    fxg102_frozen_parameter.ended,
    fxg104_no_grad_path.ended,
    fxg106_integer_cast.ended,
    fxg107_left_torch.ended,
    fxg111_reassigned_parameter.ended,
    fxg201_overwritten_saved_tensor.ended,
    fxg205_step_before_backward.ended,
    fxg301_optimizer_misses_parameter.ended,
    fxg302_optimizer_stale_parameter.ended,
    fxg303_optimizer_idle_parameter.ended,
)
