"""Whether a Python number can get from the expression that gave it to a place where data of Python's is read:
from the text alone.

The text is followed from name to name, whatever the order of its statements: a number that only a variable
holds which nothing reads, that is printed or kept in a list which goes nowhere, does not get there. What the
text does not tell gets there: what decides which way the program goes, what is kept as an attribute or handed
to a function of the user's, what a function inside reads.
"""

from __future__ import annotations

import ast
import builtins
import sys
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache

from fxgrad.records import Site
from fxgrad.source.assigned import statement_at
from fxgrad.source.handed_on import expression_at
from fxgrad.source.names import aliases, dotted, path_of
from fxgrad.source.objects import origin
from fxgrad.source.parsing import Function, Source, ancestors, functions, load, nodes

_Scope = Function | ast.Lambda | ast.Module | ast.ClassDef
# Of Python's own functions those that see or change more than they are given.
_SEEING = frozenset(("eval", "exec", "globals", "locals", "vars", "setattr", "map", "filter", "__import__"))


def may_reach(left: tuple[Site, ...], entry: tuple[Site, ...]) -> bool:
    """Whether what the expression at `left` gave may be read at `entry`; both are stacks, innermost first."""
    readers = [(site, statement_at(site)) for site in entry]
    headers = [site for site, reader in readers if reader is None]
    statements = {reader for _, reader in readers if reader is not None}
    seen: ast.AST | None = None
    for site in left:
        source = load(site.file)
        node = expression_at(source, site)
        scope = scope_of(source, node) if node is not None else None
        if node is None or scope is None or isinstance(scope, ast.ClassDef):
            return True
        if scope is seen:
            continue  # a comprehension has a frame of its own, and is no scope of its own here
        seen = scope
        way = _Way(source, scope, statements)
        # what a call returns does not get into that very call
        if _is_in_header(source, scope, headers) or not way.ends(node, around=site in entry):
            return True
        if not way.returned:
            return False
    return True


def _is_in_header(source: Source, scope: _Scope, sites: Iterable[Site]) -> bool:
    """Whether one of these places, which are in no simple statement, may be in that scope."""
    for site in sites:
        node = expression_at(source, site) if site.file == source.file else None
        if site.file == source.file and (node is None or scope_of(source, node) is scope):
            return True
    return False


