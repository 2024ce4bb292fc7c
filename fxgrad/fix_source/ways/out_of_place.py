"""Out-of-place edits of the line that writes: `y += e`, `y.op_(e)`, `x[i] = v`, `f(x, inplace=True)`, `f(x, out=y)`.

Made from one trouble and the text of its file. Names that are read later are rebound: `y.mul_(2)` becomes `y = y.mul(2)`, inside an
expression `(y := y.mul(2))` or a line before. Functional twins are torch's own: what `torch.Tensor` has under the name without its
underscore. Not handled: writes through `setattr`, `exec`, and inside compiled code.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from fxgrad.fix_source.sheet import Sheet
from fxgrad.fix_source.syntax import (
    Argument,
    Comprehension,
    arguments,
    bases,
    by_position,
    declaration,
    insert_before,
    is_conditional,
    is_inplace_name,
    keyword,
    place,
    read_later,
)
from fxgrad.fix_source.trouble import Trouble
from fxgrad.fix_source.ways.proposal import Proposal, proposal
from fxgrad.records import Edit


class _Operator(NamedTuple):
    """How it is written, and how tightly it binds: the right operand of a left-associative one needs a tighter one."""

    sign: str
    precedence: int


_OPERATORS: dict[type[ast.operator], _Operator] = {
    ast.Pow: _Operator("**", 14),
    ast.Mult: _Operator("*", 12),
    ast.MatMult: _Operator("@", 12),
    ast.Div: _Operator("/", 12),
    ast.FloorDiv: _Operator("//", 12),
    ast.Mod: _Operator("%", 12),
    ast.Add: _Operator("+", 11),
    ast.Sub: _Operator("-", 11),
    ast.LShift: _Operator("<<", 10),
    ast.RShift: _Operator(">>", 10),
    ast.BitAnd: _Operator("&", 9),
    ast.BitXor: _Operator("^", 8),
    ast.BitOr: _Operator("|", 7),
}
_LOOSE = ast.Compare | ast.BoolOp | ast.IfExp | ast.Lambda | ast.NamedExpr | ast.Yield | ast.YieldFrom | ast.Tuple | ast.Starred
_METHODS: dict[str, type[ast.operator]] = {"add_": ast.Add, "sub_": ast.Sub, "mul_": ast.Mult, "div_": ast.Div}
_Called = tuple[ast.Call, ast.Attribute]  # a call of a method, and what it calls
_DUNDERS = {
    f"__i{name}__": f"__{name}__"
    for name in ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor", "lshift", "rshift"]
}


def at_write(page: Sheet, trouble: Trouble) -> Iterator[Proposal]:
    """Edits of the writing expression itself, then clones put before it."""
    made = list(_at_write(page, trouble))
    # Out of place the wider operand would decide the result's type.
    yield from sorted(made, key=lambda item: item.how.endswith("out of place")) if trouble.narrow else made


def _at_write(page: Sheet, trouble: Trouble) -> Iterator[Proposal]:
    site = trouble.site
    for node in page.nodes_at(site) if site is not None else ():
        if isinstance(node, ast.AugAssign):
            yield from _augmented(page, node, trouble.part)
        elif isinstance(node, ast.Call):
            yield from _call(page, node, trouble)
        elif isinstance(node, ast.Subscript):
            yield from clone_first(page, node, node.value)


def _call(page: Sheet, call: ast.Call, trouble: Trouble) -> Iterator[Proposal]:
    out = keyword(call, "out")
    if out is not None:
        yield from _without_out(page, call, out)
        return
    if is_method_call(page, call, trouble.operation):
        yield from _method(page, call, trouble.part)
        return
    given = arguments(call)
    if not given:
        return
    first = given[0].value
    flag = _flag(call, trouble.operation)
    if flag is not None:
        edit = page.edit(*page.span(flag), "False")
        yield from _rebound(page, call, place(page, first), (edit,), "passes inplace=False")
    elif isinstance(call.func, ast.Attribute) and is_inplace_name(call.func.attr):
        renamed = _renamed(page, call.func)
        how = f"`{call.func.attr}` out of place"
        yield from _rebound(page, call, place(page, first), (renamed,), how) if renamed is not None else ()
    yield from clone_first(page, call, first)


def is_method_call(page: Sheet, call: ast.Call, operation: str = "") -> bool:
    """Whether `y.mul_` is called on a tensor, not on a module of functions or on `torch.Tensor` itself."""
    if not isinstance(call.func, ast.Attribute):
        return False
    owner = page.source(call.func.value)
    if owner.endswith("Tensor") or owner in ("torch", "F", "nn.functional", "torch.nn.functional"):
        return False
    name = call.func.attr
    return operation.startswith("Tensor.") or (not operation and (is_inplace_name(name) or name in _DUNDERS))


# ---------------------------------------------------------------------------------------------------------- augmented assignments


def _augmented(page: Sheet, node: ast.AugAssign, part: bool) -> Iterator[Proposal]:
    direct = _spelled_out(page, node)
    first = [direct] if direct is not None else []
    clones = list(clone_first(page, node, node.target))
    yield from _parts_last(page, node.target, first, clones) if part and isinstance(node.target, ast.Subscript) else (*first, *clones)


def _parts_last(page: Sheet, written: ast.expr, direct: list[Proposal], clones: list[Proposal]) -> Iterator[Proposal]:
    """Where `x[i] += v` is a part of a tensor, not an item of a list: then `x[i] = x[i] + v` would write there again."""
    if page.source(written).endswith(("']", '"]')):
        yield from (*direct, *clones)
        return
    own = f"`{place(page, written)}`"
    yield from (item for item in clones if own not in item.how)
    yield from direct
    yield from (item for item in clones if own in item.how)


def _spelled_out(page: Sheet, node: ast.AugAssign) -> Proposal | None:
    """`y += e` as `y = y + e`."""
    target, cut = _visible(page, node.target)
    text = place(page, target)
    if text is None:
        return None
    sign = _OPERATORS[type(node.op)].sign
    start, end = page.outer_span(node.target)
    value, stop = page.outer_span(node.value)
    before, _, after = page.text[end:value].partition(f"{sign}=")
    gap = " " if before or after else ""
    left, right = ("(", ")") if _needs_parentheses(page, type(node.op), node.value) else ("", "")
    closing = page.edit(stop, stop, right) if right else None
    new = f"{text}{before}={gap}{text}{gap}{sign}{after}{left}"
    edits = (page.edit(start, value, new), *([closing] if closing is not None else []))
    return Proposal(f"`{sign}=` out of place" if cut is None else "writes where autograd sees it", edits)


def _needs_parentheses(page: Sheet, operator: type[ast.operator], value: ast.expr) -> bool:
    if page.is_parenthesized(value):
        return False
    if isinstance(value, _LOOSE):
        return True
    if isinstance(value, ast.UnaryOp):
        return isinstance(value.op, ast.Not)
    if not isinstance(value, ast.BinOp):
        return False
    inner, own = _OPERATORS[type(value.op)].precedence, _OPERATORS[operator].precedence
    return inner < own if operator is ast.Pow else inner <= own


# ------------------------------------------------------------------------------------------------------------------ method calls


def _method(page: Sheet, call: ast.Call, part: bool) -> Iterator[Proposal]:
    """`y.mul_(2).add_(1)` from the flagged call outwards; what it is called on is rebound."""
    calls = _chain(page, call)
    receiver: ast.expr = call
    while isinstance(receiver, ast.Call) and isinstance(receiver.func, ast.Attribute) and is_inplace_name(receiver.func.attr):
        receiver = receiver.func.value
    if receiver is call and isinstance(call.func, ast.Attribute):
        receiver = call.func.value  # `y.__iadd__(1)`
    base, cut = _visible(page, receiver)
    text = place(page, base)
    clones = list(clone_first(page, call, receiver))
    renames = [_renamed(page, name) for _, name in calls]
    direct: list[Proposal] = []
    if None not in renames and (text is not None or not clones):
        how = "`" + "`, `".join(name.attr for _, name in calls) + "` out of place"
        edits = tuple(edit for edit in (cut, *renames) if edit is not None)
        if cut is not None:
            how = "writes where autograd sees it"
            direct += _as_operator(page, calls, text)
        direct += _rebound(page, calls[-1][0], text, edits, how)
    elif text is not None and len(calls) == 1:
        direct += _refilled(page, *calls[0], text)
    yield from _parts_last(page, base, direct, clones) if part and isinstance(base, ast.Subscript) else (*direct, *clones)


def _chain(page: Sheet, call: ast.Call) -> list[_Called]:
    """The call and the in-place method calls on its result, inner first."""
    calls: list[_Called] = []
    outer: ast.AST | None = call
    while isinstance(outer, ast.Call) and isinstance(outer.func, ast.Attribute):
        calls.append((outer, outer.func))
        attribute = page.parent(outer)
        if not isinstance(attribute, ast.Attribute) or not is_inplace_name(attribute.attr):
            break
        outer = page.parent(attribute)
        if isinstance(outer, ast.Call) and outer.func is not attribute:
            break
    return calls


def _renamed(page: Sheet, name: ast.Attribute) -> Edit | None:
    """`mul_` as `mul`; None where torch has no such function."""
    twin = _DUNDERS.get(name.attr, name.attr.removesuffix("_") if is_inplace_name(name.attr) else "")
    known = hasattr(torch.Tensor, twin) or hasattr(torch.nn.functional, twin) or hasattr(torch, twin)
    if not twin or not known or (twin in ("fill", "zero", "copy", "set", "resize", "normal", "uniform", "random")):
        return None
    end = page.span(name)[1]
    return page.edit(end - len(name.attr), end, twin)


def _as_operator(page: Sheet, calls: Sequence[_Called], text: str | None) -> Iterator[Proposal]:
    """`h.data.mul_(keep)` as `h = h * keep`, where it is the whole statement."""
    call, name = calls[-1]
    operator = _METHODS.get(name.attr) if len(calls) == 1 else None
    given = arguments(call)
    if operator is None or text is None or len(given) != 1 or not isinstance(page.parent(call), ast.Expr):
        return
    if given[0].name or given[0].star:
        return
    start, end = page.outer_span(given[0].value)
    value = page.text[start:end]
    if "\n" in value or "\r" in value:
        return
    value = f"({value})" if _needs_parentheses(page, operator, given[0].value) else value
    new = f"{text} = {text} {_OPERATORS[operator].sign} {value}"
    edits = (page.edit(*page.outer_span(call), new), *_declared(page, call, text))
    yield Proposal("writes where autograd sees it", edits)


def _refilled(page: Sheet, call: ast.Call, name: ast.Attribute, text: str) -> Iterator[Proposal]:
    """`y.zero_()` as `y = torch.zeros_like(y)`, `y.fill_(v)` as `y = torch.full_like(y, v)`."""
    if not isinstance(page.parent(call), ast.Expr) or "import torch" not in page.text:
        return
    values = [page.outer_source(argument.node) for argument in arguments(call)]
    if name.attr == "zero_" and not values:
        new = f"torch.zeros_like({text})"
    elif name.attr == "fill_" and len(values) == 1:
        new = f"torch.full_like({text}, {values[0]})"
    else:
        return
    edits = (page.edit(*page.outer_span(call), f"{text} = {new}"), *_declared(page, call, text))
    yield Proposal(f"`{name.attr}` out of place", edits)


# ---------------------------------------------------------------------------------------------------------------- function calls


def _flag(call: ast.Call, operation: str) -> ast.expr | None:
    """The `True` that a call passes as `inplace`, by keyword or in the place that torch's function has for it."""
    argument = keyword(call, "inplace") or _positional(call, operation)
    value = argument.value if argument is not None else None
    return value if isinstance(value, ast.Constant) and value.value is True else None


