"""Weak flows of a watch, from numbers that left torch to what was made of Python's data: what the source says
of them.

Inside Python nothing is followed, and a script is not run again with another number there. So a flow that was
assumed is dropped where the text rules it out, and one that was not seen is added where the text shows it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from fxgrad.records import Flow, NodeFact, Site
from fxgrad.source.assigned import statement_at
from fxgrad.source.numbers_onward import may_reach
from fxgrad.source.numbers_read import statements_reading

NEAR = 200  # nodes behind a number that may be what a statement below made of it


def without_idle(nodes: tuple[NodeFact, ...]) -> tuple[NodeFact, ...]:
    """The nodes without the weak flows of numbers that cannot have come to where they were assumed."""
    left = {value: node.stack for node in nodes if node.kind == "escape" for value in node.makes}
    known: dict[tuple[tuple[Site, ...], tuple[Site, ...]], bool] = {}
    found: list[NodeFact] = []
    for node in nodes:
        idle: set[int] = set()
        for flow in node.flows:
            stack = left.get(flow.source) if flow.weak else None
            if stack is None:
                continue
            pair = stack, node.stack
            if pair not in known:
                known[pair] = may_reach(stack, node.stack)
            if not known[pair]:
                idle.add(flow.source)
        flows = tuple(flow for flow in node.flows if not flow.weak or flow.source not in idle)
        found.append(node._replace(flows=flows) if idle else node)
    return tuple(found)


def with_read(nodes: tuple[NodeFact, ...]) -> tuple[NodeFact, ...]:
    """The nodes with weak flows from numbers that were not seen to go anywhere, to what the statements that
    read them have made: a size, an index, a power."""
    seen = {flow.source for node in nodes for flow in node.flows}
    read: dict[tuple[Site, ...], frozenset[ast.stmt]] = {}
    statements: dict[Site, ast.stmt | None] = {}
    more: dict[int, list[int]] = {}  # by the place of a node, the numbers that its statement reads
    for place, left in enumerate(nodes):
        if left.kind != "escape" or not seen.isdisjoint(left.makes):
            continue
        if left.stack not in read:
            read[left.stack] = statements_reading(left.stack)
        for number in _in_statements(nodes, place, read[left.stack], statements):
            more.setdefault(number, []).extend(left.makes)
    found = list(nodes)
    for number, values in more.items():
        node = nodes[number]
        added = [Flow(value, made, False, weak=True) for value in values for made in node.makes]
        found[number] = node._replace(flows=(*node.flows, *added))
    return tuple(found)


def _in_statements(
    nodes: Sequence[NodeFact],
    place: int,
    wanted: frozenset[ast.stmt],
    statements: dict[Site, ast.stmt | None],
) -> Iterator[int]:
    """The places of the nodes behind `place` that ran in one of these statements. `statements`: by the place
    in the text, as far as known."""
    for number in range(place + 1, min(place + NEAR, len(nodes)) if wanted else 0):
        node = nodes[number]
        for site in node.stack if node.kind != "escape" else ():
            if site not in statements:
                statements[site] = statement_at(site)
            if statements[site] in wanted:
                yield number
                break
