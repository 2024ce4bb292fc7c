"""What is private to torch stands in the files of `ROOM` alone, all in torch_api/, and torch has it all.

Found by `ast` in fxgrad/ and passes/: attributes of `torch`, imports, private attributes of any other object
that this tree does not define itself, `getattr` and its kind with a private name, and text that names
something private. Not found: names put together at run time, and a private name of torch that a class of this
tree has too.
"""

from __future__ import annotations

import ast
import functools
import importlib
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from fxgrad.torch_api import distributed, internals, module_internals

ROOT = Path(__file__).resolve().parents[2]
ROOM = tuple(f"fxgrad/torch_api/{name}.py" for name in ("internals", "module_internals", "functions", "distributed", "generators"))

# (file, use): why it may stand there.
EXCEPTIONS: Mapping[tuple[str, str], str] = {
    ("fxgrad/source/statements.py", "_forward_cls"): "source/ knows no torch: the Function of a backward node's class",
    ("fxgrad/source/grad_modes.py", "_set_grad_enabled"): "a word of the user's text",
    ("fxgrad/trace/observer.py", "_make_subclass"): "a call's name, as function modes are told it",
    ("fxgrad/torch_api/calls.py", "_C"): "a namespace of operators, as a target names it",
}
# Private attributes of the standard library's objects.
OF_PYTHON = frozenset({"_actions", "_data", "_fields", "_waiters"})
_ASKING = frozenset({"getattr", "hasattr", "setattr", "delattr"})
_NAMED = re.compile(r"\btorch\.(?:\w+\.)*_[a-zA-Z]\w*")


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def chain(node: ast.expr) -> list[str]:
    """`a.b.c` as names; empty for what begins with no name."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.insert(0, node.attr)
        node = node.value
    return [node.id, *names] if isinstance(node, ast.Name) else []


def docstrings(tree: ast.Module) -> set[int]:
    """The ids of the constants that stand alone as statements."""
    return {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}


@dataclass(frozen=True)
class Names:
    """`own`: private names that this tree defines; `known`: names that are torch's for certain."""

    own: frozenset[str] = frozenset()
    known: frozenset[str] = frozenset()


