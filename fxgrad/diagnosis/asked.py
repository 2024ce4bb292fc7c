"""A derivative that was asked for and is not there: what the rules say of the tensors, as they say it of
parameters that get no gradient of the loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from fxgrad.passes import RULES
from fxgrad.passes.analyses import causes
from fxgrad.passes.analyses.death.absent import Asked
from fxgrad.passes.analyses.death.record import Death
from fxgrad.passes.ended import Known, Request
from fxgrad.passes.findings import line_of, listed
from fxgrad.passes.rules.fxg101_unused_parameter import not_behind
from fxgrad.records import Facts, Finding, ParameterFact


def findings(death: Death, asked: Asked) -> Iterator[Finding]:
    """What keeps each of the tensors from the output, said of them by name."""
    request, positions = asked.request, asked.positions
    wanted = {_name(death, request, position): request.tensors[position] for position in positions}
    which = (
        f"index {positions[0]} of `autograd.grad`"
        if len(positions) == 1
        else "what is None in the result of `autograd.grad`"
    )
    told: set[str] = set()
    for one in _starved_findings(death, wanted, request):
        if one.site is None:
            continue
        one = _as_found(one, death.found)
        told.update(one.parameters)
        mine = [name for name in one.parameters if name in wanted]
        yield replace(
            one, message=f"{one.message}; {which}{line_of(request.site, one.site)} is {listed(mine)}"
        )
    rest = [name for name in wanted if name not in told]
    if rest:
        where = line_of(request.site, death.site) if request.site != death.site else ""
        yield not_behind(f"{which}{where}", rest, request.site or death.site)


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
