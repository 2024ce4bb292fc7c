"""A custom `autograd.Function` hands on no gradient for an input that needs one: it returns None or zeros, or
is bypassed.

What it finds
    - A backward that returns None, or only zeros, for an input that a trainable parameter needs: proven by
      the gradients that backward was given and handed on. Named is the `return`, or the `def backward`
      without one.
    - A backward hook of a module that returns `(None,)`: None in its tuple stands for no gradient.
    - A wrong number of gradients, or one of a wrong shape, which torch refuses.
    - `SomeFunction.forward(...)` called instead of `apply`, tensors given to apply in a list or past its
      arguments, an output marked as non-differentiable, and the old style of Function that torch no longer
      runs.

Why it matters
    torch takes the Function's word for its gradient: None means "needs none", and everything behind it
    silently gets nothing.

Example
    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        return grad @ weight, None  # FXG112: the weight never trains

Instead
    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        return grad @ weight, grad.t() @ x

When the fix is safe
    Never applied by itself: the formula is the author's. torch.autograd.gradcheck on double inputs tells
    whether it is right. None for a number, an index or a frozen weight is right and never reported.

Not handled
    A wrong formula: a gradient that is neither None nor zero is taken as it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from fxgrad.passes.analyses import gradient_hooks, lost_gradients
from fxgrad.passes.analyses.causes import Causes
from fxgrad.passes.analyses.functions import (
    direct_forward,
    dropping_site,
    function_of,
    has_backward,
    marked_site,
    raising_backward,
    short_name,
)
from fxgrad.passes.context import Context
from fxgrad.passes.findings import cut_groups, finding, plural, severity
from fxgrad.records import Facts, Finding, Fix, NodeFact, ParameterFact, Raised, Site, Step
from fxgrad.torch_api.calls import custom_operator
from fxgrad.torch_api.errors import (
    LEGACY_FUNCTION,
    NO_BACKWARD,
    NO_GRAD_FN,
    OVERWRITTEN,
    SECOND_TIME,
    TOO_FEW,
    WRONG_COUNT,
    WRONG_GRADIENT,
    gradient_counts,
    gradient_shapes,
    says,
)
from fxgrad.torch_api.explanations import explanation_of
from fxgrad.torch_api.module_internals import HookFunction

CODE = "FXG112"
NAME = "function-drops-gradient"
SEVERITY = "error"


def check(facts: Facts, context: Context) -> Iterator[Finding]:
    """Functions whose backward loses the gradient, proven by the gradients that backward handed on."""
    yield from _dropped(context)
    refused = _refused(facts)
    if refused is not None:
        yield refused
    for group in cut_groups(context, facts, CODE):
        node, parameters, _ = group
        bypassed = direct_forward(node)
        cls = function_of(node)
        marked = marked_site(cls) if cls is not None else None
        if bypassed is not None:
            message = (
                "the Function's forward is called directly, so its backward is never recorded: "
                f"{plural(parameters)} get no gradient"
            )
            advice = "call the Function through its apply"
        elif marked is not None:
            message = (
                f"`{short_name(node)}` marks its output as non-differentiable: {plural(parameters)} "
                "get no gradient"
            )
            advice = (
                "leave mark_non_differentiable to integer outputs, or return the differentiable value as well"
            )
        else:
            message = f"`{short_name(node)}.apply` records no way back to {plural(parameters)}"
            advice = (
                "give apply every tensor as an argument of its own (not in a list or an attribute), and "
                "return floating tensors"
            )
        made = finding(context, facts, (CODE, NAME), group, message, advice)
        yield dataclasses.replace(made, site=bypassed or marked or made.site)


def _is_of_other_rules(loss: lost_gradients.Loss) -> bool:
    """Operators; and zeros of torch's own operations, a hook on a module among them."""
    cls = function_of(loss.node)
    return custom_operator(loss.node.target) is not None or (
        cls in (None, HookFunction) and loss.left != "none"
    )


def _dropped(context: Context) -> Iterator[Finding]:
    watched = context.watched
    if watched is None:
        return
    groups: dict[tuple[Site | None, str], tuple[_Loser, list[str]]] = {}
    for parameter in watched.parameters:
        if not parameter.requires_grad or _explained(context, parameter):
            continue
        loss = lost_gradients.analyse(watched, parameter)
        if loss is None or _is_of_other_rules(loss):
            continue
        loser = _loser(watched, context, parameter, loss)
        groups.setdefault((loser.site, loser.left), (loser, []))[1].extend(parameter.names)
    for (site, left), (loser, names) in groups.items():
        zeros = left == "zero"
        node = loser.node
        yield Finding(
            CODE,
            NAME,
            severity(context, tuple(names)),
            f"{loser.what} returns {'only zeros' if zeros else 'None'} where "
            f"{plural(tuple(names))} "
            f"need{'s' if len(names) == 1 else ''} a gradient",
            site,
            tuple(names),
            (Step("loss"), Step(short_name(node), node.site, True), Step(names[0])),
            Fix(loser.advice),
        )


