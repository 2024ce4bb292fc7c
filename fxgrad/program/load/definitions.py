"""What a file's text says of its top-level classes and functions: which names each uses, what a function
returns, how the file calls them.

Made from the syntax tree and the namespace of the loaded module. Not handled: names bound in loops, by `exec`
or in other files.
"""

from __future__ import annotations

import ast
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import nn

from fxgrad.program.load.beside import Beside, settings_beside
from fxgrad.program.load.sequences import Sequence, sequence_read
from fxgrad.source import parsed
from fxgrad.source.parsing import last_name

Definition = ast.ClassDef | ast.FunctionDef
# `Net().to(device)` is what `Net()` is.
_SAME_MODULE = {
    "to",
    "cuda",
    "cpu",
    "eval",
    "train",
    "apply",
    "half",
    "float",
    "double",
    "bfloat16",
    "requires_grad_",
}
_SCOPES = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


@dataclass(frozen=True, slots=True)
class Way:
    """How the file itself calls a class or function, `line`: the arguments whose values can be told without
    running the call."""

    line: int
    args: tuple[Any, ...]  # UNKNOWN where it cannot be told
    kwargs: Mapping[str, Any]


class _Unknown:
    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN = _Unknown()


class Definitions:
    """The top level of one module."""

    def __init__(self, module: types.ModuleType) -> None:
        self._module = module
        self.namespace: Mapping[str, object] = vars(module)
        self.tree = (parsed(module.__file__) if module.__file__ else None) or ast.Module([], [])
        self._own: dict[str, Definition] = {
            node.name: node for node in self.tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)
        }
        self._beside: dict[str, Beside] = {}

    @cached_property
    def lines(self) -> Mapping[str, int]:
        """The line that binds each name by assignment, `class` or `def`; of a definition the last one."""
        found = {name: node.lineno for name, node in self._own.items()}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.setdefault(node.id, node.lineno)
        return found

    def reached(self, name: str) -> set[str]:
        """The definitions that `name` uses, and those that they use. Its own result is not among them where
        `name` is a function."""
        found: set[str] = set()
        pending = [name]
        while pending:
            for used in self._uses(pending.pop()):
                if used not in found:
                    found.add(used)
                    pending.append(used)
        return found - {name}

    def _uses(self, name: str) -> set[str]:
        node = self._own.get(name)
        if node is None:
            return set()
        names = {
            part.id
            for part in ast.walk(node)
            if isinstance(part, ast.Name) and part.id in self._own and part.id != name
        }
        return names | (self._handed_to.get(name, set()) if isinstance(node, ast.ClassDef) else set())

    @cached_property
    def _handed_to(self) -> Mapping[str, set[str]]:
        """For each definition those that make an argument of a call of it: `Seq2Seq(Encoder(8),
        Decoder(8))`."""
        found: dict[str, set[str]] = {}
        for scope, call in self._calls():
            assigned = _assigned(scope)
            for value in (*call.args, *(word.value for word in call.keywords)):
                value = assigned.get(value.id, value) if isinstance(value, ast.Name) else value
                names = {
                    part.id for part in ast.walk(value) if isinstance(part, ast.Name) and part.id in self._own
                }
                found.setdefault(_name(call.func), set()).update(names)
        return found

    def gives(self, name: str) -> str | None:
        """What a function's `return` builds: a class of modules or another such function, by its dotted name.
        None: nothing of the kind."""
        return self._gives(name, frozenset())

    def _gives(self, name: str, asked: frozenset[str]) -> str | None:
        node = self._own.get(name)
        if not isinstance(node, ast.FunctionDef) or name in asked:
            return None
        assigned = _assigned(node)
        for part in _inside(node):
            value = _resolved(part.value, assigned) if isinstance(part, ast.Return) else None
            while (
                isinstance(value, ast.Call)
                and isinstance(value.func, ast.Attribute)
                and value.func.attr in _SAME_MODULE
            ):
                value = _resolved(value.func.value, assigned)
            if not isinstance(value, ast.Call):
                continue
            called = _name(value.func)
            made = self.value(called)
            if isinstance(made, type) and issubclass(made, nn.Module):
                return called
            inner = self._gives(called, asked | {name})
            if inner is not None:
                return inner
        return None

    def value(self, dotted: str) -> Any:
        """What a dotted name stands for in the module; None where it stands for nothing."""
        found: Any = self._module
        for part in dotted.split("."):
            found = getattr(found, part, None)
        return found

    def ways(self, name: str) -> Iterator[Way]:
        """How the file calls `name`, outside of all class bodies; a call that hands something on (`*args`) is
        none."""
        for scope, call in self._calls():
            starred = any(isinstance(arg, ast.Starred) for arg in call.args) or any(
                word.arg is None for word in call.keywords
            )
            if _name(call.func) != name or starred or getattr(scope, "name", None) == name:
                continue
            assigned = _assigned(scope)
            args = tuple(self._told(arg, assigned) for arg in call.args)
            kwargs = {str(word.arg): self._told(word.value, assigned) for word in call.keywords}
            if any(value is not UNKNOWN for value in (*args, *kwargs.values())):
                yield Way(call.lineno, args, kwargs)

    def _told(self, node: ast.expr, assigned: Mapping[str, ast.expr], depth: int = 0) -> Any:
        """A literal's value, or what a name of the module or a local name stands for."""
        if isinstance(node, ast.Name) and depth < 8:
            if node.id in assigned:
                return self._told(assigned[node.id], assigned, depth + 1)
            return self.namespace.get(node.id, UNKNOWN)
        try:
            return ast.literal_eval(node)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return UNKNOWN

    def _calls(self) -> Iterator[tuple[ast.Module | ast.FunctionDef, ast.Call]]:
        """Calls at the top level and in top-level functions, each with its scope."""
        functions = [node for node in self._own.values() if isinstance(node, ast.FunctionDef)]
        scopes: list[ast.Module | ast.FunctionDef] = [self.tree, *functions]
        for scope in scopes:
            yield from ((scope, node) for node in _inside(scope) if isinstance(node, ast.Call))

    def compared(self, class_or_function: str | None, name: str) -> tuple[str, ...]:
        """The texts that a definition (None: the file) compares a parameter, or the attribute of that name,
        with: `if mode == "sum"`."""
        node = self.tree if class_or_function is None else self._own.get(class_or_function)
        found: dict[str, None] = {}
        for part in ast.walk(node) if node else ():
            if not isinstance(part, ast.Compare):
                continue
            # Of `"key" in settings` the text is a key, none of the values of `settings`.
            held = isinstance(part.ops[-1], ast.In | ast.NotIn)
            sides = (part.left, *(part.comparators[:-1] if held else part.comparators))
            if any(last_name(side) == name for side in sides):
                inner = [text for side in (part.left, *part.comparators) for text in ast.walk(side)]
                found.update(
                    dict.fromkeys(
                        t.value for t in inner if isinstance(t, ast.Constant) and isinstance(t.value, str)
                    )
                )
        return tuple(found)

    def numbers(self, class_or_function: str | None, name: str) -> tuple[int, ...]:
        """The whole numbers that a definition (None: the file) tells apart by `==` in a parameter, or in the
        attribute of that name: `if config.kind == 2`."""
        node = self.tree if class_or_function is None else self._own.get(class_or_function)
        found: dict[int, None] = {}
        for part in ast.walk(node) if node else ():
            if not isinstance(part, ast.Compare) or not isinstance(part.ops[0], ast.Eq):
                continue
            sides = (part.left, part.comparators[0])
            if any(last_name(side) == name for side in sides):
                numbers = (side.value for side in sides if isinstance(side, ast.Constant))
                found.update(dict.fromkeys(n for n in numbers if type(n) is int))
        return tuple(found)

    def sequence(self, class_or_function: str, name: str) -> Sequence | None:
        """What a definition tells of a parameter that it reads as a sequence; None where it does not."""
        node = _made_by(self._own.get(class_or_function))
        return sequence_read(node, name) if node is not None else None

    def attributes(self, class_or_function: str | None, name: str) -> frozenset[str]:
        """The attributes that a definition (None: the file) reads of what it calls `name`."""
        node: ast.AST | None = self.tree if class_or_function is None else self._own.get(class_or_function)
        if class_or_function is not None:
            node = _made_by(node)
        return frozenset(
            part.attr
            for part in (ast.walk(node) if node else ())
            if isinstance(part, ast.Attribute)
            and isinstance(part.ctx, ast.Load)
            and isinstance(part.value, ast.Name)
            and part.value.id == name
        )

    def beside(self, name: str) -> Beside:
        """The settings in a file beside this one that have all that this one reads of `name`; none where
        there is no such file."""
        if name not in self._beside:
            file = self._module.__file__
            self._beside[name] = settings_beside(file, self.attributes(None, name)) if file else Beside()
        return self._beside[name]

    @cached_property
    def optional_values(self) -> frozenset[str]:
        """The names that the file compares with None."""
        compares = (node for node in ast.walk(self.tree) if isinstance(node, ast.Compare))
        return frozenset(
            last_name(node.left)
            for node in compares
            if any(isinstance(side, ast.Constant) and side.value is None for side in node.comparators)
        )

    @cached_property
    def tested_values(self) -> frozenset[str]:
        """The names that the file asks for their truth alone: `if config.small`, `not config.small`."""
        tests = [node.test for node in ast.walk(self.tree) if isinstance(node, ast.If | ast.IfExp)]
        found: set[str] = set()
        while tests:
            test = tests.pop()
            if isinstance(test, ast.BoolOp):
                tests += test.values
            elif isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
                tests.append(test.operand)
            elif isinstance(test, ast.Attribute | ast.Name):
                found.add(last_name(test))
        return frozenset(found)

    @cached_property
    def options(self) -> Mapping[str, object]:
        """The defaults of the command line options that the file adds to parsers, by the name of the
        attribute."""
        found: dict[str, Any] = {}
        for node in ast.walk(self.tree):
            if not isinstance(node, ast.Call):
                continue
            flag = _flag(node)
            if flag is None:
                continue
            words = {word.arg: self._told(word.value, {}) for word in node.keywords}
            name = words.get("dest") or flag.lstrip("-").replace("-", "_")
            switch = {"store_true": False, "store_false": True}.get(str(words.get("action")), UNKNOWN)
            default = words.get("default", switch)
            if default is not UNKNOWN and default is not None and isinstance(name, str):
                found[name] = default
        return found

    @cached_property
    def optional(self) -> Mapping[str, object]:
        """What the file takes where an object lacks an attribute or key: `getattr(config, "bias", True)`,
        `config.get("bias", True)`."""
        found: dict[str, Any] = {}
        for node in ast.walk(self.tree):
            if not isinstance(node, ast.Call):
                continue
            called, args = last_name(node.func), node.args
            if called in ("getattr", "hasattr"):
                args = args[1:]
            elif called != "get" or not isinstance(node.func, ast.Attribute):
                continue
            if args and isinstance(args[0], ast.Constant) and isinstance(args[0].value, str):
                default = self._told(args[1], {}) if len(args) > 1 else UNKNOWN
                found.setdefault(args[0].value, default)
        return found


