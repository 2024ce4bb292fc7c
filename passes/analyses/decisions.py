"""Why a part of the model was passed by: the branch, slice, key or `return` that kept the line that uses it
from running.

From the text of the functions that use the part, and what of them ran (`records.Ran`). A decision is told
only where the counts show it: for a part of one of several like modules, those of that module alone. Of a
container the loop that went over it, the index or key that took others.

Not handled: parts of installed packages, and values that went through other variables.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import nn

from fxgrad.passes.context import Context
from fxgrad.passes.findings import line_of, some, text_of
from fxgrad.records import Facts, Ran, Site, Span
from fxgrad.source.draws import draws, is_drawn
from fxgrad.source.names import fits
from fxgrad.source.objects import module_of, origin
from fxgrad.source.parsing import Function, Located, Source, absolute, ancestors, enclosing_function, site_of
from fxgrad.source.passed_by import Counts, Passed, deciding_tests, left_by, passed_by, quoted
from fxgrad.source.statements import header
from fxgrad.source.uses import Use, picks, uses

_CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict, nn.Sequential)
_TOLD = 2  # uses of one part that are told
_TAKEN = 4  # items of a container that are listed
_WRAPPING = frozenset(("enumerate", "zip", "reversed", "list", "tuple", "iter", "sorted"))
_VIEWS = frozenset(("values", "items", "children", "named_children"))


@dataclass(frozen=True, slots=True)
class Decision:
    """`text`: a clause for a message; `site`: what decided, and `label` its text; `drawn`: a random draw
    did."""

    text: str
    site: Site
    drawn: bool = False

    @property
    def label(self) -> str:
        """The deciding expression in a path."""
        return text_of(self.site) or "branch"


@dataclass(frozen=True, slots=True)
class _Part:
    """`attribute` of the module called `owner`; `item`: the part of that container which is meant, "" for the
    attribute itself."""

    owner: str
    attribute: str
    item: str
    holder: object
    container: object


def of_part(facts: Facts, context: Context, name: str, seen_from: Site | None) -> Decision | None:
    """What passed by the module or parameter called `name`."""
    if not context.ran:
        return None
    part = _part(context.model, name)
    if part is None:
        return None
    found: list[Decision] = []
    known = True
    for use in _uses(facts, context, part):
        if origin(use.source.file) != "user" or _takes_another(use, part):
            continue
        decision = _of_use(facts, context, part, use, seen_from)
        if decision is None:
            known = False
        else:
            found.append(decision)
    if not found:
        return None
    drawn = next((decision for decision in found if decision.drawn), None)
    text = _in_words(found, known=known) + as_far_as(context)
    return Decision(text, (drawn or found[0]).site, drawn is not None)


def as_far_as(context: Context) -> str:
    """What is to be added where more ran than was counted: there it may have gone the other way."""
    return " as far as lines were counted" if any(one.in_part for one in context.ran) else ""


def _in_words(found: Sequence[Decision], *, known: bool) -> str:
    """What passed by the uses of a part, of several the first few. `known`: of every use it is known."""
    more = len(found) - _TOLD
    only = "only " if known and len(found) == 1 else ""
    clauses = [decision.text for decision in found[:_TOLD]]
    used = "" if clauses[0].startswith("put") else f"used {only}"
    further = f", and at {more} further place{'s' if more > 1 else ''}" if more > 0 else ""
    return f"{used}{', and '.join(clauses)}{further}"


def _part(model: object, name: str) -> _Part | None:
    """The attribute of the innermost module that is no container."""
    words = name.split(".")
    owners: list[object] = [model]
    for word in words:
        owners.append(getattr(owners[-1], word, None))
    last = len(words) - 1
    item = ""
    while (
        last > 0
        and isinstance(owners[last], _CONTAINERS)
        and module_of(type(owners[last])).startswith("torch.")
    ):
        item = words[last]
        last -= 1
    if owners[last] is None:
        return None
    return _Part(".".join(words[:last]), words[last], item, owners[last], owners[last + 1])


def _uses(facts: Facts, context: Context, part: _Part) -> tuple[Use, ...]:
    """The uses of the attribute, looked up once for all modules of the type: a network repeats its layers."""
    key = "uses", type(part.holder), part.attribute
    if key not in facts.memo:
        facts.memo[key] = uses(part.holder, part.attribute, context.files)
    found: tuple[Use, ...] = facts.memo[key]
    return found


def _ran(facts: Facts, context: Context, part: _Part, use: Use) -> tuple[Ran, ...]:
    """What of the using function ran, on the part's own module where it is a method."""
    key = "ran", use.source.file
    if key not in facts.memo:
        there: dict[str | None, list[Ran]] = {}
        for ran in context.ran:
            if absolute(ran.file) == use.source.file:
                there.setdefault(ran.module, []).append(ran)
        facts.memo[key] = there
    by_module: dict[str | None, list[Ran]] = facts.memo[key]
    found = [*by_module.get(None, ()), *by_module.get(part.owner, ())]
    return tuple(ran for ran in found if is_inside(ran, use.function))


