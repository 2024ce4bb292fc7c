"""All ways to mend a write, likeliest first: at the writing line, where a module was built, where something
was saved, at the callers."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from fxgrad.fix_source.sheet import Placed, Sheet
from fxgrad.fix_source.syntax import arguments, bases, in_loop, may_be_shared
from fxgrad.fix_source.trouble import Trouble
from fxgrad.fix_source.ways.inplace_flags import at_constructor
from fxgrad.fix_source.ways.out_of_place import at_write, is_method_call
from fxgrad.fix_source.ways.proposal import Pages, Proposal
from fxgrad.fix_source.ways.saved_values import at_callers, at_saver
from fxgrad.records.errors import FixError


def proposals(pages: Pages, trouble: Trouble) -> Iterator[Proposal]:
    """The proposals for one trouble; none where it is not about a write."""
    site = trouble.site
    if not trouble.is_write or site is None:
        return
    try:
        page = pages(site.file)
    except FixError:
        page = None
    direct = list(at_write(page, trouble)) if page is not None else []
    savers = list(at_saver(pages, trouble))
    node = next(iter(page.nodes_at(site)), None) if page is not None else None
    if trouble.of_module:
        yield from at_constructor(pages, trouble)
    yield from (
        (*savers, *direct)
        if page is not None and node is not None and _saver_first(page, node)
        else (*direct, *savers)
    )
    yield from at_callers(pages, trouble)


def _saver_first(page: Sheet, node: Placed) -> bool:
    """Whether a clone at the saver is better than an edit of the write.

    In a loop it costs less than a clone of the whole tensor before each write. And where another name may be
    the same tensor, only it is right on branches that no run has taken.
    """
    target: ast.AST = node.target if isinstance(node, ast.AugAssign) else node
    if isinstance(node, ast.Subscript) and in_loop(page, node):
        return True
    given = arguments(node) if isinstance(node, ast.Call) and not is_method_call(page, node) else []
    if given:
        target = given[0].value
    return isinstance(target, ast.expr) and any(
        may_be_shared(page, node, text) for text in bases(page, target)
    )
