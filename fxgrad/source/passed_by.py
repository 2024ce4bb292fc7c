"""Which construct kept an expression from running: the branch that went the other way, the loop that never
ran, the `return` before it.

From the text of a function and how often each span of it ran. On the way from the function to the expression
the outermost part that ran less often than it might have is found; what stands around it decided. Nothing is
evaluated: where the counts do not show which way it went, there is no answer.

Not handled: parts that Python makes no instructions of (constants, `if False:`), and what an exception passed
by outside a `try`.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fxgrad.records import Span
from fxgrad.source.parsing import Function, Located, Source, ancestors

_LONGEST = 60  # characters of a condition that are quoted
_COMPREHENSIONS = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
_EXITS = ast.Return | ast.Raise | ast.Continue | ast.Break
_SCOPES = Function | ast.Lambda | ast.ClassDef


@dataclass(frozen=True, slots=True)
class Passed:
    """`node` decided; `how` says where the expression stands to it and which way it went, `{}` in place of
    its line."""

    node: Located
    how: str


class Counts:
    """How often the parts of one file's text ran."""

    def __init__(self, spans: Mapping[Span, int]) -> None:
        self.spans = spans

    def times(self, node: ast.AST) -> int | None:
        """How often the evaluation of the node began; None where it has no instructions of its own."""
        first = _span(_first(node))
        exact = self.spans.get(first) if first is not None else None
        return exact if exact is not None else self._earliest(node)

    def _earliest(self, node: ast.AST) -> int | None:
        around = _span(node)
        if around is None:
            return None
        inside = [span for span in self.spans if around[:2] <= span[:2] and span[2:] <= around[2:]]
        if not inside and isinstance(node, ast.Name):
            # From Python 3.13 on one instruction loads two names and stands at the first: what uses both is
            # next.
            uses = [span for span in self.spans if span[:2] <= around[:2] and around[2:] <= span[2:]]
            inside = [max(uses, key=lambda span: (span[:2], [-end for end in span[2:]]))] if uses else []
        first = min((span[:2] for span in inside), default=None)
        return max((self.spans[span] for span in inside if span[:2] == first), default=None)


def passed_by(
    source: Source, node: ast.AST, counts: Counts, least: int = 1, within: ast.AST | None = None
) -> Passed | None:
    """What kept `node` from running `least` times, in its function or inside the loop `within`; None where
    that is not known."""
    way: list[ast.AST] = [node]
    for parent in ancestors(source, node):
        if parent is within:
            way.append(parent)
            break
        way.append(parent)
        if (
            isinstance(parent, Function)
            and within is None
            and not any(isinstance(p, Function) for p in ancestors(source, parent))
        ):
            break
        if isinstance(parent, ast.ClassDef | ast.Module):
            return None
    way.reverse()
    for parent, child in zip(way, way[1:], strict=False):
        times = counts.times(child)
        if times is None or times >= least:
            continue
        if least > 1 and counts.times(node) != times:
            # further in some turns end as well: which of them is the one in question is not known
            return None
        block = _block(parent, child)
        if block is not None:
            return _left_before(source, block, child, counts, least) or _not_entered(
                source, parent, child, block, counts, least
            )
        return _within_expression(source, parent, child, counts, least)
    return None


def left_by(source: Source, loop: ast.For | ast.AsyncFor, counts: Counts) -> Passed | None:
    """The `break` or `return` by which a loop ended early."""
    for statement in loop.body:
        for found in _exits(statement):
            taken = counts.times(found)
            if isinstance(found, ast.Break | ast.Return) and taken:
                how = f"left by `{quoted(source, found)}`"
                test = (
                    next((p for p in ancestors(source, found) if isinstance(p, ast.If)), None)
                    if found is not statement
                    else None
                )
                return (
                    Passed(test, f"{how}, under `{_head(source, test)}`{{}}")
                    if test is not None
                    else Passed(found, f"{how}{{}}")
                )
    return None


