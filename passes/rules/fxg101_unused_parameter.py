"""A parameter has no path to the loss at all: nothing computed from it takes part.

What it finds
    A trainable parameter whose data never reaches the loss. It says which: its module is never called; its
    module runs without reading it; something was computed from it and nothing uses the result; a loss
    function (or a forward that computes the loss) went on to return a value without it, or threw it away on
    the line named; only a derivative that does not depend on it goes on. Named is the line that builds it;
    where another line would have used it, the message says which, and what passed that by: the branch and
    which way it went, the slice or key, the `return` or loop. That is counted while the program runs; what
    the counts do not show is not said. In a watched script also a gradient that is None where the program
    reads it, or that `autograd.grad` cannot give, of a tensor that nothing on the way was computed from.

Why it matters
    Its `.grad` stays None, the optimizer skips it, and it keeps its random start while the loss goes down.
    DistributedDataParallel raises on it in the second step unless `find_unused_parameters=True`.

Example
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(4, 8)
            self.gate = nn.Linear(4, 8)  # FXG101: never called

        def forward(self, x):
            return self.body(x)

Instead
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(4, 8)
            self.gate = nn.Linear(4, 8)

        def forward(self, x):
            return self.body(x) * torch.sigmoid(self.gate(x))

When the fix is safe
    Never applied: whether to use the parameter or to remove it is the author's decision, and removing one
    changes the `state_dict`.

Not handled
    A module that other inputs would call (an expert without tokens, a head of another task): the verdict is
    that of the given inputs, name what must train with `expect`. A result kept in an attribute for later is
    judged by this one step. Left out of an optimizer that was passed along, an unused parameter is only a
    note.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from torch import nn

from fxgrad.passes.analyses import decisions, left_behind, zero_causes
from fxgrad.passes.analyses.causes import Causes, is_starved, unconnected
from fxgrad.passes.analyses.dead_ends import LEFT_BEHIND, DeadEnd
from fxgrad.passes.analyses.drawn_by import passed_by_draws
from fxgrad.passes.analyses.freed_graphs import unknown
from fxgrad.passes.analyses.index import once
from fxgrad.passes.analyses.made_in_forward import renewed
from fxgrad.passes.context import Context
from fxgrad.passes.ended import Cause
from fxgrad.passes.findings import listed, of_cause, severity, some, starved, subject, text_of
from fxgrad.records import Facts, Finding, Fix, ParameterFact, Severity, Site, Step
from fxgrad.source import attribute_site, attribute_sites, container_sites
from fxgrad.source.objects import module_of, origin

CODE = "FXG101"
NAME = "unused-parameter"
SEVERITY = "error"

CONSTANT = "a constant of a derivative"  # of a note: it is shown, for it says why there is no gradient

_CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
_COMPARED = 64  # modules of one finding of which it is asked what passed each by


def check(facts: Facts, context: Context) -> Iterator[Finding]:
    """One finding per dead end: parameters that die on the same line belong together."""
    yield from _multiplied_away(facts, context)
    causes: Causes = context.causes
    if facts.midway or unconnected(facts, causes):
        return  # FXG116: no parameter is unused where the loss uses none
    for site, members in _groups(facts, context):
        found = _unused(facts, context, site, members)
        yield found if context.training is None else _at_the_term(found, facts, members[0][1])


def _groups(
    facts: Facts, context: Context
) -> Iterable[tuple[Site | None, list[tuple[ParameterFact, DeadEnd]]]]:
    """The parameters that die in one way on one line, or in one part of the model, and that line."""
    causes: Causes = context.causes
    excused = unknown(facts).union(passed_by_draws(facts, context))  # the errors are FXG201's, FXG115's
    groups: dict[tuple[str, str, int], tuple[Site | None, list[tuple[ParameterFact, DeadEnd]]]] = {}
    definitions = _Definitions(context)
    for parameter in causes.starved:
        end = causes.ends.get(parameter.name)
        if end is None or parameter.name in excused or _is_replaced(facts, parameter, end):
            continue
        if end.kind == "never called" and _chooser(facts, context, end.part):
            end = replace(end, kind="left out")
        site = definitions.site(end.part) if end.node is None else end.site
        key = (end.kind, site.file, site.line) if site is not None else (end.kind, end.part, 0)
        groups.setdefault(key, (site, []))[1].append((parameter, end))
    return groups.values()


def _unused(
    facts: Facts, context: Context, site: Site | None, members: list[tuple[ParameterFact, DeadEnd]]
) -> Finding:
    names = tuple(dict.fromkeys(n for parameter, _ in members for n in parameter.names))
    end = members[0][1]
    decision = _decision(facts, context, members, site)
    level = _severity(facts, context, members, names)
    constant = level == "note" and end.kind == "derived" and severity(context, names) != "note"
    chooser = _chooser(facts, context, end.part) if end.kind == "left out" else ""
    return Finding(
        CODE,
        NAME,
        level,
        message(members, names, chooser, decision),
        site,
        names,
        _path(members, names, site, decision),
        Fix(ADVICE[end.kind]),
        kind=CONSTANT if constant else "",
    )


def _is_replaced(facts: Facts, parameter: ParameterFact, end: DeadEnd) -> bool:
    """Whether another takes its place: FXG110, FXG111."""
    return end.node is None and bool(once(facts, renewed).intersection(parameter.names))


def _multiplied_away(facts: Facts, context: Context) -> Iterator[Finding]:
    """A term of the loss that is zero whatever it holds: what is in no other takes no part."""
    idle = zero_causes.idle(facts, context)
    for cause in zero_causes.analyse(context):
        names = tuple(cause.names)
        if cause.term:
            certain = context.explicit or (context.training is not None and not idle.isdisjoint(names))
            yield Finding(
                CODE,
                NAME,
                ("error" if certain else "warning") if context.expected.intersection(names) else "note",
                f"{cause.what}: {listed(names)} {'takes' if len(names) == 1 else 'take'} no part in the loss "
                f"through any other term{'; nothing trains' if idle.intersection(names) else ''}",
                cause.site,
                names,
                (Step("loss"), Step(text_of(cause.site) or "step", cause.site, True), Step(names[0])),
                Fix(cause.advice),
            )


def _at_the_term(found: Finding, facts: Facts, end: DeadEnd) -> Finding:
    """A term left out of the loss, in a function of a script that calls backward itself: it has no `return`
    to blame, the term stands for itself."""
    site, node = found.site, facts.node_named.get(end.node or "")
    missed = end.kind == "missed" and site is not None and f"{site.file}:{site.function}" in facts.returns
    if not missed or node is None or node.site is None:
        return found
    return replace(
        found,
        site=next((s for s in node.stack if f"{s.file}:{s.function}" in facts.returns), node.site),
        message=left_out(found.parameters, "no loss uses this part of"),
        fix=Fix("add this term to a loss that is differentiated, or drop it and its parameters"),
    )


def _decision(
    facts: Facts, context: Context, members: list[tuple[ParameterFact, DeadEnd]], site: Site | None
) -> decisions.Decision | None:
    """What passed by the parts, where that is one and the same for all."""
    end = members[0][1]
    if end.kind in LEFT_BEHIND:
        stack = facts.node_named[end.node].stack if end.node is not None else ()
        found_there = left_behind.of_result(context, stack, site)
        return found_there or (left_behind.of_statement(context, site) if end.kind == "lost" else None)
    parts = dict.fromkeys(end.part for _, end in members)
    if members[0][1].kind not in ("never called", "not read") or len(parts) > _COMPARED:
        return None
    found = {decisions.of_part(facts, context, part, site) for part in parts}
    return found.pop() if len(found) == 1 else None


def _path(
    members: list[tuple[ParameterFact, DeadEnd]],
    names: tuple[str, ...],
    site: Site | None,
    decision: decisions.Decision | None,
) -> tuple[Step, ...]:
    end = members[0][1]
    cut = [Step(end.part, site, True)] if end.node and end.part else []
    if decision is not None:
        cut += [Step(decision.label, decision.site, True)]
    return (Step("loss"), Step("no path", cut=not cut), *cut, Step(names[0]))


def _severity(
    facts: Facts, context: Context, members: list[tuple[ParameterFact, DeadEnd]], names: tuple[str, ...]
) -> Severity:
    """A note where a constant drops out of a derivative, which is mathematics: the rest of its module
    trains."""
    level = severity(context, names)
    if level != "error" or context.explicit or any(end.kind != "derived" for _, end in members):
        return level
    trained = {p.module for p in facts.parameters if p.requires_grad and not is_starved(facts, p)}
    return "note" if trained.issuperset(parameter.module for parameter, _ in members) else level


ADVICE = {
    "never called": "call it in forward, or remove it",
    "left out": (
        "nothing to mend where other inputs use it; under DistributedDataParallel set "
        "find_unused_parameters=True"
    ),
    "not read": "use it in forward, or remove it",
    "unread": "use the result on the way to the loss, or drop the computation and its parameters",
    "lost": (
        "keep the result: `loss = loss + aux` or `loss += aux` instead of an expression on its own or a "
        "second `loss = ...`"
    ),
    "derived": "nothing to mend for a bias; else add a term with the value itself, or drop these parameters",
    "missed": "add what was left out to the value returned here, or drop the computation and its parameters",
}


def _chooser(facts: Facts, context: Context, part: str) -> str:
    """The type of torch's own module that ran and did without its part `part`: by its inputs, no line of the
    user's leaves that out."""
    called = {call.path for call in facts.calls}
    words = part.split(".")
    owner: object = context.model
    for i, word in enumerate(words[:-1]):
        owner, path = getattr(owner, word, None), ".".join(words[: i + 1])
        kind = type(owner)
        if (
            path in called
            and module_of(kind).startswith("torch.nn.modules.")
            and not issubclass(kind, (*_CONTAINERS, nn.Sequential))
        ):
            return kind.__name__
    return ""