@dataclasses.dataclass(frozen=True, slots=True)
class _Loser:
    """The step that loses a gradient, as it is told. `left`: what it hands on."""

    node: NodeFact
    left: str
    site: Site | None
    what: str
    advice: str


def _loser(watched: Facts, context: Context, parameter: ParameterFact, loss: lost_gradients.Loss) -> _Loser:
    """A Function's backward; torch's own for the hook of a module hands on what the hook returned."""
    node = loss.node
    if gradient_hooks.is_of_module(node):
        site = gradient_hooks.hook_site(watched, context, parameter, loss) or node.site
        owner = f" of `{node.module}`" if node.module else ""
        advice = (
            "return the gradients that it is given, changed or not, or nothing at all: None in a tuple "
            "stands for no gradient"
        )
        return _Loser(node, loss.left, site, f"the backward hook{owner}", advice)
    cls = function_of(node)
    site = (dropping_site(cls) if cls is not None else None) or node.site
    what = f"the backward of `{short_name(node)}`"
    return _Loser(node, parameter.gradient, site, what, "return the gradient of that input from backward")


def _explained(context: Context, parameter: ParameterFact) -> bool:
    """Whether it has its gradient, or a cut that says why not."""
    causes: Causes = context.causes
    if parameter.gradient == "zero":
        return context.verdicts.get(parameter.name) != "zero"
    way = causes.frontier.ways.get(parameter.name)
    return parameter.gradient != "none" or (way is not None and bool(way.cuts))


def _refused(facts: Facts) -> Finding | None:
    """What torch's own checks of a Function say."""
    error = facts.error
    if error is None:
        return None
    if says(error.message, LEGACY_FUNCTION):
        return Finding(
            CODE,
            NAME,
            "error",
            "the Function is written the old way (an instance is called, forward is no static method), which "
            "torch refuses",
            error.site,
            fix=Fix(
                "make forward and backward static methods that take `ctx` first, and call the class's apply"
            ),
        )
    if says(error.message, NO_BACKWARD):
        lacking = _without_backward(facts)
        if lacking is not None:
            return lacking
    if says(error.message, OVERWRITTEN, SECOND_TIME):
        return None  # what it saved was overwritten or freed by others: FXG201
    raising = raising_backward(error.site) if error.phase == "backward" else None
    if raising is not None:
        return _raising(error, raising)
    if says(error.message, WRONG_COUNT, WRONG_GRADIENT, TOO_FEW):
        return _wrong_gradients(facts, error.message)
    return None


def _without_backward(facts: Facts) -> Finding | None:
    for node in facts.nodes:
        cls = function_of(node)
        if cls is not None and not has_backward(cls):
            message = f"`{cls.__name__}` has no backward, so no gradient comes back through it: torch refuses"
            advice = "write its backward, or use torch's own operations in a plain function: those need none"
            return _error(message, node.site, cls.__name__, node.site, advice)
    return None


def _raising(error: Raised, function: str) -> Finding:
    """The user's own backward raised."""
    entry = explanation_of(error.message)
    words = entry.means if entry is not None else error.message.partition("\n")[0]
    message = f"`{function}.backward` raises {error.type}: {words}"
    advice = entry.remedy if entry is not None else "mend the backward"
    if says(error.message, NO_GRAD_FN):
        message = f"nothing is recorded in `{function}.backward`: it runs with gradients off"
        advice = (
            "compute what is differentiated inside `with torch.enable_grad():`, from `x = "
            "x.detach().requires_grad_()`"
        )
    return _error(message, error.site, function, error.site, advice)


def _wrong_gradients(facts: Facts, text: str) -> Finding | None:
    """A backward gave a number of gradients, or one of a shape, that torch does not take: `text` names it."""
    for node in facts.nodes:
        cls = function_of(node)
        if cls is None or f"{cls.__name__}Backward" not in text:
            continue
        counts, shapes = gradient_counts(text), gradient_shapes(text)
        message = f"`{cls.__name__}.backward`: {text.splitlines()[0]}"
        advice = "return exactly one value per argument of forward: the gradient, or None for what needs none"
        if counts is not None:
            message = (
                f"`{cls.__name__}.backward` returns {counts[1]} value{'s' if counts[1] != '1' else ''} "
                f"for {counts[0]} arguments of forward"
            )
        elif shapes is not None:
            message = (
                f"`{cls.__name__}.backward` returns a gradient of shape {shapes[1]} for argument "
                f"{shapes[0]}, whose shape is {shapes[2]}"
            )
            advice = (
                "return a gradient of the argument's own shape: sum over the dimensions it was "
                "broadcast along"
            )
        return _error(message, dropping_site(cls) or node.site, cls.__name__, node.site, advice)
    return None


def _error(message: str, site: Site | None, function: str, used: Site | None, advice: str) -> Finding:
    """`used`: where the Function stands on the way from the loss."""
    return Finding(
        CODE, NAME, "error", message, site, (), (Step("loss"), Step(function, used, True)), Fix(advice)
    )
