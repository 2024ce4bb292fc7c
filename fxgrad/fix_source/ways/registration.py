"""What a module holds, registered: a plain tensor as a parameter or a buffer, a list or dict of layers as a
container of torch.nn.

Made from a finding at the assignment, or at the call that fills a list. Each changes what trains: they are
among the changes of intent. Not handled: attributes set by `setattr`, and containers that another function
makes.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from fxgrad.fix_source.sheet import Sheet
from fxgrad.fix_source.syntax import arguments
from fxgrad.fix_source.ways.proposal import Proposal
from fxgrad.records import Edit, Finding


def registered_tensor(page: Sheet, finding: Finding) -> Iterator[Proposal]:
    """FXG109: `self.w = torch.randn(3)` as a Parameter; where it must not train, as a buffer."""
    parameter = _constructor(page, "Parameter")
    for assignment in _assignments(page, finding):
        value, target = assignment.value, assignment.targets[0]
        start, end = page.outer_span(value)
        if parameter:
            text = _without_grad(page, value)
            yield Proposal("makes it a Parameter", (page.edit(start, end, f"{parameter}({text})"),))
        if isinstance(target, ast.Attribute) and page.source(target.value) == "self":
            whole = page.span(assignment)
            new = f'self.register_buffer("{target.attr}", {page.text[start:end]})'
            yield Proposal("makes it a buffer", (page.edit(*whole, new),))


def _without_grad(page: Sheet, value: ast.expr) -> str:
    """The expression without `requires_grad=True`, which a Parameter has anyway, and without a Parameter
    inside."""
    start, end = page.outer_span(value)
    cuts: list[tuple[int, int]] = []
    for node in page.of_kind(ast.Call):
        given, (first, last) = arguments(node), page.span(node)
        if not given or not start <= first < last <= end:
            continue
        if page.source(node.func).endswith("Parameter"):
            inner = page.outer_span(given[0].value)
            cuts += [(first, inner[0]), (inner[1], last)]
        for before, argument in zip(given, given[1:], strict=False):
            if argument.name == "requires_grad":
                cuts.append((page.outer_span(before.node)[1], page.span(argument.node)[1]))
    made, position = [], start
    for begin, stop in sorted(cuts):
        if begin >= position:
            made.append(page.text[position:begin])
            position = stop
    return "".join([*made, page.text[position:end]])


def registered_modules(page: Sheet, finding: Finding) -> Iterator[Proposal]:
    """FXG110: `[nn.Linear(...)]` as `nn.ModuleList([...])`, a dict as `nn.ModuleDict`; lists within lists
    too."""
    for assignment in _assignments(page, finding):
        kind = _container(page, assignment.value)
        edits = _wrapped(page, assignment.value) if kind else ()
        if edits:
            yield Proposal(f"makes it an nn.{kind}", edits)
    yield from _filled(page, finding)


def _filled(page: Sheet, finding: Finding) -> Iterator[Proposal]:
    """The site fills a list (`self.layers.append(...)`): its `self.layers = []` becomes an nn.ModuleList."""
    call = page.node_at(finding.site, ast.Call)
    if call is None or not isinstance(call.func, ast.Attribute):
        return
    inner = [
        edit
        for argument in arguments(call)
        if _container(page, argument.value)
        for edit in _wrapped(page, argument.value)
    ]
    owner = page.source(call.func.value)
    for node in page.of_kind(ast.Assign):
        if page.source(node.targets[0]) != owner:
            continue
        kind = {"[]": "ModuleList", "{}": "ModuleDict", "list()": "ModuleList", "dict()": "ModuleDict"}.get(
            page.source(node.value)
        )
        name = _constructor(page, kind) if kind else ""
        if name:
            yield Proposal(
                f"makes it an nn.{kind}", (page.edit(*page.outer_span(node.value), f"{name}()"), *inner)
            )


def _container(page: Sheet, value: ast.expr) -> str:
    """The class of torch.nn that registers what such a container holds; "" for anything else."""
    called = page.source(value.func) if isinstance(value, ast.Call) else ""
    if isinstance(value, ast.List | ast.ListComp | ast.Tuple) or called in ("list", "tuple"):
        return "ModuleList"
    return "ModuleDict" if isinstance(value, ast.Dict | ast.DictComp) or called == "dict" else ""


def _wrapped(page: Sheet, value: ast.expr) -> tuple[Edit, ...]:
    """The containers of an expression, outer and inner, each inside its constructor."""
    edits: list[Edit] = []
    start, end = page.outer_span(value)
    for node in page.of_kind(ast.expr):
        kind = _container(page, node)
        inside = start <= page.outer_span(node)[0] < page.outer_span(node)[1] <= end
        held = node is value or isinstance(
            page.parent(node), ast.List | ast.Tuple | ast.Set | ast.Dict | ast.ListComp | ast.DictComp
        )
        name = _constructor(page, kind) if kind and inside and held else ""
        if name:
            first, last = page.outer_span(node)
            edits += [page.edit(first, first, f"{name}("), page.edit(last, last, ")")]
    return tuple(edits)


def _constructor(page: Sheet, name: str) -> str:
    """How the file can call a class of torch.nn; "" if it imports neither torch nor that."""
    for node in page.nodes:
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        module = (node.module or "") if isinstance(node, ast.ImportFrom) and not node.level else ""
        for item in node.names:
            full = f"{module}.{item.name}" if module else item.name
            bound = item.asname or item.name
            if full == "torch.nn" and (item.asname is not None or module):
                return f"{bound}.{name}"
            if full == f"torch.nn.{name}":
                return bound
    return f"torch.nn.{name}" if "import torch\n" in page.text.replace("\r\n", "\n") else ""


def _assignments(page: Sheet, finding: Finding) -> Iterator[ast.Assign]:
    return (node for node in page.nodes_around(finding.site) if isinstance(node, ast.Assign))
