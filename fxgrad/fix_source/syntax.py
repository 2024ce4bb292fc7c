"""What the text around a write allows: places that can be assigned, the statement a line can be put before,
names that are read later.

Answers come from one file's tree alone, by name, and are only good enough to propose an edit: whether it is
right is proved by running. Not handled: names bound by `exec`, `global` statements in other functions, code
in strings.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from fxgrad.fix_source.sheet import Placed, Sheet
from fxgrad.records import Edit
from fxgrad.source.parsing import Function, ancestors, enclosing_function

Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
Loop = ast.For | ast.AsyncFor | ast.While
Compound = (
    Loop | ast.If | ast.With | ast.AsyncWith | ast.Try | ast.TryStar | ast.Match | Function | ast.ClassDef
)
# Attributes of a tensor that are views of it, and methods that return one: what stands before the dot is the
# tensor to clone.
VIEW_ATTRIBUTES = frozenset({"data", "T", "mT", "H", "mH", "real", "imag"})
_VIEW_METHODS = frozenset(
    """
    view view_as reshape flatten unflatten t transpose permute movedim swapaxes swapdims squeeze
    unsqueeze expand expand_as narrow select diagonal unfold chunk split unbind as_strided detach
    index_select ravel mH adjoint
    """.split()
)


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a call: `name` is "" for one by position, `star` whether it stands for several (`*xs`,
    `**options`)."""

    node: ast.expr | ast.keyword
    value: ast.expr
    name: str = ""
    star: bool = False


def arguments(call: ast.Call) -> list[Argument]:
    """The arguments of a call in the order of the text."""
    found = [
        Argument(node, node.value, star=True) if isinstance(node, ast.Starred) else Argument(node, node)
        for node in call.args
    ]
    found += [Argument(node, node.value, node.arg or "", star=node.arg is None) for node in call.keywords]
    return sorted(found, key=lambda argument: (argument.node.lineno, argument.node.col_offset))


def keyword(call: ast.Call, name: str) -> Argument | None:
    """The argument that is given by that name."""
    return next((argument for argument in arguments(call) if argument.name == name), None)


def by_position(call: ast.Call, index: int) -> Argument | None:
    """The argument in that place; None where one up to it is given by name or stands for several."""
    given = arguments(call)[: index + 1]
    is_plain = all(not argument.name and not argument.star for argument in given)
    return given[index] if index < len(given) and is_plain else None


def place(page: Sheet, expression: ast.expr) -> str | None:
    """The expression's text if it can be assigned to and may be evaluated twice: `y`, `self.h`, `state["h"]`,
    `hs[i - 1]`.

    None for calls and slices, for views of a tensor (`y.T`), and for what spreads over several lines.
    """
    text = page.source(expression)
    if "\n" in text or "\r" in text or not _is_place(expression):
        return None
    if isinstance(expression, ast.Attribute) and expression.attr in VIEW_ATTRIBUTES:
        return None
    return text


def _is_place(expression: ast.expr) -> bool:
    if isinstance(expression, ast.Name):
        return True
    if isinstance(expression, ast.Attribute):
        return _is_place(expression.value)
    return (
        isinstance(expression, ast.Subscript) and _is_plain(expression.slice) and _is_place(expression.value)
    )


def _is_plain(expression: ast.expr) -> bool:
    """An index that has one value however often it is read."""
    if isinstance(expression, ast.Constant):
        return expression.value is None or isinstance(expression.value, int | str)
    if isinstance(expression, ast.UnaryOp):
        return _is_plain(expression.operand)
    if isinstance(expression, ast.BinOp):
        return _is_plain(expression.left) and _is_plain(expression.right)
    return isinstance(expression, ast.Name) or (
        isinstance(expression, ast.Attribute) and _is_place(expression)
    )


