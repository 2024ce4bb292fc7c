"""Fixes that change numbers or intent: never made unless the user allows them, one function for each finding.

Made from a finding's site and the text there: drop a `detach()`, unwrap a `no_grad`, register a plain tensor or list of layers, checkpoint
without reentrance, stack instead of `torch.tensor`, build the optimizer last, write a parameter under no_grad. Each is still tried: its
finding must go. Not handled: choosing among remedies that mean different things; the first that helps is taken.
"""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fxgrad.fix_source.sheet import Sheet, libcst
from fxgrad.fix_source.syntax import insert_before, statement_of
from fxgrad.fix_source.trouble import Trouble
from fxgrad.fix_source.ways.proposal import Pages, Proposal
from fxgrad.fix_source.ways.saved_values import kept_detached
from fxgrad.passes.rules.fxg201_overwritten_saved_tensor import OLD_GRAPH
from fxgrad.passes.rules.fxg202_inplace_on_leaf import INTO_LEAF
from fxgrad.records import Edit, Finding, Site
from fxgrad.records.errors import FixError

if TYPE_CHECKING:
    import libcst as cst

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


# ------------------------------------------------------------------------------------------------------------- cuts on the path


def _without_detach(page: Sheet, finding: Finding) -> Iterator[Proposal]:
    """FXG103: `h.detach()`, `h.data`, `torch.detach(h)` as `h`."""
    cst = libcst()
    for node in _around(page, finding.site):
        if isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute) and node.func.attr.value in ("detach", "detach_"):
            if node.args:
                yield Proposal("drops the detach", (page.edit(*page.outer_span(node), _text(page, node.args[0].value)),))
            elif isinstance(page.parents.get(node), cst.Expr):
                yield Proposal("drops the detach", (_deleted(page, node),))
            else:
                start, end = page.outer_span(node.func.value)[1], page.span(node)[1]
                yield Proposal("drops the detach", (page.edit(start, end, ""),))
        elif isinstance(node, cst.Attribute) and node.attr.value == "data":
            yield Proposal("drops `.data`", (page.edit(page.outer_span(node.value)[1], page.span(node)[1], ""),))


def _with_gradients(page: Sheet, finding: Finding) -> Iterator[Proposal]:
    """FXG104: the block without its `with torch.no_grad():`, the function without its decorator, the switch on."""
    cst = libcst()
    for node in _around(page, finding.site):
        if isinstance(node, cst.Decorator):
            start, end = page.span(node)
            yield Proposal("drops the decorator", (page.edit(page.line_start(start), _next_line(page, end), ""),))
            return
        if isinstance(node, cst.WithItem) or (isinstance(node, cst.With) and len(node.items) == 1):
            block: Any = node if isinstance(node, cst.With) else page.parents[node]
            unwrapped = _unwrapped(page, block) if len(block.items) == 1 else _without_item(page, block, node)
            yield from (Proposal("unwraps the block", edits) for edits in unwrapped)
            return
        if isinstance(node, cst.Call) and node.args and page.source(node.args[0].value) == "False":
            yield Proposal("switches gradients on", (page.edit(*page.span(node.args[0].value), "True"),))
            return


def _unwrapped(page: Sheet, block: cst.With) -> Iterator[tuple[Edit, ...]]:
    """The body in the place of the `with`; lines that begin inside a string keep their beginning."""
    cst = libcst()
    if not isinstance(block.body, cst.IndentedBlock) or block.asynchronous is not None:
        return
    start = page.span(block)[0]
    outer = page.text[page.line_start(start) : start]
    first = page.span(block.body.body[0])[0]
    inner = page.text[page.line_start(first) : first]
    body_end = page.span(block.body.body[-1])[1]
    fixed = _lines_in_strings(page.text)
    edits = [page.edit(page.line_start(start), _header_end(page, block), "")]
    position = _header_end(page, block)
    while position < body_end:
        line = page.edit(position, position, "").site.line
        if line not in fixed and page.text.startswith(inner, position):
            edits.append(page.edit(position, position + len(inner), outer))
        position = _next_line(page, position)
    yield tuple(edits)


def _header_end(page: Sheet, block: cst.With) -> int:
    """The offset of the line after `with ...:`."""
    last = block.items[-1]
    end = page.span(last)[1]
    colon = page.text.index(":", end)
    return _next_line(page, colon)


def _without_item(page: Sheet, block: cst.With, item: Any) -> Iterator[tuple[Edit, ...]]:
    if item is block:
        return
    index = list(block.items).index(item)
    if index:
        yield (page.edit(page.span(block.items[index - 1].item)[1], page.span(item.item)[1], ""),)
    else:
        yield (page.edit(page.span(item)[0], page.span(block.items[1])[0], ""),)