def _made_by(node: ast.AST | None) -> ast.AST | None:
    """Of a class its constructor: another method's argument of that name is another."""
    if not isinstance(node, ast.ClassDef):
        return node
    made = (part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__")
    return next(made, None)


def _flag(call: ast.Call) -> str | None:
    """The long name of the option that an `add_argument` adds, else its first; None of another call."""
    if not isinstance(call.func, ast.Attribute) or call.func.attr != "add_argument":
        return None
    flags = [arg.value for arg in call.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
    return next((flag for flag in flags if flag.startswith("--")), flags[0] if flags else None)


def _inside(scope: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a scope without those of the scopes in it."""
    pending = list(ast.iter_child_nodes(scope))[::-1]
    while pending:
        node = pending.pop()
        if not isinstance(node, _SCOPES):
            yield node
            pending.extend(list(ast.iter_child_nodes(node))[::-1])


def _assigned(scope: ast.AST) -> dict[str, ast.expr]:
    """The first value that each plain name of a scope is bound to."""
    found: dict[str, ast.expr] = {}
    for node in _inside(scope):
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            found.setdefault(node.targets[0].id, node.value)
    return found


def _resolved(node: ast.expr | None, assigned: Mapping[str, ast.expr]) -> ast.expr | None:
    """The expression, of a local name what it is bound to first."""
    return assigned.get(node.id, node) if isinstance(node, ast.Name) else node


def _name(node: ast.expr) -> str:
    """`nn.Linear` of the expression; "" of anything else."""
    if isinstance(node, ast.Attribute):
        inner = _name(node.value)
        return f"{inner}.{node.attr}" if inner else ""
    return node.id if isinstance(node, ast.Name) else ""
