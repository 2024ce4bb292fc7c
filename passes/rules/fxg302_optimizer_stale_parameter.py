"""The optimizer holds tensors that the model has given up.

What it finds
    Parameters that were replaced after the optimizer was built: a new head or a resized embedding, weights
    tied later, `deepcopy`, `load_state_dict(assign=True)`, `to_empty` after the meta device, `weight_norm`.
    The optimizer keeps the old objects. Moving or casting (`.to()`, `.cuda()`, `.half()`) keeps the Parameter
    objects and is no such case, whatever is often said. In a watched script also an optimizer over `p.data`
    or over copies, which steps, raises nothing and changes nothing; one that is given what an operation
    computed; one for which a scaler finds no gradient because the backward left them on others; and one that
    holds nothing else than what the model has given up, whoever trains what is there now.

Why it matters
    Steps change tensors that nobody reads. The new parameters get gradients that nobody uses, and stay as
    they are.

Example
    optimizer = torch.optim.Adam(model.parameters())
    model.fc = nn.Linear(512, 10)

Instead
    model.fc = nn.Linear(512, 10)
    optimizer = torch.optim.Adam(model.parameters())

When the fix is safe
    Building the optimizer last is safe in a fresh run. On resuming, load the optimizer's state after that: it
    is matched by position.

Not handled
    Tensors that another living module registers count as that module's. Old tensors that something else still
    uses in the run through a Parameter of the same shape are passed over, and so are those of a part that was
    taken out and not replaced.
"""

from __future__ import annotations

from collections.abc import Iterator

from fxgrad.passes.analyses.optimizer_lines import construction_site, replacing_site
from fxgrad.passes.analyses.optimizers import Held
from fxgrad.passes.context import Context
from fxgrad.passes.findings import listed
from fxgrad.records import Facts, Finding, Fix, Site, Step
from fxgrad.records.training import GivenUp, Vain
from fxgrad.torch_api import registry

CODE = "FXG302"
NAME = "optimizer-stale-parameter"
SEVERITY = "warning"


def check(facts: Facts, context: Context) -> Iterator[Finding]:
    """One finding for all stale tensors; its place is the statement that replaced them, else the one that
    built the optimizer. One for each optimizer of a watched script that steps in vain."""
    training = context.training
    if training is not None:
        yield from map(_in_vain, training.vain)
    held: Held | None = context.held
    names = (held.missing or _tied(context, held)) if held is not None and held.stale else ()
    if held is not None and names:
        yield _replaced(facts, context, held, names)
    elif training is not None:  # stepping a part that was taken out of the model is vain and harmless
        yield from map(_given_up, training.given_up)


def _replaced(facts: Facts, context: Context, held: Held, names: tuple[str, ...]) -> Finding:
    """The model has these in the place of what the optimizer holds."""
    built = construction_site(context, held.first)
    replaced = replacing_site(context, built, names)
    stations = [Step("optimizer", built)] if built is not None else []
    if replaced is not None:
        stations.append(Step("replaced", replaced, True))
    count = len(held.stale)
    missing = (
        f", and not {listed(held.missing)} in {'its' if count == 1 else 'their'} place"
        if held.missing
        else ""
    )
    return Finding(
        CODE,
        NAME,
        "error" if held.missing else "warning",
        f"the optimizer holds {count} tensor{'s' if count > 1 else ''} "
        f"({', '.join(held.stale[:4])}{', ...' if count > 4 else ''}) "
        f"that the model no longer has{missing}",
        _made(facts, context, held.missing) or replaced or built,
        held.missing,
        tuple(stations),
        Fix("build the optimizer after parameters are replaced, tied, copied or materialised"),
    )


def _given_up(found: GivenUp) -> Finding:
    """All that it holds is of another time; what is there now, another optimizer may hold."""
    what = "a tensor" if found.count == 1 else f"{found.count} tensors"
    return Finding(
        CODE,
        NAME,
        "warning",
        f"this optimizer holds {what} that no module has any longer: no backward gives "
        f"{'it' if found.count == 1 else 'them'} a gradient, and its steps change nothing that is used",
        found.built,
        (),
        (Step("optimizer", found.built, True),),
        Fix("build the optimizer after parameters are replaced, split, tied, copied or materialised"),
    )


def _in_vain(found: Vain) -> Finding:
    """It steps, raises nothing and changes nothing."""
    what = f"the data of {listed(found.sources)}" if found.sources else "copies, or tensors made for it alone"
    count = f"{found.count} tensor{'s' if found.count != 1 else ''}"
    return Finding(
        CODE,
        NAME,
        "error",
        f"the optimizer holds {count} without requires_grad ({what}): no backward gives "
        f"{'it' if found.count == 1 else 'them'} a gradient, and its steps change nothing",
        found.built,
        tuple(name for name, registered in found.sources.items() if registered),
        (Step("optimizer", found.built, True),),
        Fix(
            "hand it the leaves that the loss is computed from, not their `.data`, `detach()` or copies; a "
            "leaf is made in its final dtype"
        ),
    )


def _made(facts: Facts, context: Context, names: tuple[str, ...]) -> Site | None:
    """Where a watched script made the first of the parameters that the optimizer does not hold."""
    edge = context.training.edges.get(names[0]) if context.training is not None and names else None
    made = [n for n in facts.nodes if n.site and any(facts.values[v].grad == edge for v in n.makes)]
    if edge is None or not made:
        return None
    # split by FSDP2, it was made twice; a step of the optimizer makes it anew, too, and is no such thing
    entries = [n for n in made if n.kind == "entry"]
    return (entries[-1] if entries else made[0]).site


def _tied(context: Context, held: Held) -> tuple[str, ...]:
    """The later names of tied parameters that have a stale tensor's shape."""
    seen: set[int] = set()
    names = []
    for name, parameter in registry.named_parameters(context.model, remove_duplicate=False):
        if id(parameter) in seen and tuple(parameter.shape) in held.stale_shapes:
            names.append(name)
        seen.add(id(parameter))
    return tuple(names)
