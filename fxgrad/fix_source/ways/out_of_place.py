"""Out-of-place edits of the line that writes: `y += e`, `y.op_(e)`, `x[i] = v`, `f(x, inplace=True)`, `f(x, out=y)`.

Made from one trouble and the text of its file. Names that are read later are rebound: `y.mul_(2)` becomes `y = y.mul(2)`, inside an
expression `(y := y.mul(2))` or a line before. Functional twins are torch's own: what `torch.Tensor` has under the name without its
underscore. Not handled: writes through `setattr`, `exec`, and inside compiled code.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from fxgrad.fix_source.sheet import Sheet, libcst
from fxgrad.fix_source.syntax import (
    bases,
    declaration,
    insert_before,
    is_conditional,
    is_inplace_name,
    place,
    read_later,
)
from fxgrad.fix_source.trouble import Trouble
from fxgrad.fix_source.ways.proposal import Proposal, proposal
from fxgrad.records import Edit

if TYPE_CHECKING:
    import libcst as cst

# How tightly operators bind; the right operand of a left-associative one needs a tighter one.
_PRECEDENCE = {
    **dict.fromkeys(("Power",), 14),
    **dict.fromkeys(("Multiply", "MatrixMultiply", "Divide", "FloorDivide", "Modulo"), 12),
    **dict.fromkeys(("Add", "Subtract"), 11),
    **dict.fromkeys(("LeftShift", "RightShift"), 10),
    "BitAnd": 9,
    "BitXor": 8,
    "BitOr": 7,
}
_LOOSE = ("Comparison", "BooleanOperation", "IfExp", "Lambda", "NamedExpr", "Yield", "Tuple", "StarredElement")
_UNARY = 13
_OPERATORS = {"add_": "+", "sub_": "-", "mul_": "*", "div_": "/"}
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
    cst = libcst()
    site = trouble.site
    for node in page.nodes_at(site) if site is not None else ():
        if isinstance(node, cst.AugAssign):
            yield from _augmented(page, node, trouble.part)
        elif isinstance(node, cst.Call):
            yield from _call(page, node, trouble)
        elif isinstance(node, cst.Subscript):
            yield from clone_first(page, node, node.value)


def _call(page: Sheet, call: cst.Call, trouble: Trouble) -> Iterator[Proposal]:
    cst = libcst()
    out = _keyword(call, "out")
    if out is not None:
        yield from _without_out(page, call, out)
        return
    if is_method_call(page, call, trouble.operation):
        yield from _method(page, call, trouble.part)
        return
    if not call.args:
        return
    first = call.args[0].value
    flag = _flag(call, trouble.operation)
    if flag is not None:
        edit = page.edit(*page.span(flag), "False")
        yield from _rebound(page, call, place(page, first), (edit,), "passes inplace=False")
    elif isinstance(call.func, cst.Attribute) and is_inplace_name(call.func.attr.value):
        renamed = _renamed(page, call.func.attr)
        how = f"`{call.func.attr.value}` out of place"
        yield from _rebound(page, call, place(page, first), (renamed,), how) if renamed is not None else ()
    yield from clone_first(page, call, first)


def is_method_call(page: Sheet, call: cst.Call, operation: str = "") -> bool:
    """Whether `y.mul_` is called on a tensor, not on a module of functions or on `torch.Tensor` itself."""
    if not isinstance(call.func, libcst().Attribute):
        return False
    owner = page.source(call.func.value)
    if owner.endswith("Tensor") or owner in ("torch", "F", "nn.functional", "torch.nn.functional"):
        return False
    name = call.func.attr.value
    return operation.startswith("Tensor.") or (not operation and (is_inplace_name(name) or name in _DUNDERS))


# ---------------------------------------------------------------------------------------------------------- augmented assignments


def _augmented(page: Sheet, node: cst.AugAssign, part: bool) -> Iterator[Proposal]:
    cst = libcst()
    direct = _spelled_out(page, node)
    first = [direct] if direct is not None else []
    clones = list(clone_first(page, node, node.target))
    yield from _parts_last(page, node.target, first, clones) if part and isinstance(node.target, cst.Subscript) else (*first, *clones)


def _parts_last(page: Sheet, written: cst.BaseExpression, direct: list[Proposal], clones: list[Proposal]) -> Iterator[Proposal]:
    """Where `x[i] += v` is a part of a tensor, not an item of a list: then `x[i] = x[i] + v` would write there again."""
    if page.source(written).endswith(("']", '"]')):
        yield from (*direct, *clones)
        return
    own = f"`{place(page, written)}`"
    yield from (item for item in clones if own not in item.how)
    yield from direct
    yield from (item for item in clones if own in item.how)


def _spelled_out(page: Sheet, node: cst.AugAssign) -> Proposal | None:
    """`y += e` as `y = y + e`."""
    target, cut = _visible(page, node.target)
    text = place(page, target)
    if text is None:
        return None
    name = type(node.operator).__name__.removesuffix("Assign")
    sign = page.source(node.operator).strip().removesuffix("=")
    start, end = page.outer_span(node.target)
    value, stop = page.outer_span(node.value)
    before, _, after = page.text[end:value].partition(f"{sign}=")
    gap = " " if before or after else ""
    left, right = ("(", ")") if _needs_parentheses(name, node.value) else ("", "")
    closing = page.edit(stop, stop, right) if right else None
    new = f"{text}{before}={gap}{text}{gap}{sign}{after}{left}"
    edits = (page.edit(start, value, new), *([closing] if closing is not None else []))
    return Proposal(f"`{sign}=` out of place" if cut is None else "writes where autograd sees it", edits)


def _needs_parentheses(operator: str, value: cst.BaseExpression) -> bool:
    cst = libcst()
    if getattr(value, "lpar", ()):
        return False
    if type(value).__name__ in _LOOSE:
        return True
    if isinstance(value, cst.UnaryOperation):
        return isinstance(value.operator, cst.Not)
    if not isinstance(value, cst.BinaryOperation):
        return False
    inner, own = _PRECEDENCE[type(value.operator).__name__], _PRECEDENCE[operator]
    return inner < own if operator == "Power" else inner <= own


# ------------------------------------------------------------------------------------------------------------------ method calls


def _method(page: Sheet, call: cst.Call, part: bool) -> Iterator[Proposal]:
    """`y.mul_(2).add_(1)` from the flagged call outwards; what it is called on is rebound."""
    cst = libcst()
    calls = _chain(page, call)
    receiver: Any = call
    while isinstance(receiver, cst.Call) and isinstance(receiver.func, cst.Attribute) and is_inplace_name(receiver.func.attr.value):
        receiver = receiver.func.value
    if receiver is call and isinstance(call.func, cst.Attribute):
        receiver = call.func.value  # `y.__iadd__(1)`
    base, cut = _visible(page, receiver)
    text = place(page, base)
    clones = list(clone_first(page, call, receiver))
    renames = [_renamed(page, item.func.attr) for item in calls]
    direct: list[Proposal] = []
    if None not in renames and (text is not None or not clones):
        how = "`" + "`, `".join(item.func.attr.value for item in calls) + "` out of place"
        edits = tuple(edit for edit in (cut, *renames) if edit is not None)
        if cut is not None:
            how = "writes where autograd sees it"
            direct += _as_operator(page, calls, base, text)
        direct += _rebound(page, calls[-1], text, edits, how)
    elif text is not None and len(calls) == 1:
        direct += _refilled(page, call, text)
    yield from _parts_last(page, base, direct, clones) if part and isinstance(base, cst.Subscript) else (*direct, *clones)


def _chain(page: Sheet, call: cst.Call) -> list[Any]:
    """The call and the in-place method calls on its result, inner first."""
    cst = libcst()
    calls: list[Any] = [call]
    while True:
        attribute = page.parents.get(calls[-1])
        outer = page.parents.get(attribute) if isinstance(attribute, cst.Attribute) else None
        if not isinstance(outer, cst.Call) or outer.func is not attribute or not is_inplace_name(attribute.attr.value):
            return calls
        calls.append(outer)


def _renamed(page: Sheet, name: cst.Name) -> Edit | None:
    """`mul_` as `mul`; None where torch has no such function."""
    twin = _DUNDERS.get(name.value, name.value.removesuffix("_") if is_inplace_name(name.value) else "")
    known = hasattr(torch.Tensor, twin) or hasattr(torch.nn.functional, twin) or hasattr(torch, twin)
    if not twin or not known or (twin in ("fill", "zero", "copy", "set", "resize", "normal", "uniform", "random")):
        return None
    return page.edit(*page.span(name), twin)


def _as_operator(page: Sheet, calls: Sequence[Any], base: cst.BaseExpression, text: str | None) -> Iterator[Proposal]:
    """`h.data.mul_(keep)` as `h = h * keep`, where it is the whole statement."""
    cst = libcst()
    call = calls[-1]
    sign = _OPERATORS.get(call.func.attr.value) if len(calls) == 1 else None
    if sign is None or text is None or len(call.args) != 1 or not isinstance(page.parents.get(call), cst.Expr):
        return
    argument = call.args[0]
    if argument.keyword is not None or argument.star:
        return
    operator = {"+": "Add", "-": "Subtract", "*": "Multiply", "/": "Divide"}[sign]
    start, end = page.outer_span(argument.value)
    value = page.text[start:end]
    if "\n" in value or "\r" in value:
        return
    value = f"({value})" if _needs_parentheses(operator, argument.value) else value
    edits = (page.edit(*page.outer_span(call), f"{text} = {text} {sign} {value}"), *_declared(page, call, text))
    yield Proposal("writes where autograd sees it", edits)


def _refilled(page: Sheet, call: Any, text: str) -> Iterator[Proposal]:
    """`y.zero_()` as `y = torch.zeros_like(y)`, `y.fill_(v)` as `y = torch.full_like(y, v)`."""
    cst = libcst()
    if not isinstance(page.parents.get(call), cst.Expr) or "import torch" not in page.text:
        return
    arguments = [page.source(argument) for argument in call.args]
    if call.func.attr.value == "zero_" and not arguments:
        new = f"torch.zeros_like({text})"
    elif call.func.attr.value == "fill_" and len(arguments) == 1:
        new = f"torch.full_like({text}, {arguments[0]})"
    else:
        return
    edits = (page.edit(*page.outer_span(call), f"{text} = {new}"), *_declared(page, call, text))
    yield Proposal(f"`{call.func.attr.value}` out of place", edits)


# ---------------------------------------------------------------------------------------------------------------- function calls


def _flag(call: cst.Call, operation: str) -> cst.BaseExpression | None:
    """The `True` that a call passes as `inplace`, by keyword or in the place that torch's function has for it."""
    argument = _keyword(call, "inplace") or _positional(call, operation)
    value = argument.value if argument is not None else None
    return value if isinstance(value, libcst().Name) and value.value == "True" else None


