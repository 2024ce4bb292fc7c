"""Sites: each recorded step names the very expression of the user's source, by line and columns.

A test compares the text that a site spans with the text that was meant; the whole file is the sample.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fxgrad.program.program import program
from fxgrad.records import Site
from fxgrad.source.sites import site_of
from fxgrad.trace.experiment import Experiment
from fxgrad.trace.run import run

LINES = Path(__file__).read_text(encoding="utf-8").splitlines()
X = torch.randn(2, 4)
LAYER = nn.Linear(4, 4)


def text(site: Site) -> str:
    """What a site spans, lines joined by a space."""
    assert site.file == __file__
    lines = LINES[site.line - 1 : site.end_line]
    lines[-1] = lines[-1][: site.end_column - 1]
    lines[0] = lines[0][site.column - 1 :]
    return " ".join(line.strip() for line in lines)


def spans(function: Callable[..., Any]) -> dict[str, str]:
    """For each recorded call of `function(X)`, by target: the innermost text."""
    result = run(program(function, (X,), lambda out: LAYER(out).sum()), Experiment("real", backward=False))
    assert result.error is None, result.error
    return {step.target: text(site_of(step.spots[0])) for step in result.recorder.steps if step.spots and step.phase == "forward"}


def test_calls() -> None:
    got = spans(lambda x: F.relu(x.detach()) + torch.sin(  x  ))  # fmt: skip
    assert got == {
        "Tensor.detach": "x.detach()",
        "torch.nn.functional.relu": "F.relu(x.detach())",
        "torch.sin": "torch.sin(  x  )",
        "Tensor.add": "F.relu(x.detach()) + torch.sin(  x  )",
    }


def test_unary_and_reflected_operators() -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        return -x * (2 - x) @ x.T @ x

    assert spans(forward) == {
        "Tensor.neg": "-x",
        "Tensor.__rsub__": "2 - x",
        "Tensor.mul": "-x * (2 - x)",
        "Tensor.T": "x.T",
        "Tensor.matmul": "-x * (2 - x) @ x.T @ x",
    }


def test_subscripts() -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        y = x[0, 1:].exp().clone()
        y[::2] = 0
        return y.repeat(2)[:4]

    assert spans(forward) == {
        "Tensor.__getitem__": "y.repeat(2)[:4]",
        "Tensor.exp": "x[0, 1:].exp()",
        "Tensor.clone": "x[0, 1:].exp().clone()",
        "Tensor.__setitem__": "y[::2]",
        "Tensor.repeat": "y.repeat(2)",
    }


def test_augmented_assignments() -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        x += 1
        x[0] *= 2
        return x

    got = spans(forward)
    assert (got["Tensor.add_"], got["Tensor.mul_"], got["Tensor.__setitem__"]) == ("x += 1", "x[0] *= 2", "x[0]")


def test_an_expression_over_several_lines() -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        return torch.cat(
            [x.sin(), x.cos()],
            dim=-1,
        )[:, :4]

    got = spans(forward)
    assert got["torch.cat"] == "torch.cat( [x.sin(), x.cos()], dim=-1, )"
    assert got["Tensor.sin"] == "x.sin()"


def test_columns_count_characters_not_bytes() -> None:
    def forward(größe: torch.Tensor) -> torch.Tensor:
        return ("äöü", größe.detach())[1] + größe.cos()

    got = spans(forward)
    assert (got["Tensor.detach"], got["Tensor.cos"]) == ("größe.detach()", "größe.cos()")


def test_comprehensions_and_lambdas() -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        apply = lambda t: t.tanh()  # noqa: E731
        return sum(apply(row).round() for row in [x.sin() for _ in range(2)])

    got = spans(forward)
    assert (got["Tensor.tanh"], got["Tensor.round"], got["Tensor.sin"]) == ("t.tanh()", "apply(row).round()", "x.sin()")


def test_properties() -> None:
    assert spans(lambda x: x.data.mT.mT) == {"Tensor.data": "x.data", "Tensor.mT": "x.data.mT.mT"}


def test_grad_mode_switches_by_with_and_by_decorator() -> None:
    @torch.no_grad()
    def quietly(x: torch.Tensor) -> torch.Tensor:
        return x.sin()

    def forward(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            y = x.cos()
        return quietly(y)

    result = run(program(forward, (X,), lambda out: LAYER(out).sum()), Experiment("real", backward=False))
    switches = [step for step in result.recorder.steps if step.target.endswith("_set_grad_enabled")]
    got = [text(site_of(step.spots[0])) for step in switches]
    assert (got[0], got[2:]) == ("torch.no_grad()", ["quietly(y)", "quietly(y)"])


def test_a_layer_is_placed_where_the_user_calls_it() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x)

    result = run(program(Model(), (X,), None), Experiment("real", backward=False))
    steps = [step for step in result.recorder.steps if step.kind == "module"]
    assert [(step.target, text(site_of(step.spots[0]))) for step in steps] == [
        ("Linear", "self.layer(x)"),
        ("Dropout", "self.layer(x)"),
    ]


def test_the_stack_goes_outwards() -> None:
    def inner(x: torch.Tensor) -> torch.Tensor:
        return x.sin()

    def forward(x: torch.Tensor) -> torch.Tensor:
        return inner(x).cos()

    result = run(program(forward, (X,), lambda out: LAYER(out).sum()), Experiment("real", backward=False))
    step = next(step for step in result.recorder.steps if step.target == "Tensor.sin")
    assert [text(site_of(spot)) for spot in step.spots] == ["x.sin()", "inner(x)"]


@pytest.mark.parametrize("values", ["real", "fake"])
def test_an_error_is_placed_at_the_innermost_user_line(values: str) -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        y = LAYER(x).exp()
        return F.relu(y).add_(LAYER.weight[:3, :3])

    result = run(program(forward, (X,), None), Experiment("real", backward=False))
    assert result.error is not None
    assert result.error.site is not None
    assert text(result.error.site) == "F.relu(y).add_(LAYER.weight[:3, :3])"
