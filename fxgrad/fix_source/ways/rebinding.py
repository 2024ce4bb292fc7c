"""Names bound to new results: `y = y.mul(2)`, `(y := y.mul(2))`, `self.h = ...` on a line before; and clones
made before a write.

Made from an expression, the place it is to be bound to and the edits of the expression itself. Not handled:
places whose evaluation does something, such as `next(it).h`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from fxgrad.fix_source.sheet import Sheet
from fxgrad.fix_source.syntax import (
    Comprehension,
    bases,
    declaration,
    insert_before,
    is_conditional,
    read_later,
)
from fxgrad.fix_source.ways.proposal import Proposal, proposal
from fxgrad.records import Edit


def visible(page: Sheet, expression: ast.expr) -> tuple[ast.expr, Edit | None]:
    """`h` for `h.data`, with the edit that drops `.data`; anything else as it is."""
    if isinstance(expression, ast.Attribute) and expression.attr == "data":
        start, end = page.outer_span(expression.value)[1], page.span(expression)[1]
        return expression.value, page.edit(start, end, "")
    return expression, None


def declared(page: Sheet, node: ast.AST, text: str) -> tuple[Edit, ...]:
    """The declaration that a function needs before it may bind the place `text`: of a variable of another
    scope; else none."""
    edit = declaration(page, node, text) if text.isidentifier() else None
    return (edit,) if edit is not None else ()


def rebound(
    page: Sheet, outer: ast.expr, text: str | None, edits: tuple[Edit, ...], how: str
) -> Iterator[Proposal]:
    """The edits, with the place `text` bound to the result of `outer`: likeliest first by whether it is read
    again."""
    parent = page.parent(outer)
    start, end = page.outer_span(outer)
    plain = Proposal(how, edits)
    if text is None:
        yield plain
    elif isinstance(parent, ast.Expr):
        yield Proposal(how, (*declared(page, outer, text), page.edit(start, start, f"{text} = "), *edits))
    elif isinstance(parent, ast.Assign) and parent.value is outer:
        if text not in [page.source(target) for target in parent.targets]:
            both = Proposal(
                how, (*declared(page, outer, text), page.edit(start, start, f"{text} = "), *edits)
            )
            yield from (both, plain) if read_later(page, parent, text) else (plain, both)
        else:
            yield plain
    elif isinstance(parent, ast.NamedExpr) and page.source(parent.target) == text:
        yield plain
    else:
        named = [*_walrus(page, outer, text, edits, how), *_hoisted(page, outer, text, edits, how)]
        yield from (*named, plain) if read_later(page, outer, text) else (plain, *named)


def _walrus(page: Sheet, outer: ast.expr, text: str, edits: tuple[Edit, ...], how: str) -> Iterator[Proposal]:
    scopes = (
        item for item in page.outwards(outer) if isinstance(item, Comprehension | ast.Lambda | ast.stmt)
    )
    if not text.isidentifier() or isinstance(next(scopes, None), ast.Lambda):
        return
    start, end = page.outer_span(outer)
    named = (page.edit(start, start, f"({text} := "), page.edit(end, end, ")"))
    yield Proposal(how, (*declared(page, outer, text), *named, *edits))


def _hoisted(
    page: Sheet, outer: ast.expr, text: str, edits: tuple[Edit, ...], how: str
) -> Iterator[Proposal]:
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
    yield Proposal(how, (*declared(page, outer, text), line, page.edit(*whole, text)))


def clone_first(page: Sheet, node: ast.AST, receiver: ast.expr) -> Iterator[Proposal]:
    """`x = x.clone()` on a line before, for each place that the written tensor may belong to; `.data` is
    dropped from the write."""
    cuts, inner = [], receiver
    while isinstance(inner, ast.Attribute | ast.Subscript):
        cut = visible(page, inner)[1]
        cuts += [cut] if cut is not None else []
        inner = inner.value
    for text in bases(page, receiver):
        made = proposal(
            f"clones `{text}` before the write", insert_before(page, node, f"{text} = {text}.clone()")
        )
        if made is not None:
            yield Proposal(made.how, (*declared(page, node, text), *made.edits, *cuts))