def _lines_in_strings(text: str) -> frozenset[int]:
    """Lines whose first character belongs to a string that began on a line before."""
    found: set[int] = set()
    opened: list[int] = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            name = tokenize.tok_name[token.type]
            if name == "FSTRING_START":
                opened.append(token.start[0])
            elif name == "FSTRING_END" and opened:
                found.update(range(opened.pop() + 1, token.end[0] + 1))
            elif token.type == tokenize.STRING:
                found.update(range(token.start[0] + 1, token.end[0] + 1))
    except (tokenize.TokenError, SyntaxError):
        pass
    return frozenset(found)


def _stacked(page: Sheet, finding: Finding) -> Iterator[Proposal]:
    """FXG108: `torch.tensor([a, b])` as `torch.stack([a, b])`, `torch.tensor(t)` as `t`."""
    cst = libcst()
    for node in _around(page, finding.site):
        if not isinstance(node, cst.Call) or not node.args or node.args[0].keyword is not None:
            continue
        value = node.args[0].value
        name = node.func.attr.value if isinstance(node.func, cst.Attribute) else getattr(node.func, "value", "")
        stacked = page.edit(*page.outer_span(node), f"torch.stack({_text(page, value)})")
        if name in _TENSOR_MAKERS and isinstance(value, cst.List | cst.Tuple | cst.ListComp):
            yield Proposal("stacks the tensors", (stacked,))
        elif name in (*_TENSOR_MAKERS, "Parameter", "Variable"):
            inner = value.value if isinstance(value, cst.Attribute) and value.attr.value == "data" else value
            yield Proposal("uses the tensor itself", (page.edit(*page.outer_span(node), _text(page, inner)),))
            yield Proposal("stacks the tensors", (stacked,))


def _not_reentrant(page: Sheet, finding: Finding) -> Iterator[Proposal]:
    """FXG114: `use_reentrant=False`."""
    cst = libcst()
    for node in _around(page, finding.site):
        if not isinstance(node, cst.Call) or not node.args:
            continue
        given = next((a for a in node.args if a.keyword is not None and a.keyword.value == "use_reentrant"), None)
        if given is not None:
            edit = page.edit(*page.outer_span(given.value), "False")
        else:
            end = page.span(node.args[-1])[1]
            edit = page.edit(end, end, ", use_reentrant=False")
        yield Proposal("checkpoints without reentrance", (edit,))
        return


# --------------------------------------------------------------------------------------------------------------- what is registered


def _registered_tensor(page: Sheet, finding: Finding) -> Iterator[Proposal]:
    """FXG109: `self.w = torch.randn(3)` as a Parameter; where it must not train, as a buffer."""
    cst = libcst()
    parameter = _constructor(page, "Parameter")
    for assignment in _assignments(page, finding.site):
        value, target = assignment.value, assignment.targets[0].target
        start, end = page.outer_span(value)
        if parameter:
            text = _without_grad(page, value)
            yield Proposal("makes it a Parameter", (page.edit(start, end, f"{parameter}({text})"),))
        if isinstance(target, cst.Attribute) and page.source(target.value) == "self":
            whole = page.span(assignment)
            new = f'self.register_buffer("{target.attr.value}", {page.text[start:end]})'
            yield Proposal("makes it a buffer", (page.edit(*whole, new),))


def _without_grad(page: Sheet, value: cst.BaseExpression) -> str:
    """The expression without `requires_grad=True`, which a Parameter has anyway, and without a Parameter inside."""
    cst = libcst()
    start, end = page.outer_span(value)
    cuts: list[tuple[int, int]] = []
    for node in page.ranges:
        if not isinstance(node, cst.Call) or not node.args or not start <= page.span(node)[0] < page.span(node)[1] <= end:
            continue
        if page.source(node.func).endswith("Parameter"):
            first = page.outer_span(node.args[0].value)
            cuts += [(page.span(node)[0], first[0]), (first[1], page.span(node)[1])]
        for before, argument in zip(node.args, node.args[1:], strict=False):
            if argument.keyword is not None and argument.keyword.value == "requires_grad":
                cuts.append((page.span(before)[1], page.span(argument)[1]))
    made, position = [], start
    for begin, stop in sorted(cuts):
        if begin >= position:
            made.append(page.text[position:begin])
            position = stop
    return "".join([*made, page.text[position:end]])


