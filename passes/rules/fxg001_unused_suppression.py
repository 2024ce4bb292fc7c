"""A comment silences a finding that is not there.

What it finds
    `# fxgrad: ignore[FXG103]` on a line where no such finding stands.

Why it matters
    What is silenced without need hides the next finding on that line.

Example
    y = self.body(x)  # fxgrad: ignore[FXG103]

Instead
    y = self.body(x)

When the fix is safe
    Never applied by itself: the line may have been silenced for another version of the program.

Not handled
    Comments in files that the analysis does not read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from fxgrad.passes.context import Context
from fxgrad.records import Facts, Finding, Fix, Site

CODE = "FXG001"
NAME = "unused-suppression"
SEVERITY = "note"


def check(facts: Facts, context: Context) -> Iterator[Finding]:
    """Nothing by itself: what silences nothing is known when every rule has spoken
    (`fxgrad.report.intent`)."""
    return iter(())


def unused(site: Site, codes: Collection[str]) -> Finding:
    """The finding of a comment that silences these codes, or with none of them all."""
    which = f"[{', '.join(sorted(codes))}]" if codes else ""
    message = f"`# fxgrad: ignore{which}` silences nothing here"
    return Finding(CODE, NAME, "note", message, site, fix=Fix("remove the comment"))
