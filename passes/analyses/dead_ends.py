"""Dead ends: where the data of a parameter that never reaches the loss was last seen.

Six kinds:
 1. *never called*: no step read the parameter, and neither its module nor anything in it ran. `part` is the
    outermost such module. *left out* where that is a part of torch's own module that ran (an adaptive softmax
    whose clusters had no target): the rule says so.
 2. *not read*: its module ran without reading it. `part` is the parameter's name.
 3. *unread*: something was computed from it and nothing reads that. The place is the outermost call that
    returned the dead value; where an installed package lost it, of its calls the outermost that returned
    nothing else (the pooler, not the network around it).
 4. *missed*: what reads it ends in the loss function, or as a number in a forward that computes the loss: the
    `return` left it out.
 5. *lost*: the same, but a statement threw it away: `loss + aux` on a line of its own, `loss = ...` over it.
 6. *derived*: only a derivative is taken of it, and the derivative does not depend on it: the last bias of an
    energy drops out of forces.

That `autograd.grad` is asked for its derivative is no use of a parameter. Only steps that autograd records
are followed, so that an accuracy or a log line computed from a dead value does not count as its end; where
none was recorded, all are. Two passes over the nodes for all parameters together. Not handled: values kept in
an attribute and read by nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from fxgrad.passes.analyses.cuts import GRAD, drops_out
from fxgrad.records import Call, Facts, Flow, NodeFact, ParameterFact, Site
from fxgrad.source.handed_on import dropped_in, hands_on, return_around, thrown_away
from fxgrad.source.objects import origin

Kind = Literal["never called", "left out", "not read", "unread", "missed", "lost", "derived"]

LEFT_BEHIND = frozenset(("unread", "missed", "lost"))  # there was a result


@dataclass(frozen=True, slots=True)
class DeadEnd:
    """`part`: the module (or parameter) that is dead, by name; `node`: the last step the data reached (None
    if none read it)."""

    kind: Kind
    site: Site | None
    node: str | None
    part: str


def analyse(facts: Facts, parameters: Iterable[ParameterFact]) -> Mapping[str, DeadEnd]:
    """Where the data of each parameter ends, by the parameter's name."""
    parameters = tuple(parameters)
    if not parameters:
        return {}
    last, outermost = _ends(facts, recorded_only=True)
    to_the_loss = reaching(facts.nodes, facts.loss)
    used = _used(facts)
    alive = _alive(facts, used)
    places: dict[tuple[int, int | None], DeadEnd] = {}
    unrecorded: tuple[dict[int, int], dict[int, tuple[int, int, int]]] | None = None  # asked for seldom
    found: dict[str, DeadEnd] = {}
    for parameter in parameters:
        followed = not last.keys().isdisjoint(parameter.values)
        if not followed and used.isdisjoint(parameter.values):  # none, or only its shape was asked for
            found[parameter.name] = _unread_parameter(parameter, alive)
            continue
        steps, results = last, outermost
        if not followed:
            steps, results = unrecorded = unrecorded or _ends(facts, recorded_only=False)
        index = max(steps.get(v, -1) for v in parameter.values)
        calls = [results[v] for v in parameter.values if v in results]
        call = min(calls)[2] if calls else None
        if (index, call) not in places:
            places[index, call] = _place(facts, index, facts.calls[call] if call is not None else None)
        found[parameter.name] = _inside_a_package(facts, places[index, call], parameter, to_the_loss)
    return found


def _used(facts: Facts) -> set[int]:
    return {
        flow.source for node in facts.nodes for flow in node.flows if not _is_asked_for(facts, node, flow)
    }


def _is_asked_for(facts: Facts, node: NodeFact, flow: Flow) -> bool:
    """Whether the flow is that of a parameter into `autograd.grad`: one of the `inputs`."""
    return node.target == GRAD and facts.values[flow.source].is_leaf


def _alive(facts: Facts, used: set[int]) -> frozenset[str]:
    """The qualified names of modules that ran, or in which something ran or was read."""
    paths = [call.path for call in facts.calls]
    read = [p for p in facts.parameters if p.module_called or not used.isdisjoint(p.values)]
    paths += [name.rpartition(".")[0] for p in read for name in p.names]
    alive = {""}
    for path in dict.fromkeys(paths):
        while path not in alive:
            alive.add(path)
            path = path.rpartition(".")[0]
    return frozenset(alive)


def _unread_parameter(parameter: ParameterFact, alive: frozenset[str]) -> DeadEnd:
    if parameter.module in alive:
        return DeadEnd("not read", None, None, parameter.name)
    words = parameter.module.split(".")
    prefixes = (".".join(words[: i + 1]) for i in range(len(words)))
    return DeadEnd("never called", None, None, next(p for p in prefixes if p not in alive))


def _ends(facts: Facts, *, recorded_only: bool) -> tuple[dict[int, int], dict[int, tuple[int, int, int]]]:
    """By value: the index of the last node its data reaches, and (depth, -age, number) of the outermost call
    that returned such data."""
    outermost = _outermost(facts)
    last: dict[int, int] = {}
    for index in range(len(facts.nodes) - 1, -1, -1):
        for flow in facts.nodes[index].flows:
            # A step that records nothing is no use of a value that could train; of one that could not, it is.
            if (
                flow.weak
                or _is_asked_for(facts, facts.nodes[index], flow)
                or (recorded_only and not flow.open and facts.values[flow.source].requires_grad)
            ):
                continue
            last[flow.source] = max(last.get(flow.source, -1), index, last.get(flow.target, -1))
            further = outermost.get(flow.target)
            if further is not None:
                outermost[flow.source] = min(outermost.get(flow.source, further), further)
    return last, outermost


