"""Which versions of torch fxgrad was tried on, and whether the one at hand is newer. The table of results is
`tests/VERSIONS.md`."""

from __future__ import annotations

import torch

# The first and the last minor version that fxgrad was tried on; tests/VERSIONS.md says what was run where.
OLDEST_TRIED, NEWEST_TRIED = (2, 11), (2, 15)


def newer_than_tried(version: str | None = None) -> bool:
    """Whether this torch is of a later minor version than any that was tried; nightly builds of one count as
    that version."""
    major, minor = (version or torch.__version__).split(".")[:2]
    return (int(major), int(minor)) > NEWEST_TRIED


def tried() -> str:
    """The range in words: `2.11 to 2.15`."""
    return f"{OLDEST_TRIED[0]}.{OLDEST_TRIED[1]} to {NEWEST_TRIED[0]}.{NEWEST_TRIED[1]}"
