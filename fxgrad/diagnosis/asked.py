"""A derivative that was asked for and is not there, a later loss that has no history: what the rules say of
the tensors, as they say it of parameters that get no gradient of the loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from fxgrad.passes import RULES
from fxgrad.passes.analyses import causes, inner_updates
from fxgrad.passes.analyses.death.absent import Asked
from fxgrad.passes.analyses.death.record import Death
from fxgrad.passes.ended import Known, Request
from fxgrad.passes.findings import line_of, listed, source_of
from fxgrad.passes.rules import fxg101_unused_parameter, fxg104_no_grad_path
from fxgrad.records import Facts, Finding, ParameterFact
from fxgrad.torch_api.errors import NO_GRAD_FN, says


def findings(death: Death, asked: Asked) -> Iterator[Finding]:
    """What keeps each of the tensors from the output, said of them by name."""
    request, positions = asked.request, asked.positions
    wanted = {_name(death, request, position): request.tensors[position] for position in positions}
    which = (
        f"index {positions[0]} of `autograd.grad`"
        if len(positions) == 1
        else "what is None in the result of `autograd.grad`"
    )
    through = list(_through_updates(death, wanted, request, which))
    yield from through
    told = {name for one in through for name in one.parameters}
    wanted = {name: known for name, known in wanted.items() if name not in told}
    for one in _kept_away(death, wanted, request, which):
        told.update(one.parameters)
        yield one
    rest = [name for name in wanted if name not in told]
    if rest:
        where = line_of(request.site, death.site) if request.site != death.site else ""
        yield fxg101_unused_parameter.not_behind(f"{which}{where}", rest, request.site or death.site)


def _kept_away(death: Death, wanted: Mapping[str, Known], request: Request, which: str) -> Iterator[Finding]:
    """What the rules say of them."""
    for one in _starved_findings(death, wanted, request):
        same = _as_found(one, death.found)
        if one.site is None and same is one:
            continue
        # A module that no line of the program makes (an entry of a dictionary of them) is told where it is
        # asked for.
        site = one.site or request.site or death.site
        mine = [name for name in same.parameters if name in wanted]
        message = f"{same.message}; {which}{line_of(request.site, site)} is {listed(mine)}"
        yield replace(same, site=site, message=message)


def _through_updates(
    death: Death, wanted: Mapping[str, Known], request: Request, which: str
) -> Iterator[Finding]:
    """Of those that shaped an update which the output is computed after."""
    training = death.context.training
    if training is None or not request.outputs:
        return
    for name, known in wanted.items():
        update = inner_updates.shaped_by(death.facts, training, -known.leaf, request.note, request.live)
        if update is not None:
            asked = f"{which}{line_of(request.site, update.change.site)}"
            yield fxg104_no_grad_path.through_an_update(name, update, asked)


def of_a_later_loss(death: Death) -> Iterator[Finding]:
    """What keeps the parameters from a loss that has no history, although an earlier backward reached them:
    what the rules say of a program that has this loss alone."""
    walk = next((walk for walk in reversed(death.walks) if walk.failed), None)
    if walk is None or not says(death.message, NO_GRAD_FN) or any(f.severity == "error" for f in death.found):
        return
    wanted = {p.name: Known(None, -1, -1, "") for p in death.facts.parameters if p.requires_grad}
    request = Request(walk.note, walk.site, tuple(wanted.values()), (), walk.losses, frozenset(), grad=True)
    for one in _starved_findings(death, wanted, request):
        if one.site is None or one.code == fxg101_unused_parameter.CODE:  # another loss may use those
            continue
        if one.code == fxg104_no_grad_path.CODE:
            one = fxg104_no_grad_path.outside_of_closure(one, death.facts, death.context)
        here = f"`{source_of(walk.site)}`{line_of(walk.site, one.site)}"
        yield replace(one, message=f"{one.message} from {here}, whatever an earlier backward gave them")


def _name(death: Death, request: Request, position: int) -> str:
    tensor = request.tensors[position].tensor
    name = death.parameter_name(tensor) if tensor is not None else None
    return name or f"input {position}"


def _as_found(one: Finding, found: Sequence[Finding]) -> Finding:
    """The finding of the rules on the whole program, where it is the same and tells of more parameters."""
    same = (f for f in found if f.severity == "error" and (f.code, f.site) == (one.code, one.site))
    return next((f for f in same if set(one.parameters) <= set(f.parameters)), one)


def _starved_findings(death: Death, wanted: Mapping[str, Known], request: Request) -> list[Finding]:
    alone = _alone(death.facts, wanted, request)
    names = frozenset(wanted)
    context = replace(
        death.context,
        expected=names,
        explicit=True,
        verdicts=dict.fromkeys(names, "none"),
        causes=causes.analyse(alone),
        optimizer=None,
        held=None,
        watched=None,
        hazards=None,
        training=None,
        meeting=None,
        early=(),
        ended=None,
    )
    found = [f for rule in RULES if rule.CODE.startswith("FXG1") for f in rule.check(alone, context)]
    return [f for f in found if f.severity == "error" and names.intersection(f.parameters)]


def _alone(facts: Facts, wanted: Mapping[str, Known], request: Request) -> Facts:
    """The facts of a program whose loss is the output of the request, and whose parameters are these."""
    known = {name: p for p in facts.parameters for name in p.names}
    # What was computed after the request has no part in its output.
    before = tuple(node for node in facts.nodes if int(node.name[1:]) <= request.note)
    read = {value for node in before for value in node.reads if node.target != "torch.autograd.grad"}
    return replace(
        facts,
        nodes=before,
        parameters=tuple(_starved(facts, name, one, known.get(name), read) for name, one in wanted.items()),
        error=None,
        loss=request.outputs[0] if request.outputs else None,
        live=request.live | frozenset(request.outputs),
        loss_requires_grad=True,
    )


def _starved(
    facts: Facts, name: str, one: Known, known: ParameterFact | None, read: set[int]
) -> ParameterFact:
    if known is not None:
        values = tuple(value for value in known.values if value in read)
        return replace(known, gradient="none", requires_grad=True, values=values)
    values = tuple(value.id for value in facts.values if value.grad == -one.leaf and value.id in read)
    shape = tuple(one.tensor.shape) if one.tensor is not None else ()
    return ParameterFact(name, (name,), shape, True, "", "", True, values, "none")