def _outermost(facts: Facts) -> dict[int, tuple[int, int, int]]:
    """By value: (depth, -age, number) of the outermost call that returned it."""
    found: dict[int, tuple[int, int, int]] = {}
    # A call inside the model's own that returns all that it does is no nearer to the end: a wrapper hands it
    # on.
    whole = {call.values for call in facts.calls if not call.path and call.depth == 1}
    for number, call in enumerate(facts.calls):
        if call.site is None or not call.path or call.values in whole:
            continue
        for value in call.values:
            key = (call.depth, -number, number)
            found[value] = min(found.get(value, key), key)
    return found


def reaching(nodes: Sequence[NodeFact], loss: int | None) -> set[int]:
    """The values whose data gets to the loss."""
    found = {loss}
    for node in reversed(nodes):
        found.update(flow.source for flow in node.flows if flow.target in found)
    return {value for value in found if value is not None}


def _inside_a_package(facts: Facts, end: DeadEnd, parameter: ParameterFact, to_the_loss: set[int]) -> DeadEnd:
    """Where an installed package lost the value, the outermost call around the parameter that returned
    nothing which gets to the loss."""
    if end.kind != "unread" or end.site is None or origin(end.site.file) != "installed":
        return end
    around = [c for c in facts.calls if c.path and c.site and f"{parameter.module}.".startswith(f"{c.path}.")]
    dead = min(
        (c for c in around if not to_the_loss.intersection(c.values)), key=lambda c: c.depth, default=None
    )
    return replace(end, site=dead.site, part=dead.path) if dead is not None else end


def _place(facts: Facts, index: int, call: Call | None) -> DeadEnd:
    """Where the data that last reached node `index` was lost."""
    site, part = (call.site, call.path) if call is not None else (None, "")
    if index < 0:
        return DeadEnd("unread", site, None, part)
    node = facts.nodes[index]
    derivative = _derivative(facts, node)
    if derivative is not None:
        return DeadEnd("derived", derivative.site, derivative.name, "")
    if not node.stack:
        return DeadEnd("unread", site, node.name, part)
    start = 0
    if call is not None and set(call.values).intersection(node.makes):
        # that call returned it: seen, not read off the text
        start = max(0, len(node.stack) - len(call.stack))
    frame = dropped_in(node.stack, start)
    left = _left_out(facts, node, frame, start)
    if left is not None:
        return left
    handed_on = frame == len(node.stack)  # by all: to the loss, which does not read it
    last = call.site if handed_on and call is not None else node.stack[min(frame, len(node.stack) - 1)]
    return DeadEnd("unread", last, node.name, part if call is not None else node.module)


def _left_out(facts: Facts, node: NodeFact, frame: int, start: int) -> DeadEnd | None:
    """Kinds 4 and 5: `frame` of the step's stack is where the value of a loss, or of a term of it, was
    lost."""
    is_inside = frame < len(node.stack)
    if node.phase == "loss":
        lost = thrown_away(node.stack[frame]) if is_inside else None
        left = lost or _returned(facts, node, frame)
        return DeadEnd("lost" if lost else "missed", left, node.name, "")
    if not is_inside or start > 0 or not _is_term(facts, node) or _is_handed_on_as_number(facts, node):
        return None
    lost = thrown_away(node.stack[frame])
    left = lost or return_around(node.stack[frame])
    return DeadEnd("lost" if lost else "missed", left, node.name, "") if left is not None else None


def _is_handed_on_as_number(facts: Facts, node: NodeFact) -> bool:
    """Whether its function returns what was read off it: no `return` has left it out then."""
    made = set(node.makes)
    readers = (one for one in facts.nodes if one.kind == "escape" and not made.isdisjoint(one.reads))
    return any(reader.stack and hands_on(reader.stack[0]) for reader in readers)


def _derivative(facts: Facts, node: NodeFact) -> NodeFact | None:
    """The step that takes the derivative of what the node made, where nothing is left of it in there: a
    transform of `torch.func` does so itself."""
    if not set(node.differentiated).isdisjoint(node.makes):
        return node
    return next(
        (n for n in facts.nodes if any(f.source in node.makes and drops_out(facts, n, f) for f in n.flows)),
        None,
    )


def _returned(facts: Facts, node: NodeFact, frame: int) -> Site | None:
    """The statement by which the function of the loss that had the value was left."""
    site = node.stack[min(frame, len(node.stack) - 1)]
    return facts.returns.get(f"{site.file}:{site.function}") or return_around(site) or node.site


def _is_term(facts: Facts, node: NodeFact) -> bool:
    """Whether the step made single numbers in a forward that computes the loss itself: terms of that loss."""
    assert facts.loss is not None
    loss = facts.values[facts.loss].node
    if any(n.name == loss and n.phase == "loss" for n in facts.nodes):
        return False
    made = [facts.values[v] for v in node.makes]
    return bool(made) and all(v.shape == () and v.requires_grad for v in made)
