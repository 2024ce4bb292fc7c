"""Steps that teach nothing: every gradient zero, or a loss that is not a number.

Either is true of healthy models for one parameter or one batch; of all that should train, or of every loss, it is never meant. Not handled: a
loss that becomes NaN after the steps that were watched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from fxgrad.records import Facts, Finding, Fix, Site, Step, Verdict
from fxgrad.source.sites import site_of
from fxgrad.trace.notes import Backward

RULE = ("FXG401", "zero-gradient-op")
_NAN = (
    "look for an empty selection (the mean of nothing), 0 / 0, the logarithm or root of what may be negative, or a learning rate too high"
)


def check(
    found: Sequence[Finding], facts: Facts, verdicts: Mapping[str, Verdict], expected: frozenset[str], backwards: Sequence[Backward]
) -> Iterator[Finding]:
    """The findings, with those of rule 401 made errors where every gradient is zero; and one of a loss that is NaN, if there is one."""
    losses = [backward for backward in backwards if not backward.partial and not backward.failed]
    nan = bool(losses) and all(backward.nan for backward in losses)
    wanted = expected or frozenset(name for p in facts.parameters if p.requires_grad for name in p.names)
    idle = bool(wanted) and all(verdicts.get(name) == "zero" for name in wanted) and facts.error is None
    explained = False
    for finding in found:
        if idle and finding.code == RULE[0] and wanted.intersection(finding.parameters):
            explained = True
            finding = replace(
                finding, severity="error", message=f"{finding.message}; nothing trains{' and the loss is NaN' if nan else ''}"
            )
        yield finding
    if (nan or idle) and not explained:
        yield _of_the_loss(facts, losses, wanted if idle else frozenset(), nan=nan)


def _of_the_loss(facts: Facts, losses: Sequence[Backward], names: frozenset[str], *, nan: bool) -> Finding:
    values = {value for backward in losses for value in backward.losses}
    made = next((node.site for node in facts.nodes if node.site is not None and values.intersection(node.makes) and node.flows), None)
    site: Site | None = made or (site_of(losses[0].spots[0]) if losses and losses[0].spots else None)
    what = "the loss is NaN: what reaches the parameters is no gradient, and each step makes them NaN as well"
    if names:
        what = f"every gradient is zero{' and the loss is NaN' if nan else ''}: nothing trains"
    advice = _NAN if nan else "look at what the loss is made of: a constant, an empty selection, a weight of 0"
    return Finding(*RULE, "error", what, site, tuple(sorted(names)), (Step("loss", site, True),), Fix(advice))
