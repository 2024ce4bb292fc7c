"""A custom operator (`torch.library`, C++) has no autograd formula.

What it finds
    An operator outside torch's own namespaces, on a way from trainable parameters to the loss, for which the
    dispatcher has no autograd kernel. Where backward raises, or the operator hands on nothing, it is an
    error. Where its kernel happens to be made of torch operations, torch differentiates those, warns in
    backward that this is deprecated, and the finding is a warning. In a watched script also what
    `torch.compile` cannot differentiate a second time and its Python code can.

Why it matters
    The forward is right and fast; the error, or the missing gradient, comes only in backward, without the
    line of the call.

Example
    @torch.library.custom_op("mylib::square", mutates_args=())
    def square(x: torch.Tensor) -> torch.Tensor:
        return x * x

    y = square(layer(x))  # FXG113: backward raises

Instead
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0])

    def backward(ctx, grad):
        return 2 * ctx.saved_tensors[0] * grad

    square.register_autograd(backward, setup_context=setup_context)
    y = square(layer(x))

When the fix is safe
    Never applied by itself: the formula is the author's. An operator that only makes integers, or whose
    inputs need no gradient, needs none and is never reported.

Not handled
    Extensions that torch's dispatcher does not know (plain pybind functions): what they return has no
    recorded origin. On fake tensors an operator with neither formula nor fake kernel is run on its real
    values.
"""

from __future__ import annotations

from collections.abc import Iterator

from fxgrad.passes.analyses import lost_gradients
from fxgrad.passes.analyses.raising import missing_formula
from fxgrad.passes.context import Context
from fxgrad.passes.findings import cut_groups, finding, line_of, plural, severity
from fxgrad.records import Facts, Finding, Fix, NodeFact, Severity, Site, Step
from fxgrad.records.training import Compiled
from fxgrad.torch_api.calls import custom_operator, has_formula
from fxgrad.torch_api.errors import COMPILED_TWICE, DONATED, says

CODE = "FXG113"
NAME = "op-without-autograd"
SEVERITY = "error"

ADVICE = "register one with torch.library.register_autograd, or write the operation with torch functions"


def check(facts: Facts, context: Context) -> Iterator[Finding]:
    """Operators that record nothing, record a node that raises or hands on nothing, or get by on torch's
    fallback."""
    if context.training is not None and context.training.compiled is not None:
        yield _compiled(context.training.compiled)
    told: set[Site | None] = set()
    for group in cut_groups(context, facts, CODE):
        node, parameters, _ = group
        told.add(node.site)
        message = (
            f"`{custom_operator(node.target) or node.target}` has no autograd formula: "
            f"{plural(parameters)} get no gradient"
        )
        yield finding(context, facts, (CODE, NAME), group, message, ADVICE)
    found = missing_formula(facts)
    if found is not None and found.custom:
        node = found.node
        told.add(node.site)
        yield _finding(
            node,
            "error",
            (),
            f"`{custom_operator(node.target) or node.target}` has no autograd formula: backward raises",
        )
    for node, names in _silent(context):
        if node.site not in told:
            told.add(node.site)
            what = (
                f"`{custom_operator(node.target)}` has no autograd formula: it hands on no gradient, and "
                f"{plural(names)} get none"
            )
            yield _finding(node, severity(context, names), names, what)
    for node in facts.nodes:
        name = custom_operator(node.target)
        if name is None or node.site in told or has_formula(name) or not _trains(facts, node):
            continue
        told.add(node.site)
        yield _finding(
            node,
            "warning",
            (),
            f"`{name}` has no autograd formula: torch differentiates whatever its kernel happens to do, "
            "warns, and will stop doing so",
        )


def _compiled(found: Compiled) -> Finding:
    """The finding at the call of `torch.compile`."""
    if says(found.message, COMPILED_TWICE):
        what = "compiled, this has no second derivative"
        advice = (
            "do not compile what is differentiated twice (a gradient penalty, an energy whose forces are a "
            "loss)"
        )
    elif says(found.message, DONATED):
        what = (
            "compiled, this frees what its backward needs as that runs: the graph cannot be kept for another"
        )
        advice = (
            "do not compile what is differentiated more than once, or add the losses and call backward once"
        )
    else:
        what = "compiled, its results do not depend on each other: one cannot be differentiated by another"
        advice = "do not compile what is differentiated by its own intermediate results"
    raised, site = found.raised, found.site
    return Finding(
        CODE,
        NAME,
        "error",
        f"{what}: torch raises{line_of(raised, site)} although the same code runs eagerly",
        site,
        (),
        (Step("derivative", raised), Step("torch.compile", site, True)),
        Fix(advice),
    )


def _finding(node: NodeFact, level: Severity, names: tuple[str, ...], message: str) -> Finding:
    steps = (
        Step("loss"),
        Step((custom_operator(node.target) or node.target).rpartition(":")[2], node.site, True),
        *(Step(n) for n in names[:1]),
    )
    return Finding(CODE, NAME, level, message, node.site, names, steps, Fix(ADVICE))


def _silent(context: Context) -> Iterator[tuple[NodeFact, tuple[str, ...]]]:
    """Operators whose stand-in node in backward is given a gradient and hands on none."""
    watched = context.watched
    if watched is None:
        return
    groups: dict[Site | None, tuple[NodeFact, list[str]]] = {}
    for parameter in watched.parameters:
        if not parameter.requires_grad or parameter.gradient != "none":
            continue
        loss = lost_gradients.analyse(watched, parameter)
        if loss is not None and loss.left == "none" and custom_operator(loss.node.target) is not None:
            groups.setdefault(loss.node.site, (loss.node, []))[1].extend(parameter.names)
    yield from ((node, tuple(names)) for node, names in groups.values())


def _trains(facts: Facts, node: NodeFact) -> bool:
    """Whether a gradient comes back through it to something that requires one."""
    return any(v in facts.live for v in node.makes) and any(facts.values[v].requires_grad for v in node.reads)
