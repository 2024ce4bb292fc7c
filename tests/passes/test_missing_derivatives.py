"""An operation without a derivative is named at its own line, whatever torch calls the kernel that it runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest
import torch
from torch import nn

import fxgrad

OPERATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "geqrf": lambda h: torch.geqrf(h)[0],
    "heaviside": lambda h: torch.heaviside(h, h),
    "igamma": lambda h: torch.igamma(h.exp(), h.exp()),
    "unique": lambda h: torch.unique(h, return_counts=True)[0],
    "unique of rows": lambda h: torch.unique(h, dim=0),
    "unique_consecutive": lambda h: torch.unique_consecutive(h),
    "ldl_factor": lambda h: torch.linalg.ldl_factor(h)[0],
    "zeta": lambda h: torch.special.zeta(h.exp() + 1, h.exp()),
    "histogramdd": lambda h: torch.histogramdd(h, [2, 2, 2])[0],
}


class Ends(nn.Module):
    """A layer, the operation, and a cast that hands on what it is given."""

    def __init__(self, operation: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.operation = operation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = self.operation(self.layer(x))
        return made.float().sum()


@pytest.mark.parametrize("name", OPERATIONS)
def test_named_where_it_stands(name: str) -> None:
    operation, inputs = OPERATIONS[name], torch.randn(3, 3)
    with pytest.raises(RuntimeError, match="derivative for"):  # torch's own word for it
        Ends(operation)(inputs).backward()
    report = fxgrad.analyze(Ends(operation), (inputs,))
    finding = next(finding for finding in report.findings if finding.code == "FXG105")
    assert finding.site is not None
    assert finding.site.line == inspect.getsourcelines(operation)[1], report
    assert "has no derivative in torch" in finding.message


def test_second_derivative_is_named_before_a_cast_of_its_result() -> None:
    class Penalty(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q = self.layer(x)
            with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION):
                made = nn.functional.scaled_dot_product_attention(q, q, q)
            made = made.float()
            (slope,) = torch.autograd.grad(made.sum(), q, create_graph=True)
            return slope.square().sum()

    inputs = torch.randn(1, 2, 3, 4)
    with pytest.raises(RuntimeError, match="derivative for"):
        Penalty()(inputs).backward()
    report = fxgrad.analyze(Penalty(), (inputs,))
    finding = next(finding for finding in report.findings if finding.severity == "error")
    assert finding.site is not None
    assert finding.site.line == inspect.getsourcelines(Penalty.forward)[1] + 3, report
