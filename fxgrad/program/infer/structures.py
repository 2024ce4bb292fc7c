"""Inputs that are no tensors but hold some: a tuple that forward unpacks, a dict that it reads by key.

From the text of forward: `mel, audio = inputs`, `batch["image"]`. Each part is searched for as an input of
its own, named `inputs.0` or `batch.image`. Not handled: lists of any length, objects with attributes, and
what a forward hands on whole.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import nn

from fxgrad.program.infer.candidates import is_tensors_name
from fxgrad.program.infer.spec import Group, Spec
from fxgrad.source.objects import module_of


@dataclass(frozen=True, slots=True)
class Structure:
    """What an input holds: `keys` of a dict, () for a tuple; `labels`: what the program calls the parts."""

    labels: tuple[str, ...]
    keys: tuple[str, ...] = ()

    def parts(self, name: str) -> tuple[str, ...]:
        """The names of the parts of the input `name`."""
        return tuple(f"{name}.{part}" for part in self.keys or range(len(self.labels)))

    def assembled(self, values: Iterable[object]) -> object:
        """The input of the parts' values."""
        return dict(zip(self.keys, values, strict=True)) if self.keys else tuple(values)

    def spec(self, name: str, parts: Iterable[Spec | Group]) -> Group:
        """The input as `--input` writes it."""
        return Group(name, tuple(parts), self.keys)


def structures(model: object) -> dict[str, Structure]:
    """The inputs of the model, or function, that are such, by name."""
    function = model.forward if isinstance(model, nn.Module) else model
    if module_of(type(model)).startswith("torch."):  # its layers unpack what they have made of an input
        return {}
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function))))  # type: ignore[arg-type]
    except (OSError, TypeError, SyntaxError, ValueError):  # no text, or not that of a function alone
        return {}
    defined = next((node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)), None)
    if defined is None:
        return {}
    arguments = [*defined.args.posonlyargs, *defined.args.args, *defined.args.kwonlyargs]
    found = {argument.arg: _structure(defined, argument.arg) for argument in arguments}
    return {
        name: structure
        for name, structure in found.items()
        # `row, col = edge_index` unpacks a tensor
        if structure is not None and (structure.keys or not is_tensors_name(name))
    }


def _structure(defined: ast.FunctionDef, name: str) -> Structure | None:
    """What the function takes the argument for; None: for a tensor, or for several things."""
    keys: dict[str, None] = {}
    for node in ast.walk(defined):
        if isinstance(node, ast.Call) and _asks_kind(node, name):
            return None
        if isinstance(node, ast.Assign) and _is(node.value, name):
            unpacked = _unpacked(node.targets[0])
            if unpacked and node.lineno <= _rebound(defined, name):
                return Structure(unpacked)
        if (
            isinstance(node, ast.Subscript)
            and _is(node.value, name)
            and node.lineno <= _rebound(defined, name)
        ):
            keys |= dict.fromkeys(_key_read(node))
    return Structure(tuple(keys), tuple(keys)) if keys else None


def _key_read(item: ast.Subscript) -> tuple[str, ...]:
    """The one key where an item is read by a word; () where it is set, or is found in another way."""
    key = item.slice.value if isinstance(item.slice, ast.Constant) else None
    return (key,) if isinstance(item.ctx, ast.Load) and isinstance(key, str) and key.isidentifier() else ()


def _is(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _asks_kind(call: ast.Call, name: str) -> bool:
    """`isinstance(x, tuple)`: then a tensor may do as well."""
    return _is(call.func, "isinstance") and bool(call.args) and _is(call.args[0], name)


def _unpacked(target: ast.expr) -> tuple[str, ...]:
    """The names that a value is unpacked into; () where not all are plain."""
    names = target.elts if isinstance(target, ast.Tuple) else []
    labels = [name.id for name in names if isinstance(name, ast.Name)]
    return tuple(labels) if len(labels) == len(names) else ()


def _rebound(defined: ast.FunctionDef, name: str) -> float:
    """The line from which on the name is something else."""
    lines = [
        node.lineno
        for node in ast.walk(defined)
        if isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Store)
    ]
    return min(lines, default=float("inf"))


def grouped(specs: Mapping[str, Spec | Group], held: Mapping[str, Structure]) -> dict[str, Spec | Group]:
    """The specs with the parts of each input put together."""
    whole = dict(specs)
    for name, structure in held.items():
        parts = structure.parts(name)
        if all(part in whole for part in parts):
            whole[name] = structure.spec(name, [whole.pop(part) for part in parts])
    return whole