def _positional(call: ast.Call, operation: str) -> Argument | None:
    function = getattr(torch.nn.functional, operation.rpartition(".")[2], None)
    try:
        names = list(inspect.signature(function).parameters) if function is not None else []
    except (TypeError, ValueError):
        return None
    return by_position(call, names.index("inplace")) if "inplace" in names else None


def _without_out(page: Sheet, call: ast.Call, out: Argument) -> Iterator[Proposal]:
    """`torch.add(a, b, out=y)` as `y = torch.add(a, b)`."""
    spans = [page.outer_span(argument.node) for argument in arguments(call)]
    own = page.span(out.node)
    index = spans.index(own)
    if index:
        edit = page.edit(spans[index - 1][1], own[1], "")
    elif len(spans) > 1:
        edit = page.edit(own[0], spans[1][0], "")
    else:
        return
    value = out.value
    if isinstance(value, ast.Tuple):
        places = [place(page, element) for element in value.elts]
        text = ", ".join(item for item in places if item) if all(places) else None
    else:
        text = place(page, value)
    clones = tuple(clone_first(page, call, value))
    if isinstance(value, ast.Subscript):
        rebound = list(_rebound(page, call, page.source(value), (edit,), "assigns instead of passing out="))
        for clone in clones:
            yield from (Proposal(item.how, (*clone.edits, *item.edits)) for item in rebound if _disjoint(clone, item))
    if text is not None:
        yield from _rebound(page, call, text, (edit,), "assigns instead of passing out=")
    yield from clones