def _registered_modules(page: Sheet, finding: Finding) -> Iterator[Proposal]:
    """FXG110: `[nn.Linear(...)]` as `nn.ModuleList([...])`, a dict as `nn.ModuleDict`; lists within lists too."""
    for assignment in _assignments(page, finding.site):
        kind = _container(page, assignment.value)
        edits = _wrapped(page, assignment.value) if kind else ()
        if edits:
            yield Proposal(f"makes it an nn.{kind}", edits)
    yield from _filled(page, finding)


def _filled(page: Sheet, finding: Finding) -> Iterator[Proposal]:
    """The site fills a list (`self.layers.append(...)`): its `self.layers = []` becomes an nn.ModuleList."""
    cst = libcst()
    call = page.node_at(finding.site, cst.Call) if finding.site is not None else None
    inner = [edit for argument in call.args if _container(page, argument.value) for edit in _wrapped(page, argument.value)] if call else []
    owner = page.source(call.func.value) if call is not None and isinstance(call.func, cst.Attribute) else ""
    for node in page.ranges:
        if not isinstance(node, cst.Assign) or not owner or page.source(node.targets[0].target) != owner:
            continue
        kind = {"[]": "ModuleList", "{}": "ModuleDict", "list()": "ModuleList", "dict()": "ModuleDict"}.get(page.source(node.value))
        name = _constructor(page, kind) if kind else ""
        if name:
            yield Proposal(f"makes it an nn.{kind}", (page.edit(*page.outer_span(node.value), f"{name}()"), *inner))


def _container(page: Sheet, value: cst.BaseExpression) -> str:
    """The class of torch.nn that registers what such a container holds; "" for anything else."""
    cst = libcst()
    called = page.source(value.func) if isinstance(value, cst.Call) else ""
    if isinstance(value, cst.List | cst.ListComp | cst.Tuple) or called in ("list", "tuple"):
        return "ModuleList"
    return "ModuleDict" if isinstance(value, cst.Dict | cst.DictComp) or called == "dict" else ""


def _wrapped(page: Sheet, value: cst.BaseExpression) -> tuple[Edit, ...]:
    """The containers of an expression, outer and inner, each inside its constructor."""
    cst = libcst()
    edits: list[Edit] = []
    start, end = page.outer_span(value)
    for node in page.ranges:
        kind = _container(page, node) if isinstance(node, cst.BaseExpression) else ""
        inside = start <= page.outer_span(node)[0] < page.outer_span(node)[1] <= end
        held = node is value or isinstance(page.parents.get(node), cst.Element | cst.DictElement | cst.ListComp | cst.DictComp)
        name = _constructor(page, kind) if kind and inside and held else ""
        if name:
            first, last = page.outer_span(node)
            edits += [page.edit(first, first, f"{name}("), page.edit(last, last, ")")]
    return tuple(edits)


def _constructor(page: Sheet, name: str) -> str:
    """How the file can call a class of torch.nn; "" if it imports neither torch nor that."""
    cst = libcst()
    for node in page.ranges:
        if not isinstance(node, cst.Import | cst.ImportFrom) or isinstance(node.names, cst.ImportStar):
            continue
        module = page.source(node.module) if isinstance(node, cst.ImportFrom) and node.module is not None else ""
        for item in node.names:
            full = f"{module}.{page.source(item.name)}" if module else page.source(item.name)
            bound = page.source(item.asname.name) if item.asname is not None else full.rpartition(".")[2] if module else full
            if full == "torch.nn" and (item.asname is not None or module):
                return f"{bound}.{name}"
            if full == f"torch.nn.{name}":
                return bound
    return f"torch.nn.{name}" if "import torch\n" in page.text.replace("\r\n", "\n") else ""


# ---------------------------------------------------------------------------------------------------------------- statements moved


def _kept_detached(page: Sheet, finding: Finding) -> Iterator[Proposal]:
    """FXG201 about an earlier step's graph: what is kept between steps is read without its history."""
    cst = libcst()
    if finding.kind != OLD_GRAPH:
        return
    for node in page.nodes_at(finding.site) if finding.site is not None else ():
        if isinstance(node, cst.BaseExpression):
            yield from kept_detached(page, node)