def _positional(call: cst.Call, operation: str) -> cst.Arg | None:
    function = getattr(torch.nn.functional, operation.rpartition(".")[2], None)
    try:
        names = list(inspect.signature(function).parameters) if function is not None else []
    except (TypeError, ValueError):
        return None
    index = names.index("inplace") if "inplace" in names else len(call.args)
    plain = all(argument.keyword is None and not argument.star for argument in call.args[: index + 1])
    return call.args[index] if index < len(call.args) and plain else None


def _keyword(call: cst.Call, name: str) -> cst.Arg | None:
    return next((item for item in call.args if item.keyword is not None and item.keyword.value == name), None)


def _without_out(page: Sheet, call: cst.Call, out: cst.Arg) -> Iterator[Proposal]:
    """`torch.add(a, b, out=y)` as `y = torch.add(a, b)`."""
    cst = libcst()
    index = list(call.args).index(out)
    if index:
        edit = page.edit(page.span(call.args[index - 1])[1], page.span(out)[1], "")
    elif len(call.args) > 1:
        edit = page.edit(page.span(out)[0], page.span(call.args[1])[0], "")
    else:
        return
    value = out.value
    if isinstance(value, cst.Tuple):
        places = [place(page, element.value) for element in value.elements]
        text = ", ".join(item for item in places if item) if all(places) else None
    else:
        text = place(page, value)
    clones = tuple(clone_first(page, call, value))
    if isinstance(value, cst.Subscript):
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


