"""What was frozen while the program ran, and by which line of the user's: a trainer's toggle stands at the
call that toggles.

Not handled: what was frozen before the watch began, which rule FXG102 looks up in the source.
"""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from fxgrad.records import Site
from fxgrad.source.sites import own_line, sites_of
from fxgrad.torch_api import registry
from fxgrad.trace.observer import Observer


def freezes(
    observer: Observer, root: nn.Module, held: Collection[int]
) -> tuple[dict[str, Site], dict[str, Site]]:
    """The parameters of `root` that are frozen now and were seen to be, by name, each with the user's line;
    and those of them that were frozen for an earlier backward. `held`: the ids of what optimizers hold, which
    alone is told of these."""
    sites: dict[str, Site] = {}
    stale: dict[str, Site] = {}
    ran = max((b.note for b in observer.backwards if not b.failed and not b.partial), default=0)
    for name, parameter in registry.named_parameters(root, remove_duplicate=False):
        slot = observer.ledger.tensors.get(parameter)
        if slot is None or parameter.requires_grad:
            continue
        when, spots = observer.frozen.get(slot.leaf, (0, ()))
        site = own_line(sites_of(spots))
        if site is None:
            continue
        sites[name] = site
        if when < ran and id(parameter) in held:
            stale[name] = site
    return sites, stale
