"""Static look-ups in the user's source: lines for what happened before the analysis began or ran outside
torch.

Each takes file names, live objects or code objects and gives `Site`s with exact character columns. A function
named `..._site` gives one or None, one named `..._sites` a tuple, likeliest first. None raises: what cannot
be read or parsed has no sites. These are look-ups by name in the text; none runs the user's code, and none
knows which statements ran.
"""

from __future__ import annotations

from fxgrad.source.attributes import attribute_site, attribute_sites, container_sites
from fxgrad.source.classes import definition_site
from fxgrad.source.comments import suppressions
from fxgrad.source.freezing import freeze_sites, is_made_constant
from fxgrad.source.grad_modes import decorator_site, grad_off_sites, no_grad_site, region_site, region_sites
from fxgrad.source.objects import files_of
from fxgrad.source.optimizers import optimizer_sites
from fxgrad.source.parsing import line_text, parsed
from fxgrad.source.replacements import replacement_sites
from fxgrad.source.statements import (
    backward_return_site,
    backward_return_sites,
    clearing_site,
    return_sites,
    statement_site,
)

__all__ = [
    "attribute_site",
    "attribute_sites",
    "backward_return_site",
    "backward_return_sites",
    "clearing_site",
    "container_sites",
    "decorator_site",
    "definition_site",
    "files_of",
    "freeze_sites",
    "grad_off_sites",
    "is_made_constant",
    "line_text",
    "no_grad_site",
    "no_grad_site",
    "optimizer_sites",
    "parsed",
    "region_site",
    "region_sites",
    "replacement_sites",
    "return_sites",
    "statement_site",
    "suppressions",
]
