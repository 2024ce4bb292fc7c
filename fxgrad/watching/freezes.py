"""What was frozen while the program ran, and by which line of the user's: a trainer's toggle stands at the
call that toggles.

A loss that "does not require grad" because what it is computed from was left frozen by another's turn is
explained by that line, and so is a DistributedDataParallel that waits for what was frozen after it was made.
Not handled: what was frozen before the watch began, which rule FXG102 looks up in the source.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from torch import nn

from fxgrad.passes.findings import line_of, listed, source_of
from fxgrad.records import Finding, Fix, Raised, Site, Step
from fxgrad.source.sites import site_of
from fxgrad.torch_api.errors import NO_GRAD_FN, UNREDUCED, says
from fxgrad.trace.observer import Observer

RULE = ("FXG102", "frozen-parameter")


class Freezes:
    """The parameters of `root` that are frozen now and were seen to be, by name, each with the user's line.

    `held`: the ids of what optimizers hold.
    """

    def __init__(self, observer: Observer, root: nn.Module, held: Collection[int]) -> None:
        self.sites: dict[str, Site] = {}
        # of these what was frozen for an earlier backward, and is held by an optimizer
        self.stale: dict[str, Site] = {}
        ran = max((b.note for b in observer.backwards if not b.failed and not b.partial), default=0)
        for name, parameter in root.named_parameters(remove_duplicate=False):
            slot = observer.ledger.tensors.get(parameter)
            when, spots = (
                observer.frozen.get(slot.leaf, (0, ()))
                if slot is not None and not parameter.requires_grad
                else (0, ())
            )
            if not spots:
                continue
            sites = [site_of(spot) for spot in spots]
            self.sites[name] = next((site for site in sites if "site-packages" not in site.file), sites[0])
            if when < ran and id(parameter) in held:
                self.stale[name] = self.sites[name]

    def placed(self, finding: Finding) -> Finding:
        """A finding of a frozen parameter at a library's line, at the user's."""
        if (
            finding.code != RULE[0]
            or not finding.parameters
            or finding.site is None
            or "site-packages" not in finding.site.file
        ):
            return finding
        return replace(finding, site=self.sites.get(finding.parameters[0], finding.site))

    def explained(self, record: Raised) -> Iterator[Finding]:
        """Why a loss does not require grad, or DistributedDataParallel still waits: parameters that an
        optimizer holds are frozen, from another's turn or after they were wrapped."""
        if says(record.message, NO_GRAD_FN):
            after, advice = (
                "still {be}{line} where the loss is differentiated",
                "unfreeze them when this turn is over (`requires_grad_(True)`; a trainer's `untoggle_optimizer`)",
            )
        elif says(record.message, UNREDUCED):
            after, advice = (
                "DistributedDataParallel, which was made before, waits for their gradients{line}",
                "freeze them before the model is wrapped; where they are frozen only at times, set find_unused_parameters=True",
            )
        else:
            return
        groups: dict[Site, list[str]] = {}
        for name, site in self.stale.items():
            groups.setdefault(site, []).append(name)
        for site, names in groups.items():
            be = "is" if len(names) == 1 else "are"
            yield Finding(
                *RULE,
                "error",
                f"{listed(names)} {be} frozen here, and "
                + after.format(be=be, line=line_of(record.site, site)),
                site,
                tuple(names),
                (Step("loss", record.site), Step(source_of(site) or "frozen", site, True), Step(names[0])),
                Fix(advice),
            )