class _Way:
    """Where a number goes in one scope, to its end; the search ends early where it may get to a reader."""

    def __init__(self, source: Source, scope: _Scope, readers: set[ast.stmt]) -> None:
        self.source, self.scope, self.readers = source, scope, readers
        self.names: set[str] = set()
        self.returned = False
        self._parameters = _parameters(scope)

    def ends(self, node: ast.expr, *, around: bool) -> bool:
        """Whether it is sure that it gets to no reader in this scope. `around`: the expression is a call in
        which a reader runs."""
        if any(name in _SEEING for name in _called(self.source, self.scope)):
            return False
        if not self._goes_up(node, () if around else self.readers):
            return False
        followed: set[str] = set()
        while followed != self.names:
            name = next(iter(self.names - followed))
            followed.add(name)
            for load_of in self._loads(name):
                if load_of is None or not self._goes_up(load_of, self.readers):
                    return False
        return True

    def _loads(self, name: str) -> Iterator[ast.Name | None]:
        """Where the name is read; None where a function inside reads it."""
        for node in nodes(self.source, ast.Name):
            if node.id != name or not isinstance(node.ctx, ast.Load):
                continue
            around = list(_scopes(self.source, node))
            if self.scope not in around:
                continue
            inner = around[: around.index(self.scope)]
            if not inner:
                yield node
            elif not any(_binds(self.source, scope, name) for scope in inner):
                yield None

    def _goes_up(self, node: ast.expr, readers: Collection[ast.stmt]) -> bool:
        """Follow a value through the expressions around it, and the statement; False where it may get to a
        reader."""
        child: ast.AST = node
        for parent in ancestors(self.source, node):
            if isinstance(parent, ast.stmt):
                return parent not in readers and self._is_taken(parent, child)
            if isinstance(parent, ast.Lambda):
                self.returned = True
                return True
            if not self._is_passed(parent, child):
                return False
            child = parent
        return False

    def _is_passed(self, around: ast.AST, part: ast.AST) -> bool:
        """Follow it to what an expression does with a part of its own beside having its value; False as
        above."""
        match around:
            case ast.Call(func=func) if part is not func:
                return self._is_given(around, part)
            case ast.NamedExpr(target=target):
                return self._binds([target])
            case ast.comprehension(iter=of, target=target) if part is of:
                return self._binds([target])
            case ast.withitem(optional_vars=target) if target is not None:
                return self._binds([target])
            case ast.Yield() | ast.YieldFrom() | ast.match_case():
                return False
        return True

    def _is_taken(self, statement: ast.stmt, part: ast.AST) -> bool:
        """Follow it into what a statement does with a part of its own; False as above."""
        match statement:
            case ast.Expr() | ast.Assert() | ast.Raise() | ast.Delete() | ast.With() | ast.AsyncWith():
                return True
            case ast.Assign(targets=targets):
                return self._binds(targets)
            case ast.AnnAssign(target=target):
                return self._binds([target])
            case ast.AugAssign(target=target):
                return self._changes(path_of(target).root)
            case ast.If(test=test, body=body, orelse=other) if test is part:
                return all(self._is_aside(one) for one in (*body, *other))
            case ast.For(target=target, iter=of) | ast.AsyncFor(target=target, iter=of) if of is part:
                return self._binds([target])
            case ast.Return():
                self.returned = True
                return True
        return False  # it decides what runs

    def _is_aside(self, statement: ast.stmt) -> bool:
        """Whether a statement that runs or not changes variables alone; these are followed."""
        if not all(self._is_harmless(node) for node in ast.walk(statement) if isinstance(node, ast.Call)):
            return False
        match statement:
            case ast.Expr() | ast.Raise() | ast.Pass() | ast.Assert():
                return True
            case ast.Assign(targets=targets):
                return self._binds(targets)
            case ast.AugAssign(target=target):
                return self._changes(path_of(target).root)
            case ast.If(body=body, orelse=other):
                return all(self._is_aside(one) for one in (*body, *other))
        return False

    def _is_harmless(self, call: ast.Call) -> bool:
        name = dotted(self.source, call.func)
        return self._is_builtin(name) or (_is_imported(self.source, call.func) and _is_foreign(name))

    def _is_builtin(self, name: str) -> bool:
        own = (function.name for function in functions(self.source))
        return hasattr(builtins, name) and name not in _SEEING and name not in own

    def _is_given(self, call: ast.Call, argument: ast.AST) -> bool:
        """Follow it into a call that is given it: what is called on may keep it, and so may what else it is
        given; False as above."""
        name = dotted(self.source, call.func)
        if self._is_builtin(name):
            return True
        others = [path_of(other).root for other in _values(call) if other is not argument]
        if not _is_imported(self.source, call.func):
            # of a method: what has it; a function of the user's, what nobody knows, has no such thing
            if not isinstance(call.func, ast.Attribute):
                return False
            root = path_of(call.func).root
            if not root:
                return isinstance(call.func.value, ast.Constant | ast.JoinedStr)  # `"{}".format(k)`
            others.append(root)
        elif not _is_foreign(name):
            return False
        return all(self._changes(other) for other in others if other)

    def _binds(self, targets: list[ast.expr]) -> bool:
        """Follow it to what is assigned; False where that is more than a variable of this scope."""
        for target in targets:
            match target:
                case ast.Tuple(elts=parts) | ast.List(elts=parts):
                    known = self._binds(parts)
                case ast.Starred(value=value):
                    known = self._binds([value])
                case ast.Name(id=name):
                    known = _binds(self.source, self.scope, name)
                    self.names.add(name)
                case _:
                    known = self._changes(path_of(target).root)
            if not known:
                return False
        return True

    def _changes(self, name: str) -> bool:
        """Follow it to what holds it now, by every name that this may have; False where the caller, or
        another function, has it too."""
        if name in self.names or name in aliases(self.source):
            return True
        if name in self._parameters or not _binds(self.source, self.scope, name):
            return False
        self.names.add(name)
        return all(self._changes(other) for other in self._of(name))

    def _of(self, name: str) -> set[str]:
        """The variables that what is bound to this name may be, or hold."""
        found: set[str] = set()
        for node in nodes(self.source, ast.Name):
            if node.id == name and isinstance(node.ctx, ast.Store) and self._owner(node) is self.scope:
                found.update(self._bound_with(node))
        return {other for other in found if other != name and not self._is_builtin(other)}

    def _bound_with(self, name: ast.Name) -> Iterator[str]:
        """The variables that are read, or bound as well, where this one is."""
        around = ancestors(self.source, name)
        binding = next(parent for parent in around if not isinstance(parent, ast.Tuple | ast.List))
        if isinstance(binding, ast.Assign):
            yield from (target.id for target in binding.targets if isinstance(target, ast.Name))
        values = [getattr(binding, word, None) for word in ("value", "iter", "context_expr")]
        for value in values:
            for part in ast.walk(value) if isinstance(value, ast.expr) else ():
                if isinstance(part, ast.Name) and not self._is_called(part):
                    yield part.id

    def _owner(self, node: ast.AST) -> _Scope | None:
        return next(_scopes(self.source, node), None)

    def _is_called(self, name: ast.Name) -> bool:
        parent = self.source.parents.get(name)
        return isinstance(parent, ast.Call) and parent.func is name


