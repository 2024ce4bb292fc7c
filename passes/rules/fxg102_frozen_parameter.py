"""A parameter has `requires_grad=False`.

What it finds
    Frozen parameters, with the statement that froze them: a note. It is an error where they were expected
    to train, where nothing is left that can (of a layer of constants alone, `nn.Parameter(...,
    requires_grad=False)`, only where a loss was given), and where a trainable parameter is frozen while
    the model runs. `module.requires_grad = True`, which sets an attribute of the module and unfreezes
    nothing, is named where it is the reason. In a watched script also what was left frozen by another's
    turn, or was frozen after DistributedDataParallel wrapped it, `requires_grad` set on a computed
    tensor, and `.grad` of what does not require grad.

Why it matters
    Freezing is how transfer learning is done, and how a head is lost: the loop that freezes runs over the new
    head too, a name in the filter does not match, `nn.Embedding.from_pretrained` freezes unless told
    otherwise, a helper that toggles is left half way. Autograd never says so; only where everything is frozen
    does `backward()` raise.

Example
    model.head = nn.Linear(8, 10)
    for p in model.parameters():
        p.requires_grad = False  # FXG102: the new head as well

Instead
    for p in model.parameters():
        p.requires_grad = False
    model.head = nn.Linear(8, 10)

When the fix is safe
    Never applied by itself: what should train is the author's decision. Say it with `expect`.

Not handled
    Outside a watched script, or before the watch: which statement ran. The place is looked up by name in the
    user's files (`fxgrad.source.freezing`), the likeliest first. Freezing inside an installed library.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from fxgrad.passes.context import Context
from fxgrad.passes.findings import (
    cut_groups,
    finding,
    line_of,
    listed,
    plural,
    said,
    source_of,
    starved,
    subject,
)
from fxgrad.records import Facts, Finding, Fix, ParameterFact, Severity, Site, Step
from fxgrad.records.training import Training
from fxgrad.source import freeze_sites
from fxgrad.source.bindings import bindings
from fxgrad.source.names import fits, is_literal, path_of
from fxgrad.source.objects import user_classes
from fxgrad.source.parsing import load
from fxgrad.torch_api import registry
from fxgrad.torch_api.errors import NO_GRAD_FN, UNREDUCED, says

CODE = "FXG102"
NAME = "frozen-parameter"
SEVERITY = "note"

_LOOKED_UP = 16  # modules looked up one by one; where more are frozen the rest share the first one's place


def check(facts: Facts, context: Context) -> Iterator[Finding]:
    """One finding per statement that freezes, the expected ones apart from the rest."""
    return (_at_own_line(found, context.training) for found in _found(facts, context))


def _at_own_line(found: Finding, training: Training | None) -> Finding:
    """A trainer's toggle stands at the call that toggles, where a watched script was seen to come to it."""
    site = found.site
    if training is None or not found.parameters or site is None or "site-packages" not in site.file:
        return found
    return replace(found, site=training.frozen.get(found.parameters[0], site))


def still_frozen(facts: Facts, context: Context) -> Iterator[Finding]:
    """Why a loss does not require grad, or DistributedDataParallel still waits, where nothing else says it:
    parameters that an optimizer holds are frozen, from another's turn or after they were wrapped."""
    error, training = facts.error, context.training
    if training is None or error is None:
        return
    if says(error.message, NO_GRAD_FN) and error.phase == "backward":
        after = "still {be}{line} where the loss is differentiated"
        advice = (
            "unfreeze them when this turn is over (`requires_grad_(True)`; a trainer's `untoggle_optimizer`)"
        )
    elif says(error.message, UNREDUCED):
        after = "DistributedDataParallel, which was made before, waits for their gradients{line}"
        advice = (
            "freeze them before the model is wrapped; where they are frozen only at times, set "
            "find_unused_parameters=True"
        )
    else:
        return
    groups: dict[Site, list[str]] = {}
    for name, site in training.stale.items():
        groups.setdefault(site, []).append(name)
    for site, names in groups.items():
        be = "is" if len(names) == 1 else "are"
        yield Finding(
            CODE,
            NAME,
            "error",
            f"{listed(names)} {be} frozen here, and " + after.format(be=be, line=line_of(error.site, site)),
            site,
            tuple(names),
            (Step("loss", error.site), Step(source_of(site) or "frozen", site, True), Step(names[0])),
            Fix(advice),
        )


