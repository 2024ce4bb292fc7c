"""Errors about the user's own `autograd.Function`s, hooks and checkpoints."""

from __future__ import annotations

from fxgrad.torch_api import errors
from fxgrad.torch_api.explanations.entry import Entry

FUNCTIONS = (
    Entry(
        name="gradient-count",
        kind=errors.WRONG_COUNT,
        means="the backward of an `autograd.Function` returned another number of gradients than its forward "
        "has arguments",
        causes=(
            "an argument was added to forward and not to what backward returns: `ctx` does not count, "
            "everything else does",
        ),
        remedy="return one value for each argument of forward, None for those that are no tensors",
        code="FXG112",
    ),
    Entry(
        name="gradient-form",
        kind=errors.WRONG_GRADIENT,
        means="the backward of an `autograd.Function` returned a gradient that does not fit the argument's "
        "shape or type",
        causes=("an argument was broadcast in forward, and its gradient was not summed back",),
        remedy="return a gradient of the argument's own shape: `grad.sum_to_size(x.shape)`",
        code="FXG112",
    ),
    Entry(
        name="too-few-gradients",
        kind=errors.TOO_FEW,
        means="the backward of a node gave fewer gradients than it has inputs",
        causes=("a backward without a `return`, or one that returns too few values",),
        remedy="return one value for each argument of forward",
        code="FXG112",
    ),
    Entry(
        name="legacy-function",
        kind=errors.LEGACY_FUNCTION,
        means="an `autograd.Function` is written as before torch 1.3: with instance methods, and called as "
        "an object",
        causes=("forward and backward without `@staticmethod`, `Function()(x)`",),
        remedy="make both static methods with `ctx` first, and call `Function.apply(x)`",
        code="FXG112",
    ),
    Entry(
        name="no-backward",
        kind=errors.NO_BACKWARD,
        means="backward came to an `autograd.Function` that defines none",
        causes=("only forward is written, or its name is misspelt",),
        remedy="write `backward(ctx, grad)`; where no gradient is meant, mark the output with "
        "`ctx.mark_non_differentiable`",
        code="FXG112",
    ),
    Entry(
        name="dirty",
        kind=errors.DIRTY,
        means="an `autograd.Function` says that it wrote an input in place (`mark_dirty`) and does not "
        "return that input",
        causes=("a copy or a new tensor is returned in its place",),
        remedy="return the very tensor that was written, or do not mark it",
    ),
    Entry(
        name="setup-context",
        kind=errors.SETUP_CONTEXT,
        means="an `autograd.Function` whose forward takes `ctx` is used under `torch.func` (vmap, grad, "
        "jacrev, ...)",
        causes=("the Function is written in the older form, for plain backward only",),
        remedy="split it: `forward(x)` without ctx, and `setup_context(ctx, inputs, output)`",
    ),
    Entry(
        name="function-under-vmap",
        kind=errors.VMAP_FUNCTION,
        means="an `autograd.Function` is used under vmap and says nothing of how it is mapped",
        causes=("it has neither a `vmap` method nor `generate_vmap_rule = True`",),
        remedy="set `generate_vmap_rule = True` in the class, if its forward and backward are made of torch "
        "operations",
    ),
    Entry(
        name="no-jvp",
        kind=errors.NO_JVP,
        means="an `autograd.Function` is used in forward-mode differentiation and defines no `jvp`",
        causes=("`jacfwd`, `torch.func.jvp`, `hessian` or dual tensors reach it",),
        remedy="write `jvp(ctx, *tangents)`, or differentiate in reverse: `jacrev`",
    ),
    Entry(
        name="tensor-hook",
        kind=errors.TENSOR_HOOK,
        means="a hook is registered on a tensor that will get no gradient",
        causes=(
            "the tensor comes from frozen layers, a detached one, or from under `no_grad`",
            "the input lacks `requires_grad_()`",
        ),
        remedy="call `requires_grad_()` on the input before the forward, or register the hook where "
        "gradients flow",
    ),
    Entry(
        name="leaf-hook",
        kind=errors.LEAF_HOOK,
        means="`register_post_accumulate_grad_hook` is for leaves: only there a gradient is gathered",
        causes=("the tensor is the result of an operation, `.to(device)` and `w * 1` included",),
        remedy="register it on the parameter itself, or use `register_hook`",
    ),
    Entry(
        name="retain-grad",
        kind=errors.RETAIN_GRAD,
        means="`retain_grad()` is called on a tensor that will get no gradient",
        causes=("the tensor comes from frozen layers, a detached one, or from under `no_grad`",),
        remedy="call `requires_grad_()` on the input before the forward, or mend what cuts the tensor off",
    ),
    Entry(
        name="two-kinds-of-hooks",
        kind=errors.TWO_KINDS_OF_HOOKS,
        means="one module has both `register_backward_hook` and `register_full_backward_hook`",
        causes=("a library uses the old call where the program uses the new one",),
        remedy="use `register_full_backward_hook` for all",
    ),
    Entry(
        name="hook-result",
        kind=errors.HOOK_RESULT,
        means="a module's backward hook returned gradients that do not fit the module's inputs",
        causes=(
            "a single tensor or a tuple of another length is returned",
            "the inputs of the module require no gradient",
        ),
        remedy="return None to leave the gradients as they are, or a tuple with one entry for each input",
    ),
    Entry(
        name="hook-value",
        kind=errors.HOOK_VALUE,
        means="a hook gave backward something else than the gradient it stands for: another size, another "
        "type, no tensor",
        causes=(
            "a reduction (`g.mean(0)`, `g.norm()`), an index or `unsqueeze` in the hook: one that is only to "
            "look returns nothing",
            "`g.half()`, `g.to_sparse()` or `.cpu()` in the hook",
            "a lambda returns what its expression gives: `lambda g: kept.append(g) or g.sum()`, "
            "`lambda g: 0.5`",
        ),
        remedy="return None to leave the gradient as it is, or a tensor of its own shape, type and device",
    ),
    Entry(
        name="pack-hook",
        kind=errors.PACK_HOOK,
        means="a pack hook of `saved_tensors_hooks` writes the tensor that it is given",
        causes=("`x.half_()`, `x.mul_(...)` and their kind in the hook",),
        remedy="return a new tensor from the hook",
    ),
    Entry(
        name="checkpoint-changed",
        kind=errors.CHECKPOINT_CHANGED,
        means="the part inside `checkpoint` is computed again during backward, and it did not compute the "
        "same as the first time",
        causes=(
            "its forward changes state that it reads: a cache that grows (`past_key_values`), a counter, a "
            "flag, a list",
            "it draws from Python's or NumPy's generator (layer drop): only torch's are put back",
            "autocast, `model.eval()`, a global or a weight's type was another during backward",
        ),
        beliefs=(
            (
                "use_reentrant=True mends it",
                "the check is gone then, the difference is not: the gradients are those of another "
                "computation",
            ),
            (
                "determinism_check='none' mends it",
                "so it is there: it hides sizes that differ until something breaks",
            ),
        ),
        remedy="make the checkpointed part a function of its arguments alone: no cache in training, no state "
        "written in forward",
    ),
    Entry(
        name="checkpoint-grad",
        kind=errors.CHECKPOINT_GRAD,
        means="a reentrant checkpoint needs a whole `backward()`: under `autograd.grad` or "
        "`backward(inputs=...)` it cannot run",
        causes=(
            "a gradient penalty, or a tool that calls `autograd.grad`, through `checkpoint(..., "
            "use_reentrant=True)`",
        ),
        remedy="pass use_reentrant=False to checkpoint",
        code="FXG114",
    ),
    Entry(
        name="checkpoint-needless",
        kind=errors.CHECKPOINT_NEEDLESS,
        means="a reentrant checkpoint computed its part again, and nothing in it requires a gradient",
        causes=("the checkpointed part is frozen or detaches its result",),
        remedy="call the part without checkpoint, or pass use_reentrant=False",
        code="FXG114",
    ),
    Entry(
        name="checkpoint-unpacked",
        kind=errors.CHECKPOINT_UNPACKED,
        means="what a checkpoint had saved was asked for twice",
        causes=(
            "`ctx.saved_tensors` is read twice in a Function's backward",
            "a second backward through the same checkpoint",
        ),
        remedy="read `ctx.saved_tensors` once and keep the result in a variable",
    ),
)
