"""What an analysis finds in the same facts for one parameter after the other: computed at the first question.

Kept in `Facts.memo`, so it lives as long as the facts and no longer; `dataclasses.replace` starts an empty
one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from fxgrad.records import Facts

T = TypeVar("T")


def once(facts: Facts, make: Callable[[Facts], T]) -> T:
    """`make(facts)`, made once for these facts."""
    if make not in facts.memo:
        facts.memo[make] = make(facts)
    return cast(T, facts.memo[make])