def together(ran: tuple[Ran, ...]) -> Counts:
    merged: dict[Span, int] = {}
    for one in ran:
        for span, times in one.counts.items():
            merged[span] = merged.get(span, 0) + times
    return Counts(merged)


def is_inside(ran: Ran, function: Function) -> bool:
    first = next(iter(ran.counts), None)
    return first is not None and function.lineno <= first[0] <= (function.end_lineno or 0)


def _of_use(facts: Facts, context: Context, part: _Part, use: Use, seen_from: Site | None) -> Decision | None:
    if use.builds:
        return _of_built(part, use, seen_from)
    if use.held is not None:
        if part.item:
            return None
        if use.function.name == "__init__":
            return _of_kept(facts, context, part, use, seen_from)  # that ran before anybody looked
    ran = _ran(facts, context, part, use)
    if not all(one.whole for one in ran):
        return None
    if not ran:
        return _of_method(facts, context, part, use, seen_from) if _is_called_there(use) else None
    counts = together(ran)
    times = counts.times(use.node)
    if times is None:
        return None
    if not times:
        return _passed(part, use, passed_by(use.source, use.node, counts), counts, seen_from)
    if use.held is not None:
        return _of_kept(facts, context, part, use, seen_from)
    takes_items = part.item or use.pattern or isinstance(part.container, _CONTAINERS)
    return _of_item(facts, part, use, counts, seen_from) if takes_items else None


def _of_built(part: _Part, use: Use, seen_from: Site | None) -> Decision | None:
    """The constructor computes another attribute from it."""
    if not isinstance(part.container, nn.Parameter):
        return None
    site = site_of(use.source, use.node)
    return Decision(f"{at(site, seen_from)}, where `{use.builds}` is computed once", site)


def _is_called_there(use: Use) -> bool:
    """Whether the function that did not run would have called the part."""
    parent = use.source.parents.get(use.node)
    return isinstance(parent, ast.Call) and parent.func is use.node


def _of_method(
    facts: Facts, context: Context, part: _Part, use: Use, seen_from: Site | None
) -> Decision | None:
    """The method that uses the part did not run; what passed by the one call of it, where there is one."""
    where = at(site_of(use.source, use.node), seen_from)
    name = use.function.name
    method = replace(part, attribute=name, item="", container=None)
    calls = [call for call in _uses(facts, context, method) if call.function is not use.function]
    if len(calls) == 1 and _ran(facts, context, method, calls[0]):
        passed = _of_use(facts, context, method, calls[0], seen_from)
        if passed is not None:
            return replace(passed, text=f"{where}, in `{name}`, called only {passed.text}")
    return Decision(f"{where}, in `{name}`, which did not run", header(use.source, use.function))


def _passed(
    part: _Part, use: Use, passed: Passed | None, counts: Counts, seen_from: Site | None
) -> Decision | None:
    """What passed by a use, and whether that was drawn."""
    found = told(use.source, use.node, passed, seen_from)
    if found is None or passed is None:
        return found
    tests = deciding_tests(passed.node)
    return replace(found, drawn=any(is_drawn(use.source, t, counts.times, part.holder) for t in tests))


def told(source: Source, node: ast.expr, passed: Passed | None, seen_from: Site | None) -> Decision | None:
    """What passed by an expression, where that is known."""
    if passed is None:
        return None
    place, site = site_of(source, node), deciding(source, passed.node)
    where = "" if site.line == place.line and site.file == place.file else line_of(site, seen_from)
    return Decision(f"{at(place, seen_from)}, {passed.how.format(where)}", site)


def deciding(source: Source, node: Located) -> Site:
    if isinstance(node, ast.stmt | ast.ExceptHandler):
        return header(source, node)
    return site_of(source, node)


