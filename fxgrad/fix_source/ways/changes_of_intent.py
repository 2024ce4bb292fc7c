"""Fixes that change numbers or intent: never made unless the user allows them, one function for each finding.

Made from a finding's site and the text there: drop a `detach()`, unwrap a `no_grad`, checkpoint without
reentrance, stack instead of `torch.tensor`, build the optimizer last, write a parameter under no_grad. Each
is still tried: its finding must go. Not handled: choosing among remedies that mean different things; the
first that helps is taken.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import replace

from fxgrad.fix_source.sheet import Placed, Sheet
from fxgrad.fix_source.syntax import (
    Compound,
    arguments,
    block_of,
    insert_before,
    keyword,
    line_of,
    statement_of,
)
from fxgrad.fix_source.trouble import Trouble
from fxgrad.fix_source.ways.proposal import Pages, Proposal
from fxgrad.fix_source.ways.registration import registered_modules, registered_tensor
from fxgrad.fix_source.ways.saved_values import kept_detached
from fxgrad.passes.rules.fxg201_overwritten_saved_tensor import OLD_GRAPH
from fxgrad.passes.rules.fxg202_inplace_on_leaf import INTO_LEAF
from fxgrad.records import Edit, Finding
from fxgrad.records.errors import FixError

_TENSOR_MAKERS = ("tensor", "as_tensor", "Tensor", "FloatTensor", "DoubleTensor", "asarray")
_OPTIMIZER = re.compile(r"optim|\bopt\b|\bopt_")


def unsafe_proposals(pages: Pages, trouble: Trouble) -> Iterator[Proposal]:
    """The unsafe fixes of one finding, likeliest first; none where its site cannot be edited."""
    finding = trouble.finding
    make = _BY_CODE.get(finding.code)
    if make is None or finding.site is None:
        return
    try:
        page = pages(finding.site.file)
    except FixError:
        return
    yield from make(page, finding)


# ------------------------------------------------------------------------------------------- cuts on the path


def _without_detach(page: Sheet, finding: Finding) -> Iterator[Proposal]:
    """FXG103: `h.detach()`, `h.data`, `torch.detach(h)` as `h`."""
    for node in page.nodes_around(finding.site):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in ("detach", "detach_")
        ):
            given = arguments(node)
            if given:
                yield Proposal(
                    "drops the detach",
                    (page.edit(*page.outer_span(node), page.outer_source(given[0].value)),),
                )
            elif isinstance(page.parent(node), ast.Expr):
                yield Proposal("drops the detach", (_deleted(page, node),))
            else:
                start, end = page.outer_span(node.func.value)[1], page.span(node)[1]
                yield Proposal("drops the detach", (page.edit(start, end, ""),))
        elif isinstance(node, ast.Attribute) and node.attr == "data":
            yield Proposal(
                "drops `.data`", (page.edit(page.outer_span(node.value)[1], page.span(node)[1], ""),)
            )


def _with_gradients(page: Sheet, finding: Finding) -> Iterator[Proposal]:
    """FXG104: the block without its `with torch.no_grad():`, the function without its decorator, the switch
    on."""
    for node in page.nodes_around(finding.site):
        given = arguments(node) if isinstance(node, ast.Call) else []
        if given and page.source(given[0].value) == "False":
            yield Proposal("switches gradients on", (page.edit(*page.span(given[0].value), "True"),))
            return
        if node in getattr(page.parent(node), "decorator_list", ()):
            start, end = page.span(node)
            yield Proposal(
                "drops the decorator", (page.edit(page.line_start(start), page.next_line(end), ""),)
            )
            return
        block, item = _with_item(page, node)
        if block is not None and item is not None:
            unwrapped = _unwrapped(page, block) if len(block.items) == 1 else _without_item(page, block, item)
            yield from (Proposal("unwraps the block", edits) for edits in unwrapped)
            return


def _with_item(page: Sheet, node: Placed) -> tuple[ast.With | ast.AsyncWith | None, ast.withitem | None]:
    """The `with` that a node stands for, and the part of its header: it alone, or the `with` that has no
    other."""
    if isinstance(node, ast.With | ast.AsyncWith):
        return (node, node.items[0]) if len(node.items) == 1 else (None, None)
    item = page.parent(node)
    block = page.parent(item) if isinstance(item, ast.withitem) else None
    if not isinstance(item, ast.withitem) or not isinstance(block, ast.With | ast.AsyncWith):
        return None, None
    return block, item


def _unwrapped(page: Sheet, block: ast.With | ast.AsyncWith) -> Iterator[tuple[Edit, ...]]:
    """The body in the place of the `with`; lines that begin inside a string keep their beginning."""
    start, first = page.span(block)[0], page.span(block.body[0])[0]
    outer, inner = page.text[page.line_start(start) : start], page.text[page.line_start(first) : first]
    if isinstance(block, ast.AsyncWith) or inner.strip(" \t\f"):  # `with torch.no_grad(): y = f(x)`
        return
    body_end = page.span(block.body[-1])[1]
    position = page.next_line(_colon_after(page, _item_span(page, block.items[-1])[1]))
    edits = [page.edit(page.line_start(start), position, "")]
    while position < body_end:
        line = page.edit(position, position, "").site.line
        if line not in page.lines_in_strings and page.text.startswith(inner, position):
            edits.append(page.edit(position, position + len(inner), outer))
        position = page.next_line(position)
    yield tuple(edits)


def _colon_after(page: Sheet, offset: int) -> int:
    """The offset of the colon that ends a header, past the brackets and commas after its last part."""
    offset = page.code_after(offset)
    while page.text[offset] != ":":
        offset = page.code_after(offset + 1)
    return offset


def _without_item(
    page: Sheet, block: ast.With | ast.AsyncWith, item: ast.withitem
) -> Iterator[tuple[Edit, ...]]:
    index = block.items.index(item)
    start, end = _item_span(page, item)
    if index:
        yield (page.edit(_item_span(page, block.items[index - 1])[1], end, ""),)
    else:
        yield (page.edit(start, _item_span(page, block.items[1])[0], ""),)


def _item_span(page: Sheet, item: ast.withitem) -> tuple[int, int]:
    return page.outer_span(item.context_expr)[0], page.outer_span(item.optional_vars or item.context_expr)[1]


def _stacked(page: Sheet, finding: Finding) -> Iterator[Proposal]:
    """FXG108: `torch.tensor([a, b])` as `torch.stack([a, b])`, `torch.tensor(t)` as `t`."""
    for node in page.nodes_around(finding.site):
        given = arguments(node) if isinstance(node, ast.Call) else []
        if not isinstance(node, ast.Call) or not given or given[0].name or given[0].star:
            continue
        value = given[0].value
        name = node.func.attr if isinstance(node.func, ast.Attribute) else page.source(node.func)
        stacked = page.edit(*page.outer_span(node), f"torch.stack({page.outer_source(value)})")
        if name in _TENSOR_MAKERS and isinstance(value, ast.List | ast.Tuple | ast.ListComp):
            yield Proposal("stacks the tensors", (stacked,))
        elif name in (*_TENSOR_MAKERS, "Parameter", "Variable"):
            inner = value.value if isinstance(value, ast.Attribute) and value.attr == "data" else value
            yield Proposal(
                "uses the tensor itself", (page.edit(*page.outer_span(node), page.outer_source(inner)),)
            )
            yield Proposal("stacks the tensors", (stacked,))


def _not_reentrant(page: Sheet, finding: Finding) -> Iterator[Proposal]:
    """FXG114: `use_reentrant=False`."""
    for node in page.nodes_around(finding.site):
        if not isinstance(node, ast.Call) or not arguments(node):
            continue
        given = keyword(node, "use_reentrant")
        if given is not None:
            edit = page.edit(*page.outer_span(given.value), "False")
        else:
            end = page.outer_span(arguments(node)[-1].node)[1]
            edit = page.edit(end, end, ", use_reentrant=False")
        yield Proposal("checkpoints without reentrance", (edit,))
        return


# ------------------------------------------------------------------------------------------- statements moved


def _kept_detached(page: Sheet, finding: Finding) -> Iterator[Proposal]:
    """FXG201 about an earlier step's graph: what is kept between steps is read without its history."""
    if finding.kind != OLD_GRAPH:
        return
    for node in page.nodes_at(finding.site):
        if isinstance(node, ast.expr):
            yield from kept_detached(page, node)


