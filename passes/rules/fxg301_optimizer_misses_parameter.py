"""A trainable parameter gets a gradient and is in no group of any optimizer.

What it finds
    Parameters that backward reaches and no optimizer steps: a generator (`model.parameters()`, `filter(...)`)
    that something else has read to its end, a name filter that matches nothing, layers made or unfrozen after
    the optimizer was built, the parameters of another copy of the model. In a watched script also an
    optimizer that is given nothing, one over a network that nothing calls while another like it is what gets
    the gradients, and a loss module with parameters of its own (a temperature, the weights of several losses)
    that nothing moves. A network of layers alone that nothing moves may be a fixed critic: that it stays as
    it is is a note.

Why it matters
    Nothing raises; these weights stay at their initial values. Gradients do arrive, so looking at `.grad`
    shows nothing.

Example
    body = model.body.parameters()
    print(sum(p.numel() for p in body))
    optimizer = torch.optim.Adam([{"params": body, "lr": 1e-5}, {"params": model.head.parameters()}])

Instead
    body = list(model.body.parameters())
    print(sum(p.numel() for p in body))
    optimizer = torch.optim.Adam([{"params": body, "lr": 1e-5}, {"params": model.head.parameters()}])

When the fix is safe
    Adding parameters to an optimizer changes what trains. If they are meant to stay as they are, set
    `requires_grad_(False)`: that also saves their gradients.

Not handled
    Optimizers that are built later. Parameters that another living optimizer holds count as held, whichever
    steps.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from torch import nn

from fxgrad.passes.analyses.optimizer_lines import construction_site
from fxgrad.passes.analyses.optimizers import Held
from fxgrad.passes.context import Context
from fxgrad.passes.findings import listed
from fxgrad.records import Facts, Finding, Fix
from fxgrad.records.training import Exchanged, Unmoved
from fxgrad.torch_api import registry

CODE = "FXG301"
NAME = "optimizer-misses-parameter"
SEVERITY = "warning"

UNMOVED = "unmoved"  # the kind of a note on a network that may be meant to stay as it is

FEW = 3  # parts that an advice lists


def check(facts: Facts, context: Context) -> Iterator[Finding]:
    """One finding for all that are missing; where stale tensors stand in their place, that is FXG302's. And
    one for each optimizer over another network than the one that trains."""
    training = context.training
    if training is not None:
        yield from map(_exchanged, training.exchanged)
        yield from (_unmoved(one) for one in training.unmoved if context.expected.isdisjoint(one.names))
    held: Held | None = context.held
    if held is None or not held.missing or held.stale:
        return
    certain = (
        bool(held.empty)
        or held.twin
        or (context.explicit and bool(context.expected.intersection(held.missing)))
    )
    verb = "gets" if len(held.missing) == 1 else "get"
    yield Finding(
        CODE,
        NAME,
        "error" if certain else "warning",
        f"{listed(held.missing)} {verb} a gradient, but no optimizer holds "
        f"{'it' if verb == 'gets' else 'them'}{_detail(held)}",
        construction_site(context, held.first),
        held.missing,
        (),
        Fix(_advice(held, context)),
    )


def _exchanged(found: Exchanged) -> Finding:
    held, trained = found.held, found.trained
    return Finding(
        CODE,
        NAME,
        "error",
        f"the optimizer holds the parameters of `{held}`, which no loss is computed from; `{trained}` gets "
        "the gradients, and no optimizer holds it: no step changes either",
        found.built,
        (*found.names, *found.theirs),
        (),
        Fix(
            f"build the optimizer from `{trained}.parameters()`, after `{trained}` is made; or go forward "
            f"with `{held}`"
        ),
    )


def _unmoved(found: Unmoved) -> Finding:
    module = _subscripted(found.path)
    return Finding(
        CODE,
        NAME,
        "note",
        f"`{module}` got a gradient in several steps, and nothing moved it: no optimizer holds "
        f"any of its {len(found.names)} parameters",
        found.built,
        found.names,
        (),
        Fix(
            f"if it should train, add it: `optimizer.add_param_group({{'params': {module}.parameters()}})`; "
            f"if it is meant to stay, and nothing reads its gradients, `{module}.requires_grad_(False)` "
            "saves them"
        ),
        kind=UNMOVED,
    )


def _detail(held: Held) -> str:
    if held.empty:
        groups = ", ".join(map(str, held.empty))
        return (
            f": parameter group{'s' if len(held.empty) > 1 else ''} {groups} "
            f"{'are' if len(held.empty) > 1 else 'is'} empty"
        )
    if not held.any:
        others = f"{held.foreign} other tensor{'s' if held.foreign != 1 else ''}"
        return f": it holds {others} and none of this model's"
    return ""


def _advice(held: Held, context: Context) -> str:
    if held.empty:
        return (
            "make a list of a generator that is read twice (`list(model.parameters())`), and check what a "
            "name filter matches"
        )
    if not held.any:
        return "build the optimizer from the parameters of the model that trains"
    # the names of a watched script are those of its variables
    them = _expressions(context, held.missing) if context.training is not None else "..."
    return (
        "build the optimizer after the model is final, or add them: `optimizer.add_param_group({'params': "
        f"{them}}})`"
    )


def _expressions(context: Context, missing: Collection[str]) -> str:
    """These parameters in Python: modules of which all are missing, then single ones; "..." for more than
    `FEW`."""
    left = set(missing)
    found: list[str] = []
    for path, module in registry.named_modules(context.model):
        names = {name for name, p in registry.named_parameters(module, prefix=path) if p.requires_grad}
        if path and type(module) is not nn.Module and names and names <= left:
            left -= names
            found.append(f"{_subscripted(path)}.parameters()")
    if len(found) == 1 and not left:
        return found[0]
    parts = [*(f"*{one}" for one in found), *map(_subscripted, sorted(left))]
    return f"[{', '.join(parts)}]" if len(parts) <= FEW else "..."


def _subscripted(path: str) -> str:
    """`net[0].weight` for `net.0.weight`."""
    return re.sub(r"\.(\d+)(?=\.|$)", r"[\1]", path)
