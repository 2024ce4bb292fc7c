"""Every path from a parameter to the loss is cut by `detach`, `.data` or `detach_`.

What it finds
    A trainable parameter whose every way to the loss goes through `detach()`, `detach_()`, `torch.detach`,
    `.data`, or a call that hands out detached tensors (`state_dict()`, `torch.autograd.grad` without
    `create_graph=True`). One finding per line that cuts, with all parameters it starves; of several cuts
    behind one another, each has a finding, for all must be mended.

    As a warning, a term of the loss that is made of `torch.autograd.grad` without `create_graph=True` alone:
    a gradient penalty that changes the loss and trains nothing, though all parameters train by other terms.

Why it matters
    Detaching is silent: the forward values are right, the loss goes down by what still trains, and the
    parameters behind the cut keep their random start.

Example
    def forward(self, x):
        h = self.encoder(x).detach()  # FXG103: the encoder never trains
        return self.head(h)

Instead
    def forward(self, x):
        h = self.encoder(x)
        return self.head(h)

When the fix is safe
    Never applied by itself: a detach may be meant (a target, a stop-gradient, truncated backpropagation). One
    that starves nothing that should train is never reported; say what should with `expect`, or leave the rest
    out of the optimizer.

Not handled
    A detach on one of several ways: gradients flow over the others, so nothing is starved, though part of the
    gradient is missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fxgrad.passes.analyses import idle_terms
from fxgrad.passes.analyses.cuts import GRAD
from fxgrad.passes.context import Context
from fxgrad.passes.findings import cut_groups, finding, line_of, said, starved, subject
from fxgrad.records import Facts, Finding, Fix, NodeFact, Site, Step
from fxgrad.records.training import Walk

CODE = "FXG103"
NAME = "detached-path"
SEVERITY = "error"

_CREATE = "pass create_graph=True where the gradient is part of the loss"


def check(facts: Facts, context: Context) -> Iterator[Finding]:
    """One finding per line that cuts."""
    for group in cut_groups(context, facts, CODE):
        node, parameters, _ = group
        what = node.target.rpartition(".")[2]
        written = said(node)
        hidden = what not in written  # the detach is inside a call of torch's: `state_dict()`
        cut = f"{written} hands out detached tensors and so" if hidden else f"`{what}`"
        advice = (
            f"drop the `{what}` if these parameters should train; if the cut is meant, leave them out "
            f"of {'`expect`' if context.training is None else 'the optimizer'}"
        )
        if hidden:
            advice = "take the tensors from named_parameters(), which keep their history"
        if _makes_a_leaf(facts, node, context.training.walks if context.training is not None else ()):
            advice = (
                f"give the optimizer what {written} makes: those are leaves of their own, and the "
                "gradients arrive there"
            )
            advice += "" if hidden else f"; or drop the `{what}` where it is made anew in every step"
        apart = _for_another_loss(facts, context, node, parameters)
        if apart is not None and not hidden:
            stops, needs = apart
            advice = (
                f"keep the value as it is, and `{what}` it only where the loss{line_of(stops, node.site)} is "
                f"computed: that{line_of(needs, node.site)} needs its history"
            )
        if node.target == GRAD:
            cut, advice = f"{written} without create_graph=True", _CREATE
        if node.writes:
            cut = f"{written} writes past autograd, through a detached tensor, and so"
            advice = "write into the tensor itself (`out[t] = h`), or collect the parts and torch.stack them"
        yield finding(
            context,
            facts,
            (CODE, NAME),
            group,
            f"{cut} cuts {subject(parameters)} off from the loss: {starved(parameters)}",
            advice,
        )
    yield from _idle_terms(facts)


def _for_another_loss(
    facts: Facts, context: Context, node: NodeFact, names: tuple[str, ...]
) -> tuple[Site, Site] | None:
    """The backward of a loss for other parameters and that of one for these, where both losses are computed
    of what is cut here: a generator's fakes, detached for the discriminator."""
    training = context.training
    if training is None:
        return None
    own = {training.edges[name] for name in names if name in training.edges}
    reached = set(node.makes)
    for later in facts.nodes:
        reached.update(flow.target for flow in later.flows if flow.source in reached)
    apart: dict[bool, Site] = {}
    for walk in training.losses():
        step = next((step for step in training.steps if step.note >= walk.note), None)
        if walk.site is not None and step is not None and reached.intersection(walk.losses):
            apart.setdefault(own <= step.leaves, walk.site)
    return (apart[False], apart[True]) if len(apart) == 2 else None


def _idle_terms(facts: Facts) -> Iterator[Finding]:
    """One warning per line whose derivative is added to the loss and has no history."""
    for node in {_line(node): node for node in idle_terms.without_history(facts)}.values():
        yield Finding(
            CODE,
            NAME,
            "warning",
            f"{said(node)} without create_graph=True: a term of the loss is made of it, and trains nothing",
            node.site,
            (),
            (Step("loss"), Step("grad", node.site, True)),
            Fix(_CREATE),
        )


def _line(node: NodeFact) -> tuple[str, int] | None:
    return (node.site.file, node.site.line) if node.site is not None else None


def _makes_a_leaf(facts: Facts, node: NodeFact, walks: Sequence[Walk]) -> bool:
    """Whether the detached tensor is made a leaf that requires grad on the same line, and backward reaches
    it."""
    reached = set(node.makes)
    line = _line(node)
    for later in facts.nodes:
        if line is not None and _line(later) == line and reached.intersection(later.reads):
            reached.update(later.makes)
    losses = {facts.loss, *(value for walk in walks for value in walk.losses)}  # forced to be one: no leaf's
    return any(
        facts.values[v].is_leaf and facts.values[v].requires_grad and v in facts.live
        for v in reached - losses
    )
