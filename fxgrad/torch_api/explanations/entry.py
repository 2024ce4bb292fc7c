"""What one entry of the table of errors is."""

from __future__ import annotations

from dataclasses import dataclass

from fxgrad.torch_api.errors import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One error of torch's about gradients, explained.

    `means`: what torch noticed. `causes`: what brings it about, likeliest first. `beliefs`: pairs of what is
    often said of it, and what is true. `remedy`: what mends it, an imperative sentence, for where the cause
    at hand is not known. `code`: the rule that a report speaks of it by; "" where no rule is about it.
    `warning`: torch says it and goes on. `python`: not torch but Python says it, of torch's objects and of
    any others.
    """

    name: str
    kind: Kind
    means: str
    causes: tuple[str, ...]
    remedy: str
    beliefs: tuple[tuple[str, str], ...] = ()
    code: str = ""
    warning: bool = False
    python: bool = False