def left_out(names: tuple[str, ...], by: str = "the value returned here leaves out") -> str:
    """The sentence about what misses a return; `by`: how it begins."""
    return f"{by} what {subject(names)} computed: {starved(names)}"


def message(
    members: list[tuple[ParameterFact, DeadEnd]],
    names: tuple[str, ...],
    chooser: str = "",
    decision: decisions.Decision | None = None,
) -> str:
    """What happened to the data, in one sentence. `chooser`: the type of the module that left it out;
    `decision`: what passed it by."""
    kind = members[0][1].kind
    passed = f"; {decision.text}" if decision is not None else ""
    if kind == "unread":
        return f"nothing on the way to the loss uses what {subject(names)} computed: {starved(names)}{passed}"
    if kind == "derived":
        return f"the derivative taken here does not depend on {subject(names)}: {starved(names)}"
    if kind == "missed":
        return f"{left_out(names)}{passed}"
    if kind == "lost":
        return (
            f"the result is thrown away or written over here, and with it what {subject(names)} computed: "
            f"{starved(names)}{passed}"
        )
    parts = tuple(dict.fromkeys(end.part for _, end in members))
    listed = some(parts)
    if chooser:
        return f"{chooser} does without {listed} for these inputs: {starved(names)}"
    what = "called" if kind == "never called" else "used in forward"
    return f"{listed} {'is' if len(parts) == 1 else 'are'} never {what}: {starved(names)}{passed}"