def _found(facts: Facts, context: Context) -> Iterator[Finding]:
    frozen = [p for p in facts.parameters if not p.requires_grad]
    wanted = [p for p in frozen if context.explicit and context.expected.intersection(p.names)]
    rest = [p for p in frozen if p not in wanted]
    nothing_trains = bool(rest) and len(rest) == len(facts.parameters) and not facts.loss_requires_grad
    nothing_trains &= facts.error is not None  # else they are constants, and nobody asked for a loss
    yield from _findings(context, wanted, "error", " but expected to train")
    yield from _findings(
        context,
        rest,
        "error" if nothing_trains else "note",
        " (nothing is left to train)" if nothing_trains else "",
    )
    for group in cut_groups(context, facts, CODE):
        node, parameters, _ = group
        yield finding(
            context,
            facts,
            (CODE, NAME),
            group,
            f"{said(node)} freezes {subject(parameters)} while the model runs: {starved(parameters)}",
            "freeze before the step what must not train, and leave it out of the optimizer; do not freeze "
            "the rest",
        )


def _findings(context: Context, group: list[ParameterFact], level: Severity, why: str) -> Iterator[Finding]:
    places: dict[tuple[Site | None, str], list[ParameterFact]] = {}
    found: dict[str, tuple[Site | None, str]] = {}
    scopes = _scopes(context) if group else set()
    seen = context.training.frozen if context.training is not None and level == "note" else {}
    for parameter in group:
        if parameter.name in seen:
            places.setdefault((seen[parameter.name], ""), []).append(parameter)
            continue
        if parameter.module not in found:
            found[parameter.module] = (
                _place(context, parameter.name, level, scopes)
                if len(found) < _LOOKED_UP
                else next(iter(found.values()))
            )
        places.setdefault(found[parameter.module], []).append(parameter)
    for (site, attribute), members in places.items():
        names = tuple(n for p in members for n in p.names)
        said_so = (
            f"; `{attribute}.requires_grad = True` sets an attribute of the module and unfreezes nothing"
            if attribute
            else ""
        )
        yield Finding(
            CODE,
            NAME,
            level,
            f"{plural(names)} frozen by requires_grad=False{why}: {subject(names)}{said_so}",
            site,
            names,
            (),
            Fix(
                "set requires_grad_(True) (with the underscore on a module) on what should train, after "
                "whatever freezes"
            ),
        )


def _place(context: Context, name: str, level: Severity, scopes: set[str]) -> tuple[Site | None, str]:
    """The statement to mend; for what should train, one that was meant to unfreeze and only set an attribute
    of a module, named too."""
    if level == "error":
        words = name.split(".")[:-1]
        for end in range(len(words), -1, -1):
            path = ".".join(words[:end])
            if vars(context.model.get_submodule(path)).get("requires_grad") is True:
                site = _unfreezing(context, words[end - 1] if end else "", scopes)
                if site is not None:
                    return site, path or "model"
    return _site(context, name, scopes), ""


def _unfreezing(context: Context, attribute: str, scopes: set[str]) -> Site | None:
    """`....attribute.requires_grad = True` in the user's files; where none names it, any such statement."""
    found: list[tuple[bool, bool, int, Site]] = []
    for file in context.files:
        source = load(file)
        for binding in bindings(source):
            if binding.name == "requires_grad" and not binding.item and is_literal(binding.value, True):
                words, site = path_of(binding.base).words, binding.site(source)
                elsewhere = bool(scopes) and site.function.partition(".")[0] not in scopes
                found.append((elsewhere, not (words and fits(words[-1], attribute)), len(found), site))
    return min(found)[3] if found else None


def _site(context: Context, name: str, scopes: set[str]) -> Site | None:
    """The likeliest statement; where the model's class is local to a function, one in that function if there
    is any."""
    sites = freeze_sites(context.files, name=name)
    return next((s for s in sites if s.function.partition(".")[0] in scopes), sites[0] if sites else None)


def _scopes(context: Context) -> set[str]:
    """The functions that the model's classes are defined in, if they are: such a file holds several
    programs."""
    types = {type(module) for module in registry.modules(context.model)}
    names = {cls.__qualname__ for kind in types for cls in user_classes(kind)[:1]}
    return {name.partition(".")[0] for name in names if "<locals>" in name}
