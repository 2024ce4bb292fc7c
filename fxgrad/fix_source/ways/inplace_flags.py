"""`inplace=False` where a module that writes was built: in the call, in a config dict, in a default, in a caller.

Made from the frames that built the module, as the run saw them: the line that runs the constructor first, then its callers, then every
other literal that could have brought the flag there. Not handled: flags read from files that are not Python.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from fxgrad.fix_source.sheet import Sheet, libcst
from fxgrad.fix_source.syntax import place
from fxgrad.fix_source.trouble import Trouble
from fxgrad.fix_source.ways.proposal import Pages, Proposal
from fxgrad.records import Edit
from fxgrad.records.errors import FixError

if TYPE_CHECKING:
    import libcst as cst

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
        call = page.node_at(site, libcst().Call)
        if call is None:
            continue
        value = _passed(call, trouble.operation if depth == 0 else "")
        if value is not None and page.source(value) == "True":
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


def _passed(call: cst.Call, module: str) -> cst.BaseExpression | None:
    """What a call passes as `inplace`."""
    for argument in call.args:
        if argument.keyword is not None and argument.keyword.value == "inplace":
            return argument.value
    kind = getattr(torch.nn, module, None)
    names = list(inspect.signature(kind).parameters) if inspect.isclass(kind) else []
    index = names.index("inplace") if "inplace" in names else len(call.args)
    plain = all(argument.keyword is None and not argument.star for argument in call.args[: index + 1])
    return call.args[index].value if index < len(call.args) and plain else None


def _defaults(page: Sheet, call: cst.Call) -> Iterator[Edit]:
    """`inplace=True` among the parameters of the functions around the call."""
    cst = libcst()
    for parent in page.ancestors(call):
        if not isinstance(parent, cst.FunctionDef | cst.Lambda):
            continue
        for parameter in (*parent.params.params, *parent.params.kwonly_params):
            default = parameter.default
            if parameter.name.value == "inplace" and default is not None and page.source(default) == "True":
                yield page.edit(*page.span(default), "False")


def _literals(page: Sheet) -> Iterator[Edit]:
    """Every `inplace=True` and `"inplace": True` of a file."""
    cst = libcst()
    for node in page.ranges:
        value = None
        if (
            isinstance(node, cst.Arg)
            and node.keyword is not None
            and node.keyword.value == "inplace"
            or isinstance(node, cst.DictElement)
            and page.source(node.key).strip("'\"") == "inplace"
        ):
            value = node.value
        elif isinstance(node, cst.Param) and node.name.value == "inplace":
            value = node.default
        elif isinstance(node, cst.Assign) and page.source(node.targets[-1].target).lower().endswith("inplace"):
            value = node.value
        if value is not None and page.source(value) == "True":
            yield page.edit(*page.span(value), "False")


def _rebinding(pages: Pages, trouble: Trouble) -> Edit | None:
    """`x = ` before a bare `self.relu(x)`."""
    cst = libcst()
    site = trouble.site
    page = _page(pages, site.file) if site is not None else None
    call = page.node_at(site, cst.Call) if page is not None and site is not None else None
    if page is None or call is None or not isinstance(page.parents.get(call), cst.Expr) or not call.args:
        return None
    text = place(page, call.args[0].value)
    start = page.outer_span(call)[0]
    return page.edit(start, start, f"{text} = ") if text is not None else None