class _Definitions:
    """The lines that build modules and parameters, each class's attribute looked up once: a network repeats
    its layers."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.parts: dict[str, Site | None] = {}
        self.built: dict[tuple[type, str], Site | None] = {}
        self.fills: dict[tuple[type, str], tuple[Site, ...]] = {}
        self.counts: dict[int, int] = {}  # by the id of a container, which the model holds

    def site(self, part: str) -> Site | None:
        """The line that builds the module or parameter called `part`, or fills the container it is an item
        of.

        Inside an installed package nothing can be mended: there the user's own line that builds the outermost
        such module is named.
        """
        if part not in self.parts:
            self.parts[part] = self._site(part.split("."))
        return self.parts[part]

    def _site(self, words: list[str]) -> Site | None:
        site: Site | None = None
        owner: object = self.context.model
        for i, word in enumerate(words):
            item = getattr(owner, word, None)
            found = self._built(owner, word)
            if isinstance(item, _CONTAINERS) and i + 1 < len(words):
                found = self._filled(owner, word, words[i + 1], item) or found
            if found is not None and (
                site is None or origin(site.file) == "installed" or origin(found.file) != "installed"
            ):
                site = found
            owner = item
        return site

    def _built(self, owner: object, attribute: str) -> Site | None:
        key = (type(owner), attribute)
        if key not in self.built:
            numbered = isinstance(owner, (*_CONTAINERS, nn.Sequential))  # other files may number anything
            # A class that sets what it is given (`setattr(self, name, value)`) may have set anything: a line
            # that says the name is better.
            own = attribute_sites(owner, attribute, named=not numbered)
            self.built[key] = (
                next(iter(own), None)
                if own or numbered
                else attribute_site(owner, attribute, self.context.files)
            )
        return self.built[key]

    def _filled(self, owner: object, attribute: str, item: str, container: nn.Module) -> Site | None:
        """Of the lines that fill a container the one for this item, as far as numbers tell: first and last
        are sure, loops between."""
        key = (type(owner), attribute)
        if key not in self.fills:
            made = attribute_sites(owner, attribute, named=True)
            found = container_sites(owner, attribute, () if made else self.context.files)
            self.fills[key] = tuple(site for site in found if site not in made) or found
        fills = self.fills[key]
        if not fills or not item.isdigit():
            return fills[0] if fills else None
        if id(container) not in self.counts:
            self.counts[id(container)] = len(
                list(container.children()) or list(container.parameters(recurse=False))
            )
        number = int(item)
        if number == self.counts[id(container)] - 1:
            number = len(fills) - 1
        elif len(fills) > 1:
            number = min(number, len(fills) - 2)
        return fills[min(number, len(fills) - 1)]


def not_behind(asked: str, names: Sequence[str], site: Site | None) -> Finding:
    """Nothing leads from these tensors to the output that they were to be differentiated for: `asked` says
    where they stand in what was asked for."""
    cause = Cause(
        f"{asked} is {listed(names)}: nothing that leads to the output is computed from "
        f"{'it' if len(names) == 1 else 'them'}",
        site,
        "differentiate with respect to the very tensor that forward used, or pass allow_unused=True and skip "
        "None",
        tuple(names),
    )
    return of_cause((CODE, NAME), cause)
