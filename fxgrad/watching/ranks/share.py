"""What one rank tells rank 0: the report on what it saw, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass

from fxgrad.records.ranks import Ending
from fxgrad.report import Report


@dataclass(frozen=True, slots=True)
class Share:
    """`report`: None where nothing had been seen that a report could be made of. `ending`: None of a rank
    that trained until it was enough."""

    rank: int
    report: Report | None
    ending: Ending | None = None
