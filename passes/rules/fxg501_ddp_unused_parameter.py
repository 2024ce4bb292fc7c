"""A parameter takes no part in backward, on this path or on a branch: DistributedDataParallel raises or hangs
on it.

What it finds
    Parameters that require grad and that backward does not reach. DistributedDataParallel waits for the
    gradient of every such parameter before it averages: the next iteration raises "Expected to have finished
    reduction in the prior iteration". Where a branch on data decides, the processes may disagree: those that
    have all gradients wait for the others until the timeout. A note in a single process, a warning where the
    program is distributed, an error where DistributedDataParallel has raised.

Why it matters
    The program trains on one device and dies, or stands still, on several.

Example
    class Net(nn.Module):
        def forward(self, x):
            h = self.body(x)
            if h.mean() > 0:
                h = self.refine(h)
            return self.head(h)

Instead
    class Net(nn.Module):
        def forward(self, x):
            h = self.body(x)
            return self.head(torch.where(h.mean() > 0, self.refine(h), h))

When the fix is safe
    Never applied. `find_unused_parameters=True` lets a step pass without them and costs a walk over the graph
    in every iteration; it does not help where an output of the model does not reach the loss.

Not handled
    Parameters used twice through reentrant checkpoints ("marked ready twice"), and modules that are not
    wrapped although their parent is judged: the rule speaks of the whole model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch.distributed

from fxgrad.passes.context import Branch, Context
from fxgrad.passes.findings import listed
from fxgrad.records import Facts, Finding, Fix, ParameterFact, Severity, Site, Step
from fxgrad.records.ranks import Difference, on_ranks
from fxgrad.torch_api import registry
from fxgrad.torch_api.errors import UNREDUCED, says

CODE = "FXG501"
NAME = "ddp-unused-parameter"
SEVERITY = "note"


def check(facts: Facts, context: Context) -> Iterator[Finding]:
    """One finding for what no path reaches, one per condition that decides."""
    broken = facts.error is not None and says(facts.error.message, UNREDUCED)
    if facts.error is not None and not broken:
        return
    level = "error" if broken else _level(facts, context)
    # Of what the step that the error ended had yet to say: what should train has a finding of its own.
    unused = [
        p
        for p in facts.parameters
        if is_unused(facts, p, is_over=broken and context.expected.isdisjoint(p.names))
    ]
    if unused and (facts.loss_requires_grad or broken):
        yield _unreached(facts, unused, level)
    groups: dict[Site | None, list[Branch]] = {}
    for branch in context.branches:
        groups.setdefault(branch.decision.site, []).append(branch)
    for site, members in groups.items():
        yield from _decided(facts, site, members, level)


def _unreached(facts: Facts, unused: Iterable[ParameterFact], level: Severity) -> Finding:
    names = tuple(name for p in unused for name in p.names)
    return Finding(
        CODE,
        NAME,
        level,
        f"backward does not reach {listed(names)}: DistributedDataParallel raises in the next iteration",
        facts.error.site if facts.error is not None else None,
        names,
        (),
        Fix(
            "let them take part in every step, freeze or remove them; find_unused_parameters=True if the "
            "forward may leave them out"
        ),
    )


def is_unused(facts: Facts, parameter: ParameterFact, *, is_over: bool = False) -> bool:
    """Whether backward never arrives at the parameter: one whose gradient is lost or zero on the way still
    counts as ready.

    One that is sharded is in no DistributedDataParallel. `is_over`: the step had ended before an error, and
    what is unknown of it had no gradient.
    """
    if parameter.sharded:
        return False
    absent = ("none", "unknown") if is_over else ("none",)
    return (
        parameter.requires_grad
        and parameter.gradient in absent
        and not any(value in facts.live for value in parameter.values)
    )


def _decided(facts: Facts, site: Site | None, members: list[Branch], level: Severity) -> Iterator[Finding]:
    sometimes = frozenset().union(*(branch.starved ^ branch.starved_here for branch in members))
    names = tuple(name for p in facts.parameters if p.requires_grad for name in p.names if name in sometimes)
    if not names:
        return
    # The outcome that leaves parameters out: the one turned to, unless it is the one taken.
    taken = members[0].decision.outcome
    without = taken if members[0].starved_here - members[0].starved else not taken
    yield Finding(
        CODE,
        NAME,
        level,
        f"each process decides this by its own data, and {without} leaves out {listed(names)}: "
        "DistributedDataParallel raises or hangs",
        site,
        names,
        (Step("loss"), Step(f"branch ({without})", site, True), Step(names[0])),
        Fix(
            "compute both outcomes and select with torch.where, decide alike on every process, or set "
            "find_unused_parameters=True"
        ),
    )


def on_some_ranks(difference: Difference, size: int, site: Site | None, level: Severity) -> Finding:
    """Of parameters that backward reaches on some of `size` ranks and not on others."""
    names = difference.parameters
    return Finding(
        CODE,
        NAME,
        level,
        f"backward reaches {listed(names)} on {on_ranks(difference.on, size)} and not on "
        f"{on_ranks(difference.without, size)}: what sums gradients over the ranks, as "
        "DistributedDataParallel does, raises or hangs",
        site,
        names,
        (),
        Fix(
            "let them take part on every rank in every step; under DistributedDataParallel "
            "find_unused_parameters=True lets a rank leave them out"
        ),
        difference.without,
    )


def _level(facts: Facts, context: Context) -> Severity:
    if context.training is not None and not context.training.replicates:
        return "note"  # other processes may run, and nothing averages over them as this would
    if any(parameter.sharded for parameter in facts.parameters):
        # what is split over processes is in no DistributedDataParallel, and what lies beside it seldom is
        return "note"
    wrapped = any(
        type(module).__name__ == "DistributedDataParallel" for module in registry.modules(context.model)
    )
    running = torch.distributed.is_available() and torch.distributed.is_initialized()
    return "warning" if wrapped or running else "note"
