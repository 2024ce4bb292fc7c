"""Why backward meets a graph it can no longer walk: one kept from before the run, or one that an earlier
backward of this run freed.

From facts of a run that raised. A tensor is *kept* if it entered the run with a history (it requires grad and
is no leaf) and a gradient would go back through it from the loss. A `backward` call *spends* the graph if it
walked what the failing backward walks again. Not handled: a `backward` whose `retain_graph` is not written in
its own call counts as one that frees.
"""

from __future__ import annotations

from dataclasses import dataclass

from fxgrad.passes.context import Context
from fxgrad.passes.findings import source_of
from fxgrad.records import Facts, NodeFact, Site
from fxgrad.records.facts import UNSEEN
from fxgrad.source import attribute_sites
from fxgrad.torch_api import registry
from fxgrad.torch_api.errors import SECOND_TIME, says

_BACKWARDS = ("Tensor.backward", "torch.autograd.backward", "torch.autograd.grad")
# In a watched program a tensor that was met goes by no name; one that no noted call made may be older than
# the watch.
UNNAMED = "tensor"
_RETAINS = ("retain_graph=True", "create_graph=True")


@dataclass(frozen=True, slots=True)
class Kept:
    """`reader` is the first step that uses the kept tensor; `name` is where it was kept, "" if that is not
    known.

    `owner` is the module whose plain attribute `name` it is (None: it is kept elsewhere, or deeper).
    `outside`: no module holds it.
    """

    reader: NodeFact
    name: str
    owner: str | None = None
    outside: bool = False


def kept(facts: Facts) -> Kept | None:
    """A tensor with a history from before the run on the way of the gradients."""
    old = _old(facts)
    readers = [(node, value) for node in facts.nodes for value in node.reads if value in old]
    if not readers:
        return None
    node, value = next((r for r in readers if not facts.live.isdisjoint(r[0].makes)), readers[0])
    external = {external.value: external for external in facts.externals}.get(value)
    if external is None:
        return Kept(node, "" if old[value] in (UNNAMED, UNSEEN) else old[value])
    owner = external.owner if external.path == external.attribute else None
    return Kept(node, external.path, owner, external.owner is None)


def _old(facts: Facts) -> dict[int, str]:
    """What entered the run with a history, and under which name."""
    return {
        value: node.target
        for node in facts.nodes
        if node.kind in ("attribute", "input") or node.target == UNSEEN
        for value in node.makes
        if facts.values[value].requires_grad and not facts.values[value].is_leaf
    }


def computed_once(context: Context, found: Kept) -> Site | None:
    """The statement in `__init__` that computed the kept tensor, if no other method ever assigns it anew."""
    module = dict(registry.named_modules(context.model)).get(found.owner) if found.owner is not None else None
    if module is None:
        return None
    sites = attribute_sites(module, found.name, context.files)
    inside = [site for site in sites if site.function.endswith("__init__")]
    return inside[0] if inside and len(inside) == len(sites) else None


@dataclass(frozen=True, slots=True)
class Spender:
    """The call that walked the graph first; `shared`: the step that made what both go through; `result_used`:
    the loss is made of what it gave."""

    call: NodeFact
    shared: NodeFact
    result_used: bool


def spender(facts: Facts) -> Spender | None:
    """The `backward` call of this run that walked, and freed, what is needed again."""
    error = facts.error
    failing = error.node if error is not None and error.phase != "backward" else None
    calls = [node for node in facts.nodes if node.target in _BACKWARDS]
    again = facts.live
    if failing:
        names = [node.name for node in calls]
        if failing not in names:
            return None
        last = calls[names.index(failing)]
        calls, again = calls[: names.index(failing)], _behind(facts, last.reads)
    for node in calls:
        if _retains(node):
            continue
        shared = (v for v in _behind(facts, node.reads) & again if not facts.values[v].is_leaf)
        maker = facts.maker_of.get(max(shared, default=-1))
        if maker is not None:
            return Spender(node, maker, _is_used(facts, node))
    return None


def _retains(call: NodeFact) -> bool:
    text = source_of(call.site)
    return any(word in text for word in _RETAINS)


def _is_used(facts: Facts, node: NodeFact) -> bool:
    """Whether what a call gave gets to the loss, as data."""
    reached = set(node.makes)
    for later in facts.nodes:
        as_tensors = (
            flow for flow in later.flows if not flow.weak and facts.values[flow.target].device != "python"
        )
        reached.update(flow.target for flow in as_tensors if flow.source in reached)
    return facts.loss in reached


def needed(facts: Facts) -> tuple[str, ...]:
    """The parameters that this run does not read: if they get a gradient, then through what is older than the
    run."""
    return tuple(
        p.name
        for p in facts.parameters
        if p.requires_grad and not any(value in facts.live for value in p.values)
    )


def unknown(facts: Facts) -> frozenset[str]:
    """The parameters of which a second walk leaves nothing to say: behind what is older than the run, or
    behind the call that walked first."""
    if facts.error is None or not says(facts.error.message, SECOND_TIME):
        return frozenset()
    if kept(facts) is not None:
        return frozenset(needed(facts))
    spent = spender(facts)
    walked = _behind(facts, spent.call.reads) if spent is not None else frozenset()
    return frozenset(p.name for p in facts.parameters if not walked.isdisjoint(p.values))


def _behind(facts: Facts, start: tuple[int, ...]) -> frozenset[int]:
    """The values that a backward from `start` goes through."""
    reached = {v for v in start if facts.values[v].requires_grad}
    for node in reversed(facts.nodes):
        for flow in node.flows:
            if flow.open and flow.target in reached:
                reached.add(flow.source)
    return frozenset(reached)
