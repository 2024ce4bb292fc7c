"""A gradient arrives and is zero whatever the data: round, floor, sign, `x * 0`, a mask of zeros,
contributions that cancel.

What it finds
    Parameters whose gradient is a tensor of zeros and stays so when inputs and weights are drawn again, with
    the step that turns it to zeros: rounding and sign, sampling without reparametrisation (`torch.normal`,
    `torch.bernoulli`), a factor or a loss weight of 0, a mask that is constant and zero, a softmax or a cross
    entropy over a single element, a value overwritten or cut off before the loss, hooks, and contributions
    that cancel (the last bias of a critic). Two layers in a row that both start at zero, a weight that
    multiplies a zero state, a table of which only the padding row is read: a warning, for no step changes
    that. Zero for now is no finding: a ReLU that is off, a saturated sigmoid; a note where a hook masks rows
    of a table (other rows may pass), and where what starts at zero (LoRA's B, a gate) gets a gradient itself
    and so lets one through after the first step.

Why it matters
    Nothing raises and `.grad` is there, so checks for None pass. The optimizer steps, with weight decay only.

Example
    quantised = torch.round(h * 16) / 16

Instead
    quantised = h + (torch.round(h * 16) / 16 - h).detach()

When the fix is safe
    A straight-through or soft version changes the gradient from nothing to an estimate: whether it is a good
    one is the user's judgement. A zero weight that a schedule raises later needs no fix.

Not handled
    Zeros of a matrix product. On fake tensors only operations with a zero derivative and factors written as 0
    are known. What rests on a buffer, or on a loss weight, is a warning: something may change it between
    steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from fxgrad.passes.analyses import lost_gradients
from fxgrad.passes.analyses.dead_structure import structural_zeros
from fxgrad.passes.analyses.fixed_operands import attributes_behind, word
from fxgrad.passes.analyses.gradient_hooks import hook_site, lets_some_through
from fxgrad.passes.analyses.index import once
from fxgrad.passes.analyses.zeros import by_construction, emptied_at
from fxgrad.passes.context import Context
from fxgrad.passes.findings import expression, listed, text_of
from fxgrad.records import Facts, Finding, Fix, NodeFact, ParameterFact, Severity, Site, Step

CODE = "FXG401"
NAME = "zero-gradient-op"
SEVERITY = "error"


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
_GATED = frozenset(["lstm", "gru", "rnn_tanh"])


@dataclass(slots=True)
class _Group:
    """What one line does, and to which parameters."""

    what: str
    advice: str
    certain: bool
    term: bool
    site: Site | None
    proven: bool = True
    settled: bool = False  # nothing shows why, and yet no step changes it
    kind: str = ""
    names: list[str] = field(default_factory=list)


def check(facts: Facts, context: Context) -> Iterator[Finding]:
    """One finding per line that turns gradients to zero."""
    watched = context.watched
    if watched is None:
        return
    groups: dict[tuple[str, Site | None], _Group] = {}
    for parameter in watched.parameters:
        if (
            not parameter.requires_grad
            or parameter.gradient != "zero"
            or context.verdicts.get(parameter.name) != "zero"
        ):
            continue
        made = _cause(watched, context, parameter)
        if made is not None:
            groups.setdefault((made.what, made.site), made).names.extend(parameter.names)
    yield from (_finding(group, context) for group in groups.values())
    yield from _for_now(context)


def _for_now(context: Context) -> Iterator[Finding]:
    """One note for all that wait for the same parameters to leave zero."""
    waiting: dict[tuple[str, ...], list[str]] = {}
    for name, movers in context.pending.items():
        waiting.setdefault(movers, []).append(name)
    for movers, names in waiting.items():
        one = len(names) == 1
        yield Finding(
            CODE,
            NAME,
            "note",
            f"the gradient of {listed(names)} is zero for now: {listed(movers)} "
            f"start{'s' if len(movers) == 1 else ''} at zero and "
            f"get{'s' if len(movers) == 1 else ''} a gradient, so {'it has' if one else 'they have'} one "
            "after the first step",
            None,
            tuple(names),
            (),
            Fix(
                "nothing to mend: a part that starts at zero is meant to leave the model as it is at "
                "first "
                "(LoRA, ControlNet, ReZero)"
            ),
        )


def _cause(watched: Facts, context: Context, parameter: ParameterFact) -> _Group | None:
    loss = _structural(watched, parameter) or lost_gradients.analyse(watched, parameter)
    reason = by_construction(watched, loss, context) if loss is not None else None
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
        return _Group(
            what,
            advice,
            True,
            False,
            site,
            proven=not (_is_table(watched, parameter) and lets_some_through(context, parameter)),
        )
    return _Group(
        f"`{expression(reason.node)}` {reason.text}",
        reason.advice,
        reason.certain,
        reason.term,
        reason.node.site,
        kind=reason.kind,
    )


def _is_table(watched: Facts, parameter: ParameterFact) -> bool:
    """Whether rows of the parameter are looked up and no more: a mask that lets other rows through hands on
    zeros for these alone."""
    readers = [node for node in watched.nodes if set(node.reads).intersection(parameter.values)]
    return bool(readers) and all(node.target.rpartition(".")[2] in _LOOK_UPS for node in readers)


def _is_factor(watched: Facts, context: Context, parameter: ParameterFact, loss: lost_gradients.Loss) -> bool:
    """Whether what the losing step weighs the value with stays zero: a constant, or what is made of a
    parameter that is zero and stays so.

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
    still = {
        value
        for p in watched.parameters
        if context.settled.issuperset(p.names) and _is_zero(context, p)
        for value in p.values
    }
    return not still.isdisjoint(_made_of(watched, others))