def deciding_tests(node: ast.AST) -> list[ast.expr]:
    """The expressions by which such a construct went its way; none where its kind has no test."""
    match node:
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            return [test]
        case ast.BoolOp():
            return [node]
        case ast.For(iter=of) | ast.AsyncFor(iter=of):
            return [of]
        case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
            return [part for generator in node.generators for part in (*generator.ifs, generator.iter)]
    return []


def led_to(source: Source, node: ast.AST) -> Passed | None:
    """The branch that a statement which ran stands in, inside its function."""
    child = node
    for parent in ancestors(source, node):
        if isinstance(parent, Function):
            return None
        if isinstance(parent, ast.If) and child is not parent.test:
            where, went = ("under", "true") if child in parent.body else ("in the `else` of", "false")
            return Passed(parent, f"{where} `{_head(source, parent)}`{{}}, which was {went}")
        child = parent
    return None


def quoted(source: Source, node: ast.AST) -> str:
    """The text of a node on one line, shortened."""
    text = " ".join((ast.get_source_segment("\n".join(source.lines), node) or ast.unparse(node)).split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _block(parent: ast.AST, child: ast.AST) -> Sequence[ast.stmt] | None:
    """The list of statements of `parent` that `child` is in."""
    for field in ("body", "orelse", "finalbody"):
        block = getattr(parent, field, None)
        if isinstance(block, list) and child in block:
            return block
    return None


def _left_before(
    source: Source, block: Sequence[ast.stmt], child: ast.AST, counts: Counts, least: int
) -> Passed | None:
    """A statement above in the same block by which the function or the loop was left."""
    index = next(i for i, statement in enumerate(block) if statement is child)
    for above in reversed(block[:index]):
        times = counts.times(above)
        if times is None or times < least:
            continue
        after = counts.times(block[block.index(above) + 1]) or 0
        for found in _exits(above):
            taken = counts.times(found)
            if taken is None:  # a jump on the line of its own `if` is part of that
                taken = times - after if source.parents.get(found) is above else 0
            if taken:
                return _after(source, found, above, counts, taken)
        return None
    return None


def _after(source: Source, found: ast.stmt, above: ast.stmt, counts: Counts, taken: int) -> Passed:
    text = f"`{quoted(source, found)}`"
    child: ast.AST = found
    for parent in () if found is above else ancestors(source, found):
        if isinstance(parent, ast.If):
            times = counts.times(parent.test) or 0
            inner = counts.times(child)
            went = _often(
                "true" if child in parent.body else "false",
                times - (taken if inner is None else inner),
                times,
            )
            return Passed(parent, f"after {text}, under `{_head(source, parent)}`{{}}, which was {went}")
        if parent is above:
            break
        child = parent
    return Passed(found, f"after {text}{{}}")


def _exits(statement: ast.stmt) -> list[ast.stmt]:
    """The statements in it by which the function, or the loop around it, is left."""
    if isinstance(statement, _EXITS):
        return [statement]
    if isinstance(statement, _SCOPES):
        return []
    found = []
    inner_loop = isinstance(statement, ast.For | ast.AsyncFor | ast.While)
    for child in ast.iter_child_nodes(statement):
        parts = (
            [child]
            if isinstance(child, ast.stmt)
            else list(getattr(child, "body", []))
            if isinstance(child, ast.ExceptHandler | ast.match_case)
            else []
        )
        for part in parts:
            found += [
                exit_
                for exit_ in _exits(part)
                if not (inner_loop and isinstance(exit_, ast.Continue | ast.Break))
            ]
    return found


def _not_entered(
    source: Source, parent: ast.AST, child: ast.AST, block: Sequence[ast.stmt], counts: Counts, least: int
) -> Passed | None:
    """The statement whose block this is did not go into it."""
    first = next((statement for statement in block if counts.times(statement) is not None), None)
    if first is None or (counts.times(first) or 0) >= least:
        return None
    match parent:
        case ast.If():
            return _past_if(source, parent, child, block, counts)
        case ast.While(test=test, body=body) if child in body and counts.times(test):
            return Passed(parent, f"in the loop `{_head(source, parent)}`{{}}, which was false")
        case ast.For(body=body) | ast.AsyncFor(body=body) if child in body:
            return Passed(
                parent, f"in the loop `{_head(source, parent)}`{{}}, which had nothing to go through"
            )
        case ast.For() | ast.AsyncFor() | ast.While():
            return Passed(
                parent, f"in the `else` of the loop `{_head(source, parent)}`{{}}, which was left by `break`"
            )
        case ast.Try(body=body) if child not in body:
            return None
        case ast.ExceptHandler():
            return Passed(parent, f"under `{_head(source, parent)}`{{}}, and nothing of the kind was raised")
        case ast.match_case():
            return Passed(parent.pattern, f"under `{_head(source, parent)}`{{}}, which did not match")
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            return Passed(parent, f"in `{parent.name}`{{}}, which was not called")
    return None


def _past_if(
    source: Source, branch: ast.If, child: ast.AST, block: Sequence[ast.stmt], counts: Counts
) -> Passed | None:
    """The test sent it the other way."""
    inside = child in branch.body
    others = map(counts.times, branch.orelse if inside else branch.body)
    if counts.times(branch.test) is None or next((t for t in others if t is not None), None) == 0:
        return None
    went = _went(counts, branch, not inside)
    if inside:
        where = "under"
    else:
        where = "past" if isinstance(child, ast.If) and len(block) == 1 else "in the `else` of"
    return Passed(branch, f"{where} `{_head(source, branch)}`{{}}, which was {went}")


def _within_expression(
    source: Source, parent: ast.AST, child: ast.AST, counts: Counts, least: int
) -> Passed | None:
    match parent:
        case ast.IfExp(test=test) if child is not test:
            return _past_choice(source, parent, child, counts)
        case ast.BoolOp():
            return _past_operand(source, parent, child, counts, least)
        case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
            return _past_items(source, parent, child, counts)
        case ast.Lambda():
            return Passed(parent, f"in `{quoted(source, parent)}`{{}}, which was not called")
        case ast.Match() if isinstance(child, ast.match_case):
            return Passed(child.pattern, f"under `{_head(source, child)}`{{}}, which did not match")
        case ast.Try() if isinstance(child, ast.ExceptHandler):
            return Passed(child, f"under `{_head(source, child)}`{{}}, and nothing of the kind was raised")
    return None


def _past_choice(source: Source, parent: ast.IfExp, child: ast.AST, counts: Counts) -> Passed | None:
    inside = child is parent.body
    times, taken = counts.times(parent.test), counts.times(parent.orelse if inside else parent.body)
    if not times or taken == 0:
        return None
    went = _often("false" if inside else "true", counts.times(child), times)
    return _where(source, parent, parent.test, went)


def _past_operand(
    source: Source, parent: ast.BoolOp, child: ast.AST, counts: Counts, least: int
) -> Passed | None:
    """An operand before it decided."""
    for value, following in itertools.pairwise(parent.values):
        if value is child:
            return None
        times = counts.times(following) or 0
        if times < least:
            begun = counts.times(value)
            went = _often(
                "false" if isinstance(parent.op, ast.And) else "true", counts.times(following), begun
            )
            return _where(source, parent, value, went) if begun else None
    return None


def _past_items(source: Source, parent: _COMPREHENSIONS, child: ast.AST, counts: Counts) -> Passed | None:
    """The items did not get past a test, or there were none."""
    tests = [test for generator in parent.generators for test in generator.ifs]
    if any(child is test for test in tests) or isinstance(child, ast.comprehension):
        return None
    failed = next((test for test in reversed(tests) if counts.times(test)), None)
    if failed is not None:
        return _where(source, parent, failed, _often("false", counts.times(child), counts.times(failed)))
    if isinstance(parent, ast.GeneratorExp):
        return None  # who asked it for items is not seen
    return Passed(parent, f"in `{quoted(source, parent)}`{{}}, which had nothing to go through")


def _where(source: Source, parent: ast.expr, test: ast.expr, went: str) -> Passed:
    return Passed(parent, f"in `{quoted(source, parent)}`{{}}, where `{quoted(source, test)}` was {went}")


def _went(counts: Counts, branch: ast.If, into_body: bool) -> str:
    """How often the test sent it there: `true`, or `false in its turn`."""
    times = counts.times(branch.test) or 0
    entered = next((t for statement in branch.body if (t := counts.times(statement)) is not None), 0)
    return _often("true" if into_body else "false", times - entered if into_body else entered, times)


def _often(went: str, others: int | None, times: int | None) -> str:
    """`others`: how often it went the other way: in a loop over several things, for others of them."""
    return f"{went} in its turn" if others and times and others < times else went


def _head(source: Source, node: ast.AST) -> str:
    match node:
        case ast.If(test=test):
            own = source.lines[node.lineno - 1].encode()[node.col_offset :]
            return f"{'elif' if own.startswith(b'elif') else 'if'} {quoted(source, test)}"
        case ast.While(test=test):
            return f"while {quoted(source, test)}"
        case ast.For(target=target, iter=of) | ast.AsyncFor(target=target, iter=of):
            return f"for {quoted(source, target)} in {quoted(source, of)}"
        case ast.ExceptHandler(type=kind):
            return f"except {quoted(source, kind)}" if kind is not None else "except"
        case ast.match_case(pattern=pattern, guard=guard):
            return f"case {quoted(source, pattern)}" + (
                f" if {quoted(source, guard)}" if guard is not None else ""
            )
    return quoted(source, node)


def _first(node: ast.AST | None) -> ast.AST | None:
    """The part of a node that is evaluated first: a name or a constant, mostly."""
    while node is not None:
        inner = getattr(node, _FIRST.get(type(node), ""), None)
        if isinstance(inner, list):
            inner = inner[0] if inner else None
        if isinstance(inner, ast.withitem):
            inner = inner.context_expr
        if inner is None:
            return node
        node = inner
    return node


_FIRST: Mapping[type[ast.AST], str] = {
    **dict.fromkeys((ast.If, ast.While, ast.IfExp), "test"),
    **dict.fromkeys((ast.For, ast.AsyncFor, ast.comprehension), "iter"),
    **dict.fromkeys((ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp), "generators"),
    **dict.fromkeys((ast.Attribute, ast.Subscript, ast.Starred, ast.NamedExpr, ast.Await), "value"),
    **dict.fromkeys((ast.Assign, ast.AnnAssign, ast.Expr, ast.Return), "value"),
    ast.AugAssign: "target",
    ast.Raise: "exc",
    ast.Call: "func",
    **dict.fromkeys((ast.BinOp, ast.Compare), "left"),
    ast.UnaryOp: "operand",
    ast.BoolOp: "values",
    **dict.fromkeys((ast.Tuple, ast.List, ast.Set), "elts"),
    ast.Dict: "keys",
    ast.Match: "subject",
    **dict.fromkeys((ast.With, ast.AsyncWith), "items"),
    **dict.fromkeys((ast.Try, ast.ExceptHandler, ast.match_case), "body"),
}


def _span(node: ast.AST | None) -> Span | None:
    line, column = getattr(node, "lineno", None), getattr(node, "col_offset", None)
    end_line, end_column = getattr(node, "end_lineno", None), getattr(node, "end_col_offset", None)
    if line is None or column is None or end_line is None or end_column is None:
        return None
    return line, column, end_line, end_column
