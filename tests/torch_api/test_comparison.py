"""The one comparer: what is equal, and in which words two tensors differ."""

from __future__ import annotations

import pytest
import torch

from fxgrad.torch_api.comparison import EDIT_AS_IT_IS, EDIT_IN_DOUBLE, GRAPH, Tolerances, compare_tensors

NAN, INF = float("nan"), float("inf")
BIG = torch.tensor([1e6, 1.0])


def jagged(*rows: int) -> torch.Tensor:
    return torch.nested.nested_tensor([torch.ones(n, 2) for n in rows], layout=torch.jagged)


@pytest.mark.parametrize(
    ("want", "got", "allowed"),
    [
        (torch.tensor([NAN, INF, -INF]), torch.tensor([NAN, INF, -INF]), GRAPH),
        (BIG, BIG + torch.tensor([0.0, 1.0]), GRAPH),  # of what the largest summand rounds to
        (BIG, BIG + torch.tensor([120.0, 0.0]), EDIT_AS_IT_IS),  # of an element's own size and of the largest
        (torch.zeros(2, dtype=torch.float16), torch.full((2,), 1.2e-7, dtype=torch.float16), EDIT_AS_IT_IS),
        (torch.zeros(0), torch.zeros(0), GRAPH),
        (torch.empty(2, device="meta"), torch.empty(3, device="meta"), GRAPH),
        (jagged(2, 4), jagged(2, 4), GRAPH),
        (None, None, GRAPH),
    ],
)
def test_equal(want: torch.Tensor | None, got: torch.Tensor | None, allowed: Tolerances) -> None:
    apart: dict[str, str] = {}
    compare_tensors("t", want, got, allowed, apart)
    assert apart == {}


@pytest.mark.parametrize(
    ("want", "got", "allowed", "apart"),
    [
        (torch.tensor([1.0, NAN]), torch.tensor([1.0, 2.0]), GRAPH, {"t": "differs by nan"}),
        (torch.tensor([INF]), torch.tensor([1.0]), EDIT_AS_IT_IS, {"t": "differs by inf"}),
        (BIG, BIG + torch.tensor([0.0, 2.0]), GRAPH, {"t": "differs by 2"}),
        (BIG, BIG + torch.tensor([0.0, 102.0]), EDIT_AS_IT_IS, {"t": "differs by 102"}),
        (torch.tensor([1.0]).double(), torch.tensor([1.0]).double() + 3e-9, EDIT_IN_DOUBLE, {"t": "differs by 3e-09"}),
        (torch.tensor([1, 2, 3]), torch.tensor([1, 0, 0]), GRAPH, {"t": "differs in 2 of 3 elements"}),
        (torch.ones(2), torch.ones(3), GRAPH, {"t": "is a float32 tensor of shape (3,), not a float32 tensor of shape (2,)"}),
        (torch.ones(2), torch.ones(2).double(), GRAPH, {"t": "is a float64 tensor of shape (2,), not a float32 tensor of shape (2,)"}),
        (jagged(2, 4), jagged(3, 3), GRAPH, {"the rows of t": "differs in 1 of 3 elements"}),
        (torch.eye(2).to_sparse(), 2 * torch.eye(2).to_sparse(), GRAPH, {"t": "differs by 1"}),
        (None, torch.ones(2), GRAPH, {"t": "there is one"}),
        (torch.ones(2), None, GRAPH, {"t": "there is none"}),
    ],
)
def test_apart(want: torch.Tensor | None, got: torch.Tensor | None, allowed: Tolerances, apart: dict[str, str]) -> None:
    found: dict[str, str] = {}
    compare_tensors("t", want, got, allowed, found)
    assert found == apart