def _optimizer_last(page: Sheet, finding: Finding) -> Iterator[Proposal]:
    """FXG301, FXG302: the statement that builds the optimizer moves behind later ones of its block, as few as help."""
    cst = libcst()
    for node in page.ranges:
        if not isinstance(node, cst.SimpleStatementLine) or len(node.body) != 1 or not isinstance(node.body[0], cst.Assign):
            continue
        target = page.source(node.body[0].targets[0].target)
        if not _OPTIMIZER.search(page.source(node.body[0].value)) and not _OPTIMIZER.search(target):
            continue
        block = page.parents.get(node)
        start, end = page.line_start(page.span(node)[0]), _next_line(page, page.span(node)[1])
        line = page.text[start:end]
        for statement in _movable(page, block, node, target):
            after = _next_line(page, page.span(statement)[1])
            moved = page.edit(after, after, line if line.endswith(("\n", "\r")) else line + page.newline)
            yield Proposal("builds the optimizer later", (page.edit(start, end, ""), moved))


def _movable(page: Sheet, block: cst.CSTNode | None, node: cst.CSTNode, target: str) -> Iterator[cst.CSTNode]:
    """The statements after `node` up to the first that uses the optimizer or leaves."""
    cst = libcst()
    if not isinstance(block, cst.IndentedBlock | cst.Module):
        return
    for statement in list(block.body)[list(block.body).index(node) + 1 :]:
        leaves = isinstance(statement, cst.SimpleStatementLine) and isinstance(statement.body[0], cst.Return | cst.Raise)
        if leaves or re.search(rf"\b{re.escape(target)}\b", page.source(statement)):
            return
        yield statement


def _under_no_grad(page: Sheet, finding: Finding) -> Iterator[Proposal]:
    """FXG202: a write into a parameter, as an initialisation that autograd does not see."""
    cst = libcst()
    node = next(iter(page.nodes_at(finding.site)), None) if finding.site is not None else None
    statement = statement_of(page, node) if node is not None else None
    into_leaf = bool(finding.parameters) or finding.kind == INTO_LEAF
    if not into_leaf or not isinstance(statement, cst.BaseSmallStatement) or "import torch" not in page.text:
        return
    start, end = page.span(statement)
    indent = page.text[page.line_start(start) : start]
    step = page.module.default_indent
    if indent.strip(" \t\f") or "\n" in page.text[start:end] or page.text[end : _next_line(page, end)].strip(" \t\r\n\f;").startswith(";"):
        return
    line = insert_before(page, statement, "with torch.no_grad():")
    if line is not None:
        yield Proposal("writes under no_grad", (replace(line, new=f"{line.new}{step}"),))


# -------------------------------------------------------------------------------------------------------------------------- places


def _around(page: Sheet, site: Site | None) -> Iterator[cst.CSTNode]:
    """The nodes with the site's span, then those inside of it, then those around its beginning."""
    if site is None:
        return
    span = page.span_of_site(site)
    if span is None:
        start = page.offset(site.line, 1)
        span = (start, _next_line(page, start))
    exact = page.nodes_at(site)
    yield from exact
    inside = [node for node in page.ranges if node not in exact and span[0] <= page.span(node)[0] and page.span(node)[1] <= span[1]]
    yield from inside
    if exact:
        yield from page.ancestors(exact[0])


def _assignments(page: Sheet, site: Site | None) -> Iterator[cst.Assign]:
    cst = libcst()
    for node in _around(page, site):
        if isinstance(node, cst.Assign):
            yield node


def _text(page: Sheet, node: cst.CSTNode) -> str:
    start, end = page.outer_span(node)
    return page.text[start:end]


def _deleted(page: Sheet, node: cst.CSTNode) -> Edit:
    """The whole statement's line taken out, or `pass` in its place where it is the only one of its block."""
    cst = libcst()
    line = page.nearest(node, cst.SimpleStatementLine)
    block = page.parents.get(line) if line is not None else None
    if line is None or len(line.body) != 1 or len(getattr(block, "body", ())) < 2:
        return page.edit(*page.outer_span(node), "pass")
    start, end = page.span(line)
    return page.edit(page.line_start(start), _next_line(page, end), "")


def _next_line(page: Sheet, offset: int) -> int:
    """The offset of the line after the one that `offset` is in."""
    line = page.edit(offset, offset, "").site.line
    return page.starts[line] if line < len(page.starts) else len(page.text)


_BY_CODE: dict[str, Callable[[Sheet, Finding], Iterator[Proposal]]] = {
    "FXG103": _without_detach,
    "FXG104": _with_gradients,
    "FXG108": _stacked,
    "FXG109": _registered_tensor,
    "FXG110": _registered_modules,
    "FXG114": _not_reentrant,
    "FXG201": _kept_detached,
    "FXG202": _under_no_grad,
    "FXG301": _optimizer_last,
    "FXG302": _optimizer_last,
}