def bases(page: Sheet, expression: ast.expr) -> tuple[str, ...]:
    """The places whose tensor the expression may be a view of, the whole before its parts: of
    `xs[0].view(-1)[i]` `xs`, `xs[0]`."""
    found: list[str] = []
    for inner, step in _links(expression):
        text = place(page, inner)
        # `m.bias`: what has an attribute that is no view is an object, not a tensor.
        if text is not None and step != "attribute" and text not in ("self", "cls"):
            found.append(text)
    return tuple(dict.fromkeys(reversed(found)))


def _links(expression: ast.expr) -> Iterator[tuple[ast.expr, str]]:
    """The expression and all it is a part or a view of, outermost first, each with what is done with it:
    item, view or attribute."""
    step = "view"
    while True:
        yield expression, step
        if isinstance(expression, ast.Subscript):
            expression, step = expression.value, "item"
        elif isinstance(expression, ast.Attribute):
            step = "view" if expression.attr in VIEW_ATTRIBUTES else "attribute"
            expression = expression.value
        elif isinstance(expression, ast.Call) and isinstance(expression.func, ast.Attribute):
            method = expression.func.attr
            if method not in _VIEW_METHODS and not is_inplace_name(method):
                return
            expression, step = expression.func.value, "view"
        else:
            return


def is_inplace_name(name: str) -> bool:
    """`mul_` is, `__getitem__` and `_` are not."""
    return name.endswith("_") and not name.endswith("__") and len(name) > 1


def statement_of(page: Sheet, node: ast.AST) -> ast.stmt | None:
    """The innermost statement around a node: a simple one, or the compound one whose header holds it."""
    return next((item for item in page.outwards(node) if isinstance(item, ast.stmt)), None)


def block_of(page: Sheet, statement: ast.stmt) -> list[ast.stmt]:
    """The statements that the statement is one of, itself included."""
    fields = ast.iter_fields(page.parsed.parents[statement])
    return next(block for _, block in fields if isinstance(block, list) and statement in block)


def line_of(page: Sheet, statement: ast.stmt) -> list[ast.stmt]:
    """The statements of its block that share a line with a statement, itself included: both of `a = 1; b =
    2`."""
    block = block_of(page, statement)
    first = last = block.index(statement)
    while first and block[first - 1].end_lineno == block[first].lineno:
        first -= 1
    while last + 1 < len(block) and block[last].end_lineno == block[last + 1].lineno:
        last += 1
    return block[first : last + 1]


def insert_before(page: Sheet, node: ast.AST, text: str) -> Edit | None:
    """The edit that puts a statement on a line of its own before the one around `node`; None where none can
    stand there."""
    statement = statement_of(page, node)
    # A `while` reads its header again, and what stands in the header of a `def` or a `class` belongs to a
    # scope of its own.
    if statement is None or isinstance(statement, ast.While | Function | ast.ClassDef):
        return None
    return _line_before(page, statement, text)


def _line_before(page: Sheet, statement: ast.stmt, text: str) -> Edit | None:
    start = page.span(statement)[0]
    if isinstance(statement, ast.If) and page.text.startswith("elif", start):
        return None
    indent = page.text[page.line_start(start) : start]
    if indent.strip(" \t\f"):  # `if c: y[0] = 1`, `a = 1; y[0] = 1`
        return None if isinstance(statement, Compound) else page.edit(start, start, f"{text}; ")
    if isinstance(statement, Function | ast.ClassDef) and statement.decorator_list:
        start = page.line_start(page.span(statement.decorator_list[0])[0]) + len(indent)
    return page.edit(start, start, f"{text}{page.newline}{indent}")


def is_conditional(page: Sheet, node: ast.AST) -> bool:
    """Whether the expression may run not at all, or more than once, within its statement."""
    for parent in ancestors(page.parsed, node):
        if isinstance(parent, ast.Lambda | Comprehension | ast.IfExp | ast.BoolOp):
            return True
        if isinstance(parent, ast.stmt):
            return isinstance(parent, ast.While)
    return True