def at(site: Site, seen_from: Site | None) -> str:
    """`at line 12`, `at blocks.py:12`."""
    return f"at{line_of(site, seen_from).replace(' (', ' ').replace(')', '')}"


# ------------------------------------------------------------------ items of containers


def _of_kept(
    facts: Facts, context: Context, part: _Part, use: Use, seen_from: Site | None
) -> Decision | None:
    """It stands in a list or dict that is kept under a name: where others are taken out of that."""
    assert use.held is not None
    source, display = use.source, use.display
    for pick in picks(use, part.holder):
        function = enclosing_function(source, pick)
        if function is None:
            continue
        ran = _ran(facts, context, part, Use(source, pick, function))
        if not all(one.whole for one in ran) or not together(ran).times(pick):
            continue
        beside = {node.attr for node in ast.walk(display or pick) if isinstance(node, ast.Attribute)}
        put, site = site_of(source, use.node), site_of(source, pick)
        taken = _taken(facts, f"{part.owner}." if part.owner else "", beside.__contains__, site)
        text = (
            f"put {at(put, seen_from)} in `{quoted(source, use.held)}`, of which "
            f"`{quoted(source, pick)}`{line_of(site, seen_from)} {taken}"
        )
        return Decision(text, site) if taken else None
    return None


def _taken(facts: Facts, start: str, is_one: Callable[[str], bool], site: Site) -> str:
    """Which of the modules or parameters whose names begin so ran; "took only" where it was called right
    there."""
    there: dict[str, bool] = {}
    for call in facts.calls:
        name = _item(call.path, start)
        if name is not None and is_one(name):
            is_called_there = call.site is not None and _encloses(call.site, site)
            there[name] = there.get(name, True) and is_called_there
    for path in (path for p in facts.parameters if p.values for path in p.names):
        name = _item(path, start)
        if name is not None and is_one(name):
            there.setdefault(name, False)
    if not there:
        return ""
    shown = some(there, _TAKEN)
    return f"took only {shown}" if all(there.values()) else f"hands on, and only {shown} ran"


def _item(path: str, start: str) -> str | None:
    """The word of a qualified name after one that begins so."""
    return path[len(start) :].split(".")[0] if path.startswith(start) else None


def _encloses(outer: Site, inner: Site) -> bool:
    begins = (outer.line, outer.column) <= (inner.line, inner.column)
    return (
        outer.file == inner.file
        and begins
        and (inner.end_line, inner.end_column) <= (outer.end_line, outer.end_column)
    )


def _takes_another(use: Use, part: _Part) -> bool:
    """Whether a constant index or key takes another item than the one that is meant."""
    parent = use.source.parents.get(use.node)
    if (
        not part.item
        or not isinstance(parent, ast.Subscript)
        or parent.value is not use.node
        or isinstance(parent.slice, ast.Slice)
    ):
        return False
    try:
        key = ast.literal_eval(parent.slice)
    except ValueError:
        return False
    if isinstance(key, int) and key < 0:
        key += _size(part)
    return str(key) != part.item


def _size(part: _Part) -> int:
    try:
        return len(part.container)  # type: ignore[arg-type]
    except TypeError:
        return 0


def _of_item(facts: Facts, part: _Part, use: Use, counts: Counts, seen_from: Site | None) -> Decision | None:
    """The container was at hand: which of its items the expression around it took."""
    source = use.source
    around, loop = (use.node, None) if use.pattern else _handed(source, use.node)
    if loop is not None:
        return _of_loop(part, use, loop, counts, seen_from)
    if around is use.node and not use.pattern:
        return None
    site = site_of(source, around)
    prefix = f"{part.owner}." if part.owner else ""
    if use.pattern:
        taken = _taken(facts, prefix, lambda name: fits(use.pattern, name), site)
    else:
        taken = _taken(facts, f"{prefix}{part.attribute}.", bool, site)
    text = f"through `{quoted(source, around)}`{line_of(site, seen_from)}, which {taken}"
    drawn = is_drawn(source, around, counts.times, part.holder)
    return Decision(text, site, drawn) if taken else None


