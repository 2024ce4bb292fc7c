"""What the text around a write allows: places that can be assigned, the statement a line can be put before, names that are read later.

Answers come from one file's tree alone, by name, and are only good enough to propose an edit: whether it is right is proved by running.
Not handled: names bound by `exec`, `global` statements in other functions, code in strings.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fxgrad.fix_source.sheet import Sheet, libcst
from fxgrad.records import Edit

if TYPE_CHECKING:
    import libcst as cst

# Attributes of a tensor that are views of it, and methods that return one: what stands before the dot is the tensor to clone.
VIEW_ATTRIBUTES = frozenset({"data", "T", "mT", "H", "mH", "real", "imag"})
_VIEW_METHODS = frozenset(
    [
        "view",
        "view_as",
        "reshape",
        "flatten",
        "unflatten",
        "t",
        "transpose",
        "permute",
        "movedim",
        "swapaxes",
        "swapdims",
        "squeeze",
        "unsqueeze",
        "expand",
        "expand_as",
        "narrow",
        "select",
        "diagonal",
        "unfold",
        "chunk",
        "split",
        "unbind",
        "as_strided",
        "detach",
        "index_select",
        "ravel",
        "mH",
        "adjoint",
    ]
)


def place(page: Sheet, expression: cst.BaseExpression) -> str | None:
    """The expression's text if it can be assigned to and may be evaluated twice: `y`, `self.h`, `state["h"]`, `hs[i - 1]`.

    None for calls and slices, for views of a tensor (`y.T`), and for what spreads over several lines.
    """
    cst = libcst()
    text = page.source(expression)
    if "\n" in text or "\r" in text or not _is_place(expression):
        return None
    if isinstance(expression, cst.Attribute) and expression.attr.value in VIEW_ATTRIBUTES:
        return None
    return text


def _is_place(expression: cst.BaseExpression) -> bool:
    cst = libcst()
    if isinstance(expression, cst.Name):
        return True
    if isinstance(expression, cst.Attribute):
        return _is_place(expression.value)
    if isinstance(expression, cst.Subscript) and len(expression.slice) == 1:
        index = expression.slice[0].slice
        return isinstance(index, cst.Index) and index.star is None and _is_plain(index.value) and _is_place(expression.value)
    return False


def _is_plain(expression: cst.BaseExpression) -> bool:
    """An index that has one value however often it is read."""
    cst = libcst()
    if isinstance(expression, cst.Name | cst.Integer | cst.SimpleString):
        return True
    if isinstance(expression, cst.UnaryOperation):
        return _is_plain(expression.expression)
    if isinstance(expression, cst.BinaryOperation):
        return _is_plain(expression.left) and _is_plain(expression.right)
    return isinstance(expression, cst.Attribute) and _is_place(expression)


def bases(page: Sheet, expression: cst.BaseExpression) -> tuple[str, ...]:
    """The places whose tensor the expression may be a view of, the whole before its parts: of `xs[0].view(-1)[i]` `xs`, `xs[0]`."""
    found: list[str] = []
    for inner, step in _links(expression):
        text = place(page, inner)
        # `m.bias`: what has an attribute that is no view is an object, not a tensor.
        if text is not None and step != "attribute" and text not in ("self", "cls"):
            found.append(text)
    return tuple(dict.fromkeys(reversed(found)))


def _links(expression: cst.BaseExpression) -> Iterator[tuple[cst.BaseExpression, str]]:
    """The expression and all it is a part or a view of, outermost first, each with what is done with it: item, view or attribute."""
    cst = libcst()
    step = "view"
    while True:
        yield expression, step
        if isinstance(expression, cst.Subscript):
            expression, step = expression.value, "item"
        elif isinstance(expression, cst.Attribute):
            step = "view" if expression.attr.value in VIEW_ATTRIBUTES else "attribute"
            expression = expression.value
        elif isinstance(expression, cst.Call) and isinstance(expression.func, cst.Attribute):
            method = expression.func.attr.value
            if method not in _VIEW_METHODS and not is_inplace_name(method):
                return
            expression, step = expression.func.value, "view"
        else:
            return


def is_inplace_name(name: str) -> bool:
    """`mul_` is, `__getitem__` and `_` are not."""
    return name.endswith("_") and not name.endswith("__") and len(name) > 1


def statement_of(page: Sheet, node: cst.CSTNode) -> cst.CSTNode | None:
    """The innermost statement around a node: a small one, or the compound one whose header holds it."""
    cst = libcst()
    return page.nearest(node, cst.BaseSmallStatement, cst.BaseCompoundStatement)


def insert_before(page: Sheet, node: cst.CSTNode, text: str) -> Edit | None:
    """The edit that puts a statement on a line of its own before the one around `node`; None where none can stand there."""
    cst = libcst()
    statement = statement_of(page, node)
    if statement is None or isinstance(statement, cst.While | cst.FunctionDef | cst.ClassDef):
        return None
    if isinstance(statement, cst.If) and isinstance(page.parents.get(statement), cst.If):  # an elif
        return None
    start = page.span(statement)[0]
    indent = page.text[page.line_start(start) : start]
    if indent.strip(" \t\f"):  # `if c: y[0] = 1`, `a = 1; y[0] = 1`
        small = isinstance(statement, cst.BaseSmallStatement)
        return page.edit(start, start, f"{text}; ") if small else None
    return page.edit(start, start, f"{text}{page.newline}{indent}")


def is_conditional(page: Sheet, node: cst.CSTNode) -> bool:
    """Whether the expression may run not at all, or more than once, within its statement."""
    cst = libcst()
    kinds = (cst.Lambda, cst.BaseComp, cst.IfExp, cst.BooleanOperation)
    for parent in page.ancestors(node):
        if isinstance(parent, kinds):
            return True
        if isinstance(parent, cst.BaseSmallStatement | cst.BaseCompoundStatement):
            return isinstance(parent, cst.While)
    return True


def in_loop(page: Sheet, node: cst.CSTNode) -> bool:
    """Whether a `for` or `while` of the same function is around the node."""
    cst = libcst()
    loop = page.nearest(node, cst.For, cst.While, cst.FunctionDef)
    return isinstance(loop, cst.For | cst.While)


def read_later(page: Sheet, node: cst.CSTNode, text: str) -> bool:
    """Whether the place is read after `node` in its function, or anywhere in a loop around it; True for all but plain names."""
    cst = libcst()
    if not text.isidentifier():
        return True
    function = page.nearest(node, cst.FunctionDef)
    end = page.span(node)[1]
    first = end
    for parent in page.ancestors(node):
        if isinstance(parent, cst.For | cst.While):
            first = page.span(parent)[0]
        if parent is function:
            break
    inside = page.span(node)
    return any(
        span[0] >= first and not inside[0] <= span[0] < inside[1] and not _is_stored(page, name)
        for name, span in _names(page, function, text)
    )


def _names(page: Sheet, function: cst.CSTNode | None, text: str) -> Iterator[tuple[cst.Name, tuple[int, int]]]:
    cst = libcst()
    limits = page.span(function) if function is not None else (0, len(page.text))
    for node in page.ranges:
        if isinstance(node, cst.Name) and node.value == text:
            span = page.span(node)
            if limits[0] <= span[0] < limits[1]:
                yield node, span


def _is_stored(page: Sheet, name: cst.Name) -> bool:
    """Whether it is bound there, or is no variable at all (`obj.y`, `f(y=1)`)."""
    cst = libcst()
    parent = page.parents.get(name)
    if isinstance(parent, cst.Attribute):
        return parent.attr is name
    if isinstance(parent, cst.Arg):
        return parent.keyword is name
    return isinstance(parent, cst.AssignTarget | cst.Param | cst.NamedExpr) and getattr(parent, "value", None) is not name


def declaration(page: Sheet, node: cst.CSTNode, name: str) -> Edit | None:
    """The `nonlocal` or `global` that a function needs before it may rebind a variable of another scope; None if it needs none."""
    cst = libcst()
    function = page.nearest(node, cst.FunctionDef)
    if function is None or binds(page, function, name):
        return None
    outer = [parent for parent in page.ancestors(function) if isinstance(parent, cst.FunctionDef)]
    word = "nonlocal" if any(binds(page, parent, name) for parent in outer) else "global"
    body = function.body.body
    first = body[0]
    if len(body) > 1 and isinstance(first, cst.SimpleStatementLine) and function.get_docstring() is not None:
        first = body[1]
    return insert_before(page, first.body[0] if isinstance(first, cst.SimpleStatementLine) else first, f"{word} {name}")


def binds(page: Sheet, function: cst.FunctionDef, name: str) -> bool:
    """Whether the function itself (not one inside it) binds the name, or declares it."""
    cst = libcst()
    for found, _ in _names(page, function, name):
        if page.nearest(page.parents[found], cst.FunctionDef, cst.Lambda) is not function:
            continue
        parent = page.parents.get(found)
        if isinstance(parent, cst.Param | cst.NameItem | cst.AugAssign | cst.AsName):
            return True
        if isinstance(parent, cst.NamedExpr | cst.AnnAssign) and parent.target is found:
            return True
        if isinstance(_target_around(page, found), cst.AssignTarget | cst.For):
            return True
    return False


def _target_around(page: Sheet, name: cst.Name) -> Any:
    """The assignment target or `for` that binds the name, through tuples; None if the name is only read."""
    cst = libcst()
    node: Any = name
    for parent in page.ancestors(name):
        if isinstance(parent, cst.AssignTarget):
            return parent
        if isinstance(parent, cst.For):
            return parent if parent.target is node else None
        if not isinstance(parent, cst.Element | cst.StarredElement | cst.Tuple | cst.List):
            return None
        node = parent
    return None


def may_be_shared(page: Sheet, node: cst.CSTNode, text: str) -> bool:
    """Whether another name of the function may be the same tensor or a view of it and is read after `node`, on whatever branch.

    Also where `text` is a parameter, and somewhere in the file the function is called for its effect alone.
    """
    cst = libcst()
    function: Any = page.nearest(node, cst.FunctionDef)
    if function is None:
        return False
    own, looped = statement_of(page, node), in_loop(page, node)
    for assignment in page.ranges:
        if not isinstance(assignment, cst.Assign) or page.nearest(assignment, cst.FunctionDef) is not function:
            continue
        if assignment is own or (page.span(assignment)[0] > page.span(node)[0] and not looped):
            continue  # a name bound after the write has the new value either way
        names = [page.source(target.target) for target in assignment.targets]
        sources = [page.source(inner) for inner, step in _links(assignment.value) if step != "attribute"]
        others = [*names, *sources] if text in names or text in sources else []
        if any(other != text and other.isidentifier() and read_later(page, node, other) for other in others):
            return True
    parameters = (*function.params.params, *function.params.posonly_params, *function.params.kwonly_params)
    return text in [parameter.name.value for parameter in parameters] and _is_called_for_effect(page, function.name.value)


def _is_called_for_effect(page: Sheet, name: str) -> bool:
    cst = libcst()
    for call in page.ranges:
        if isinstance(call, cst.Call) and isinstance(page.parents.get(call), cst.Expr):
            last = call.func.attr.value if isinstance(call.func, cst.Attribute) else page.source(call.func)
            if last == name:
                return True
    return False