def private_uses(source: str, names: Names) -> Iterator[tuple[int, str]]:
    """(line, name) of each use of something private to torch."""
    tree = ast.parse(source)
    skipped = docstrings(tree) | {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((node.lineno, name) for name in _imported(node))
        elif isinstance(node, ast.Attribute):
            yield from ((node.lineno, name) for name in _read(node, id(node) in skipped, names))
        elif isinstance(node, ast.Call):
            yield from ((node.lineno, name) for name in _asked(node, names))
        elif isinstance(node, ast.Constant) and id(node) not in skipped:
            yield from ((node.lineno, name) for name in _written(node.value, names))


def _imported(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    module = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
    for name in node.names:
        parts = f"{module}{name.name}".split(".")
        if parts[0] == "torch" and any(map(is_private, parts)):
            yield ".".join(parts)


def _read(node: ast.Attribute, is_inner: bool, names: Names) -> Iterator[str]:
    """Of a chain from `torch` the whole, of any other object's attribute its name."""
    parts = chain(node)
    if parts[:1] == ["torch"]:
        if not is_inner and any(map(is_private, parts)):
            yield ".".join(parts)
    elif is_private(node.attr) and _of_another(parts, node.attr, names):
        yield node.attr


def _asked(node: ast.Call, names: Names) -> Iterator[str]:
    """`getattr` and its kind; a known name is found as text."""
    if not isinstance(node.func, ast.Name) or node.func.id not in _ASKING or len(node.args) < 2:
        return
    name = node.args[1]
    if not isinstance(name, ast.Constant) or not isinstance(name.value, str) or not is_private(name.value):
        return
    if name.value not in names.known and _of_another([*chain(node.args[0]), name.value], name.value, names):
        yield name.value


def _written(text: object, names: Names) -> Iterator[str]:
    if not isinstance(text, str):
        return
    found = _NAMED.search(text)
    if text in names.known:
        yield text
    elif found is not None:
        yield found.group()


def _of_another(parts: list[str], attribute: str, names: Names) -> bool:
    """Whether a private attribute may be torch's: not Python's, not this tree's, not one that any file may use."""
    if parts[:1] in (["self"], ["cls"]) and len(parts) == 2:
        return False
    if parts and parts[0] in sys.stdlib_module_names:
        return False
    if attribute in module_internals.ATTRIBUTES or attribute in OF_PYTHON:
        return False
    return attribute in names.known or attribute not in names.own


def defined(source: str) -> Iterator[str]:
    """The private names of functions, methods, attributes and fields that a file defines."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and chain(node)[:1] == ["self"]:
            yield node.attr
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def names_used(source: str) -> Iterator[str]:
    """The private attributes in the room's own text: of `torch`, of `torch._C`, of any object."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            yield node.attr
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _ASKING:
            asked = node.args[1] if len(node.args) > 1 else None
            if isinstance(asked, ast.Constant) and isinstance(asked.value, str) and is_private(asked.value):
                yield asked.value


def dotted(source: str) -> Iterator[str]:
    """Every chain of attributes from `torch` in a text, `_C` read as `torch._C`."""
    tree = ast.parse(source)
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        names = chain(node) if isinstance(node, ast.Attribute) and id(node) not in inner else []
        if names[:1] == ["_C"]:
            names = ["torch", *names]
        if names[:1] == ["torch"]:
            yield ".".join(names)


def files() -> dict[str, str]:
    """The tree's own sources by path; fxgrad/passes is a link to passes/."""
    found = [*sorted((ROOT / "fxgrad").rglob("*.py")), *sorted((ROOT / "passes").rglob("*.py"))]
    named = {file.relative_to(ROOT).as_posix(): file for file in found}
    return {name: file.read_text() for name, file in named.items() if not name.startswith("fxgrad/passes/")}


SOURCES = files()
OWN = frozenset(name for source in SOURCES.values() for name in defined(source) if is_private(name))
KNOWN = frozenset(name for file in ROOM for name in names_used(SOURCES[file])) - set(module_internals.ATTRIBUTES)
ELSEWHERE = {name: text for name, text in SOURCES.items() if name not in ROOM}
ALL_TRANSFORMS = (
    *module_internals.TRANSFORMS,
    *module_internals.TRANSFORMS_WITH_FUNCTIONS,
    module_internals.TAKES_DERIVATIVE,
    module_internals.UNPACKS_DERIVATIVE,
)
USES = {(name, use): line for name, text in ELSEWHERE.items() for line, use in private_uses(text, Names(OWN, KNOWN))}


def test_nothing_private_to_torch_is_used_elsewhere() -> None:
    assert [f"{use[0]}:{line}: {use[1]}" for use, line in USES.items() if use not in EXCEPTIONS] == []


def test_the_exceptions_are_no_more_than_there_are() -> None:
    assert set(EXCEPTIONS) - set(USES) == set()


@pytest.mark.parametrize("name", sorted({name for file in ROOM for name in dotted(SOURCES[file])}))
def test_torch_has_the_name(name: str) -> None:
    functools.reduce(getattr, name.split(".")[1:], torch)


@pytest.mark.parametrize("name", list(module_internals.ATTRIBUTES))
def test_torch_has_the_attribute(name: str) -> None:
    assert hasattr(nn.Linear(1, 1), name) or hasattr(nn.Parameter(torch.ones(1)), name)


@pytest.mark.parametrize(("module", "name"), ALL_TRANSFORMS)
def test_torch_has_the_transform(module: str, name: str) -> None:
    assert callable(getattr(importlib.import_module(module), name))


def test_torch_has_what_is_asked_of_objects() -> None:
    """Names that no chain from `torch` leads to: each function of the room, called once."""
    tensor = torch.ones(2, requires_grad=True)
    view = (tensor * 1)[:1]
    assert internals.version_of(tensor) == 0
    assert internals.is_view(view)
    assert internals.base_of(view) is not None
    assert internals.storage_key(view) == internals.storage_id(view.untyped_storage()) == internals.memory_key(view)
    assert internals.overlaps_itself(torch.ones(1).expand(2))
    assert distributed.local_part(tensor) is tensor
    assert len(internals.autocast_arguments(torch.autocast("cpu"))) == 4
    assert internals.schema_of(torch.ops.aten.add.Tensor).arguments
    assert internals.overload_name(torch.ops.aten.add.Tensor) == "Tensor"
    assert any(name.startswith(internals.RAW_SAVED) for name in dir(tensor.exp().grad_fn))
    assert all(hasattr(torch.compiler, flag) for flag in internals.COMPILER_FLAGS)
    assert all(asks() is not None for asks, _ in internals.FLAGS)


def test_torch_has_what_is_asked_of_modules() -> None:
    graph_module = torch.fx.symbolic_trace(nn.ReLU())
    assert module_internals.codegen_of(graph_module.graph) is not None
    assert any(graph_module.code in str(text) for text in module_internals.texts_of_graphs().values())
    assert len(module_internals.global_hooks()) == 4
    assert hasattr(*module_internals.ATTENTION_KERNELS)
    assert hasattr(nn.LSTM(1, 1), module_internals.FLAT_WEIGHTS)
    layer = nn.Linear(1, 1)
    assert module_internals.eager_module(torch.compile(layer)) is layer
    assert not module_internals.has_legacy_hooks(layer)
    layer.register_backward_hook(lambda *_: None)
    assert module_internals.has_legacy_hooks(layer)


# The finder itself: it must see what it is there for, or the tests above could not fail.


@pytest.mark.parametrize(
    ("source", "want"),
    [
        ("import torch\nx = torch._C._set_grad_enabled(True)", ["torch._C._set_grad_enabled"]),
        ("import torch\nwith torch._C.DisableTorchFunction(): ...", ["torch._C.DisableTorchFunction"]),
        ("from torch._subclasses.fake_tensor import FakeTensor", ["torch._subclasses.fake_tensor.FakeTensor"]),
        ("def f():\n    from torch.nn.modules.loss import _Loss", ["torch.nn.modules.loss._Loss"]),
        ("import torch.utils._pytree as pytree", ["torch.utils._pytree"]),
        ("v = tensor._version", ["_version"]),
        ("v = f(x).storage()._cdata", ["_cdata"]),
        ("v = self.tensor._base", ["_base"]),
        ("v = getattr(model, '_orig_mod', None)", ["_orig_mod"]),
        ("if 'torch._dynamo' in sys.modules: ...", ["torch._dynamo"]),
        ("names = ['_set_grad_enabled']", ["_set_grad_enabled"]),
    ],
)
def test_finder_sees(source: str, want: list[str]) -> None:
    assert [use for _, use in private_uses(source, Names(known=frozenset({"_set_grad_enabled"})))] == want


@pytest.mark.parametrize(
    "source",
    [
        '"""`torch._C._set_grad_enabled` in prose."""',
        "import torch\ntorch.nn.functional.relu(x).__class__",
        "from torch.nn import Module",
        "self._version = 1",
        "frame = sys._getframe(1)",
        "module._parameters.items()",
        "run.recorder._keep.append(1)",
        "text = 'a _word of ours'",
    ],
)
def test_finder_lets_pass(source: str) -> None:
    assert list(private_uses(source, Names(own=frozenset({"_keep"})))) == []
