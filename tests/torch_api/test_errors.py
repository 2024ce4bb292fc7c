"""Each sentence of torch's that is matched stands in `torch_api/errors.py` alone, and torch still says it.

Found by `ast`: a text in another file, no docstring, that has a phrase of a kind in it. Not found: a sentence
that no kind knows.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fxgrad.torch_api import errors
from fxgrad.torch_api.errors import Kind

ROOT = Path(__file__).resolve().parents[2]
ERRORS = "fxgrad/torch_api/errors.py"
EXPLAINED = "fxgrad/torch_api/explanations/"  # our own words about each
KINDS = {name: value for name, value in vars(errors).items() if isinstance(value, Kind)}
PHRASES = tuple({phrase.lower() for kind in KINDS.values() for phrase in kind.phrases})

# (file, phrase): why it may stand there. None of them is matched with anything.
EXCEPTIONS: Mapping[tuple[str, str], str] = {
    ("fxgrad/fix_graph/export/package.py", "weights_only"): "code that an exported package runs",
    ("fxgrad/program/load/archives.py", "weights_only"): "the name of an environment variable",
    ("fxgrad/trace/recorder.py", "no autograd formula"): "our own words",
    ("passes/analyses/death/absent.py", "does not require grad"): "our own words",
    ("passes/analyses/death/no_gradient.py", "does not require grad"): "our own words",
    ("passes/rewrites/write_forms.py", "inference mode"): "our own words",
    ("passes/rules/fxg113_op_without_autograd.py", "no autograd formula"): "our own words",
    ("passes/rules/fxg202_inplace_on_leaf.py", "inference mode"): "our own words",
}


def sentences(source: str) -> Iterator[tuple[int, str]]:
    """(line, phrase) of each text in a file, no docstring, that has one of the phrases in it."""
    tree = ast.parse(source)
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield from ((node.lineno, phrase) for phrase in PHRASES if phrase in node.value.lower())


def found() -> dict[tuple[str, str], int]:
    files = [*sorted((ROOT / "fxgrad").rglob("*.py")), *sorted((ROOT / "passes").rglob("*.py"))]
    named = {file.relative_to(ROOT).as_posix(): file for file in files}
    own = {name: file for name, file in named.items() if name != ERRORS and not name.startswith(("fxgrad/passes/", EXPLAINED))}
    return {(name, phrase): line for name, file in own.items() for line, phrase in sentences(file.read_text())}


def test_no_sentence_of_torch_is_matched_elsewhere() -> None:
    assert [f"{use[0]}:{line}: {use[1]}" for use, line in found().items() if use not in EXCEPTIONS] == []


def test_the_exceptions_are_no_more_than_there_are() -> None:
    assert set(EXCEPTIONS) - set(found()) == set()


# ---------------------------------------------------------------------------- what torch says today, provoked


def _leaf() -> torch.Tensor:
    return torch.ones(2, requires_grad=True)


def _overwritten() -> None:
    y = _leaf().exp()
    y += 1
    y.sum().backward()


def _detached_saved() -> None:
    y = _leaf() * 1
    z = y * y
    y.detach_()
    z.sum().backward()


def _second_time() -> None:
    y = _leaf().exp().sum()
    y.backward()
    y.backward()


def _write(tensor: torch.Tensor) -> None:
    tensor += 1


def _view_made_under_no_grad() -> None:
    y = _leaf() * 1
    with torch.no_grad():
        view = y[:1]
    _write(view)


def _inference() -> None:
    with torch.inference_mode():
        x = torch.ones(2)
    (_leaf() * x).sum().backward()


def _function(backward: Callable[..., Any]) -> None:
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x * 2

    Twice.backward = staticmethod(backward)  # type: ignore[method-assign, assignment]
    Twice.apply(_leaf(), _leaf()).sum().backward()


def _assigned() -> None:
    layer = nn.Linear(1, 1)
    layer.weight = torch.ones(1, 1)  # type: ignore[assignment]


def _not_used() -> None:
    x = _leaf()
    torch.autograd.grad(x.sum(), _leaf())


def _detached_view() -> None:
    (_leaf() * 1).split(1)[0].detach_()


def _overlap() -> None:
    _write(torch.ones(1).expand(2))


PROVOKED: Mapping[str, Callable[[], Any]] = {
    "OVERWRITTEN": _overwritten,
    "DETACHED_SAVED": _detached_saved,
    "SECOND_TIME": _second_time,
    "NO_GRAD_FN": lambda: torch.ones(()).backward(),
    "NOT_SCALAR": lambda: (_leaf() * 1).backward(),
    "NOT_USED": _not_used,
    "WRONG_COUNT": lambda: _function(lambda ctx, g: (g, g, g)),
    "WRONG_GRADIENT": lambda: _function(lambda ctx, g: (g[:1].expand(3), None)),
    "LEAF": lambda: _write(_leaf()),
    "VIEW_OF_LEAF": lambda: _write(_leaf()[:1]),
    "SEVERAL_VIEWS": lambda: _write((_leaf() * 1).split(1)[0]),
    "NO_GRAD_VIEW": _view_made_under_no_grad,
    "MODIFIED_VIEW": lambda: _write((_leaf() * 1).split(1)[0]),
    "OVERLAP": _overlap,
    "DETACHED_VIEW": _detached_view,
    "OUT_ARGUMENT": lambda: torch.exp(_leaf(), out=torch.ones(2)),
    "INFERENCE_TENSOR": _inference,
    "NUMPY_OF_HISTORY": lambda: _leaf().numpy(),
    "NON_LEAF_OPTIMIZED": lambda: torch.optim.SGD([_leaf() * 1]),
    "NO_PARAMETERS": lambda: torch.optim.SGD([]),
    "NON_LEAF_FLAG": lambda: (_leaf() * 1).requires_grad_(False),
    "NO_FLOATS": lambda: torch.ones(2, dtype=torch.int64).requires_grad_(),
    "AS_PARAMETER": _assigned,
    "CANNOT_ASSIGN": _assigned,
    "MISFIT": lambda: torch.ones(2, 3) @ torch.ones(2, 3),
}


def _message(provoke: Callable[[], Any]) -> str:
    with pytest.raises((RuntimeError, ValueError, TypeError)) as caught:
        provoke()
    return str(caught.value)


@pytest.mark.parametrize("name", list(PROVOKED))
def test_torch_says_it_still(name: str) -> None:
    message = _message(PROVOKED[name])
    assert errors.says(message, KINDS[name]), message


def test_what_a_message_names() -> None:
    assert errors.assigned_parameter(_message(_assigned)) == "weight"
    assert errors.expected_version(_message(_overwritten)) == 0
    assert errors.gradient_counts(_message(PROVOKED["WRONG_COUNT"])) == ("2", "3")
    assert errors.gradient_shapes(_message(PROVOKED["WRONG_GRADIENT"])) == ("0", "[3]", "[2]")
    assert errors.without_derivative("the derivative for 'nextafter' is not implemented.") == "nextafter"
    assert errors.without_derivative("backward through mine::op but no autograd formula was registered") == "mine::op"
    assert errors.without_derivative("another error") is None


def test_the_messages_of_refused_writes_are_torchs_own() -> None:
    assert _message(_overlap).startswith(errors.OVERLAP_MESSAGE)
    x = torch.ones(3)
    assert _message(lambda: torch.add(x[:2], 1, out=x[1:])).startswith(errors.INPUT_OVERLAP_MESSAGE)


def test_kinds_are_asked_in_order_and_in_any_case() -> None:
    message = _message(PROVOKED["VIEW_OF_LEAF"])
    assert errors.kind_of(message, (errors.VIEW_OF_LEAF, errors.LEAF)) is errors.VIEW_OF_LEAF
    assert errors.kind_of(message, (errors.LEAF, errors.VIEW_OF_LEAF)) is errors.LEAF
    assert errors.says(message.lower(), errors.LEAF, any_case=True)
    assert not errors.says(message.lower(), errors.LEAF)
    assert errors.kind_of("nothing of the kind", tuple(KINDS.values())) is None


@pytest.mark.parametrize(
    ("source", "want"),
    [
        ("if 'finished reduction in the prior iteration' in text: ...", ["finished reduction in the prior iteration"]),
        ("_AUTOGRAD = ('leaf variable', 'empty parameter list')", ["empty parameter list"]),
        ("raise ValueError(f'{name}: not enough gradients')", ["not enough gradients"]),
        ('"""Torch says: not enough gradients."""', []),
        ("text = 'enough gradients'", []),
    ],
)
def test_finder(source: str, want: list[str]) -> None:
    assert [phrase for _, phrase in sentences(source)] == want
