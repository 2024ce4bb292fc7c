"""What a random draw alone passed by: a layer dropped at random, a head chosen by chance.

A parameter that nothing read is *passed by a draw* where the lines that use it are known and a draw decided
of one of them (`decisions`): the next draw may go the other way, so it is not unused. Not handled: what the
counts of what ran do not show.
"""

from __future__ import annotations

from collections.abc import Mapping

from fxgrad.passes.analyses import decisions
from fxgrad.passes.analyses.causes import Causes
from fxgrad.passes.analyses.freed_graphs import unknown
from fxgrad.passes.context import Context
from fxgrad.records import Facts

_ASKED = 64  # parts of a model of which it is asked what passed each by


def passed_by_draws(facts: Facts, context: Context) -> Mapping[str, decisions.Decision]:
    """The decisions, by the parameter's name."""
    key = "passed by draws"
    if key not in facts.memo:
        facts.memo[key] = _passed(facts, context)
    found: Mapping[str, decisions.Decision] = facts.memo[key]
    return found


def _passed(facts: Facts, context: Context) -> dict[str, decisions.Decision]:
    causes: Causes = context.causes
    ends = {p.name: causes.ends.get(p.name) for p in causes.starved}
    excused = unknown(facts)
    dead = {
        name: end
        for name, end in ends.items()
        if end and end.kind in ("never called", "not read") and name not in excused
    }
    told: dict[str, decisions.Decision | None] = {}
    for part in list(dict.fromkeys(end.part for end in dead.values()))[:_ASKED]:
        first = decisions.of_part(facts, context, part, None)
        drawn = first is not None and first.drawn
        told[part] = decisions.of_part(facts, context, part, first.site) if first and drawn else None
    return {name: found for name, end in dead.items() if (found := told.get(end.part)) is not None}
