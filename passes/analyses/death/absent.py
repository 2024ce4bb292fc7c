"""A gradient that is None, and the program goes on with it; or an `autograd.grad` that would have to give
None.

Where the None came from is told by what asked for gradients (`fxgrad.passes.ended.Request`) and by the names
on the way: the names in the expression that raised, what they are bound from in the same function, and so on
in the frames around it. Not handled: a None that travels through an object's attribute under another name,
and one that is no gradient's: of that nothing is said.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import CodeType
from typing import Literal

import torch

from fxgrad.passes.analyses.death.record import (
    Death,
    gradient_of,
    look_up,
    raising_text,
    site_of_entry,
    user_entries,
)
from fxgrad.passes.ended import Cause, Request
from fxgrad.passes.findings import line_of, source_of
from fxgrad.records import Facts, NodeFact, Site
from fxgrad.source.parsing import Source, ancestors, load, nodes
from fxgrad.torch_api import registry
from fxgrad.torch_api.errors import NONE, NOT_A_LOSS, NOT_USED, asked_index, says

GRADIENT = re.compile(r"([A-Za-z_][\w.\[\]'\"-]*)\.grad\b")


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
    for match in GRADIENT.finditer(text):
        found = look_up(match.group(1), namespace)
        if isinstance(found, torch.Tensor) and gradient_of(found) is None:
            return match.group(1), found
    return None


@dataclass(frozen=True, slots=True)
class Asked:
    """`autograd.grad` raised, or gave None, for the tensors at these positions."""

    request: Request
    positions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class NoGradient:
    """`name.grad` is None."""

    name: str
    tensor: torch.Tensor

    def why(self, death: Death) -> Literal["no leaf", "frozen", "no backward", "unreached", "cleared", ""]:
        """The reason; "" where none is known."""
        known = death.known(self.tensor)
        if self.tensor.requires_grad and not self.tensor.is_leaf:
            return "no leaf"
        if not self.tensor.requires_grad:
            return "frozen"
        if not death.walks:
            return "no backward"
        if known is not None and not known.after:
            return "unreached"
        return "cleared" if death.ended.cleared is not None else ""


def symptom(death: Death) -> Asked | NoGradient | None:
    """What is missing where the program ended: None where the error is another, or no name leads to it."""
    memo = death.facts.memo
    if symptom not in memo:
        memo[symptom] = _symptom(death)
    found: Asked | NoGradient | None = memo[symptom]
    return found


def _symptom(death: Death) -> Asked | NoGradient | None:
    if says(death.message, NOT_USED):
        return _not_used(death)
    if not is_of_none(death.error):
        return None
    missing = missing_gradient(death.error)
    if missing is not None:
        name, tensor = missing
        return _of_gradient(death, death.parameter_name(tensor) or name, tensor)
    request = _request(death)
    if request is None:
        return None
    if request.outputs:
        return Asked(request, request.missing)
    looked_at = request.tensors[0].tensor
    if looked_at is None:
        return None
    return _of_gradient(death, death.parameter_name(looked_at) or "this tensor", looked_at)


def _not_used(death: Death) -> Asked | None:
    request = next((r for r in reversed(death.ended.requests) if not r.missing), None)
    if request is None:
        return None
    index = asked_index(death.message)
    if index is None:  # torch 2.11 does not say which: the first that the walk does not come to
        beyond = (i for i, known in enumerate(request.tensors) if known.value not in request.live)
        index = next(beyond, None)
    if index is None or index >= len(request.tensors):
        return None
    return Asked(request, (index,))


def _request(death: Death) -> Request | None:
    """What asked for the gradient that is None, if it was asked for under a name that leads here."""
    names, given = _names_behind(death.error), reversed(death.ended.requests)
    return next((r for r in given if r.missing and _leads_here(r, names, death.error)), None)


def _of_gradient(death: Death, name: str, tensor: torch.Tensor) -> Asked | NoGradient:
    known = death.known(tensor)
    waits = known is not None and not known.after and bool(death.walks)
    if known is not None and waits and tensor.requires_grad and tensor.is_leaf:
        asked = (r for r in death.ended.requests if r.outputs)
        inner = next((r for r in asked if any(r.tensors[i].leaf == known.leaf for i in r.missing)), None)
        if inner is not None:  # an inner loop had no gradient of it either
            return Asked(inner, inner.missing)
    return NoGradient(name, tensor)


def is_explained(error: BaseException, requests: Iterable[Request], hooks: Iterator[CodeType]) -> bool:
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
    asked = request.site
    if asked is None:
        return False
    raising = [site_of_entry(entry) for entry in user_entries(error)]
    inside = any(site.file == asked.file and site.line <= asked.line <= site.end_line for site in raising)
    return inside or not names.isdisjoint(_bound_at(asked))


# ------------------------------------------------------------------------------------------------------ hooks


def hook_codes(model: torch.nn.Module) -> Iterator[CodeType]:
    """The code of every backward hook of a module."""
    for module in registry.modules(model):
        for hook in module._backward_hooks.values():
            code = getattr(getattr(hook, "__func__", hook), "__code__", None)
            if isinstance(code, CodeType):
                yield code


def of_hook(death: Death) -> Iterator[Cause]:
    """A module's backward hook was given None for inputs that do not require grad, and kept it."""
    if (
        not is_of_none(death.error)
        or missing_gradient(death.error) is not None
        or _request(death) is not None
    ):
        return
    names = _names_behind(death.error)
    for path, module in registry.named_modules(death.model):
        for hook in module._backward_hooks.values():
            code = getattr(getattr(hook, "__func__", hook), "__code__", None)
            if not isinstance(code, CodeType) or names.isdisjoint(_stored_by(code)):
                continue
            given = _input_of(death.facts, path)
            if given is None:
                continue
            made, call = given
            text = source_of(made.site) if made is not None else ""
            yield Cause(
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
