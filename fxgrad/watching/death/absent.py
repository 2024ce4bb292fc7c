"""A gradient that is None, and the program goes on with it; or an `autograd.grad` that would have to give
None.

Where the None came from is told by what asked for gradients (`fxgrad.trace.notes.Request`) and by the names
on the way: the names in the expression that raised, what they are bound from in the same function, and so on
in the frames around it. Not handled: a None that travels through an object's attribute under another name,
and one that is no gradient's: of that nothing is said.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import replace
from types import CodeType

import torch

from fxgrad.passes.findings import line_of, listed, source_of
from fxgrad.records import Facts, Finding, NodeFact, Site
from fxgrad.source.parsing import Source, ancestors, load, nodes
from fxgrad.source.sites import innermost
from fxgrad.torch_api.errors import NONE, NOT_A_LOSS, asked_index, says
from fxgrad.trace.notes import Request
from fxgrad.watching.death.no_gradient import UNUSED, of_attribute
from fxgrad.watching.death.record import (
    Death,
    finding,
    gradient_of,
    look_up,
    raising_text,
    site_of_entry,
    starved_findings,
    user_entries,
)

_GRADIENT = re.compile(r"([A-Za-z_][\w.\[\]'\"-]*)\.grad\b")


def is_of_none(error: BaseException) -> bool:
    """Whether Python, or torch, says that something is None."""
    return (
        isinstance(error, AttributeError | TypeError)
        and says(str(error), NONE)
        and not says(str(error), NOT_A_LOSS)
    )


def missing_gradient(error: BaseException) -> tuple[str, torch.Tensor] | None:
    """The expression `t` and the tensor of a `t.grad` that was None where this error was raised."""
    if not is_of_none(error):
        return None
    text, namespace = raising_text(error)
    for match in _GRADIENT.finditer(text):
        found = look_up(match.group(1), namespace)
        if isinstance(found, torch.Tensor) and gradient_of(found) is None:
            return match.group(1), found
    return None


def not_used(death: Death) -> Iterator[Finding]:
    """`autograd.grad` raised: the tensor at that index, and why no way leads from it to the output."""
    index = asked_index(death.message)
    request = next((r for r in reversed(death.observer.requests) if not r.missing), None)
    if index is None or request is None or index >= len(request.slots):
        return
    yield from _starved(death, request, (index,))


def used(death: Death) -> Iterator[Finding]:
    """Something is None where the program goes on: a gradient, if one was asked for under a name that leads
    here."""
    missing = missing_gradient(death.error)
    if missing is not None:
        name, tensor = missing
        yield from _of_gradient(death, death.parameter_name(tensor) or name, tensor)
        return
    names = _names_behind(death.error)
    for request in reversed(death.observer.requests):
        if request.missing and _leads_here(request, names, death.error):
            if request.outputs:
                yield from _starved(death, request, request.missing)
            else:
                yield from _looked_at(death, request)
            return
    yield from _of_hook(death, names)


def is_explained(error: BaseException, requests: list[Request], hooks: Iterator[CodeType]) -> bool:
    """Whether the None where this error was raised is a gradient, as far as names can tell."""
    if not is_of_none(error):
        return False
    if missing_gradient(error) is not None:
        return True
    names = _names_behind(error)
    if any(request.missing and _leads_here(request, names, error) for request in requests):
        return True
    return any(not names.isdisjoint(_stored_by(code)) for code in hooks)


def _leads_here(request: Request, names: frozenset[str], error: BaseException) -> bool:
    """Whether what a request got is what raised: it is asked for in the expression itself, or bound to one of
    the names that lead there."""
    asked = innermost(request.spots)
    if asked is None:
        return False
    raising = [site_of_entry(entry) for entry in user_entries(error)]
    inside = any(site.file == asked.file and site.line <= asked.line <= site.end_line for site in raising)
    return inside or not names.isdisjoint(_bound_at(asked))


# --------------------------------------------------------------------------------------------- autograd.grad


def _starved(death: Death, request: Request, positions: tuple[int, ...]) -> Iterator[Finding]:
    asked = innermost(request.spots)
    slots = {_name(death, request, position): request.slots[position] for position in positions}
    found = [_as_found(death, one) for one in starved_findings(death, slots, request) if one.site is not None]
    which = (
        f"index {positions[0]} of `autograd.grad`"
        if len(positions) == 1
        else "what is None in the result of `autograd.grad`"
    )
    told: set[str] = set()
    for one in found:
        told.update(one.parameters)
        mine = [name for name in one.parameters if name in slots]
        yield replace(one, message=f"{one.message}; {which}{line_of(asked, one.site)} is {listed(mine)}")
    rest = [name for name in slots if name not in told]
    if rest:
        where = line_of(asked, death.site) if asked != death.site else ""
        them = "it" if len(rest) == 1 else "them"
        yield finding(
            UNUSED,
            f"{which}{where} is {listed(rest)}: nothing that leads to the output is computed from {them}",
            asked or death.site,
            "differentiate with respect to the very tensor that forward used, or pass allow_unused=True and "
            "skip None",
            tuple(rest),
        )


def _name(death: Death, request: Request, position: int) -> str:
    tensor = request.slots[position]()
    name = death.parameter_name(tensor) if tensor is not None else None
    return name or f"input {position}"


def _as_found(death: Death, one: Finding) -> Finding:
    """The finding of the rules on the whole program, where it is the same and tells of more parameters."""
    same = (f for f in death.found if f.severity == "error" and (f.code, f.site) == (one.code, one.site))
    return next((f for f in same if set(one.parameters) <= set(f.parameters)), one)


# ------------------------------------------------------------------------------------------------------ .grad


def _looked_at(death: Death, request: Request) -> Iterator[Finding]:
    tensor = request.slots[0]()
    if tensor is not None:
        yield from _of_gradient(death, death.parameter_name(tensor) or "this tensor", tensor)


def _of_gradient(death: Death, name: str, tensor: torch.Tensor) -> Iterator[Finding]:
    slot = death.ledger.tensors.get(tensor)
    if (
        slot is not None
        and not slot.after
        and tensor.requires_grad
        and tensor.is_leaf
        and death.observer.backwards
    ):
        asked = (r for r in death.observer.requests if r.outputs)
        inner = next((r for r in asked if any(r.slots[index].leaf == slot.leaf for index in r.missing)), None)
        if inner is not None:  # an inner loop had no gradient of it either
            yield from _starved(death, inner, inner.missing)
            return
    yield from of_attribute(death, name, tensor)


# ------------------------------------------------------------------------------------------------------ hooks


def hook_codes(model: torch.nn.Module) -> Iterator[CodeType]:
    """The code of every backward hook of a module."""
    for module in model.modules():
        for hook in module._backward_hooks.values():
            code = getattr(getattr(hook, "__func__", hook), "__code__", None)
            if isinstance(code, CodeType):
                yield code


def _of_hook(death: Death, names: frozenset[str]) -> Iterator[Finding]:
    """A module's backward hook was given None for inputs that do not require grad, and kept it."""
    for path, module in death.model.named_modules():
        for hook in module._backward_hooks.values():
            code = getattr(getattr(hook, "__func__", hook), "__code__", None)
            if not isinstance(code, CodeType) or names.isdisjoint(_stored_by(code)):
                continue
            given = _input_of(death.facts, path)
            if given is None:
                continue
            made, call = given
            text = source_of(made.site) if made is not None else ""
            yield finding(
                ("FXG102", "frozen-parameter"),
                f"`{code.co_qualname}`, a backward hook of `{path or 'the model'}`, is given None for the "
                "module's input"
                f"{line_of(call.site, made.site if made is not None else None)}: "
                f"{f'`{text}`' if text else 'the input'} does not require grad",
                made.site if made is not None else call.site,
                "call `.requires_grad_()` on the input before the forward",
            )
            return


