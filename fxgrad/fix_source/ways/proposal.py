"""Ways to mend one trouble, as text edits, likeliest first. A proposal is a guess until a run has
proved it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fxgrad.fix_source.sheet import Sheet
from fxgrad.records import Edit

# the sheet of a file as it stands now; raises FixError where it may not be edited
Pages = Callable[[str], Sheet]


@dataclass(frozen=True, slots=True)
class Proposal:
    """One way. `how` says it in a few words, for the reader of a diff."""

    how: str
    edits: tuple[Edit, ...]


def proposal(how: str, *edits: Edit | None) -> Proposal | None:
    """The proposal of these edits; None where one of them cannot be made."""
    made = tuple(edit for edit in edits if edit is not None)
    return Proposal(how, made) if len(made) == len(edits) else None
