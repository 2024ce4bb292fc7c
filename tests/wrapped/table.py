"""The table of wrapped programs in `tests/README.md`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import torch

from tests import pages
from tests.wrapped.judge import Outcome
from tests.wrapped.wrappers import WRAPPERS

README = Path(__file__).parents[1] / "README.md"
_HOW = ("same", "trains otherwise", "other")


def table(found: Sequence[Outcome]) -> str:
    """One row a wrapper: how many programs it takes, and how often the same is said."""
    programs = len({outcome.program for outcome in found})
    python = ".".join(map(str, sys.version_info[:3]))
    rows = [
        f"{date.today()}, Python {python}, torch {torch.__version__.partition('+')[0]}, {programs} programs",
        "",
        "| wrapper | refuses | `fxgrad run`: same / trains otherwise / other | `fxgrad.analyze`: same / other |",
        "|---|---|---|---|",
    ]
    for wrapper in WRAPPERS:
        own = [outcome for outcome in found if outcome.wrapper == wrapper]
        refused = sum(outcome.how == "refused" and outcome.way == "run" for outcome in own)
        run = " / ".join(str(_count(own, "run", how)) for how in _HOW)
        analyze = " / ".join(str(_count(own, "analyze", how)) for how in ("same", "other"))
        rows.append(f"| `{wrapper}` | {refused} | {run} | {analyze if any(o.way == 'analyze' for o in own) else ''} |")
    return "\n".join(rows)


def _count(found: Sequence[Outcome], way: str, how: str) -> int:
    return sum(outcome.way == way and outcome.how == how for outcome in found)


def write(found: Sequence[Outcome]) -> None:
    """Put the table into the README."""
    pages.write(README, "wrapped", table(found))
