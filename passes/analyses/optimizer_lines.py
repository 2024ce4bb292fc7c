"""Which line builds an optimizer, and which replaced what it holds.

Look-ups in the source text, for both happened before the run. Of several `Adam(...)` the one is taken whose
written options agree with the optimizer's own and whose scope is nearest to the model's and the loss's. A
replacement is looked for first after that line, in the same function: a call or an assignment that gives the
model other parameters. Not handled: optimizers built by name (`getattr(torch.optim, name)`); code that runs
in another order than it stands.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

from fxgrad.passes.context import Context
from fxgrad.passes.findings import source_of
from fxgrad.records import Site
from fxgrad.source import optimizer_sites, replacement_sites
from fxgrad.source.objects import origin
from fxgrad.source.parsing import enclosing_function, last_name, load, nodes, position, site_of

# Calls that put new Parameter objects into a module, by their last name; `load_state_dict` only with
# assign=True.
REPLACING = frozenset(
    [
        "deepcopy",
        "to_empty",
        "weight_norm",
        "register_parametrization",
        "remove_parametrizations",
        "remove_weight_norm",
        "get_peft_model",
        "inject_adapter_in_model",
        "resize_token_embeddings",
        "convert_sync_batchnorm",
        "load_state_dict",
    ]
)


def construction_site(context: Context, optimizer: object) -> Site | None:
    """The call that built the optimizer: the one that was seen to, unless a library made it."""
    built = getattr(optimizer, "built", None)
    if isinstance(built, Site) and origin(built.file) == "user":
        return built
    sites = optimizer_sites(context.files, optimizer)
    defaults = getattr(optimizer, "defaults", {})
    scopes = _scopes(context)
    ranked = sorted(
        sites, key=lambda s: (not _agrees(s, defaults), -max(_shared(s.function, scope) for scope in scopes))
    )
    return ranked[0] if ranked else None


def replacing_site(context: Context, built: Site | None, names: Iterable[str]) -> Site | None:
    """The statement that put other tensors in the place of the parameters `names`."""
    candidates = list(
        dict.fromkeys(site for name in names for site in replacement_sites(context.files, name))
    )
    if built is not None:
        for site in (built, *_callers(context, built)):
            found = _after(site, candidates)
            if found is not None:
                return found
        near = [c for c in candidates if c.file != built.file or _is_reachable(c, built)]
        candidates = near
    return candidates[0] if candidates else None


def _scopes(context: Context) -> tuple[str, ...]:
    found = [type(context.model).__qualname__ + "."]
    for function in (context.loss, getattr(context.loss, "func", None), type(context.loss)):
        name = getattr(function, "__qualname__", "")
        if name:
            found.append(name + ".")
    return tuple(found)


def _shared(one: str, other: str) -> int:
    """How many leading scopes two qualified names share."""
    count = 0
    for a, b in zip((one + ".").split("."), other.split("."), strict=False):
        if a != b or not a:
            break
        count += 1
    return count


def _agrees(site: Site, defaults: dict[str, object]) -> bool:
    """Whether the literal options of the call are the optimizer's."""
    try:
        call = ast.parse(source_of(site), mode="eval").body
    except SyntaxError:
        return True
    if not isinstance(call, ast.Call):
        return True
    written = [(k.arg, k.value) for k in call.keywords if k.arg is not None]
    written += [("lr", value) for value in call.args[1:2]]
    return all(
        _literal(value, defaults.get(name)) == defaults.get(name)
        for name, value in written
        if name in defaults
    )


def _literal(expression: ast.expr, fallback: object) -> object:
    try:
        return ast.literal_eval(expression)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return fallback


def _callers(context: Context, built: Site) -> Iterator[Site]:
    """Calls of the function that builds the optimizer."""
    name = built.function.rpartition(".")[2]
    for file in context.files:
        source = load(file)
        for call in nodes(source, ast.Call):
            if last_name(call.func) == name:
                yield site_of(source, call)


def _after(built: Site, candidates: list[Site]) -> Site | None:
    """The first statement after the optimizer's, in the same function, that replaces parameters."""
    later = [
        c
        for c in candidates
        if c.file == built.file and c.function == built.function and c.line > built.end_line
    ]
    source = load(built.file)
    anchor = next(
        (
            n
            for n in nodes(source, ast.Call)
            if n.lineno == built.line and site_of(source, n).column == built.column
        ),
        None,
    )
    if anchor is None:
        return min(later, key=lambda s: s.line, default=None)
    scope, roots = enclosing_function(source, anchor), _roots(anchor)
    for node in nodes(source, ast.stmt):
        if (
            enclosing_function(source, node) is scope
            and position(node) > (built.end_line, 0)
            and _replaces(node, roots)
        ):
            later.append(site_of(source, node))
    return min(later, key=lambda s: (s.line, s.column), default=None)


def _roots(call: ast.Call) -> frozenset[str]:
    """The variables whose parameters the call is given: `model` of `Adam(model.parameters())`."""
    names = {
        n.id
        for argument in (*call.args, *(k.value for k in call.keywords))
        for n in ast.walk(argument)
        if isinstance(n, ast.Name)
    }
    return frozenset(names - {"self", "torch", "nn", "optim"})


def _replaces(node: ast.stmt, roots: frozenset[str]) -> bool:
    """`model = ...`, `model.fc = ...`, `model[0] = ...`, or a call known to make new parameters."""
    if isinstance(node, ast.Assign):
        for target in node.targets:
            held = target
            while isinstance(held, ast.Attribute | ast.Subscript):
                held = held.value
            if isinstance(held, ast.Name) and held.id in roots and not isinstance(node.value, ast.Constant):
                return True
    if not isinstance(node, ast.Assign | ast.Expr):
        return False
    calls = [c for c in ast.walk(node.value) if isinstance(c, ast.Call) and last_name(c.func) in REPLACING]
    return any(
        last_name(c.func) != "load_state_dict" or any(k.arg == "assign" for k in c.keywords) for c in calls
    )


def _is_reachable(site: Site, built: Site) -> bool:
    """Whether a statement may belong to the same program: not inside another top-level function's body."""
    first, other = site.function.partition(".<locals>")[0], built.function.partition(".<locals>")[0]
    return "<locals>" not in site.function or first == other
