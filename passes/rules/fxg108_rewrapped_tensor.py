"""A new leaf is made from a computed tensor: `torch.tensor(t)`, `torch.Tensor([a, b])`, `Variable(t.data)`,
`nn.Parameter(t)`.

What it finds
    A trainable parameter whose every way to the loss goes through a constructor that copies numbers without
    their history: `torch.tensor` and `as_tensor` of a list of tensors, `t.new_tensor(u)`, the old
    constructors `torch.Tensor([...])` and `torch.FloatTensor([...])`, `Variable(...)`, `nn.Parameter(...)`. A
    `.data` or `detach()` right before belongs to the same finding.

Why it matters
    The new tensor has the right numbers, and with `requires_grad=True` even backward() runs: it just ends
    there.

Example
    def loss(losses):
        return torch.tensor(losses, requires_grad=True).sum()  # FXG108: no gradient gets past here

Instead
    def loss(losses):
        return torch.stack(losses).sum()

When the fix is safe
    Never applied by itself. Using the tensor itself, or torch.stack for several scalars, gives the same
    values; where a copy was meant to be a leaf of its own (to read the gradient of an activation), call
    `retain_grad()` on the activation instead.

Not handled
    A new leaf on one of several ways: nothing is starved then, though part of the gradient is missing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from fxgrad.passes.analyses.cuts import MOVES, Way, constructor
from fxgrad.passes.context import Context
from fxgrad.passes.findings import cut_groups, finding, said, starved, subject
from fxgrad.records import Facts, Finding, NodeFact
from fxgrad.records.facts import WRAPPER

CODE = "FXG108"
NAME = "rewrapped-tensor"
SEVERITY = "error"

ALIAS = "alias"  # a leaf over memory that is known already: a copied module's parameter
COPIED = (
    "a copy's gradient stays with the copy: compute new weights from the originals and go forward with them, "
    "`torch.func.functional_call(model, {name: p - lr * g}, x)`"
)

WRAPPED = (
    "use the tensor itself (with a mask: `torch.where`), or let the subclass be made in the forward of an "
    "`autograd.Function` whose backward hands the gradient on"
)


def check(facts: Facts, context: Context) -> Iterator[Finding]:
    """One finding per line that makes a new leaf."""
    for group in cut_groups(context, facts, CODE):
        node, parameters, way = group
        # of a watch's forwards one stands for all: the others are "torch.nn.Parameter, again"
        made = constructor(node) or node.target.rpartition(".")[2].partition(",")[0]
        what = said(node) if made in (ALIAS, WRAPPER) else f"`{made}`"
        of = "a parameter" if _of_parameter(facts, way, node) else "a computed tensor"
        message = (
            f"{what} copies the numbers of {of} without their history: {starved(parameters)} "
            f"({subject(parameters)})"
        )
        advice = "use the tensor itself (torch.stack or torch.cat for several) instead of wrapping it anew"
        if made == "nested_tensor":
            advice = "`torch.nested.as_nested_tensor` keeps the history of what it is given"
        elif node.target == WRAPPER:
            advice = WRAPPED
        elif "deepcopy" in what:
            advice = COPIED
        yield finding(context, facts, (CODE, NAME), group, message, advice)


def _of_parameter(facts: Facts, way: Way, node: NodeFact) -> bool:
    """Whether nothing was computed with the parameter's numbers before."""
    before = itertools.takewhile(lambda name: name != node.name, way.nodes)
    return all(facts.node_named[name].target.rpartition(".")[2] in MOVES for name in before)