def _disjoint(one: Proposal, other: Proposal) -> bool:
    starts = {(edit.site.line, edit.site.column) for edit in one.edits}
    return not any((edit.site.line, edit.site.column) in starts for edit in other.edits)


# ------------------------------------------------------------------------------------------------------------- rebinding, clones


def _visible(page: Sheet, expression: ast.expr) -> tuple[ast.expr, Edit | None]:
    """`h` for `h.data`, with the edit that drops `.data`; anything else as it is."""
    if isinstance(expression, ast.Attribute) and expression.attr == "data":
        start, end = page.outer_span(expression.value)[1], page.span(expression)[1]
        return expression.value, page.edit(start, end, "")
    return expression, None


def _declared(page: Sheet, node: ast.AST, text: str) -> tuple[Edit, ...]:
    edit = declaration(page, node, text) if text.isidentifier() else None
    return (edit,) if edit is not None else ()


def _rebound(page: Sheet, outer: ast.expr, text: str | None, edits: tuple[Edit, ...], how: str) -> Iterator[Proposal]:
    """The edits, with the place `text` bound to the result of `outer`: likeliest first by whether it is read again."""
    parent = page.parent(outer)
    start, end = page.outer_span(outer)
    plain = Proposal(how, edits)
    if text is None:
        yield plain
    elif isinstance(parent, ast.Expr):
        yield Proposal(how, (*_declared(page, outer, text), page.edit(start, start, f"{text} = "), *edits))
    elif isinstance(parent, ast.Assign) and parent.value is outer:
        if text not in [page.source(target) for target in parent.targets]:
            both = Proposal(how, (*_declared(page, outer, text), page.edit(start, start, f"{text} = "), *edits))
            yield from (both, plain) if read_later(page, parent, text) else (plain, both)
        else:
            yield plain
    elif isinstance(parent, ast.NamedExpr) and page.source(parent.target) == text:
        yield plain
    else:
        named = [*_walrus(page, outer, text, edits, how), *_hoisted(page, outer, text, edits, how)]
        yield from (*named, plain) if read_later(page, outer, text) else (plain, *named)


