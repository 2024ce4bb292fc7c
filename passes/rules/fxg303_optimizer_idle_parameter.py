"""The optimizer holds parameters that get no gradient.

What it finds
    Parameters in an optimizer's groups that require grad and that backward leaves without one. A note: what
    cuts them has a finding of its own. In a watched script also, as an error, gradients that are cleared
    between backward and step, or by a hook inside the backward (a warning where others are left, and where
    `zero_grad()` comes between the backward of some and that of others), and those
    that FSDP2 (`fully_shard`) leaves on whole parameters because it does not see the backward: what the split
    module returns is an object that it cannot look into.

Why it matters
    A step passes over them, weight decay and momentum included, so they stay as they are while a count of
    trained parameters includes them. A frozen parameter (`requires_grad=False`) in a group is harmless and is
    not listed.

Example
    optimizer = torch.optim.Adam(model.parameters())
    loss = model.head(model.encoder(x).detach()).mean()

Instead
    optimizer = torch.optim.Adam(model.head.parameters())
    loss = model.head(model.encoder(x).detach()).mean()

When the fix is safe
    Leaving them out changes nothing in training, but the positions in the optimizer's state dict move.

Not handled
    Parameters that get a gradient only in other steps, but for those of an optimizer that has its turn then.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fxgrad.passes.analyses.causes import Causes
from fxgrad.passes.analyses.gradient_hooks import taking_hook
from fxgrad.passes.analyses.optimizer_lines import construction_site
from fxgrad.passes.analyses.optimizers import idle
from fxgrad.passes.analyses.step_order import emptied, last_walk, lost_by
from fxgrad.passes.context import Context
from fxgrad.passes.findings import line_of, listed
from fxgrad.records import Facts, Finding, Fix, Severity, Site, Step
from fxgrad.records.training import OptimizerStep, Withheld
from fxgrad.torch_api import registry

CODE = "FXG303"
NAME = "optimizer-idle-parameter"
SEVERITY = "note"


_WRITTEN = (
    "look at what this line makes of gradients: a limit, a factor or a mask of 0 leaves nothing of them"
)

_KEPT = (
    "let the hook leave `.grad` as it is, or step inside it; what is not to train is frozen by "
    "`requires_grad_(False)`"
)


def check(facts: Facts, context: Context) -> Iterator[Finding]:
    """One note for all that optimizers built at one line hold, and an error per line that clears what a step
    was to use."""
    yield from _cleared(context)
    yield from _taken_by_hooks(context)
    yield from _dropped(context)
    taken = context.training.hooked if context.training is not None else ()
    withheld = context.training.withheld if context.training is not None else None
    if withheld is not None:
        yield _withheld(withheld, context)
    if facts.midway:
        return  # there was no backward that a step could follow
    dropped = context.training.dropped if context.training is not None else ()
    taken = (*taken, *(name for one in dropped for name in one.names))
    told = {*taken, *(withheld.names if withheld is not None else ())}
    by_line: dict[Site | None, set[str]] = {}
    for optimizer, names in idle(context):
        by_line.setdefault(construction_site(context, optimizer), set()).update(set(names).difference(told))
    for site, found in by_line.items():
        if not found:
            continue
        names = tuple(name for name, _ in registry.named_parameters(context.model) if name in found)
        yield Finding(
            CODE,
            NAME,
            "note",
            f"the optimizer holds {listed(names)} without a gradient: its steps pass over "
            f"{'it' if len(names) == 1 else 'them'}, "
            "weight decay included",
            site,
            names,
            (),
            Fix(_advice(context, found)),
        )


def _withheld(found: Withheld, context: Context) -> Finding:
    """Gradients that FSDP2 leaves on whole parameters: no step sees them."""
    why, advice = "", "let the last backward before a step synchronise (`set_requires_gradient_sync(True)`)"
    if found.returned:
        why = (
            f": it finds no tensor in the `{found.returned}` that is returned here, and so does not learn "
            "of the backward"
        )
        advice = (
            "return tensors, or a tuple, list or dict of them, from the module that is split, and make the "
            f"`{found.returned}` of them outside"
        )
    verb = "gets" if len(found.names) == 1 else "get"
    which = f"{listed(found.names)} {verb} none"
    return Finding(
        CODE,
        NAME,
        "error" if context.expected.intersection(found.names) else "note",
        f"FSDP2 hands no gradient to the parts that the optimizer holds{why}: {which}",
        found.called,
        found.names,
        (Step("step"), Step("fully_shard", found.called, True), Step("backward")),
        Fix(advice),
    )


def _advice(context: Context, found: set[str]) -> str:
    causes: Causes = context.causes
    ends = [causes.ends.get(p.name) for p in causes.starved if found.intersection(p.names)]
    if all(end is not None and end.kind == "derived" for end in ends):  # nothing is cut: it has no influence
        return "leave out of the optimizer what the derivative in the loss does not depend on, if it stays so"
    narrowed = _left_out(context, found)
    if narrowed:
        return (
            f"`backward(inputs=...)`{line_of(narrowed[0])} leaves them out: name them there, where they "
            "are to train"
        )
    return "mend what cuts the gradient, or leave them out of the optimizer"


def _left_out(context: Context, found: set[str]) -> list[Site]:
    """The lines of the backwards that came by these parameters and were to leave a gradient on others alone;
    none where another backward came by one."""
    training = context.training
    edges = {training.edges.get(name, 0) for name in found} if training is not None else set()
    walks = training.walks if training is not None else ()
    near = [walk for walk in walks if not walk.partial and not edges.isdisjoint(walk.leaves)]
    if not near or not all(walk.narrowed and edges <= walk.leaves for walk in near):
        return []
    return [walk.site for walk in near if walk.site is not None]


def _cleared(context: Context) -> Iterator[Finding]:
    training = context.training
    if training is None or context.meeting is not None:
        return
    # Of a step that comes before its backward it goes without saying that gradients are cleared between.
    early = frozenset[int]().union(*(one.change.leaves for one in context.early if one.change.nothing))
    for step in emptied(training):
        names = lost_by(training, step.leaves - early)
        if not names and not step.leaves.isdisjoint(early):
            continue
        site, walk = step.cleared, last_walk(training, step)
        done = "made zeros" if step.written else "cleared"
        yield Finding(
            CODE,
            NAME,
            "error",
            f"gradients are {done} here, after backward{line_of(walk, site)} and before "
            f"the step{line_of(step.site, site)}: the step changes nothing",
            site,
            names,
            (
                Step("step", step.site),
                Step("write" if step.written else "zero_grad", site, True),
                Step("backward", walk),
            ),
            Fix(_WRITTEN if step.written else "call zero_grad() before backward, or after the step"),
        )


def _dropped(context: Context) -> Iterator[Finding]:
    """Of some parameters the gradients are gone as the step begins, and others have theirs."""
    for one in context.training.dropped if context.training is not None else ():
        them = "it" if len(one.names) == 1 else "them"
        yield Finding(
            CODE,
            NAME,
            "warning" if context.expected.intersection(one.names) else "note",
            f"the gradient{'' if len(one.names) == 1 else 's'} of {listed(one.names)}, which backward"
            f"{line_of(one.walk, one.cleared)} left, {'is' if len(one.names) == 1 else 'are'} cleared here "
            f"before the step{line_of(one.step, one.cleared)}: no step that was seen trains {them}",
            one.cleared,
            one.names,
            (Step("step", one.step), Step("zero_grad", one.cleared, True), Step("backward", one.walk)),
            Fix("call zero_grad() before the first of the backwards that the step is for, or add the losses"),
        )


def _taken_by_hooks(context: Context) -> Iterator[Finding]:
    """Gradients that were there inside a backward, and that a hook of the parameter had taken away as it
    ended: one finding for each line of a hook."""
    training = context.training
    if training is None:
        return
    by_line: dict[Site | None, list[str]] = {}
    for name in training.hooked:
        by_line.setdefault(taking_hook(context, name), []).append(name)
    for site, names in by_line.items():
        edges = {training.edges.get(name, 0) for name in names}
        steps = [step for step in training.steps if not edges.isdisjoint(step.leaves)]
        if steps:
            yield _taken(context, site, tuple(names), steps, last_walk(training, steps[0]))


def _taken(
    context: Context,
    site: Site | None,
    names: tuple[str, ...],
    steps: Sequence[OptimizerStep],
    walk: Site | None,
) -> Finding:
    """An error where the steps had no gradient at all."""
    left = "only zeros" if all(context.verdicts.get(name) == "zero" for name in names) else "no gradient"
    severity: Severity = "error"
    passed = "changes nothing"
    if any("some" in step.states for step in steps):
        severity = "warning"
        passed = f"does not train {'it' if len(names) == 1 else 'them'}"
    stepped = steps[0].site
    return Finding(
        CODE,
        NAME,
        severity if context.expected.intersection(names) else "note",
        f"this hook leaves {left} on {listed(names)}, inside backward{line_of(walk, site)}: the step"
        f"{line_of(stepped, site)} {passed}",
        site,
        names,
        (Step("step", stepped), Step("hook", site, True), Step("backward", walk)),
        Fix(_KEPT),
    )
