"""What makes a gradient zero: for each parameter whose gradient is all zeros, the line that turns it so, what
that line does, and whether it always does.

From the facts of a step whose backward was watched. Not handled: which of several such lines on one way is
meant; the one nearest to the loss is named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fxgrad.passes.analyses import lost_gradients
from fxgrad.passes.analyses.dead_structure import structural_zeros
from fxgrad.passes.analyses.fixed_operands import attributes_behind, word
from fxgrad.passes.analyses.gradient_hooks import (
    hook_site,
    is_of_module,
    lets_some_through,
    site_of_registration,
)
from fxgrad.passes.analyses.index import once
from fxgrad.passes.analyses.zeros import OFF, PRODUCTS, Reason, by_construction, emptied_at, is_emptied
from fxgrad.passes.context import Context
from fxgrad.passes.findings import expression, text_of
from fxgrad.records import Facts, NodeFact, ParameterFact, Site
from fxgrad.torch_api import registry

# As functions and as modules of torch.
_LOOK_UPS = frozenset(
    [
        "embedding",
        "embedding_bag",
        "Embedding",
        "EmbeddingBag",
        "index_select",
        "gather",
        "__getitem__",
        "register_hook",
    ]
)

# Modules of torch that make their own state of zeros where they are given none.
_RECURRENT = frozenset(["RNN", "GRU", "LSTM", "RNNCell", "GRUCell", "LSTMCell"])
# What takes a part of one tensor.
_PARTS = frozenset(["__getitem__", "select", "narrow", "chunk", "split", "unbind", "tensor_split"])
# What puts the elements of one tensor in another order, whole.
_ORDERS = frozenset(["index_select", "permute", "transpose", "contiguous", "swapaxes", "movedim"])
_GATED = frozenset(["lstm", "gru", "rnn_tanh"])


@dataclass(slots=True)
class ZeroCause:
    """What one line does, and to which parameters. `term`: it takes them out of the loss and no more;
    `certain`: it always does; `proven`: that is known."""

    what: str
    advice: str
    certain: bool
    term: bool
    site: Site | None
    proven: bool = True
    settled: bool = False  # nothing shows why, and yet no step changes it
    kind: str = ""
    seen: bool = False  # to be so in the steps that were watched, and no more: a hook may look at data
    names: list[str] = field(default_factory=list)


def analyse(context: Context) -> tuple[ZeroCause, ...]:
    """One for each line that turns gradients to zero; none where no backward was watched."""
    watched = context.watched
    if watched is None:
        return ()
    if analyse not in watched.memo:
        watched.memo[analyse] = _found(watched, context)
    found: tuple[ZeroCause, ...] = watched.memo[analyse]
    return found


def idle(facts: Facts, context: Context) -> frozenset[str]:
    """What should train, where every gradient of it is zero; else empty."""
    trainable = frozenset(name for p in facts.parameters if p.requires_grad for name in p.names)
    wanted = context.expected or trainable
    zero = facts.error is None and all(context.verdicts.get(name) == "zero" for name in wanted)
    return wanted if zero else frozenset()


def _found(watched: Facts, context: Context) -> tuple[ZeroCause, ...]:
    groups: dict[tuple[str, Site | None, bool], ZeroCause] = {}
    # A backward had left another gradient of these: what makes zeros of it is no step on the way to the loss.
    written = set(context.training.emptied) if context.training is not None else set()
    for parameter in watched.parameters:
        if (
            not parameter.requires_grad
            or parameter.gradient != "zero"
            or context.verdicts.get(parameter.name) != "zero"
            or not written.isdisjoint(parameter.names)
        ):
            continue
        made = _cause(watched, context, parameter)
        if made is not None:
            summed = context.summed.issuperset(parameter.names)
            groups.setdefault((made.what, made.site, summed), made).names.extend(parameter.names)
    return tuple(groups.values())


def _cause(watched: Facts, context: Context, parameter: ParameterFact) -> ZeroCause | None:
    loss = _structural(watched, parameter) or lost_gradients.analyse(watched, parameter)
    if loss is not None and loss.left == "none" and is_of_module(loss.node):
        return None  # a hook that returns None: FXG112
    reason = _reason(watched, context, loss) if loss is not None else None
    if reason is None or (reason.node.site is None and loss is None):
        site = hook_site(watched, context, parameter, loss)
        if site is None:
            settled = (
                context.settled.issuperset(parameter.names)
                and loss is not None
                and _is_factor(watched, context, parameter, loss)
            )
            return _unproven(watched, loss, settled=settled)
        advice = "let the hook pass on what should train, or freeze these parameters"
        what = f"the hook `{text_of(site) or site.function}` hands on zeros"
        return ZeroCause(
            what,
            advice,
            True,
            False,
            site,
            proven=not (_is_table(watched, parameter) and lets_some_through(context, parameter)),
            seen=context.training is not None,
        )
    return ZeroCause(
        f"`{expression(reason.node)}` {reason.text}",
        reason.advice,
        reason.certain,
        reason.term,
        reason.node.site,
        proven=reason.kind != OFF,
        settled=reason.kind == OFF and context.settled.issuperset(parameter.names),
        kind=reason.kind,
    )


def _reason(watched: Facts, context: Context, loss: lost_gradients.Loss) -> Reason | None:
    """Why the step itself makes zeros. Not where a hook was seen to do so: a watch sees what one is given and
    what it hands on."""
    source = loss.flow.source if context.training is not None and loss.flow is not None else None
    if source is not None and site_of_registration(watched, source) is not None:
        return None
    return by_construction(watched, loss, context)


def _is_table(watched: Facts, parameter: ParameterFact) -> bool:
    """Whether rows of the parameter are looked up and no more: a mask that lets other rows through hands on
    zeros for these alone."""
    readers = [node for node in watched.nodes if set(node.reads).intersection(parameter.values)]
    return bool(readers) and all(node.target.rpartition(".")[2] in _LOOK_UPS for node in readers)


def _is_factor(watched: Facts, context: Context, parameter: ParameterFact, loss: lost_gradients.Loss) -> bool:
    """Whether what the losing step weighs the value with stays zero: a constant, what is made of a parameter
    that is zero and stays so, or a tensor that a script made before its loop and uses in each step as it is.

    What a saturated sigmoid or a ReLU that is off holds back is its own doing, and other data may end it.
    """
    if loss.flow is None:
        return False
    own = loss.flow.source in parameter.values
    if own and loss.node.target.rpartition(".")[2] in _LOOK_UPS | _RECURRENT:
        return True
    others = [
        v for v in loss.node.reads if v != loss.flow.source and watched.values[v].dtype.is_floating_point
    ]
    if own and any(attributes_behind(watched, v, watched.maker_of) is not None for v in others):
        return True
    if word(loss.node) in PRODUCTS and not watched.maker_of.keys() >= set(others):
        return True
    return not _still_zero(watched, context).isdisjoint(_made_of(watched, others))


def _still_zero(watched: Facts, context: Context) -> set[int]:
    """The values of parameters that are zero and whose gradients are."""
    settled = (p for p in watched.parameters if context.settled.issuperset(p.names))
    return {value for p in settled if _is_zero(context, p) for value in p.values}


def _is_zero(context: Context, parameter: ParameterFact) -> bool:
    tensor = dict(registry.named_parameters(context.model)).get(parameter.name)
    return tensor is not None and not tensor.is_meta and not bool(tensor.detach().any())


def _made_of(watched: Facts, values: list[int]) -> set[int]:
    """These values and all that they were computed from."""
    found, pending = set(values), list(values)
    while pending:
        node = watched.maker_of.get(pending.pop())
        for value in node.reads if node is not None else ():
            if value not in found:
                found.add(value)
                pending.append(value)
    return found


def _unproven(watched: Facts, loss: lost_gradients.Loss | None, *, settled: bool) -> ZeroCause | None:
    """The step that handed on zeros, where nothing shows that it always does: its line is told, and no
    more."""
    if loss is None or loss.node.site is None:
        return None
    if loss.flow is not None and 0 in watched.values[loss.flow.source].shape:
        emptied = emptied_at(watched, loss.flow.source) or loss.node
        what, advice = "selects nothing", "check what selects here"
        if emptied.site is None or any(is_emptied(watched, v) for v in emptied.reads):
            what, advice = "is given a tensor without elements", "look for what left none in it"
        return ZeroCause(f"`{expression(emptied)}` {what}", advice, False, False, emptied.site, False)
    part = _part_used(watched, loss.node)
    if part is not None:
        what = f"`{expression(part)}` is all that is used of `{expression(loss.node)}`"
        # Gates are smooth: what comes back through a recurrent layer as exact zeros was never asked for.
        proven = word(loss.node).lower() in _GATED
        return ZeroCause(
            what,
            "use the rest too, or leave out the parameters that only that depends on",
            False,
            False,
            part.site,
            proven,
        )
    what = f"`{expression(loss.node)}` hands on only zeros"
    if settled:
        advice = (
            "let one of the factors start at other numbers than zero, or give this line other data than "
            "padding or a zero state"
        )
        return ZeroCause(what, advice, False, False, loss.node.site, proven=False, settled=True)
    advice = "try other inputs; if it stays so, look at what this line weighs or selects"
    return ZeroCause(f"{what} for these inputs", advice, False, False, loss.node.site, False)


def _part_used(watched: Facts, node: NodeFact) -> NodeFact | None:
    """The one step that takes a part of the result, at fixed positions, on the only way from it to the loss;
    also past steps that put its elements in another order (a packed sequence's states)."""
    found = _only_reader(watched, node)
    while found is not None and found.target.rpartition(".")[2] in _ORDERS:
        found = _only_reader(watched, found)
    if (
        found is None
        or found.site is None
        or found.target.rpartition(".")[2] not in _PARTS
        or len(set(found.reads)) != 1
    ):
        return None
    return found


def _only_reader(watched: Facts, node: NodeFact) -> NodeFact | None:
    """The one step through which a gradient comes back to what a step made."""
    readers = {
        n.name: n
        for v in node.makes
        for n, flow in watched.open_from.get(v, ())
        if flow.target in watched.live
    }
    return next(iter(readers.values())) if len(readers) == 1 else None


def _structural(watched: Facts, parameter: ParameterFact) -> lost_gradients.Loss | None:
    """On fake tensors no gradient has a value: the step that is dead by its structure."""
    node = watched.node_named.get(once(watched, _dead).get(parameter.name, ""))
    flow = next((f for f in node.flows if f.open), None) if node is not None else None
    return lost_gradients.Loss(node, flow, "zero") if node is not None and flow is not None else None


def _dead(watched: Facts) -> Mapping[str, str]:
    """`structural_zeros`, where no gradient has a value."""
    return {} if any(value.delivered == "zero" for value in watched.values) else structural_zeros(watched)
