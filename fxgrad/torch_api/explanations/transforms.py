"""Errors of several processes, of `torch.func` and forward mode, and of compiled code."""

from __future__ import annotations

from fxgrad.torch_api import errors
from fxgrad.torch_api.explanations.entry import Entry

PROCESSES = (
    Entry(
        name="graph-changed",
        kind=errors.GRAPH_CHANGED,
        means="DistributedDataParallel was promised that every step uses the same parameters (static_graph), "
        "and this step does not",
        causes=("a branch on data, a layer drop, a schedule that adds a layer or a loss",),
        remedy="pass static_graph=False (and find_unused_parameters=True), or let every step use all "
        "parameters",
        code="FXG501",
    ),
    Entry(
        name="unreduced",
        kind=errors.UNREDUCED,
        means="DistributedDataParallel still waits for gradients of the last step: some parameters got none",
        causes=(
            "a layer that is not called, or whose output does not reach the loss",
            "a branch on data that leaves parameters out, and not the same ones on every process",
            "the loss is computed from something that is not returned by the wrapped forward",
        ),
        beliefs=(
            (
                "find_unused_parameters=True mends it",
                "it lets the step pass; those parameters still do not train",
            ),
        ),
        remedy="let every parameter take part, freeze or remove it; find_unused_parameters=True only where "
        "forward may leave some out",
        code="FXG501",
    ),
    Entry(
        name="ready-twice",
        kind=errors.READY_TWICE,
        means="DistributedDataParallel was told twice in one backward that the gradient of a parameter is "
        "there",
        causes=(
            "one block runs under two reentrant checkpoints (`use_reentrant=True`), or "
            "find_unused_parameters=True beside one",
            "a parameter is used outside of the wrapped forward as well, or the wrapped module is called "
            "twice before one backward",
        ),
        remedy="pass use_reentrant=False to checkpoint; call the wrapped module once per backward; "
        "static_graph=True if the graph never changes",
    ),
    Entry(
        name="ddp-not-needed",
        kind=errors.NOT_NEEDED,
        means="DistributedDataParallel is given a module without a trainable parameter: it has nothing to "
        "average",
        causes=("all of it is frozen: a teacher, a backbone; or frozen too early, before it was wrapped",),
        remedy="do not wrap a frozen module",
        code="FXG102",
    ),
    Entry(
        name="mixed-flat",
        kind=errors.MIXED_FLAT,
        means="FSDP flattens frozen and trainable parameters into one tensor, which can only be one of the "
        "two",
        causes=("LoRA or a partly frozen model under FSDP with use_orig_params=False",),
        remedy="pass use_orig_params=True, or wrap frozen and trainable modules apart",
    ),
    Entry(
        name="fsdp-twice",
        kind=errors.FSDP_TWICE,
        means="FSDP gathers parameters for one backward only: it has no second derivative",
        causes=("a gradient penalty or another double backward through an FSDP module",),
        remedy="use DistributedDataParallel or FSDP2 for this model",
    ),
)