def _scopes(source: Source, node: ast.AST) -> Iterator[_Scope]:
    return (around for around in ancestors(source, node) if isinstance(around, _Scope))


def scope_of(source: Source, node: ast.AST) -> _Scope | None:
    return next(_scopes(source, node), None)


def _parameters(scope: _Scope) -> frozenset[str]:
    if not isinstance(scope, Function | ast.Lambda):
        return frozenset()
    given = scope.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    return frozenset(one.arg for one in (*named, given.vararg, given.kwarg) if one is not None)


def _binds(source: Source, scope: _Scope, name: str) -> bool:
    """Whether the name is a variable of that scope."""
    if isinstance(scope, ast.Module):
        return True
    return name in _parameters(scope) or name in _stored(source, scope)


@lru_cache(maxsize=512)
def _stored(source: Source, scope: _Scope) -> frozenset[str]:
    """The names that a function binds for itself."""
    stored = (n for n in nodes(source, ast.Name) if isinstance(n.ctx, ast.Store))
    found = {node.id for node in stored if next(_scopes(source, node), None) is scope}
    elsewhere: list[ast.Global | ast.Nonlocal] = [*nodes(source, ast.Global), *nodes(source, ast.Nonlocal)]
    for node in elsewhere:
        if next(_scopes(source, node), None) is scope:
            found.difference_update(node.names)
    return frozenset(found)


def _called(source: Source, scope: _Scope) -> Iterator[str]:
    for call in nodes(source, ast.Call):
        if isinstance(call.func, ast.Name) and scope in _scopes(source, call):
            yield call.func.id


def _values(call: ast.Call) -> Iterator[ast.expr]:
    yield from call.args
    yield from (keyword.value for keyword in call.keywords)


def _is_imported(source: Source, function: ast.expr) -> bool:
    return path_of(function).root in aliases(source)


def _is_foreign(name: str) -> bool:
    """Whether a function of that dotted name is none of the user's own: of a library, or Python's."""
    module = sys.modules.get(name.partition(".")[0])
    file = getattr(module, "__file__", None)
    return module is not None and (file is None or origin(file) != "user")