def _input_of(facts: Facts, path: str) -> tuple[NodeFact | None, NodeFact] | None:
    """What made the input of a module, as far as a line is known, and the module's first step; None where the
    input requires grad."""
    own = {value for p in facts.parameters if p.module == path for value in p.values}
    for node in facts.nodes:
        if node.module != path:
            continue
        inputs = [value for value in node.reads if value not in own]
        if not inputs or any(facts.values[value].requires_grad for value in inputs):
            return None
        made = facts.maker_of.get(inputs[0])
        return (made if made is not None and made.site is not None else None), node
    return None


def _stored_by(code: CodeType) -> frozenset[str]:
    """What a function can keep something in: attributes, globals and variables of the function around it."""
    return frozenset(code.co_names) | frozenset(code.co_freevars)


# ------------------------------------------------------------------------------------------------------ names


def _names_behind(error: BaseException) -> frozenset[str]:
    """The names that lead to the expression that raised, in each of the user's frames."""
    found: set[str] = set()
    for entry in user_entries(error):
        site = site_of_entry(entry)
        found |= _bound_from(load(site.file), site, set(re.findall(r"\w+", source_of(site))))
    return frozenset(found)


def _bound_from(source: Source, site: Site, names: set[str]) -> set[str]:
    """The names, and those that they are bound from in the same function, as long as there are more."""
    scope = _scope(source, site.line)
    pairs = [pair for pair in _bindings(source) if _scope(source, pair[2]) is scope]
    while True:
        more = {
            word for targets, words, _ in pairs if not names.isdisjoint(targets) for word in words
        } - names
        if not more:
            return names
        names |= more


