"""The value leaves torch (`.numpy()`, `.item()`, `.tolist()`, `float(t)`) on the only way from a parameter to
the loss.

What it finds
    A trainable parameter whose data reaches the loss only through a Python number or a NumPy array:
    `.item()`, `.tolist()`, `.numpy()`, `np.asarray(t)` and any NumPy function of a tensor, `float(t)`,
    `int(t)`, `math.exp(t)`. Named is the line where the value leaves; the way back in (`torch.from_numpy`,
    `torch.tensor(number)`, a product with the number) belongs to the same finding, and where the loss is made
    of such numbers alone so does what picked them before (a sample, an argmax). That the number matters is
    not guessed: the program is run again with another number there, and its loss changes. In a watched script
    also a tensor with a history that is handed to NumPy, or by a data set to the process of a worker.

Why it matters
    Autograd records torch's operations and no others. The forward values are right, so nothing looks wrong;
    the parameters before the detour keep their random start.

Example
    def forward(self, x):
        alpha = torch.sigmoid(self.gate).item()  # FXG107: the gate never trains
        return alpha * self.body(x) + (1 - alpha) * x

Instead
    def forward(self, x):
        alpha = torch.sigmoid(self.gate)
        return alpha * self.body(x) + (1 - alpha) * x

When the fix is safe
    Never applied by itself: the code in between is not torch's and may have no torch equivalent. Dropping
    `.item()` from a number that torch code goes on with changes no value; a number kept for logging between
    steps should stay a number, for a tensor keeps its graph.

Not handled
    Data that leaves through files, through C extensions or through a tensor's memory address. On fake tensors
    there is no number to leave: such a program is run on its real values.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from fxgrad.passes.analyses.cuts import Way
from fxgrad.passes.context import Context
from fxgrad.passes.findings import cut_groups, finding, line_of, said, source_of, starved, subject
from fxgrad.records import Facts, Finding, Fix, NodeFact, Step
from fxgrad.records.training import SentAway
from fxgrad.source.assigned import statement_at

CODE = "FXG107"
NAME = "left-torch"
SEVERITY = "error"

_WRAPPERS = (".tensor", ".as_tensor", ".asarray", ".scalar_tensor", ".new_tensor", ".full", ".from_numpy")
_OF_NUMBERS = (
    "make the loss of tensors: of what was drawn, its log-probability times the reward "
    "(`-dist.log_prob(a) * reward`), or rsample()"
)


def check(facts: Facts, context: Context) -> Iterator[Finding]:
    """One finding per line at which a value leaves."""
    if context.training is not None and context.training.sent_away is not None:
        yield _to_a_worker(context.training.sent_away)
    for group in cut_groups(context, facts, CODE):
        node, parameters, way = group
        what, advice = _way_out(node)
        wrapped = _wrapped(facts, node, way) if node.kind == "escape" else ""
        if wrapped:
            advice += f"; and put the tensor itself, or torch.stack of several, in place of the {wrapped}"
        message = f"{what}, and the loss goes on from there: {starved(parameters)} ({subject(parameters)})"
        picked = next(
            (facts.node_named[cut.behind] for cut in way.cuts if cut.node == node.name and cut.behind), None
        )
        if picked is not None:
            message += (
                f"; what was picked by {said(picked)}{line_of(picked.site, node.site)} has no "
                "derivative either"
            )
            advice = _OF_NUMBERS
        yield finding(context, facts, (CODE, NAME), group, message, advice)


def _wrapped(facts: Facts, node: NodeFact, way: Way) -> str:
    """The function that makes a tensor again of the number, and its line where that is another; "" where none
    does."""
    behind = itertools.dropwhile(lambda name: name != node.name, way.nodes)
    makers = itertools.dropwhile(
        lambda one: one.site is None or not one.target.endswith(_WRAPPERS),
        (facts.node_named[name] for name in behind),
    )
    made = next(makers, None)
    if made is None or made.site is None or node.site is None:
        return ""
    same = statement_at(made.site) is statement_at(node.site)
    where = " around it" if same else line_of(made.site, node.site)
    again = next(itertools.takewhile(lambda one: one.kind == "leaf", makers), None)
    if again is None or again.site is None:
        return f"`{made.target}(...)`{where}, which makes one without a history"
    if statement_at(again.site) is statement_at(made.site):
        return f"{said(again)}{where}, which makes one without a history"
    last = f"{said(again)}{line_of(again.site, node.site)}"
    return f"`{made.target}(...)`{where} and the {last}, which make tensors without a history"


def _to_a_worker(found: SentAway) -> Finding:
    """What a data set hands to another process has a history, which none can follow."""
    read, site, text = found.read, found.made, source_of(found.made)
    if found.collated:
        message = (
            f"what is collated here is computed from what requires grad{line_of(read, site)}: its history "
            "cannot leave the process of the worker"
        )
        advice = (
            "collate the numbers alone (under `torch.no_grad()`), and compute what should "
            "train in the training "
            "loop"
        )
    elif found.leaf:
        what = f"`{found.name}`, which requires grad"
        message = (
            f"what the data set hands out is {what}, or is computed from it: its history cannot leave the "
            "process of the worker"
            if found.name is not None
            else "what the data set hands out requires grad, or is computed from what does: its history "
            "cannot leave the process of the worker"
        )
        advice = (
            "hand out numbers alone (`.detach()`); what should train, and what is to be a leaf, is made in "
            "the training loop"
        )
    else:
        what = f"what `{text}` computed" if text else "a tensor that was computed with a history"
        what = f"`{found.name}`" if found.name else what
        message = (
            f"{what} is part of the data set{line_of(read, site)} and has a history, which no other process "
            "can follow"
        )
        advice = "detach it where it is made"
        if text:
            advice = f"keep the numbers alone: `{text}.detach()`, or compute it under `torch.no_grad()`"
    return Finding(CODE, NAME, "error", message, site or read, (), (Step("worker", read, True),), Fix(advice))


def _way_out(node: NodeFact) -> tuple[str, str]:
    name = node.target.rpartition(".")[2]
    if node.kind != "escape":
        return "a tensor is made here of numbers that left torch", "stay in torch all the way"
    if name == "__array__":
        return (
            "NumPy takes the value out of torch",
            "use the torch function of the same name on the tensor itself",
        )
    if name in ("__float__", "__complex__"):
        return (
            "the value is read as a Python float",
            "go on with the tensor itself, and with torch.exp and its kind instead of math's",
        )
    if name in ("__int__", "__index__"):
        advice = (
            "integers carry no gradient: select with differentiable weights, or train what selects with "
            "a loss of its own"
        )
        return "the value is read as a Python int", advice
    if name == "item":
        advice = "drop the `.item()`: torch computes with a one-element tensor as with a number"
        return "`.item()` makes a Python number of the value", advice
    if name == "tolist":
        return (
            "`.tolist()` makes Python numbers of the values",
            "keep the tensor, and use torch.stack for a list of tensors",
        )
    return (
        f"`.{name.strip('_')}()` takes the value out of torch",
        "stay in torch: it has most of NumPy's functions under the same names",
    )
