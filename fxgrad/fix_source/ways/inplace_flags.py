"""`inplace=False` where a module that writes was built: in the call, in a config dict, in a default, in a
caller.

Made from the frames that built the module, as the run saw them: the line that runs the constructor first,
then its callers, then every other literal that could have brought the flag there. Not handled: flags read
from files that are not Python.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator

import torch

from fxgrad.fix_source.sheet import Sheet
from fxgrad.fix_source.syntax import arguments, by_position, keyword, place
from fxgrad.fix_source.trouble import Trouble
from fxgrad.fix_source.ways.proposal import Pages, Proposal
from fxgrad.records import Edit
from fxgrad.records.errors import FixError
from fxgrad.source.parsing import Function, ancestors

_HOW = "builds the module with inplace=False"


def at_constructor(pages: Pages, trouble: Trouble) -> Iterator[Proposal]:
    """The flag off; where the module's result was thrown away, bound as well."""
    edits = list(dict.fromkeys(_flags(pages, trouble)))
    rebinding = _rebinding(pages, trouble)
    for edit in edits:
        if rebinding is not None:
            yield Proposal(_HOW, (edit, rebinding))
        yield Proposal(_HOW, (edit,))


def _flags(pages: Pages, trouble: Trouble) -> Iterator[Edit]:
    sites = [(site, page) for site in trouble.built if (page := _page(pages, site.file)) is not None]
    forced: list[Edit] = []
    for depth, (site, page) in enumerate(sites):
        call = page.node_at(site, ast.Call)
        if call is None:
            continue
        value = _passed(call, trouble.operation if depth == 0 else "")
        if value is not None and _is_true(value):
            yield page.edit(*page.span(value), "False")
        elif value is not None and depth == 0:
            forced.append(page.edit(*page.outer_span(value), "False"))
        yield from _defaults(page, call)
    for page in dict.fromkeys(page for _, page in sites):
        yield from _literals(page)
    yield from forced


def _page(pages: Pages, file: str) -> Sheet | None:
    try:
        return pages(file)
    except FixError:
        return None


def _passed(call: ast.Call, module: str) -> ast.expr | None:
    """What a call passes as `inplace`."""
    argument = keyword(call, "inplace")
    kind = getattr(torch.nn, module, None)
    names = list(inspect.signature(kind).parameters) if inspect.isclass(kind) else []
    if argument is None and "inplace" in names:
        argument = by_position(call, names.index("inplace"))
    return argument.value if argument is not None else None


def _defaults(page: Sheet, call: ast.Call) -> Iterator[Edit]:
    """`inplace=True` among the parameters of the functions around the call."""
    for parent in ancestors(page.parsed, call):
        if isinstance(parent, Function | ast.Lambda):
            yield from (
                page.edit(*page.span(value), "False") for value in _default(parent) if _is_true(value)
            )


def _default(function: Function | ast.Lambda) -> Iterator[ast.expr]:
    """The default of the parameter `inplace`."""
    parameters = [*function.args.posonlyargs, *function.args.args]
    with_default = parameters[len(parameters) - len(function.args.defaults) :]
    pairs = [
        *zip(with_default, function.args.defaults, strict=True),
        *zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True),
    ]
    yield from (value for parameter, value in pairs if parameter.arg == "inplace" and value is not None)


def _literals(page: Sheet) -> Iterator[Edit]:
    """Every `inplace=True` and `"inplace": True` of a file."""
    values = [value for node in page.nodes for value in _named_inplace(page, node) if _is_true(value)]
    yield from (page.edit(*span, "False") for span in sorted(map(page.span, values)))


def _named_inplace(page: Sheet, node: ast.AST) -> Iterator[ast.expr]:
    """What a node gives the name `inplace`: an argument, a parameter, an item of a dict, a variable."""
    if isinstance(node, ast.keyword) and node.arg == "inplace":
        yield node.value
    elif isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant) and key.value == "inplace":
                yield value
    elif isinstance(node, Function | ast.Lambda):
        yield from _default(node)
    elif isinstance(node, ast.Assign) and page.source(node.targets[-1]).lower().endswith("inplace"):
        yield node.value


def _is_true(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is True


def _rebinding(pages: Pages, trouble: Trouble) -> Edit | None:
    """`x = ` before a bare `self.relu(x)`."""
    site = trouble.site
    page = _page(pages, site.file) if site is not None else None
    call = page.node_at(site, ast.Call) if page is not None else None
    if page is None or call is None or not isinstance(page.parent(call), ast.Expr):
        return None
    given = arguments(call)
    text = place(page, given[0].value) if given else None
    start = page.outer_span(call)[0]
    return page.edit(start, start, f"{text} = ") if text is not None else None