def _handed(source: Source, container: ast.expr) -> tuple[ast.expr, ast.AST | None]:
    """The widest expression around a container that is made of its items, and the loop over it, if any."""
    around = container
    for parent in ancestors(source, container):
        if isinstance(parent, ast.Subscript) and parent.value is around and not _is_slice(parent):
            return parent, None
        if isinstance(parent, ast.Call) and around in parent.args and draws(source, parent):
            return parent, None
        if isinstance(parent, ast.For | ast.AsyncFor) and parent.iter is around:
            return container, parent
        if isinstance(parent, ast.comprehension):
            return container, source.parents[parent]
        if not isinstance(parent, ast.expr) or not _hands_all(parent, around):
            break
        around = parent
    return around, None


def _is_slice(node: ast.Subscript) -> bool:
    return isinstance(node.slice, ast.Slice)


def _hands_all(parent: ast.AST, child: ast.AST) -> bool:
    """Whether it goes over the items of `child`: `enumerate(x)`, `x[1:]`, `x.items()`."""
    match parent:
        case ast.Call(func=ast.Name(id=name), args=args):
            return name in _WRAPPING and child in args
        case ast.Call(func=func):
            return func is child
        case ast.Attribute(attr=name):
            return name in _VIEWS
        case ast.Subscript(value=value, slice=ast.Slice()):
            return value is child
    return False


def _of_loop(part: _Part, use: Use, loop: ast.AST, counts: Counts, seen_from: Site | None) -> Decision | None:
    """The loop over a container ended before the item, left it out, or did something else with it."""
    source = use.source
    parts = _loop_parts(loop)
    if parts is None:
        return None
    target, body, of = parts
    turns, entered = counts.times(body), counts.times(of)
    if turns is None or not entered:
        return None
    site = site_of(source, of)
    head = f"`{quoted(source, of)}`{line_of(site, seen_from)}"
    if not turns:
        return Decision(f"in the loop over {head}, which had nothing to go through", site)
    names = {node.id for node in ast.walk(target) if isinstance(node, ast.Name)}
    called = [node for node in ast.walk(loop) if isinstance(node, ast.Name)]
    called = [node for node in called if _is_called(source, node, names)]
    if not called:
        return None
    if any(counts.times(node) == turns for node in called):
        return _ended(part, use, loop, of, turns, entered, counts, seen_from)
    if turns != entered * _size(part):
        return None
    passed = passed_by(source, called[0], counts, least=turns, within=loop)
    return _passed(part, replace(use, node=called[0]), passed, counts, seen_from)


def _loop_parts(loop: ast.AST) -> tuple[ast.expr, ast.stmt | ast.expr, ast.expr] | None:
    """The target, what each turn runs first, and what it goes over."""
    if isinstance(loop, ast.For | ast.AsyncFor):
        return loop.target, loop.body[0], loop.iter
    if isinstance(loop, ast.ListComp | ast.SetComp | ast.GeneratorExp) and len(loop.generators) == 1:
        only = loop.generators[0]
        return only.target, only.ifs[0] if only.ifs else loop.elt, only.iter
    return None


def _is_called(source: Source, node: ast.Name, names: set[str]) -> bool:
    """Whether the loop's variable is called here, or handed to a call."""
    if node.id not in names or not isinstance(node.ctx, ast.Load):
        return False
    parent = source.parents.get(node)
    return isinstance(parent, ast.Call) and (parent.func is node or node in parent.args)


def _ended(
    part: _Part,
    use: Use,
    loop: ast.AST,
    of: ast.expr,
    turns: int,
    entered: int,
    counts: Counts,
    seen_from: Site | None,
) -> Decision | None:
    """The loop did the same with all it had: it was not given this item, or did not come to it."""
    source = use.source
    site = site_of(source, of)
    head = f"`{quoted(source, of)}`{line_of(site, seen_from)}"
    left = left_by(source, loop, counts) if isinstance(loop, ast.For | ast.AsyncFor) else None
    if left is not None:
        place = deciding(source, left.node)
        how = left.how.format(line_of(place, seen_from))
        tests = deciding_tests(left.node)
        drawn = any(is_drawn(source, test, counts.times, part.holder) for test in tests)
        return Decision(f"in the loop over {head}, which was {how}", place, drawn)
    size = _size(part)
    if turns >= entered * size:
        return None
    each = f"{turns // entered} of {size}" if turns % entered == 0 else f"some of {size}"
    drawn = is_drawn(source, of, counts.times, part.holder)
    return Decision(f"in the loop over {head}, which took {each}", site, drawn)