def _visible(page: Sheet, expression: cst.BaseExpression) -> tuple[cst.BaseExpression, Edit | None]:
    """`h` for `h.data`, with the edit that drops `.data`; anything else as it is."""
    cst = libcst()
    if isinstance(expression, cst.Attribute) and expression.attr.value == "data":
        start, end = page.outer_span(expression.value)[1], page.span(expression)[1]
        return expression.value, page.edit(start, end, "")
    return expression, None


def _declared(page: Sheet, node: cst.CSTNode, text: str) -> tuple[Edit, ...]:
    edit = declaration(page, node, text) if text.isidentifier() else None
    return (edit,) if edit is not None else ()


def _rebound(page: Sheet, outer: cst.BaseExpression, text: str | None, edits: tuple[Edit, ...], how: str) -> Iterator[Proposal]:
    """The edits, with the place `text` bound to the result of `outer`: likeliest first by whether it is read again."""
    cst = libcst()
    parent = page.parents.get(outer)
    start, end = page.outer_span(outer)
    plain = Proposal(how, edits)
    if text is None:
        yield plain
    elif isinstance(parent, cst.Expr):
        yield Proposal(how, (*_declared(page, outer, text), page.edit(start, start, f"{text} = "), *edits))
    elif isinstance(parent, cst.Assign) and parent.value is outer:
        if text not in [page.source(target.target) for target in parent.targets]:
            both = Proposal(how, (*_declared(page, outer, text), page.edit(start, start, f"{text} = "), *edits))
            yield from (both, plain) if read_later(page, parent, text) else (plain, both)
        else:
            yield plain
    elif isinstance(parent, cst.NamedExpr) and page.source(parent.target) == text:
        yield plain
    else:
        named = [*_walrus(page, outer, text, edits, how), *_hoisted(page, outer, text, edits, how)]
        yield from (*named, plain) if read_later(page, outer, text) else (plain, *named)


