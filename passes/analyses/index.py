"""What several rules ask of the same facts, for one parameter after the other: computed at the first question.

Kept in `Facts.memo`, so it lives as long as the facts and no longer; `dataclasses.replace` starts an empty one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar, cast

from fxgrad.records import Facts, Flow, NodeFact

T = TypeVar("T")


def once(facts: Facts, make: Callable[[Facts], T]) -> T:
    """`make(facts)`, made once for these facts."""
    if make not in facts.memo:
        facts.memo[make] = make(facts)
    return cast(T, facts.memo[make])


def leaving(facts: Facts) -> Mapping[int, list[tuple[NodeFact, Flow]]]:
    """The open flows by their source."""
    found: dict[int, list[tuple[NodeFact, Flow]]] = {}
    for node in facts.nodes:
        for flow in node.flows:
            if flow.open:
                found.setdefault(flow.source, []).append((node, flow))
    return found


def makers(facts: Facts) -> Mapping[int, NodeFact]:
    """The node that made each value."""
    return {value: node for node in facts.nodes for value in node.makes}


def by_name(facts: Facts) -> Mapping[str, NodeFact]:
    """The nodes by name."""
    return {node.name: node for node in facts.nodes}
