"""Out-of-place edits of the line that writes: `y += e`, `y.op_(e)`, `x[i] = v`, `f(x, inplace=True)`, `f(x,
out=y)`.

Made from one trouble and the text of its file. Names that are read later are rebound: `y.mul_(2)` becomes `y
= y.mul(2)`, inside an expression `(y := y.mul(2))` or a line before. Functional twins are torch's own: what
`torch.Tensor` has under the name without its underscore. Not handled: writes through `setattr`, `exec`, and
inside compiled code.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from fxgrad.fix_source.sheet import Sheet
from fxgrad.fix_source.syntax import Argument, arguments, by_position, is_inplace_name, keyword, place
from fxgrad.fix_source.trouble import Trouble
from fxgrad.fix_source.ways.proposal import Proposal
from fxgrad.fix_source.ways.rebinding import clone_first, declared, rebound, visible
from fxgrad.records import Edit


class _Operator(NamedTuple):
    """How it is written, and how tightly it binds: the right operand of a left-associative one needs a
    tighter one."""

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
_LOOSE = (
    ast.Compare
    | ast.BoolOp
    | ast.IfExp
    | ast.Lambda
    | ast.NamedExpr
    | ast.Yield
    | ast.YieldFrom
    | ast.Tuple
    | ast.Starred
)
_METHODS: dict[str, type[ast.operator]] = {
    "add_": ast.Add,
    "sub_": ast.Sub,
    "mul_": ast.Mult,
    "div_": ast.Div,
}
_Called = tuple[ast.Call, ast.Attribute]  # a call of a method, and what it calls
_DUNDERS = {
    f"__i{name}__": f"__{name}__"
    for name in [
        "add",
        "sub",
        "mul",
        "truediv",
        "floordiv",
        "mod",
        "pow",
        "and",
        "or",
        "xor",
        "lshift",
        "rshift",
    ]
}


def at_write(page: Sheet, trouble: Trouble) -> Iterator[Proposal]:
    """Edits of the writing expression itself, then clones put before it."""
    made = list(_at_write(page, trouble))
    # Out of place the wider operand would decide the result's type.
    yield from sorted(made, key=lambda item: item.how.endswith("out of place")) if trouble.narrow else made


def _at_write(page: Sheet, trouble: Trouble) -> Iterator[Proposal]:
    for node in page.nodes_at(trouble.site):
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
        yield from rebound(page, call, place(page, first), (edit,), "passes inplace=False")
    elif isinstance(call.func, ast.Attribute) and is_inplace_name(call.func.attr):
        renamed = _renamed(page, call.func)
        how = f"`{call.func.attr}` out of place"
        yield from rebound(page, call, place(page, first), (renamed,), how) if renamed is not None else ()
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


# -------------------------------------------------------------------------------------- augmented assignments


def _augmented(page: Sheet, node: ast.AugAssign, part: bool) -> Iterator[Proposal]:
    direct = _spelled_out(page, node)
    first = [direct] if direct is not None else []
    clones = list(clone_first(page, node, node.target))
    yield from (
        _parts_last(page, node.target, first, clones)
        if part and isinstance(node.target, ast.Subscript)
        else (*first, *clones)
    )


def _parts_last(
    page: Sheet, written: ast.expr, direct: list[Proposal], clones: list[Proposal]
) -> Iterator[Proposal]:
    """Where `x[i] += v` is a part of a tensor, not an item of a list: then `x[i] = x[i] + v` would write
    there again."""
    if page.source(written).endswith(("']", '"]')):
        yield from (*direct, *clones)
        return
    own = f"`{place(page, written)}`"
    yield from (item for item in clones if own not in item.how)
    yield from direct
    yield from (item for item in clones if own in item.how)


def _spelled_out(page: Sheet, node: ast.AugAssign) -> Proposal | None:
    """`y += e` as `y = y + e`."""
    target, cut = visible(page, node.target)
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


# ----------------------------------------------------------------------------------------------- method calls


def _method(page: Sheet, call: ast.Call, part: bool) -> Iterator[Proposal]:
    """`y.mul_(2).add_(1)` from the flagged call outwards; what it is called on is rebound."""
    receiver = _receiver(call)
    base, cut = visible(page, receiver)
    text = place(page, base)
    clones = list(clone_first(page, call, receiver))
    direct = (
        list(_renamed_calls(page, _chain(page, call), text, cut)) if text is not None or not clones else []
    )
    yield from (
        _parts_last(page, base, direct, clones)
        if part and isinstance(base, ast.Subscript)
        else (*direct, *clones)
    )


def _receiver(call: ast.Call) -> ast.expr:
    """What the first of a chain of in-place calls is called on."""
    receiver: ast.expr = call
    while (
        isinstance(receiver, ast.Call)
        and isinstance(receiver.func, ast.Attribute)
        and is_inplace_name(receiver.func.attr)
    ):
        receiver = receiver.func.value
    if receiver is call and isinstance(call.func, ast.Attribute):
        return call.func.value  # `y.__iadd__(1)`
    return receiver


def _renamed_calls(
    page: Sheet, calls: Sequence[_Called], text: str | None, cut: Edit | None
) -> Iterator[Proposal]:
    """The calls under the names of their twins, with the place `text` rebound; `cut` drops a `.data` on the
    way."""
    renames = [_renamed(page, name) for _, name in calls]
    if None in renames:
        if text is not None and len(calls) == 1:
            yield from _refilled(page, *calls[0], text)
        return
    edits = tuple(edit for edit in (cut, *renames) if edit is not None)
    how = "`" + "`, `".join(name.attr for _, name in calls) + "` out of place"
    if cut is not None:
        how = "writes where autograd sees it"
        yield from _as_operator(page, calls, text)
    yield from rebound(page, calls[-1][0], text, edits, how)


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
    if (
        not twin
        or not known
        or (twin in ("fill", "zero", "copy", "set", "resize", "normal", "uniform", "random"))
    ):
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
    edits = (page.edit(*page.outer_span(call), new), *declared(page, call, text))
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
    edits = (page.edit(*page.outer_span(call), f"{text} = {new}"), *declared(page, call, text))
    yield Proposal(f"`{name.attr}` out of place", edits)


# --------------------------------------------------------------------------------------------- function calls


def _flag(call: ast.Call, operation: str) -> ast.expr | None:
    """The `True` that a call passes as `inplace`, by keyword or in the place that torch's function has for
    it."""
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
        bound = list(rebound(page, call, page.source(value), (edit,), "assigns instead of passing out="))
        for clone in clones:
            yield from (
                Proposal(item.how, (*clone.edits, *item.edits)) for item in bound if _disjoint(clone, item)
            )
    if text is not None:
        yield from rebound(page, call, text, (edit,), "assigns instead of passing out=")
    yield from clones


def _disjoint(one: Proposal, other: Proposal) -> bool:
    starts = {(edit.site.line, edit.site.column) for edit in one.edits}
    return not any((edit.site.line, edit.site.column) in starts for edit in other.edits)
