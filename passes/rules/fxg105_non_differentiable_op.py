"""Every path from a parameter to the loss goes through an operation without a derivative: argmax, a
comparison, an index.

What it finds
    A trainable parameter whose every way to the loss goes through a step for which autograd records nothing:
    `argmax`, the indices of `topk`, `sort` or `max`, a comparison, a boolean mask or the condition of
    `where`, `multinomial`, a distribution's `sample`, `bucketize`, `one_hot`. Also an operation that is
    recorded but has no derivative, so that `backward()` raises (`//` on floating tensors). As a note: a
    distribution's `sample()` whose draw a loss is computed from, where what it was drawn with gets a gradient
    from another part of that loss alone (`rsample()` has both).

Why it matters
    What comes out is a count, an index or a truth value: moving the parameter a little changes nothing. Torch
    says nothing about it; the parameters before the step keep `.grad = None`.

Example
    choice = self.router(x).argmax(-1)  # FXG105: the router never trains
    y = self.experts[choice]

Instead
    weight = torch.softmax(self.router(x), -1)
    y = weight @ self.experts

When the fix is safe
    Never applied: the differentiable version computes something else. Candidates are the values in place of
    the indices, softmax or sigmoid in place of the choice, a straight-through estimator `hard + soft -
    soft.detach()`, the log-probability of a sample (REINFORCE).

Not handled
    What happens inside `torch.vmap` and `torch.func` transforms, which are one step: the call is named, not
    the line inside; nor inside TorchScript: the call of the module is named, `PYTORCH_JIT=0` shows more.
    Operations that are recorded with a gradient of zeros (`round`, `sign`, `floor`): that is FXG401. Casts to
    integers: FXG106.
"""

from __future__ import annotations

from collections.abc import Iterator

from fxgrad.passes.analyses import cut_draws
from fxgrad.passes.analyses.raising import missing_formula
from fxgrad.passes.context import Context
from fxgrad.passes.findings import cut_groups, finding, label, said, some, starved, subject
from fxgrad.records import Facts, Finding, Fix, Step
from fxgrad.torch_api import registry
from fxgrad.torch_api.distributed import is_collective
from fxgrad.torch_api.module_internals import is_scripted

CODE = "FXG105"
NAME = "non-differentiable-op"
SEVERITY = "error"

DRAW = "draw"  # the kind of a note on a draw that loses a part of a gradient

_ATTENTION = (
    "run it with the kernel that has one: `with torch.nn.attention.sdpa_kernel(SDPBackend.MATH):`, "
    "or write the attention out"
)
_DIFFERENTIABLE = (
    "use differentiable values (softmax, the gathered scores, rsample(), a straight-through "
    "estimator) in place of indices, masks, samples"
)
_COLLECTIVE = (
    "exchange by the function of that name in `torch.distributed.nn.functional`, which has one; or put this "
    "process's own tensor in the place of its copy, as `gathered[rank] = own`"
)
_AS_PYTHON = "run it with PYTORCH_JIT=0 set: then it is Python, and its line is named"
_SECOND = (
    "write it out in operations that have one, or drop the derivative of the derivative (`create_graph=True`)"
)


def _scripts(context: Context, parameters: tuple[str, ...]) -> list[str]:
    """The paths of the TorchScript modules that hold the parameters; none where one is held by no such."""
    paths = [path for path, module in registry.named_modules(context.model) if is_scripted(module)]
    held = [[path for path in paths if name.startswith(f"{path}.")] for name in parameters]
    return list(dict.fromkeys(outer[0] for outer in held)) if all(held) else []


def check(facts: Facts, context: Context) -> Iterator[Finding]:
    """One finding per line that cuts."""
    for group in cut_groups(context, facts, CODE):
        node, parameters, _ = group
        scripted = _scripts(context, parameters)
        message = (
            f"{said(node)} has no derivative with respect to what {subject(parameters)} computed: "
            f"{starved(parameters)}"
            if node.kind == "op"
            else f"no gradient of {subject(parameters)} comes back through {said(node)}: "
            f"{starved(parameters)}"
        )
        advice = _COLLECTIVE if is_collective(node.target) else _DIFFERENTIABLE
        if scripted:
            message += f"; inside {some(scripted)} is TorchScript, whose lines cannot be followed"
            advice = _AS_PYTHON
        yield finding(context, facts, (CODE, NAME), group, message, advice)
    yield from _cut_draws(facts, context)
    found = missing_formula(facts)
    if found is not None and not found.custom:
        node = found.node
        attention = "attention" in node.target
        advice = (
            _ATTENTION
            if attention
            else _SECOND
            if found.second
            else "use a differentiable operation, or detach the operand if its gradient is not wanted"
        )
        yield Finding(
            CODE,
            NAME,
            "error",
            f"{said(node)} has no {'second ' if found.second else ''}derivative in torch: backward raises",
            node.site,
            (),
            (Step("loss"), Step(node.target.rpartition(".")[2], node.site, True)),
            Fix(advice),
        )


def _cut_draws(facts: Facts, context: Context) -> Iterator[Finding]:
    """Notes on draws that lose a part of a gradient."""
    training = context.training
    walks = [walk.live for walk in training.losses()] if training is not None else [facts.live]
    for draw in cut_draws.analyse(facts, walks):
        node = draw.node
        yield Finding(
            CODE,
            NAME,
            "note",
            f"no gradient comes back to {subject(draw.names)} through {said(node)}, from which the loss is "
            "computed; what there is comes by other ways",
            node.site,
            draw.names,
            (
                Step("loss"),
                Step(label(draw.used), draw.used.site),
                Step(label(draw.node), draw.node.site, True),
            ),
            Fix("draw with `rsample()` if the gradient should come back through the draw"),
            kind=DRAW,
        )
