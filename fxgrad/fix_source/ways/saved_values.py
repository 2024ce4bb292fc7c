"""Clones that keep what backward saved apart from what is written: at the line that saved, and at the calls
that lead to the write.

Made from one trouble and the texts of the files involved; for writes whose own line cannot change, since
others rely on what it does. Not handled: savers inside library code, which have no line of the user's.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from fxgrad.fix_source.sheet import Sheet
from fxgrad.fix_source.syntax import arguments, place
from fxgrad.fix_source.trouble import Trouble
from fxgrad.fix_source.ways.proposal import Pages, Proposal
from fxgrad.fix_source.ways.rebinding import clone_first
from fxgrad.records import Site
from fxgrad.records.errors import FixError

_FRAMES = 3  # callers of the write that are looked at
# a dot after them would bind more tightly
_LOOSE = ast.BinOp | ast.UnaryOp | ast.Compare | ast.IfExp | ast.Await | ast.BoolOp


def at_saver(pages: Pages, trouble: Trouble) -> Iterator[Proposal]:
    """`.clone()` on what the saving expression read or made."""
    found = _expression(pages, trouble.saver)
    if found is None:
        return
    page, node = found
    if trouble.saved == "result":
        if not _is_clone(node):
            yield _cloned(page, node, "clones what was saved")
        return
    operands = list(_operands(page, node))
    written = _written(pages, trouble)
    operands.sort(key=lambda item: page.source(item) not in written)
    for operand in operands:
        if not _is_clone(operand):
            yield _cloned(page, operand, f"clones `{page.source(operand)}` where it is saved")


def at_callers(pages: Pages, trouble: Trouble) -> Iterator[Proposal]:
    """`y = y.clone()` before the call that led to the write, then `f(y.clone())`, from the nearest caller
    outwards."""
    for site in trouble.stack[1 : 1 + _FRAMES]:
        found = _expression(pages, site)
        if found is None:
            continue
        page, call = found
        operands = list(_operands(page, call))
        for operand in operands:
            yield from clone_first(page, call, operand)
        for operand in operands:
            if not _is_clone(operand):
                yield _cloned(page, operand, f"passes a clone of `{page.source(operand)}`")


def _expression(pages: Pages, site: Site | None) -> tuple[Sheet, ast.expr] | None:
    if site is None:
        return None
    try:
        page = pages(site.file)
    except FixError:
        return None
    node = page.node_at(site, ast.expr)
    return (page, node) if node is not None else None


def _cloned(page: Sheet, node: ast.expr, how: str) -> Proposal:
    start, end = page.outer_span(node)
    if isinstance(node, _LOOSE) and not page.is_parenthesized(node):
        return Proposal(how, (page.edit(start, start, "("), page.edit(end, end, ").clone()")))
    return Proposal(how, (page.edit(end, end, ".clone()"),))


def _is_clone(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "clone"


def kept_detached(page: Sheet, node: ast.expr) -> Iterator[Proposal]:
    """`.detach()` on each thing that an expression reads off an object: what was kept from an earlier step is
    one of them."""
    for operand in _operands(page, node):
        text = place(page, operand)
        if text is not None and not text.isidentifier():
            end = page.outer_span(operand)[1]
            yield Proposal(
                f"detaches `{text}`, which is kept between steps", (page.edit(end, end, ".detach()"),)
            )


def _operands(page: Sheet, node: ast.expr) -> Iterator[ast.expr]:
    """What the expression works on: arguments, the object a method is called on, both sides of an operator;
    no literals."""
    yield from (item for item in _parts(page, node) if not isinstance(item, ast.Constant | ast.JoinedStr))


def _parts(page: Sheet, node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.Call):
        for argument in arguments(node):
            if not argument.star:
                yield argument.value
        if isinstance(node.func, ast.Attribute) and page.source(node.func.value) not in (
            "self",
            "torch",
            "F",
            "cls",
        ):
            yield node.func.value
    elif isinstance(node, ast.BinOp):
        yield from (node.left, node.right)
        # `z @ self.embed.T`: the place itself reads better than its transpose.
        for side in (node.left, node.right):
            if isinstance(side, ast.Attribute | ast.Subscript) and isinstance(
                side.value, ast.Attribute | ast.Name
            ):
                yield side.value
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.Subscript | ast.Attribute):
        yield node.value


def _written(pages: Pages, trouble: Trouble) -> frozenset[str]:
    """Every expression in the writing statement's target, as text: the saver likely calls it the same."""
    found = _expression(pages, trouble.site)
    if found is None:
        return frozenset()
    page, node = found
    names: set[str] = set()
    inner = node
    while isinstance(inner, ast.Call | ast.Attribute | ast.Subscript):
        inner = inner.func if isinstance(inner, ast.Call) else inner.value
        names.add(page.source(inner))
    return frozenset(names)