def _walrus(page: Sheet, outer: ast.expr, text: str, edits: tuple[Edit, ...], how: str) -> Iterator[Proposal]:
    scopes = (item for item in page.outwards(outer) if isinstance(item, Comprehension | ast.Lambda | ast.stmt))
    if not text.isidentifier() or isinstance(next(scopes, None), ast.Lambda):
        return
    start, end = page.outer_span(outer)
    named = (page.edit(start, start, f"({text} := "), page.edit(end, end, ")"))
    yield Proposal(how, (*_declared(page, outer, text), *named, *edits))


def _hoisted(page: Sheet, outer: ast.expr, text: str, edits: tuple[Edit, ...], how: str) -> Iterator[Proposal]:
    """`f(self.h.add_(1))` as `self.h = self.h.add(1)` and `f(self.h)`."""
    if is_conditional(page, outer):
        return
    start, end = page.span(outer)
    new, position = [], start
    for edit in sorted(edits, key=lambda item: (item.site.line, item.site.column)):
        span = page.span_of_site(edit.site)
        if span is None or not start <= span[0] <= span[1] <= end:
            return
        new += [page.text[position : span[0]], edit.new]
        position = span[1]
    moved = "".join([*new, page.text[position:end]])
    line = insert_before(page, outer, f"{text} = {moved}")
    if line is None or "\n" in moved or "\r" in moved:
        return
    whole = page.outer_span(outer)
    if page.span_of_site(line.site) == (whole[0], whole[0]):
        return
    yield Proposal(how, (*_declared(page, outer, text), line, page.edit(*whole, text)))


def clone_first(page: Sheet, node: ast.AST, receiver: ast.expr) -> Iterator[Proposal]:
    """`x = x.clone()` on a line before, for each place that the written tensor may belong to; `.data` is dropped from the write."""
    cuts, inner = [], receiver
    while isinstance(inner, ast.Attribute | ast.Subscript):
        cut = _visible(page, inner)[1]
        cuts += [cut] if cut is not None else []
        inner = inner.value
    for text in bases(page, receiver):
        made = proposal(f"clones `{text}` before the write", insert_before(page, node, f"{text} = {text}.clone()"))
        if made is not None:
            yield Proposal(made.how, (*_declared(page, node, text), *made.edits, *cuts))