def in_loop(page: Sheet, node: ast.AST) -> bool:
    """Whether a `for` or `while` of the same function is around the node."""
    around = (item for item in page.outwards(node) if isinstance(item, Loop | Function))
    return isinstance(next(around, None), Loop)


def read_later(page: Sheet, node: Placed, text: str) -> bool:
    """Whether the place is read after `node` in its function, or anywhere in a loop around it; True for all
    but plain names."""
    if not text.isidentifier():
        return True
    function = enclosing_function(page.parsed, node)
    start, end = page.span(node)
    first = end
    for parent in ancestors(page.parsed, node):
        if parent is function:
            break
        if isinstance(parent, Loop):
            first = page.span(parent)[0]
    reads = (page.span(name)[0] for name in _reads(page, function, text))
    return any(read >= first and not start <= read < end for read in reads)


def _reads(page: Sheet, function: Function | None, text: str) -> Iterator[ast.Name]:
    """Where a function, or the file, reads a variable; `y += 1` reads as well."""
    first, last = page.span(function) if function is not None else (0, len(page.text))
    for name in page.of_kind(ast.Name):
        if name.id != text or not first <= page.span(name)[0] < last:
            continue
        if isinstance(name.ctx, ast.Load) or isinstance(page.parent(name), ast.AugAssign):
            yield name


def declaration(page: Sheet, node: ast.AST, name: str) -> Edit | None:
    """The `nonlocal` or `global` that a function needs before it may rebind a variable of another scope; None
    if it needs none."""
    function = enclosing_function(page.parsed, node)
    if function is None:
        return None
    scope = page.scope(function)
    # A global that only a comprehension reads is in the comprehension's names alone.
    symbol = scope.lookup(name) if scope is not None and name in scope.get_identifiers() else None
    if symbol is not None and (symbol.is_local() or symbol.is_nonlocal() or symbol.is_declared_global()):
        return None
    word = "nonlocal" if symbol is not None and symbol.is_free() else "global"
    first = function.body[0]
    if len(function.body) > 1 and ast.get_docstring(function, clean=False) is not None:
        first = function.body[1]
    return _line_before(page, first, f"{word} {name}")


def may_be_shared(page: Sheet, node: Placed, text: str) -> bool:
    """Whether another name of the function may be the same tensor or a view of it and is read after `node`,
    on whatever branch.

    Also where `text` is a parameter, and somewhere in the file the function is called for its effect alone.
    """
    function = enclosing_function(page.parsed, node)
    if function is None:
        return False
    others = {
        name
        for names in _same_tensor(page, function, node)
        if text in names
        for name in names
        if name.isidentifier()
    }
    if any(other != text and read_later(page, node, other) for other in others):
        return True
    parameters = (*function.args.args, *function.args.posonlyargs, *function.args.kwonlyargs)
    return text in [parameter.arg for parameter in parameters] and _is_called_for_effect(page, function.name)


def _same_tensor(page: Sheet, function: Function, node: Placed) -> Iterator[list[str]]:
    """For each assignment of a function that may have run before `node` the places that are one tensor, or
    views of it, after it."""
    own, looped = statement_of(page, node), in_loop(page, node)
    for assignment in page.of_kind(ast.Assign):
        if assignment is own or enclosing_function(page.parsed, assignment) is not function:
            continue
        if page.span(assignment)[0] > page.span(node)[0] and not looped:
            continue  # a name bound after the write has the new value either way
        names = [page.source(target) for target in assignment.targets]
        yield names + [page.source(inner) for inner, step in _links(assignment.value) if step != "attribute"]


def _is_called_for_effect(page: Sheet, name: str) -> bool:
    for call in page.of_kind(ast.Call):
        if isinstance(page.parent(call), ast.Expr):
            last = call.func.attr if isinstance(call.func, ast.Attribute) else page.source(call.func)
            if last == name:
                return True
    return False
