"""What several processes of one program showed: which rank got a gradient, which did not, and how those ended
that did not run through.

Part of a report that was gathered from them (`ReportData.ranks`); a report on one process has none. Ranks
count from 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from fxgrad.records.findings import Site


@dataclass(frozen=True, slots=True)
class Difference:
    """Parameters that get a gradient on the ranks `on` and none on the ranks `without`.

    `site`: the line that left them out there, as one of those ranks found it (None: no line is known); `why`
    says it in one sentence.
    """

    parameters: tuple[str, ...]
    on: tuple[int, ...]
    without: tuple[int, ...]
    site: Site | None
    why: str


@dataclass(frozen=True, slots=True)
class Ending:
    """How a rank ended that did not simply train. `site`: the user's line; `reported`: what it had seen until
    then is in the report."""

    rank: int
    kind: Literal["raised", "exited", "stood still", "silent"]
    said: str
    site: Site | None = None
    reported: bool = False


@dataclass(frozen=True, slots=True)
class Ranks:
    """The processes behind a report. `verdicts`: by parameter name, by rank that has such a parameter."""

    size: int
    verdicts: Mapping[str, Mapping[int, str]]
    differing: tuple[Difference, ...] = ()
    endings: tuple[Ending, ...] = ()


def on_ranks(ranks: Iterable[int], size: int) -> str:
    """`rank 1 of 2`, `ranks 0, 2 of 4`, `ranks 0-6 of 8`."""
    found = sorted(ranks)
    runs: list[list[int]] = []
    for rank in found:
        if runs and rank == runs[-1][-1] + 1:
            runs[-1].append(rank)
        else:
            runs.append([rank])
    said = ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)
    return f"rank{'' if len(found) == 1 else 's'} {said} of {size}"
