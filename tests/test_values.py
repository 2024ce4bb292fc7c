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
from tests.test_cases import load, programs

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
