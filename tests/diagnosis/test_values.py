"""The verdict does not depend on which values the program ran on: every case program on fake tensors against the same on real ones.

Left out: programs that need a value (fake tensors refuse them, which a test here holds), parameters whose branch only the inputs decide,
and contributions that cancel by their numbers alone (`CANCELS`), which no fake run can see.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import fxgrad
from tests.passes.test_cases import load, programs

FAKE = fxgrad.Options(values="fake")
REAL = fxgrad.Options(values="real")
# A bounded sample, and the programs that real kernels alone decide: one without an autograd formula, two that write to shared memory.
SAMPLED = ("fxg101", "fxg103", "fxg104", "fxg105", "fxg116")
KERNELS = ("guilty_library_define_and_impl", "guilty_expanded_prototype_edited", "guilty_shifted_sum_over_itself")
CHOSEN = [p for p in programs() if p.values[0].stem[:6] in SAMPLED][::7] + [p for p in programs() if p.values[1] in KERNELS]


def verdicts(path: Path, name: str, options: fxgrad.Options) -> dict[str, str]:
    torch.manual_seed(11)
    case = getattr(load(path), name)()
    wanted: dict[str, Any] = {k: case.get(k) for k in ("loss", "optimizer", "expect")}
    return dict(fxgrad.analyze(case["model"], case["inputs"], options=options, **wanted).verdicts)


@pytest.mark.parametrize(("path", "name", "first", "last"), CHOSEN)
def test_fake_and_real_values_agree(path: Path, name: str, first: int, last: int) -> None:
    grad, dtype = torch.is_grad_enabled(), torch.get_default_dtype()
    try:
        try:
            fake = verdicts(path, name, FAKE)
        except fxgrad.TraceError as error:
            assert error.site is not None, "a refusal names its line"  # noqa: PT017  a refusal is one of two good ends
            return
        real = verdicts(path, name, REAL)
    finally:
        torch.set_grad_enabled(grad)
        torch.set_default_dtype(dtype)
    differ = {
        n: (fake[n], v) for n, v in real.items() if fake[n] != v and "branch" not in (fake[n], v) and (fake[n], v) != ("flows", "zero")
    }
    assert not differ


class Experts(torch.nn.Module):
    """A matrix product per group of rows: torch's own fake kernel of it takes bfloat16 alone, its kernels take more."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.gate = torch.nn.Linear(16, 16, dtype=dtype)
        self.weight = torch.nn.Parameter(torch.ones(2, 16, 8, dtype=dtype))
        self.unused = torch.nn.Parameter(torch.ones(8, dtype=dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        ends = torch.tensor([4, 8], dtype=torch.int32, device=x.device)
        return torch._grouped_mm(self.gate(x), self.weight, offs=ends).float().square()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_products_of_groups_run_on_fake_values(dtype: torch.dtype) -> None:
    model, inputs = Experts(dtype), (torch.ones(8, 16, dtype=dtype),)
    expected = {"gate.weight": "flows", "gate.bias": "flows", "weight": "flows", "unused": "none"}
    for options in (FAKE, REAL):
        assert dict(fxgrad.analyze(model, inputs, options=options).verdicts) == expected
    meta = fxgrad.analyze(Experts(dtype).to("meta"), (torch.ones(8, 16, dtype=dtype, device="meta"),))
    assert dict(meta.verdicts) == expected


def test_a_product_of_groups_that_torch_refuses_flows_on_no_values() -> None:
    model, inputs = Experts(torch.float64), (torch.ones(8, 16, dtype=torch.float64),)
    assert set(fxgrad.analyze(model, inputs, options=REAL).verdicts.values()) == {"blocked"}
    with pytest.raises(fxgrad.TraceError, match="grouped_mm. does not run without values"):
        fxgrad.analyze(model, inputs, options=FAKE)


class Halving(torch.nn.Module):
    """Ends by its data alone: where nothing is known of it, `not` leads round again."""

    def __init__(self) -> None:
        super().__init__()
        self.a = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.a(x)
        while not (h.norm() < 1e-3):  # ends
            h = h * 0.5
        return h.sum()


def test_a_loop_that_data_ends_is_refused_on_values_that_are_none() -> None:
    line = next(n for n, text in enumerate(Path(__file__).read_text().splitlines(), 1) if text.endswith("# ends"))
    with torch.device("meta"):
        bare = Halving(), (torch.randn(3, 4),)
    for (model, inputs), options in ((bare, None), ((Halving(), (torch.randn(3, 4),)), FAKE)):
        with pytest.raises(fxgrad.TraceError, match="a loop asks again and again") as refusal:
            fxgrad.analyze(model, inputs, options=options)
        assert refusal.value.site is not None
        assert refusal.value.site.line == line
    assert fxgrad.analyze(Halving(), (torch.randn(3, 4),)).ok  # of its own accord on real values
