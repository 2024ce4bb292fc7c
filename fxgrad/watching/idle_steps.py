"""Steps that teach nothing: every gradient zero, a loss that is not a number, an optimizer of tensors that
get no gradient.

The first two are true of healthy models for one parameter or one batch; of all that should train, or of every
loss, they are never meant. Nor is an optimizer over `p.data` or over copies: it steps, raises nothing and
changes nothing. Not handled: a loss that becomes NaN after the steps that were watched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from fxgrad.passes.findings import listed
from fxgrad.records import Facts, Finding, Fix, Site, Step, Verdict
from fxgrad.source.sites import innermost, site_of
from fxgrad.trace.events import Events
from fxgrad.trace.ledger import Ledger
from fxgrad.trace.notes import Backward
from fxgrad.watching.steps import held_by
from fxgrad.watching.variable_names import Names

_AND_NAN = " and the loss is NaN"
RULE = ("FXG401", "zero-gradient-op")
_NAN = (
    "look for an empty selection (the mean of nothing), 0 / 0, the logarithm or root of what may be "
    "negative, or a learning rate too high"
)


def check(
    found: Sequence[Finding],
    facts: Facts,
    verdicts: Mapping[str, Verdict],
    expected: frozenset[str],
    backwards: Sequence[Backward],
) -> Iterator[Finding]:
    """The findings, with those of rule 401 made errors where every gradient is zero; and one of a loss that
    is NaN, if there is one."""
    losses = [backward for backward in backwards if not (backward.partial or backward.failed)]
    nan = _are_nan(losses)
    wanted = expected or _trainable(facts)
    idle = facts.error is None and _is_idle(verdicts, wanted)
    explained = False
    for finding in found:
        if idle and finding.code == RULE[0] and wanted.intersection(finding.parameters):
            explained = True
            worse = f"{finding.message}; nothing trains{_AND_NAN if nan else ''}"
            yield replace(finding, severity="error", message=worse)
        else:
            yield finding
    if (nan or idle) and not explained:
        yield _of_the_loss(facts, losses, wanted if idle else frozenset(), nan=nan)


def _are_nan(losses: Sequence[Backward]) -> bool:
    return bool(losses) and all(backward.nan for backward in losses)


def _trainable(facts: Facts) -> frozenset[str]:
    return frozenset(name for p in facts.parameters if p.requires_grad for name in p.names)


def _is_idle(verdicts: Mapping[str, Verdict], wanted: frozenset[str]) -> bool:
    """Whether every gradient that is wanted is zero."""
    return bool(wanted) and all(verdicts.get(name) == "zero" for name in wanted)


def _of_the_loss(facts: Facts, losses: Sequence[Backward], names: frozenset[str], *, nan: bool) -> Finding:
    values = {value for backward in losses for value in backward.losses}
    makers = (node for node in facts.nodes if node.flows and values.intersection(node.makes))
    made = next((node.site for node in makers if node.site is not None), None)
    site: Site | None = made or (innermost(losses[0].spots) if losses else None)
    what = "the loss is NaN: what reaches the parameters is no gradient, and each step makes them NaN as well"
    if names:
        what = f"every gradient is zero{_AND_NAN if nan else ''}: nothing trains"
    advice = (
        _NAN if nan else "look at what the loss is made of: a constant, an empty selection, a weight of 0"
    )
    return Finding(*RULE, "error", what, site, tuple(sorted(names)), (Step("loss", site, True),), Fix(advice))


def vain(
    optimizer: torch.optim.Optimizer, events: Events, names: Names, ledger: Ledger, root: nn.Module
) -> Finding:
    """The finding of an optimizer that steps and holds only plain tensors without a gradient."""
    tensors = list(held_by(optimizer))
    sources = _sources(tensors, names, ledger, root)
    spots = events.made.get(optimizer, ())
    built = next((spot for spot in spots if spot[0].co_name != "__init__"), spots[0] if spots else None)
    site = site_of(built) if built is not None else None
    what = f"the data of {listed(sources)}" if sources else "copies, or tensors made for it alone"
    count = f"{len(tensors)} tensor{'s' if len(tensors) != 1 else ''}"
    return Finding(
        "FXG302",
        "optimizer-stale-parameter",
        "error",
        f"the optimizer holds {count} without requires_grad ({what}): no backward gives "
        f"{'it' if len(tensors) == 1 else 'them'} a gradient, and its steps change nothing",
        site,
        tuple(name for name, registered in sources.items() if registered),
        (Step("optimizer", site, True),),
        Fix(
            "hand it the leaves that the loss is computed from, not their `.data`, `detach()` or copies; "
            "a "
            "leaf is made in its final dtype"
        ),
    )


def _sources(
    tensors: Sequence[torch.Tensor], names: Names, ledger: Ledger, root: nn.Module
) -> dict[str, bool]:
    """The names of the tensors that share data with these, and whether each is a parameter of the models."""
    own = {id(parameter): name for name, parameter in root.named_parameters()}
    found: dict[str, bool] = {}
    for tensor in tensors:
        for slot in ledger.tensors.sharing(tensor):
            other = slot()
            if other is None or other is tensor:
                continue
            name = own.get(id(other)) or names.of_tensor(other)
            if name is not None:
                found[name] = id(other) in own
    return found
