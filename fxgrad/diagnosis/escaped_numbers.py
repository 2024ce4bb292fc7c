"""Numbers that left torch and come back: proven by handing the program another number and looking at its
loss.

Inside Python and NumPy nothing can be followed. So where a parameter has no gradient and its data leaves
torch, the program is run again with the number that left disturbed: if the loss changes, the number takes
part in it, and a *weak* flow leads from there to the loss; if it does not, the weak flows that were assumed
from there are dropped. A number that only decides a branch takes part as well. Not handled: values on fake
tensors (there are none), numbers beyond the first `TESTED` lines.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from fxgrad.diagnosis.branches import Explored, affordable, differ, outcomes
from fxgrad.passes.analyses.causes import is_starved
from fxgrad.records import Facts, Flow, NodeFact
from fxgrad.trace.experiment import Experiment, Nudge
from fxgrad.trace.lab import Lab
from fxgrad.trace.run import Run

TESTED = 12  # lines at which a number leaves torch
AMOUNTS = (None, 0, 1000, -1000)  # see Nudge


def confirm_leaks(lab: Lab, explored: Explored, facts: Facts, values: str) -> Facts:
    """`facts` with every weak flow that matters to a starved parameter proven or dropped."""
    main = explored.main
    if values != "real" or main.loss is None:
        return facts
    escapes = [node for node in facts.nodes if node.kind == "escape"]
    suspects = _suspects(facts, escapes)
    if not suspects:
        return facts
    lines: dict[object, list[int]] = {}
    for number in suspects:
        lines.setdefault(escapes[number].site, []).append(number)
    proven: set[int] = set()
    dropped: set[int] = set()
    for numbers in list(lines.values())[: affordable(main, TESTED)]:
        first_and_last = dict.fromkeys((numbers[0], numbers[-1]))
        matters = any(_decides(explored, escapes[number]) for number in numbers)
        matters = matters or any(_matters(lab, main, number) for number in first_and_last)
        (proven if matters else dropped).update(v for n in numbers for v in escapes[n].makes)
    return _with_flows(facts, proven, dropped)


def _suspects(facts: Facts, escapes: list[NodeFact]) -> list[int]:
    """The escapes that data of a parameter reaches which has no way to the loss that was seen."""
    starved = (p for p in facts.parameters if p.requires_grad and is_starved(facts, p))
    reaching = reaching_loss(facts)
    reached = reached_by(facts, [v for p in starved if reaching.isdisjoint(p.values) for v in p.values])
    return [i for i, node in enumerate(escapes) if reached.intersection(node.reads)]


def reached_by(facts: Facts, start: Iterable[int]) -> set[int]:
    """Every value that data of `start` was seen to go into."""
    reached = set(start)
    for node in facts.nodes:
        for flow in node.flows:
            if not flow.weak and flow.source in reached:
                reached.add(flow.target)
    return reached


def reaching_loss(facts: Facts) -> set[int]:
    """Every value whose data was seen to go into the loss."""
    found = {facts.loss} if facts.loss is not None else set()
    for node in reversed(facts.nodes):
        for flow in reversed(node.flows):
            if not flow.weak and flow.target in found:
                found.add(flow.source)
    return found


def _decides(explored: Explored, escape: NodeFact) -> bool:
    """Whether a branch that changes the loss reads the number."""
    decisions = [explored.main.recorder.decisions[i] for i in explored.deciding]
    return any(d.node == escape.name or set(escape.makes).intersection(d.reads) for d in decisions)


def _matters(lab: Lab, main: Run, number: int) -> bool:
    for amount in AMOUNTS:
        other = lab.run(
            Experiment("real", forced=outcomes(main), nudge=Nudge(number, amount), backward=False)
        )
        if other.loss is None or differ(main, other):
            return True  # without a loss the disturbed number broke the program: it was used
    return False


def _with_flows(facts: Facts, proven: set[int], dropped: set[int]) -> Facts:
    assert facts.loss is not None
    made = facts.values[facts.loss].node
    nodes = []
    for node in facts.nodes:
        flows = tuple(f for f in node.flows if not (f.weak and f.source in dropped))
        if node.name == made:
            known = {f.source for f in flows if f.target == facts.loss}
            flows += tuple(Flow(v, facts.loss, False, weak=True) for v in sorted(proven - known))
        nodes.append(node._replace(flows=flows) if flows != node.flows else node)
    return replace(facts, nodes=tuple(nodes))
