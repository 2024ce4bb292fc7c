"""Every path from a parameter to the loss runs through code that records nothing: `no_grad`,
`inference_mode`, `set_grad_enabled(False)`.

What it finds
    A trainable parameter that reaches the loss only through steps that ran with gradients off: inside `with
    torch.no_grad()`, in a function decorated with it, under `set_grad_enabled(False)` (also one that was
    called before the step and never undone), in `inference_mode`. The line named is the one that switched
    gradients off; where that is an optimizer's step around the closure it was given, the call of the closure.
    Also a tensor made in inference mode that a later step must save for backward. In a watched script also a
    gradient that is asked for in such a region, or in the forward of an `autograd.Function`, and one that
    would have to come back through an optimizer's step (an inner update that is to be differentiated).

Why it matters
    Autograd records nothing there: the parameters keep `.grad = None` without a word, or, where nothing else
    has a history, `backward()` raises "element 0 of tensors does not require grad". An inference tensor that
    backward must save raises at once.

Example
    def forward(self, x):
        with torch.no_grad():  # FXG104: the backbone never trains
            h = self.backbone(x)
        return self.head(h)

Instead
    def forward(self, x):
        h = self.backbone(x)
        return self.head(h)

When the fix is safe
    Never applied by itself: a region may be meant (a frozen backbone, a target network). If it is, set
    `requires_grad_(False)` on the parameters inside, leave them out of the optimizer, or name what must train
    with `expect`; then nothing is reported.

Not handled
    Which of several `set_grad_enabled(False)` ran before `analyze` did: the first in the files is named.
    Regions inside a compiled or scripted function.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

from fxgrad.passes.analyses.cuts import Way
from fxgrad.passes.analyses.inner_updates import Update
from fxgrad.passes.analyses.no_grad_regions import region_of
from fxgrad.passes.analyses.raising import inference_site
from fxgrad.passes.context import Context
from fxgrad.passes.findings import cut_groups, line_of, path, severity, starved, subject, text_of
from fxgrad.records import Facts, Finding, Fix, NodeFact, Site, Step
from fxgrad.source import line_text
from fxgrad.torch_api.errors import INFERENCE_FLAG, INFERENCE_WRITE, says

CODE = "FXG104"
NAME = "no-grad-path"
SEVERITY = "error"


def _use(message: str) -> str:
    if says(message, INFERENCE_WRITE):
        return "written outside of it"
    return "asked to require grad" if says(message, INFERENCE_FLAG) else "used where backward must save it"


def check(facts: Facts, context: Context) -> Iterator[Finding]:
    """One finding per line that switches gradients off."""
    return (outside_of_closure(found, facts, context) for found in _found(facts, context))


def outside_of_closure(found: Finding, facts: Facts, context: Context) -> Finding:
    """Gradients that are off where an optimizer's step calls the closure it was given: that call is to blame,
    not the closure."""
    closures = context.training.closures if context.training is not None else frozenset()
    lines = {step.site for step in found.path}
    off = (node for node in facts.nodes if closures and node.site in lines and not node.grad_enabled)
    calls = (pair for node in off for pair in itertools.pairwise(node.stack))
    outer = next((call for inner, call in calls if (inner.file, inner.function) in closures), None)
    if outer is None:
        return found
    return replace(
        found,
        message="the optimizer's step calls its closure where gradients are "
        f"off{line_of(found.site, outer)}: {found.message}",
        site=outer,
        fix=Fix("switch them on for the closure alone: `with torch.enable_grad(): loss = closure()`"),
    )


def _leave(site: Site | None, mode: str) -> str:
    """How the region that begins there ends before the parameters are used."""
    written = line_text(site.file, site.line).partition("#")[0].strip() if site is not None else ""
    if written.startswith("@"):
        return f"take the decorator off what these parameters are used in, `{written}`"
    if "set_grad_enabled(" in written and not written.startswith("with "):
        return "switch gradients on again (`torch.set_grad_enabled(True)`) before these parameters are used"
    return f"leave the {mode} region before these parameters are used"


def through_an_update(name: str, update: Update, asked: str) -> Finding:
    """A derivative that would have to come back through an update. `asked`: where the tensor stands in what
    was asked for."""
    site, walk = update.change.site, update.walk.site
    written = f"`{text_of(site)}`" if text_of(site) else f"this {update.change.what}"
    return Finding(
        CODE,
        NAME,
        "error",
        f"{written} changes the weights where autograd records nothing: `{name}` shaped the gradients that "
        f"it uses{line_of(walk, site)}, and no derivative comes back through it; {asked} is `{name}`",
        site,
        (name,),
        (Step("loss"), Step(update.change.what, site, True), Step("backward", walk), Step(name)),
        Fix(
            "make the update a part of the graph: `grads = torch.autograd.grad(loss, params, "
            "create_graph=True)`, and go forward with `p - lr * g` in place of each `p` "
            "(`torch.func.functional_call`)"
        ),
    )


def _found(facts: Facts, context: Context) -> Iterator[Finding]:
    regions: dict[tuple[str, int] | str, tuple[Site | None, NodeFact, dict[str, None], Way]] = {}
    for node, parameters, way in cut_groups(context, facts, CODE):
        site = region_of(facts, node, context.files) or node.site
        key = (site.file, site.line) if site is not None else node.name
        regions.setdefault(key, (site, node, {}, way))[2].update(dict.fromkeys(parameters))
    for site, node, found, way in regions.values():
        names = tuple(found)
        mode = "inference_mode" if node.inference else "no_grad"
        yield Finding(
            CODE,
            NAME,
            severity(context, names),
            f"gradients are off ({mode}) on every way from {subject(names)} to the loss: {starved(names)}",
            site,
            names,
            path(facts, way, names[0]),
            Fix(f"{_leave(site, mode)}, or freeze them if they are not meant to train"),
        )
    raised = inference_site(facts)
    if raised is not None and facts.error is not None:
        place = region_of(facts, raised, context.files) or raised.site or facts.error.site
        yield Finding(
            CODE,
            NAME,
            "error",
            "a tensor made in inference_mode is "
            f"{_use(facts.error.message)}{line_of(facts.error.site, place)}, which torch refuses",
            place,
            (),
            (Step("loss"), Step(raised.target.rpartition(".")[2], raised.site, True)),
            Fix(_out_of_inference(facts, context, place)),
        )


def _out_of_inference(facts: Facts, context: Context, place: Site | None) -> str:
    """Where something that should train is read inside, torch.no_grad() would only hide that it does not."""
    read = {value for node in facts.nodes if node.inference for value in node.reads}
    trains = (p for p in facts.parameters if p.requires_grad and not context.expected.isdisjoint(p.names))
    inside = tuple(name for p in trains if not read.isdisjoint(p.values) for name in p.names)
    otherwise = "use torch.no_grad() instead of inference_mode, or clone the result outside of it"
    if not inside:
        return otherwise
    return f"if {subject(inside)} is to train, {_leave(place, 'inference_mode')}; if not, {otherwise}"