TRANSFORMS = (
    Entry(
        name="forward-ad",
        kind=errors.FORWARD_AD,
        means="forward-mode differentiation came to an operation that has a backward formula and no forward "
        "one",
        causes=("`torch.func.jvp`, `jacfwd`, `hessian` (forward over reverse) or dual tensors",),
        remedy="differentiate in reverse: `jacrev`, `jacrev(jacrev(f))` for a Hessian",
        code="FXG105",
    ),
    Entry(
        name="no-level",
        kind=errors.NO_LEVEL,
        means="a dual tensor is made outside of a level of forward-mode differentiation",
        causes=("`fwAD.make_dual` without `with fwAD.dual_level():`",),
        remedy="put the computation inside `with torch.autograd.forward_ad.dual_level():`",
    ),
    Entry(
        name="write-under-vmap",
        kind=errors.VMAP_IN_PLACE,
        means="under vmap a tensor that is the same for all samples is written with values that differ from "
        "sample to sample",
        causes=(
            "a tensor made inside (`torch.zeros(2)`) or taken from outside is filled by index or by `+=`",
        ),
        remedy="make it from what is mapped (`x.new_zeros(2)` does; `torch.zeros_like(x)`), or build the "
        "result with torch.stack or torch.cat",
        code="FXG202",
    ),
    Entry(
        name="item-under-vmap",
        kind=errors.VMAP_ITEM,
        means="under vmap a tensor stands for many samples, so it has no single value",
        causes=("`.item()`, `float(t)`, `int(t)`, a tensor as an index of a Python list",),
        remedy="stay in torch: index with the tensor, `torch.where`, `torch.gather`",
        code="FXG107",
    ),
    Entry(
        name="branch-under-vmap",
        kind=errors.VMAP_BRANCH,
        means="under vmap an `if` or `while` asks for the truth of a tensor that stands for many samples",
        causes=("`if x > 0:` on a mapped value, in a library function too",),
        remedy="compute both and choose: `torch.where(x > 0, a, b)`",
        code="FXG115",
    ),
    Entry(
        name="random-under-vmap",
        kind=errors.VMAP_RANDOM,
        means="under vmap a random operation runs, and whether each sample draws its own is not said",
        causes=("dropout, `randn` inside the mapped function",),
        remedy="pass randomness='different' (or 'same') to vmap, or call `model.eval()`",
    ),
    Entry(
        name="grad-under-vmap",
        kind=errors.GRAD_IN_VMAP,
        means="`autograd.grad` is called inside vmap, which does not follow it",
        causes=("a per-sample gradient written with `autograd.grad`",),
        remedy="use `torch.func.vmap(torch.func.grad(f))`",
    ),
    Entry(
        name="backward-in-transform",
        kind=errors.BACKWARD_IN_TRANSFORM,
        means="`backward()` is called in a function that `torch.func` differentiates",
        causes=("an ordinary training step is passed to `torch.func.grad`, `vjp` or `jacrev`",),
        remedy="return the loss, and let `torch.func.grad` do the backward",
    ),
    Entry(
        name="transform-not-scalar",
        kind=errors.TRANSFORM_SCALAR,
        means="the function given to `torch.func.grad` returns more than one number",
        causes=("per-sample losses, or a model in place of a loss",),
        remedy="reduce it (`.mean()`), map it with vmap, or take `torch.func.jacrev`",
        code="FXG116",
    ),
    Entry(
        name="transform-no-tensor",
        kind=errors.TRANSFORM_TENSOR,
        means="the function given to `torch.func.grad` returns something that is no tensor",
        causes=("`.item()` inside, a tuple without has_aux=True, a missing `return`",),
        remedy="return the loss tensor; more results with has_aux=True",
        code="FXG116",
    ),
    Entry(
        name="flag-in-transform",
        kind=errors.TRANSFORM_FLAG,
        means="`requires_grad_()` is called in a function that `torch.func` or `autograd.functional` "
        "differentiates",
        causes=("a function written for `autograd.grad`, with its own leaves, is passed to a transform",),
        remedy="drop the call: the transform makes its arguments differentiable; inner gradients by a nested "
        "`torch.func.grad`",
    ),
    Entry(
        name="transform-integers",
        kind=errors.TRANSFORM_FLOATS,
        means="the function given to a transform of `torch.func` returns integers or booleans, which have no "
        "derivative",
        causes=("argmax, a comparison, a cast in the last line",),
        remedy="return floats; what is only looked at goes into the aux output",
        code="FXG105",
    ),
    Entry(
        name="transform-hooks",
        kind=errors.TRANSFORM_HOOKS,
        means="`saved_tensors_hooks` (also `save_on_cpu`, and a checkpoint) are in force around or inside a "
        "transform of `torch.func`",
        causes=("a checkpointed or offloading model under `torch.func.grad`, `vjp`, `jacrev`",),
        remedy="switch the hooks or the checkpoint off there, or use `autograd.grad`",
    ),
    Entry(
        name="independent",
        kind=errors.INDEPENDENT,
        means="with strict=True a Jacobian or Hessian is refused where the result does not depend on an "
        "input",
        causes=(
            "the input is not used, or the way is cut",
            "the second derivative of a linear function is zero",
        ),
        remedy="mend what cuts the way; where it is meant, pass strict=False",
    ),
    Entry(
        name="compiled-twice",
        kind=errors.COMPILED_TWICE,
        means="`torch.compile` has compiled forward and backward, and the backward cannot be differentiated "
        "again",
        causes=("a gradient penalty, a Hessian or an inner loop through a compiled model",),
        remedy="call the model that is not compiled there (`model._orig_mod`), or compile with "
        "backend='eager'",
    ),
    Entry(
        name="donated",
        kind=errors.DONATED,
        means="a compiled backward reuses the memory of what was saved, so it can run only once",
        causes=("`retain_graph=True` or `create_graph=True` on a loss of a compiled model",),
        remedy="drop retain_graph; where it is needed switch off what torch's message names (`donated_buffer "
        "= False`)",
    ),
    Entry(
        name="cuda-graphs",
        kind=errors.CUDA_GRAPHS,
        means="a result of a captured CUDA graph is used after the next replay has written over it",
        causes=(
            "a compiled model (mode='reduce-overhead') is called again before the backward, or its output is "
            "kept",
        ),
        remedy="clone the output, or call `torch.compiler.cudagraph_mark_step_begin()` before each step",
        code="FXG201",
    ),
)
