"""A branch on the values of a tensor decides whether a parameter gets a gradient.

What it finds
    - A condition on data (`if t.any()`, `t.item() > p`, `float(t) < p`, `max(a, b)` of tensors, a `while` on
      a norm) one of whose outcomes leaves parameters without a gradient. Both outcomes are run, nested ones
      too; the finding says which one starves which parameters and which one the example inputs take. Where
      they take the one that starves, it is an error; where the other, a warning; on fake values, which decide
      nothing, an error and the verdict `branch`.
    - The same without a condition: an expert chosen by `.item()` as an index, a NumPy condition, a loop over
      what a mask selects, a draw of Python's or NumPy's random numbers. The number, the selection or the seed
      is changed, and other parameters train.
    - A parameter that only a condition reads (`if self.gate > 0.5`): a branch passes no gradient back.
    - A layer that a draw passed by where nothing else was tried, as in a watched script: a warning at the
      line that drew, for the next draw may go the other way.
    - A note in a watched script: a condition that went both ways, and what took part in some steps.

Why it matters
    In some steps the parameters train and in some they do not; under DistributedDataParallel the step hangs
    or raises.

Example
    h = self.stem(x)
    if h.norm().item() > 10:  # FXG115: `extra` trains only on such inputs
        h = h + self.extra(h)

Instead
    h = self.stem(x)
    gate = torch.sigmoid(h.norm() - 10)
    h = h + gate * self.extra(h)

When the fix is safe
    Never applied by itself: skipping may be meant (LayerDrop, early exit). Then say
    `find_unused_parameters=True` to DistributedDataParallel, and ignore the line.

Not handled
    A path on which the program raises, or nothing trains, counts as a guard. More outcomes than `max_paths`,
    or than 16 turns of one line, are not run, and the report says so. Draws from a generator that the program
    keeps itself show only through what it compares, and in a watched script by the text around them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from fxgrad.passes.analyses.causes import Causes, unconnected
from fxgrad.passes.analyses.drawn_by import passed_by_draws
from fxgrad.passes.context import Branch, Context
from fxgrad.passes.findings import listed, severity, starved, subject, text_of, wanted
from fxgrad.records import Facts, Finding, Fix, Severity, Site, Step
from fxgrad.torch_api import registry

CODE = "FXG115"
NAME = "branch-skips-parameter"
SEVERITY = "error"

RANDOM = "random"  # the node of a decision that a draw takes, found by drawing again
_LIKE = frozenset(("rand_like", "randn_like", "randint_like"))  # of a tensor they read its shape alone
_DRAWS = _LIKE | frozenset(("rand", "randn", "randint", "randperm", "bernoulli", "normal", "uniform_"))


def check(facts: Facts, context: Context) -> Iterator[Finding]:
    """One finding per condition that starves parameters, one per condition that parameters feed and nothing
    else."""
    groups: dict[Site | None, list[Branch]] = {}
    for branch in context.branches:
        groups.setdefault(branch.decision.site, []).append(branch)
    for site, members in groups.items():
        yield from _starving(facts, context, site, members)
    yield from _tested(facts, context)
    yield from _passed_by_draws(facts, context)
    both_ways = context.training.both_ways if context.training is not None else {}
    yield from (_both_ways(site, names) for site, names in both_ways.items())


def _starving(facts: Facts, context: Context, site: Site | None, members: list[Branch]) -> Iterator[Finding]:
    want = wanted(context)
    here = frozenset().union(*(_only_here(b) for b in members)) & want
    there = frozenset().union(*(_only_there(b) for b in members)) & want
    if not here and not there:
        return
    names = _in_order(context, here or there)
    known = all(b.decision.known for b in members)
    drawn = all(_is_drawn(facts, b) for b in members)
    level: Severity = "error" if here or not known else "warning"
    if drawn:  # the next draw may go the other way: what this one gave says nothing of the program
        level = "warning"
    # Of the turns of one line each may go its own way: that of the turn which starves them is named.
    starving = _only_here if here else _only_there
    shown = next(b for b in members if starving(b) & want)
    outcome = shown.decision.outcome if here else not shown.decision.outcome
    label, condition = _condition(facts, shown, outcome, known=known, drawn=drawn)
    yield Finding(
        CODE,
        NAME,
        level,
        f"{condition} {starved(names)} ({subject(names)})",
        site,
        names,
        (Step("loss"), Step(label, site, True), Step(names[0])),
        Fix(ADVICE),
    )


def _passed_by_draws(facts: Facts, context: Context) -> Iterator[Finding]:
    """What a draw passed by, where no other draw was tried: the line that drew."""
    causes: Causes = context.causes
    groups: dict[tuple[Site, str], list[str]] = {}
    if unconnected(facts, causes):
        return  # FXG116
    passed = passed_by_draws(facts, context)
    for parameter in causes.starved:
        decision = passed.get(parameter.name)
        if decision is not None:
            groups.setdefault((decision.site, decision.text), []).extend(parameter.names)
    for (site, text), found in groups.items():
        names = tuple(found)
        level = severity(context, names)
        yield Finding(
            CODE,
            NAME,
            "warning" if level == "error" else level,
            f"a random draw decides what runs: as it was here, {starved(names)} ({subject(names)}); {text}",
            site,
            names,
            (Step("loss"), Step(text_of(site) or "branch", site, True), Step(names[0])),
            Fix(ADVICE),
        )


def _condition(facts: Facts, branch: Branch, outcome: bool, *, known: bool, drawn: bool) -> tuple[str, str]:
    """What decides and the `outcome` that starves: in a word for the path, in words for the message."""
    source = _hidden_source(facts, branch)
    if source:
        return "branch", f"{source} decides what runs: as it is now,"
    label = f"branch ({outcome})"
    if drawn:
        return label, f"this condition is a random draw: where it is {outcome},"
    example = ""
    if known:
        taken = branch.decision.outcome
        is_taken = "as it is" if taken == outcome else f"it is {taken}"
        example = f" ({is_taken} for the example inputs)"
    return label, f"this condition depends on data: where it is {outcome}{example},"


def _in_order(context: Context, names: Collection[str]) -> tuple[str, ...]:
    """As the model lists its parameters."""
    order = [name for name, _ in registry.named_parameters(context.model, remove_duplicate=False)]
    return tuple(name for name in order if name in names)


def _only_here(branch: Branch) -> frozenset[str]:
    """The parameters that starve on the way taken and not on the other."""
    return branch.starved_here - branch.starved


def _only_there(branch: Branch) -> frozenset[str]:
    return branch.starved - branch.starved_here


def _is_drawn(facts: Facts, branch: Branch) -> bool:
    """Whether random numbers alone decide: all that the condition is computed from is drawn or constant."""
    if branch.decision.node == RANDOM:
        return True
    pending, seen, drawn = [facts.maker_of.get(value) for value in branch.reads], set[str](), False
    while pending:
        node = pending.pop()
        if node is None or (not node.reads and node.kind != "op"):
            return False  # an input, a parameter
        if node.name in seen:
            continue
        seen.add(node.name)
        name = node.target.rpartition(".")[2]
        drawn = drawn or name in _DRAWS
        if name not in _LIKE:
            pending += [facts.maker_of.get(value) for value in node.reads]
    return drawn


def _hidden_source(facts: Facts, branch: Branch) -> str:
    """What decides, where it is no condition on a tensor: a number that left torch, the size of a selection,
    a random draw."""
    if branch.decision.node == RANDOM:
        return "a random draw"
    node = next((n for n in facts.nodes if n.name == branch.decision.node), None)
    if node is None:
        return ""
    if node.kind == "escape":
        return "a number read off a tensor"
    return "" if any(d.node == node.name for d in facts.decisions) else "what a mask selects"


def _both_ways(site: Site, names: tuple[str, ...]) -> Finding:
    """A note: a branch left parameters out of some of the steps that were watched."""
    return Finding(
        CODE,
        NAME,
        "note",
        f"this condition went both ways in the steps that were watched: {listed(names)} "
        f"take{'s' if len(names) == 1 else ''} part in some",
        site,
        names,
        (Step("loss"), Step("branch", site, True), Step(names[0])),
        Fix(
            "nothing to mend where that is meant; under DistributedDataParallel set "
            "find_unused_parameters=True"
        ),
    )


def _tested(facts: Facts, context: Context) -> Iterator[Finding]:
    """Parameters whose data only ever decides: a branch passes no gradient back to what it tests."""
    causes: Causes = context.causes
    groups: dict[Site | None, list[str]] = {}
    for parameter in facts.parameters:
        if parameter.name in causes.tested:
            groups.setdefault(causes.tested[parameter.name], []).extend(parameter.names)
    for site, found in groups.items():
        names = tuple(found)
        yield Finding(
            CODE,
            NAME,
            severity(context, names),
            f"nothing but this condition uses what {subject(names)} computed, and a branch passes no "
            f"gradient back: {starved(names)}",
            site,
            names,
            (Step("loss"), Step("branch", site, True), Step(names[0])),
            Fix(
                "weigh both outcomes with the value itself (a sigmoid gate, torch.where on "
                "differentiable "
                "results)"
            ),
        )


ADVICE = (
    "compute both outcomes and select with torch.where, or accept it: under DistributedDataParallel set "
    "find_unused_parameters=True"
)