def _is_zero(context: Context, parameter: ParameterFact) -> bool:
    tensor = dict(context.model.named_parameters()).get(parameter.name)
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


def _unproven(watched: Facts, loss: lost_gradients.Loss | None, *, settled: bool) -> _Group | None:
    """The step that handed on zeros, where nothing shows that it always does: its line is told, and no
    more."""
    if loss is None or loss.node.site is None:
        return None
    if loss.flow is not None and 0 in watched.values[loss.flow.source].shape:
        emptied = emptied_at(watched, loss.flow.source) or loss.node
        return _Group(
            f"`{expression(emptied)}` selects nothing",
            "check what selects here",
            False,
            False,
            emptied.site,
            False,
        )
    part = _part_used(watched, loss.node)
    if part is not None:
        what = f"`{expression(part)}` is all that is used of `{expression(loss.node)}`"
        # Gates are smooth: what comes back through a recurrent layer as exact zeros was never asked for.
        proven = word(loss.node).lower() in _GATED
        return _Group(
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
        return _Group(what, advice, False, False, loss.node.site, proven=False, settled=True)
    advice = "try other inputs; if it stays so, look at what this line weighs or selects"
    return _Group(f"{what} for these inputs", advice, False, False, loss.node.site, False)


def _part_used(watched: Facts, node: NodeFact) -> NodeFact | None:
    """The one step that takes a part of the result, at fixed positions, on the only way from it to the
    loss."""
    readers = {
        n.name: n
        for v in node.makes
        for n, flow in watched.open_from.get(v, ())
        if flow.target in watched.live
    }
    found = next(iter(readers.values())) if len(readers) == 1 else None
    if (
        found is None
        or found.site is None
        or found.target.rpartition(".")[2] not in _PARTS
        or len(set(found.reads)) != 1
    ):
        return None
    return found


def _structural(watched: Facts, parameter: ParameterFact) -> lost_gradients.Loss | None:
    """On fake tensors no gradient has a value: the step that is dead by its structure."""
    node = watched.node_named.get(once(watched, _dead).get(parameter.name, ""))
    flow = next((f for f in node.flows if f.open), None) if node is not None else None
    return lost_gradients.Loss(node, flow, "zero") if node is not None and flow is not None else None


def _dead(watched: Facts) -> Mapping[str, str]:
    """`structural_zeros`, where no gradient has a value."""
    return {} if any(value.delivered == "zero" for value in watched.values) else structural_zeros(watched)


def _finding(group: _Group, context: Context) -> Finding:
    names = tuple(group.names)
    path = (Step("loss"), Step(text_of(group.site) or "step", group.site, True), Step(names[0]))
    if group.term:
        return Finding(
            "FXG101",
            "unused-parameter",
            _severity(context, names, certain=context.explicit),
            f"{group.what}: {listed(names)} {'takes' if len(names) == 1 else 'take'} no part in the loss "
            "through any other term",
            group.site,
            names,
            path,
            Fix(group.advice),
        )
    settled = group.settled
    stays = ", and no step changes that" if settled else ""
    return Finding(
        CODE,
        NAME,
        _severity(context, names, certain=group.certain) if group.proven or settled else "note",
        f"{group.what}: the gradient of {listed(names)} is {'always ' if group.proven else ''}zero{stays}",
        group.site,
        names,
        path,
        Fix(group.advice),
        kind=group.kind,
    )


def _severity(context: Context, names: tuple[str, ...], *, certain: bool) -> Severity:
    if not context.expected.intersection(names):
        return "note"
    return "error" if certain else "warning"