def _walrus(page: Sheet, outer: cst.BaseExpression, text: str, edits: tuple[Edit, ...], how: str) -> Iterator[Proposal]:
    cst = libcst()
    around = page.nearest(outer, cst.BaseComp, cst.Lambda, cst.BaseSmallStatement, cst.BaseCompoundStatement)
    if not text.isidentifier() or isinstance(around, cst.Lambda):
        return
    start, end = page.outer_span(outer)
    named = (page.edit(start, start, f"({text} := "), page.edit(end, end, ")"))
    yield Proposal(how, (*_declared(page, outer, text), *named, *edits))


def _hoisted(page: Sheet, outer: cst.BaseExpression, text: str, edits: tuple[Edit, ...], how: str) -> Iterator[Proposal]:
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


def clone_first(page: Sheet, node: cst.CSTNode, receiver: cst.BaseExpression) -> Iterator[Proposal]:
    """`x = x.clone()` on a line before, for each place that the written tensor may belong to; `.data` is dropped from the write."""
    cst = libcst()
    cuts, inner = [], receiver
    while isinstance(inner, cst.Attribute | cst.Subscript):
        cut = _visible(page, inner)[1]
        cuts += [cut] if cut is not None else []
        inner = inner.value
    for text in bases(page, receiver):
        made = proposal(f"clones `{text}` before the write", insert_before(page, node, f"{text} = {text}.clone()"))
        if made is not None:
            yield Proposal(made.how, (*_declared(page, node, text), *made.edits, *cuts))
