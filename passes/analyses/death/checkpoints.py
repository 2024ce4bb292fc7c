"""A checkpoint that computes something else the second time, and one that hands a gradient to
DistributedDataParallel twice."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import CodeType

from torch import nn

from fxgrad.passes.analyses.death.record import Death, frames
from fxgrad.passes.ended import Cause
from fxgrad.passes.findings import line_of, source_of
from fxgrad.records import Facts, NodeFact, ParameterFact, Site
from fxgrad.source.names import dotted, last_word
from fxgrad.source.objects import module_of
from fxgrad.source.parsing import Function, enclosing_function, first_line, functions, load, nodes, site_of
from fxgrad.torch_api import registry
from fxgrad.torch_api.errors import ready_parameter
from fxgrad.torch_api.explanations import explanation_of
from fxgrad.torch_api.functions import checkpointed

_DRAWS = ("random.", "numpy.random.")
_CHANGES = frozenset(
    (
        "append",
        "extend",
        "insert",
        "pop",
        "clear",
        "update",
        "add",
        "remove",
        "setdefault",
        "popitem",
        "appendleft",
    )
)


def changed(death: Death) -> Iterator[Cause]:
    """What the checkpointed part changes, or draws, as it runs: its second run starts from something else
    than its first."""
    part = next((p for frame in frames(death.error) if (p := checkpointed(frame.f_locals)) is not None), None)
    found = [change for code in _codes(part) for change in _changes(code)] if part is not None else []
    # What is read again can make the difference; a counter that nothing reads cannot.
    found.sort(key=lambda change: not change.is_read)
    called = _checkpoint(death.context.files)
    toggled = _toggled(death, part)
    if toggled is not None and not (found and found[0].is_read):
        yield Cause(
            f"the mode is changed between forward and backward: the checkpoint{line_of(called, toggled)} "
            "runs its part again in the other",
            toggled,
            "call backward before the model changes between train() and eval()",
        )
        return
    if found:
        change = found[0]
        yield Cause(
            f"{change.what}: the checkpoint{line_of(called, change.site)} runs this again in backward, and "
            "it computes something else then",
            change.site,
            "make the checkpointed part a function of its arguments alone: no cache in training, nothing "
            "written or drawn from Python's "
            "generators inside",
        )
        return
    entry = explanation_of(death.message)
    if entry is not None and called is not None:
        yield Cause(entry.means, called, entry.remedy)


def _checkpoint(files: Iterable[str]) -> Site | None:
    """The first call of torch's `checkpoint` in the user's files."""
    for source in map(load, files):
        for call in nodes(source, ast.Call):
            if last_word(source, call.func) == "checkpoint":
                return site_of(source, call)
    return None


def _toggled(death: Death, part: object) -> Site | None:
    """The last `.eval()` or `.train()` before the backward, in its function, where the checkpointed part is
    in eval mode now."""
    if not isinstance(part, nn.Module) or part.training or death.site is None:
        return None
    source = load(death.site.file)
    calls = [
        call
        for call in nodes(source, ast.Call)
        if isinstance(call.func, ast.Attribute) and call.func.attr in ("eval", "train")
    ]
    sites = [site_of(source, call) for call in calls if call.lineno < death.site.line]
    return next((site for site in reversed(sites) if site.function == death.site.function), None)


def _codes(part: object) -> Iterator[CodeType]:
    """The code that runs in a checkpointed part: a module's forward and those of its children, a function and
    what it closes over."""
    if isinstance(part, nn.Module):
        for module in registry.modules(part):
            code = getattr(type(module).forward, "__code__", None)
            if isinstance(code, CodeType) and not module_of(type(module)).startswith("torch."):
                yield code
        return
    owner = getattr(part, "__self__", None)
    if isinstance(owner, nn.Module):
        yield from _codes(owner)
    code = getattr(getattr(part, "__func__", part), "__code__", None)
    if isinstance(code, CodeType):
        yield code
        for cell in getattr(part, "__closure__", None) or ():
            if isinstance(cell.cell_contents, nn.Module):
                yield from _codes(cell.cell_contents)


@dataclass(frozen=True, slots=True)
class Change:
    """A statement that changes what outlives the function; `is_read`: what it changes is read elsewhere in
    the function."""

    site: Site
    what: str
    is_read: bool = True


def _changes(code: CodeType) -> Iterator[Change]:
    """The statements of a function that change what outlives it, or draw from a generator that no checkpoint
    puts back."""
    source = load(code.co_filename)
    function = next((f for f in functions(source) if first_line(f) == code.co_firstlineno), None)
    if function is None:
        return
    for node in nodes(source, ast.AST):
        if enclosing_function(source, node) is not function:
            continue
        targets = _changed(node)
        kept = next((target for target in targets if _outlives(function, target)), None)
        if kept is not None and isinstance(node, ast.stmt | ast.expr):
            name = ast.unparse(kept)
            again = _is_read(function, name, node) or _reads_itself(node, name)
            yield Change(site_of(source, node), f"`{name}` is changed in forward", again)
        elif not targets and isinstance(node, ast.Call) and dotted(source, node.func).startswith(_DRAWS):
            what = f"`{ast.unparse(node)}` draws from a generator that no checkpoint puts back"
            yield Change(site_of(source, node), what)


def _changed(node: ast.AST) -> list[ast.expr]:
    """What a statement assigns to, or a method such as `append` changes."""
    match node:
        case ast.Assign(targets=targets):
            return targets
        case ast.AugAssign(target=target):
            return [target]
        case ast.Call(func=ast.Attribute(value=holder, attr=name)) if name in _CHANGES:
            return [holder]
    return []


def _is_read(function: Function, name: str, changing: ast.AST) -> bool:
    """Whether an expression is read in a function outside of the statement that changes it."""
    inside = set(ast.walk(changing))
    others = (n for n in ast.walk(function) if isinstance(n, ast.expr) and n not in inside)
    same = (n for n in others if ast.unparse(n) == name)
    return any(isinstance(getattr(n, "ctx", None), ast.Load) for n in same)


def _reads_itself(node: ast.AST, name: str) -> bool:
    """`self.cache = torch.cat([self.cache, k])`."""
    return isinstance(node, ast.Assign) and any(
        ast.unparse(n) == name for n in ast.walk(node.value) if isinstance(n, ast.expr)
    )


def _outlives(function: Function, target: ast.expr) -> bool:
    """Whether what is written outlives the call: an attribute or item of an argument or a global, or a global
    itself."""
    root = target
    while isinstance(root, ast.Attribute | ast.Subscript):
        root = root.value
    if not isinstance(root, ast.Name):
        return False
    outer = {
        name
        for node in ast.walk(function)
        if isinstance(node, ast.Global | ast.Nonlocal)
        for name in node.names
    }
    if root is target and root.id not in outer:
        return _is_foreign(function, root.id) and not isinstance(target.ctx, ast.Store)
    first = function.args.args[:1]
    return root.id in outer or _is_foreign(function, root.id) or (bool(first) and root.id == first[0].arg)


def _is_foreign(function: Function, name: str) -> bool:
    """Whether a name is bound outside of the function."""
    arguments = {a.arg for a in (*function.args.args, *function.args.kwonlyargs, *function.args.posonlyargs)}
    bound = {
        node.id
        for node in ast.walk(function)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    return name not in arguments and name not in bound


def ready_twice(death: Death) -> Iterator[Cause]:
    """A parameter whose gradient came twice: the reentrant checkpoints that it runs under, or its use outside
    the wrapped forward."""
    if explanation_of(death.message) is None:
        return
    facts = death.facts
    parameter = _ready(facts, ready_parameter(death.message))
    regions = _regions(facts, parameter)
    inside = {value for node in regions for value in node.reads}
    at_fault = [p for p in facts.parameters if p is parameter or inside.intersection(p.values)]
    named = tuple(name for p in at_fault for name in p.names)
    which = f"`{parameter.name}`" if parameter is not None else "a parameter"
    if regions:
        last = regions[-1]
        first = regions[0].site
        twice = f" after the one{line_of(first, last.site)}" if first != last.site else ""
        yield Cause(
            f"`{source_of(last.site)}` is a reentrant checkpoint{twice}: each runs a backward of its own, "
            "and DistributedDataParallel is told "
            f"twice that the gradient of {which} is there",
            last.site,
            "pass use_reentrant=False, and find_unused_parameters=False if every parameter is used",
            named,
        )
        return
    outside = _used_outside(facts, parameter) if parameter is not None else None
    if outside is not None:
        yield Cause(
            f"{which} is used here, outside of the forward that DistributedDataParallel wraps: there it "
            "counted as unused, or as used already",
            outside,
            "compute it inside the wrapped forward and return it",
            named,
        )


def _ready(facts: Facts, name: str | None) -> ParameterFact | None:
    """The parameter that torch calls so: by the whole of its name, or by the end."""
    if name is None:
        return None
    ends = f".{name.removeprefix('.')}"  # torch writes ".scale" of one that the wrapped module holds itself
    return next((p for p in facts.parameters if any(f".{own}".endswith(ends) for own in p.names)), None)


def _regions(facts: Facts, parameter: ParameterFact | None) -> list[NodeFact]:
    """The reentrant checkpoints with a line; those that read the parameter, where it is known."""
    found = [node for node in facts.nodes if node.kind == "checkpoint" and node.site is not None]
    if parameter is None:
        return found
    return [node for node in found if set(node.reads) & set(parameter.values)]


def _used_outside(facts: Facts, parameter: ParameterFact) -> Site | None:
    """A call of a part of the model from outside any module, or a step there, that uses the parameter."""
    called = (call for call in facts.calls if call.depth == 1 and call.site is not None and "." in call.path)
    part = next((call.site for call in called if parameter.module.startswith(call.path)), None)
    steps = (node for node in facts.nodes if not node.module and node.site is not None)
    return part or next(
        (n.site for n in steps if any(flow.open and flow.source in parameter.values for flow in n.flows)),
        None,
    )