def _scope(source: Source, line: int) -> ast.AST | None:
    """The innermost function around a line; a comprehension is none."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
    around = [
        node
        for node in nodes(source, ast.AST)
        if isinstance(node, kinds) and node.lineno <= line <= (node.end_lineno or 0)
    ]
    return max(around, key=lambda node: node.lineno, default=None)


def _bindings(source: Source) -> Iterator[tuple[set[str], set[str], int]]:
    """Of each statement or loop that binds names: the names, those in what they are bound to, its line."""
    for node in nodes(source, ast.AST):
        match node:
            case ast.Assign(targets=targets, value=value):
                yield _words(*targets), _words(value), node.lineno
            case ast.AugAssign(target=target, value=value) | ast.NamedExpr(target=target, value=value):
                yield _words(target), _words(value), node.lineno
            case ast.For(target=target, iter=value):
                yield _words(target), _words(value), node.lineno
            case ast.comprehension(target=target, iter=value):
                yield _words(target), _words(value), target.lineno
            case ast.Call(
                func=ast.Attribute(value=holder, attr="append" | "extend" | "add" | "update"), args=arguments
            ):
                yield _words(holder), _words(*arguments), node.lineno
            case _:
                pass


def _bound_at(site: Site | None) -> set[str]:
    """The names that the statement around a place binds, also through a container that it is put into."""
    if site is None:
        return set()
    source = load(site.file)
    found: set[str] = set()
    for node in nodes(source, ast.expr):
        if node.lineno != site.line or not isinstance(node, ast.Call | ast.Attribute):
            continue
        for outer in (node, *ancestors(source, node)):
            match outer:
                case ast.Assign(targets=targets):
                    found |= _words(*targets)
                case ast.AnnAssign(target=target) | ast.NamedExpr(target=target):
                    found |= _words(target)
                case ast.Call(func=ast.Attribute(value=holder, attr="append" | "extend" | "add" | "update")):
                    found |= _words(holder)
                case ast.Return():
                    scope = _scope(source, outer.lineno)
                    found |= {scope.name} if isinstance(scope, ast.FunctionDef) else set()
                case _:
                    pass
            if isinstance(outer, ast.stmt):
                break
    return found - {"self"}


def _words(*expressions: ast.AST) -> set[str]:
    found: set[str] = set()
    for expression in expressions:
        for node in ast.walk(expression):
            if isinstance(node, ast.Name):
                found.add(node.id)
            elif isinstance(node, ast.Attribute):
                found.add(node.attr)
    return found - {"self", "torch"}