def _optimizer_last(page: Sheet, finding: Finding) -> Iterator[Proposal]:
    """FXG301, FXG302: the statement that builds the optimizer moves behind later ones of its block, as few as
    help."""
    for node in page.of_kind(ast.Assign):
        start = page.line_start(page.span(node)[0])
        if line_of(page, node) != [node] or page.text[start : page.span(node)[0]].strip(" \t\f"):
            continue
        target = page.source(node.targets[0])
        if not _OPTIMIZER.search(page.source(node.value)) and not _OPTIMIZER.search(target):
            continue
        end = page.next_line(page.span(node)[1])
        line = page.text[start:end]
        for last in _movable(page, node, target):
            after = page.next_line(page.span(last)[1])
            moved = page.edit(after, after, line if line.endswith(("\n", "\r")) else line + page.newline)
            yield Proposal("builds the optimizer later", (page.edit(start, end, ""), moved))


def _movable(page: Sheet, node: ast.stmt, target: str) -> Iterator[ast.stmt]:
    """The last statements of the lines after `node` up to the first that uses the optimizer or leaves."""
    block = block_of(page, node)
    for statement in block[block.index(node) + 1 :]:
        if isinstance(statement, ast.Return | ast.Raise) or re.search(
            rf"\b{re.escape(target)}\b", page.source(statement)
        ):
            return
        if line_of(page, statement)[-1] is statement:
            yield statement


