"""The loss itself has no `grad_fn`: `backward()` raises "element 0 of tensors does not require grad".

What it finds
    A loss that cannot be differentiated: a tensor without a history, although trainable parameters went into
    it or because none did; a Python number, None or a tuple in place of a tensor; a tensor of several
    elements, or of complex numbers. Where a cut made the loss lose its history, the cut has the error and
    this is a warning beside it. Of a model without any parameters, or with constants alone, it is a note:
    there is nothing to train.

Why it matters
    `backward()` raises and names neither the parameter nor the line. Wrapped anew with `requires_grad=True`
    to silence it, the loss trains nothing.

Example
    def loss(out):
        return F.mse_loss(out, y).item()  # FXG116: a number

Instead
    def loss(out):
        return F.mse_loss(out, y)

When the fix is safe
    Never applied by itself: what the loss should be made of is the author's knowledge.

Not handled
    A loss that is a leaf with `requires_grad=True` made from a computed value: that is FXG108.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from fxgrad.passes.analyses.causes import Causes, unconnected
from fxgrad.passes.context import Context
from fxgrad.passes.findings import said
from fxgrad.records import Facts, Finding, Fix, NodeFact, Severity, Site, Step
from fxgrad.source.handed_on import return_around
from fxgrad.source.objects import code_of
from fxgrad.torch_api.errors import COMPLEX_LOSS, NOT_SCALAR, says

CODE = "FXG116"
NAME = "loss-without-grad"
SEVERITY = "error"

_NUMBERS = ("Symbolic", "float", "int", "bool", "ndarray", "complex")


def check(facts: Facts, context: Context) -> Iterator[Finding]:
    """At most one finding; the cuts that made the loss lose its history have findings of their own.

    In a script that is watched, one of a loss that no known line made stands where the script ended.
    """
    error = facts.error
    for found in _found(facts, context):
        lost = context.training is not None and found.site is None and error is not None
        yield replace(found, site=error.site) if lost and error is not None else found


def _found(facts: Facts, context: Context) -> Iterator[Finding]:
    error = facts.error
    if error is not None and error.phase != "backward" and facts.loss is None:
        return
    if facts.loss is None:
        if error is not None:
            yield _no_tensor(facts, context)
    elif not facts.loss_requires_grad:
        yield _no_history(facts, context)
    elif error is not None and says(error.message, NOT_SCALAR):
        yield _finding(
            facts,
            f"the loss has the shape {tuple(facts.values[facts.loss].shape)}: backward() needs a single "
            "number",
            _made(facts),
            "reduce it with .mean() or .sum()",
        )
    elif error is not None and says(error.message, COMPLEX_LOSS):
        node = _made_complex(facts)
        yield _finding(
            facts,
            f"the loss is a complex number, which has no direction that is down: {said(node)} made it complex"
            if node is not None
            else "the loss is a complex number, which has no direction that is down",
            node.site if node is not None else _made(facts),
            "make it real before it is reduced: `.abs().pow(2).mean()`, or `torch.view_as_real(...)`",
        )


def _no_tensor(facts: Facts, context: Context) -> Finding:
    kind = facts.loss_type or "value"
    left = next((n for n in reversed(facts.nodes) if n.kind == "escape"), None)
    if kind.startswith(_NUMBERS) and left is not None:
        what = left.target.rpartition(".")[2].strip("_")
        message = (
            f"the loss is a number, not a tensor: `{what}` took it out of torch, so nothing can be "
            "differentiated"
        )
        return _finding(
            facts, message, left.site, f"return the tensor itself; call `{what}` on it only to log it"
        )
    said = "None: a `return` is missing" if kind == "NoneType" else f"a {kind}, not a tensor"
    return _finding(
        facts,
        f"the loss function returns {said}",
        _left(facts, context),
        "return the loss as a tensor of one element",
    )


def _no_history(facts: Facts, context: Context) -> Finding:
    if facts.error is None and not any(p.requires_grad for p in facts.parameters):
        has = "constants alone" if facts.parameters else "no parameters"
        return _finding(
            facts,
            f"there is nothing to train: the model has {has}, and no input requires grad",
            None,
            "give an input that requires grad to see whether a gradient passes through",
            "note",
        )
    causes: Causes = context.causes
    if facts.midway:
        return _no_history_midway(facts, causes)
    frozen = bool(facts.parameters) and not any(p.requires_grad for p in facts.parameters)
    explained = frozen or not unconnected(facts, causes)
    if frozen:
        reason = ": every parameter is frozen"
    elif explained:
        reason = ""
    else:
        reason = ": it is computed from no trainable parameter"
    return _finding(
        facts,
        f"the loss has no grad_fn, so backward() raises{reason}",
        _made(facts),
        "mend what is named beside this finding"
        if explained
        else "compute the loss from what the model returns",
        "warning" if explained else "error",
    )


def _no_history_midway(facts: Facts, causes: Causes) -> Finding:
    """The same of what a derivative was asked of on the way to a loss: it may be none by parameters."""
    cut = {name for name, way in causes.frontier.ways.items() if way.cuts}
    starved = tuple(n for p in facts.parameters if cut.intersection(p.names) for n in p.names)
    words = "what is differentiated here has no grad_fn, so that raises"
    found = _finding(
        facts,
        words if cut else f"{words}: nothing that it is computed of requires grad",
        _made(facts) or (facts.error.site if facts.error is not None else None),
        "mend what is named beside this finding"
        if cut
        else "compute it, with gradients on, from what it is to be differentiated by, after "
        "`requires_grad_()` on that, unless it is a parameter",
        "warning" if cut else "error",
    )
    return replace(found, parameters=starved)


def _finding(
    facts: Facts, message: str, site: Site | None, advice: str, severity: Severity = "error"
) -> Finding:
    starved = tuple(n for p in facts.parameters if p.requires_grad for n in p.names)
    return Finding(CODE, NAME, severity, message, site, starved, (Step("loss", site, True),), Fix(advice))


def _made(facts: Facts) -> Site | None:
    """The step that made the loss; of a constant the `return` of the function that made it, for something
    should have been added."""
    assert facts.loss is not None
    node = next((n for n in facts.nodes if n.name == facts.values[facts.loss].node), None)
    if node is None or node.site is None:
        return None
    if not node.reads:
        return _returned(facts, node) or node.site
    return node.site


def _made_complex(facts: Facts) -> NodeFact | None:
    """On the way from the loss back, the first step that made a complex value of real ones that a gradient
    goes to."""
    pending, seen = [facts.loss] if facts.loss is not None else [], set[int]()
    while pending:
        value = pending.pop(0)
        node = facts.maker_of.get(value)
        if node is None or value in seen:
            continue
        seen.add(value)
        sources = [flow.source for flow in node.flows if flow.target == value and flow.open]
        still = [source for source in sources if facts.values[source].dtype.is_complex]
        if sources and not still and node.site is not None:
            return node
        pending.extend(still)
    return None


def _returned(facts: Facts, node: NodeFact) -> Site | None:
    site = node.site
    assert site is not None
    return facts.returns.get(f"{site.file}:{site.function}") or return_around(site)


def _left(facts: Facts, context: Context) -> Site | None:
    """The statement by which the loss function was left; its first line where it ran no torch code."""
    for node in reversed(facts.nodes):
        if node.phase == "loss" and node.stack:
            outer = node.stack[-1]
            return facts.returns.get(f"{outer.file}:{outer.function}") or outer
    loss = context.loss
    code = (
        code_of(loss)
        or code_of(getattr(type(loss), "forward", None))
        or code_of(vars(type(loss)).get("__call__"))
    )
    return (
        Site(code.co_filename, code.co_firstlineno, function=code.co_qualname) if code is not None else None
    )
