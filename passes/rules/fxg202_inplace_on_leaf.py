"""An in-place write that autograd refuses: into a leaf that requires grad, a view of one, or a view it cannot
follow.

What it finds
    Writes (`+=`, `x[...] = ...`, methods ending in `_`, `inplace=True`, `out=`) into a parameter or another
    leaf that requires grad, into a view of one, into one of several views that one operation returned
    (`split`, `chunk`, `unbind`, iteration), into a view made under `no_grad` or by a custom
    autograd.Function, and into an expanded tensor whose elements share memory.

Why it matters
    Torch raises at the write; nothing of the step runs.

Example
    b = conv.bias.view(3, -1)
    b[:, 4] += 1.0

Instead
    with torch.no_grad():
        b = conv.bias.view(3, -1)
        b[:, 4] += 1.0

When the fix is safe
    `no_grad` is right for an initialisation or a projection of weights, which no gradient should see. In a
    forward whose result depends on the written value compute a new tensor instead, or the gradient ignores
    the write.

Not handled
    Writes through `.data`, which torch lets pass: those are FXG203.
"""

from __future__ import annotations

from collections.abc import Iterator

from fxgrad.passes.context import Context
from fxgrad.passes.findings import expression, line_of, listed, text_of
from fxgrad.records import Facts, Finding, Fix, NodeFact, Raised, Step
from fxgrad.torch_api.errors import (
    BEING_MODIFIED,
    DETACHED_VIEW,
    FUNCTION_VIEW,
    HOOKED_VIEW,
    IN_PLACE,
    INFERENCE_VIEW,
    INPUT_OVERLAP,
    LEAF,
    NO_GRAD_VIEW,
    OUT_ARGUMENT,
    OVERLAP,
    OVERWRITTEN,
    SEVERAL_VIEWS,
    VIEW_OF_LEAF,
    kind_of,
    says,
)

CODE = "FXG202"
NAME = "inplace-on-leaf"
SEVERITY = "error"
INTO_LEAF = "leaf"  # the kind of a finding about a write into a leaf, or into a view of one

# What torch says, and what was written into; "{leaf}" and "{maker}" are filled in from the facts. The
# narrower kind stands first.
REFUSALS = {
    VIEW_OF_LEAF: "a view of {leaf}",
    LEAF: "{leaf}",
    SEVERAL_VIEWS: "one of several views that {maker} returned together",
    HOOKED_VIEW: "what {maker} returned as a view, for its module has a backward hook",
    FUNCTION_VIEW: "a view that {maker}, a custom autograd.Function, returned",
    NO_GRAD_VIEW: "a view that {maker} made under no_grad",
    INFERENCE_VIEW: "a view that {maker} made in inference mode",
    OVERLAP: "a tensor whose elements share memory (made by {maker})",
    INPUT_OVERLAP: "memory that it reads at the same time",
    DETACHED_VIEW: "a view ({maker}), whose history cannot be cut off in place",
    OUT_ARGUMENT: "an `out=` tensor, where autograd cannot follow",
    IN_PLACE: "a tensor where autograd cannot follow",
    BEING_MODIFIED: "a tensor where autograd cannot follow",
}


def refused(error: Raised | None) -> str | None:
    """What was written into, if the error is torch's refusal of a write."""
    if error is None or says(error.message, OVERWRITTEN):
        return None
    kind = kind_of(error.message, tuple(REFUSALS))
    return REFUSALS[kind] if kind is not None else None


def check(facts: Facts, context: Context) -> Iterator[Finding]:
    """The write that torch refused, in plain words."""
    error, meaning = facts.error, refused(facts.error)
    if error is None or meaning is None:
        return
    if context.training is not None and context.training.sent_away is not None:
        return  # a write of torch's own, as it collates what FXG107 names
    node = next((n for n in facts.nodes if n.name == error.node), None)
    names = _parameters(facts, node)
    target = meaning.format(leaf=_leaf(names), maker=_maker(facts, node, error))
    write = expression(node) if node is not None else text_of(error.site) or "this"
    yield Finding(
        CODE,
        NAME,
        "error",
        f"`{write}` writes in place into {target}: torch refuses",
        error.site,
        names,
        (Step("loss"), Step(write, error.site, True), *(Step(n) for n in names[:1])),
        Fix(_advice(meaning, names)),
        kind=INTO_LEAF if "{leaf}" in meaning else "",
        step=node.name if node is not None else "",
    )


def _parameters(facts: Facts, node: NodeFact | None) -> tuple[str, ...]:
    """The parameters whose memory the raising step was to write: those of its first such operand, or of its
    whole list."""
    if node is None:
        return ()
    owners = {facts.values[v].storage: p.name for p in facts.parameters for v in p.values if p.requires_grad}
    names = [owners[facts.values[v].storage] for v in node.reads if facts.values[v].storage in owners]
    return tuple(dict.fromkeys(names if "_foreach_" in node.target else names[:1]))


def _leaf(names: tuple[str, ...]) -> str:
    if names:
        return f"{'the parameter' if len(names) == 1 else 'the parameters'} {listed(names)}"
    return "a leaf that requires grad"


def _maker(facts: Facts, node: NodeFact | None, error: Raised) -> str:
    """The step that made what was to be written."""
    written = node.reads[:1] if node is not None else ()
    made = next((n for n in reversed(facts.nodes) if n is not node and set(written) & set(n.makes)), None)
    return f"`{expression(made)}`{line_of(made.site, error.site)}" if made is not None else "an earlier step"


def _advice(meaning: str, names: tuple[str, ...]) -> str:
    if names or "{leaf}" in meaning:
        return (
            "do it under torch.no_grad() if it is an initialisation; in a forward compute a new tensor "
            "(`w = self.w * 2`) and use that"
        )
    if "history" in meaning:
        return "use `detach()`, which returns a new tensor, instead of `detach_()`"
    if "out=" in meaning:
        return "use what the operation returns, without `out=`"
    return "write out of place: `x = x + y` instead of `x += y`"