def _under_no_grad(page: Sheet, finding: Finding) -> Iterator[Proposal]:
    """FXG202: a write into a parameter, as an initialisation that autograd does not see."""
    node = next(iter(page.nodes_at(finding.site)), None)
    statement = statement_of(page, node) if node is not None else None
    into_leaf = bool(finding.parameters) or finding.kind == INTO_LEAF
    if (
        not into_leaf
        or statement is None
        or isinstance(statement, Compound)
        or "import torch" not in page.text
    ):
        return
    start, end = page.span(statement)
    indent = page.text[page.line_start(start) : start]
    if indent.strip(" \t\f") or page.next_line(start) < end:
        return
    line = insert_before(page, statement, "with torch.no_grad():")
    if line is not None:
        yield Proposal("writes under no_grad", (replace(line, new=f"{line.new}{page.indent}"),))


def _deleted(page: Sheet, node: Placed) -> Edit:
    """The whole statement's line taken out, or `pass` in its place where it is the only one of its block."""
    statement = statement_of(page, node)
    start, end = page.span(statement or node)
    is_own_line = (
        statement is not None
        and line_of(page, statement) == [statement]
        and len(block_of(page, statement)) > 1
    )
    if not is_own_line:
        return page.edit(*page.outer_span(node), "pass")
    return page.edit(page.line_start(start), page.next_line(end), "")


_BY_CODE: dict[str, Callable[[Sheet, Finding], Iterator[Proposal]]] = {
    "FXG103": _without_detach,
    "FXG104": _with_gradients,
    "FXG108": _stacked,
    "FXG109": registered_tensor,
    "FXG110": registered_modules,
    "FXG114": _not_reentrant,
    "FXG201": _kept_detached,
    "FXG202": _under_no_grad,
    "FXG301": _optimizer_last,
    "FXG302": _optimizer_last,
}
