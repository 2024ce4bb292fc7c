"""Whether two tensors hold the same numbers: the one comparer of every proof, and the tolerances of each as
data.

An element may be off by `relative` of its own magnitude, `absolute`, and `scaled` of the largest magnitude in
its tensor: sums in another order differ by what the largest summand rounds to, not by what is left after
cancellation. Numbers that are no floats are equal or differ; NaN equals NaN. Not handled: tensors without a
shape in common; they differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch

from fxgrad.torch_api.tensors import inner_tensors


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far off an element may be. `floor`: what the largest magnitude in a tensor is taken for at
    least."""

    relative: float = 0.0
    absolute: float = 0.0
    scaled: float = 0.0
    floor: float = 0.0


@dataclass(frozen=True, slots=True)
class Tolerances:
    """A tolerance by dtype; `others` for the dtypes that are not named."""

    others: Tolerance
    by_dtype: Mapping[torch.dtype, Tolerance] = field(default_factory=dict)

    def of(self, dtype: torch.dtype) -> Tolerance:
        """The tolerance of a dtype."""
        return self.by_dtype.get(dtype, self.others)


# A graph against an eager step: the figures of torch.testing.assert_close. In float64 two graphs of the same
# operators are compared.
GRAPH = Tolerances(
    Tolerance(absolute=1e-2, scaled=1e-2),
    {
        torch.float64: Tolerance(absolute=1e-9, scaled=1e-7),
        torch.float32: Tolerance(absolute=1e-5, scaled=1.3e-6),
        torch.float16: Tolerance(absolute=1e-5, scaled=1e-3),
        torch.bfloat16: Tolerance(absolute=1e-5, scaled=1.6e-2),
        torch.complex64: Tolerance(absolute=1e-5, scaled=1.3e-6),
        torch.complex128: Tolerance(absolute=1e-7, scaled=1e-7),
    },
)
# An edited source against its oracle. Both do the same in another order: in float64 next to nothing may be
# left, in the program's own dtype two steps have added up their roundings.
EDIT_IN_DOUBLE = Tolerances(Tolerance(relative=1e-9, scaled=1e-9, floor=1e-3))
EDIT_AS_IT_IS = Tolerances(
    Tolerance(relative=1e-4, scaled=1e-4, floor=1e-3),
    # two steps of the smallest numbers that it has
    {torch.float16: Tolerance(relative=1e-4, scaled=1e-4, floor=1.2e-3)},
)


def compare_tensors(
    what: str, want: torch.Tensor | None, got: torch.Tensor | None, allowed: Tolerances, apart: dict[str, str]
) -> float:
    """The largest absolute difference. What is out of tolerance is noted in `apart`: in which way, by `what`
    or the name of a part of it."""
    if want is None or got is None:
        if want is not got:
            apart[what] = "there is one" if got is not None else "there is none"
        return 0.0
    if want.is_meta and got.is_meta:
        return 0.0
    with torch.no_grad():
        parts = list(_parts(what, want, got))
        if parts:
            return max(compare_tensors(name, one, other, allowed, apart) for name, one, other in parts)
        largest, how = _compared(want, got, allowed)
    if how:
        apart[what] = how
    return largest


def _parts(
    what: str, want: torch.Tensor, got: torch.Tensor
) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """The tensors that two others are made of, by name; none of plain ones, and where the two are made in
    different ways."""
    # two such are never of one shape: each has a ragged size of its own
    if want.layout is torch.jagged and got.layout is torch.jagged:
        yield f"the rows of {what}", want.offsets(), got.offsets()  # type: ignore[attr-defined]
        yield what, want.values(), got.values()
        return
    mine, theirs = inner_tensors(want), inner_tensors(got)
    if mine.keys() == theirs.keys():
        for name, part in mine.items():
            yield f"{name} of {what}", part, theirs[name]


def _compared(want: torch.Tensor, got: torch.Tensor, allowed: Tolerances) -> tuple[float, str]:
    """The largest absolute difference, and in which way the two are apart; "" where they are not."""
    if want.shape != got.shape or want.dtype != got.dtype or want.layout != got.layout:
        return float("inf"), f"is a {_kind(got)}, not a {_kind(want)}"
    if want.numel() == 0:
        return 0.0, ""
    if want.layout is not torch.strided:
        want, got = want.to_dense(), got.to_dense()
    if torch.equal(want, got):  # the usual case, in one kernel
        return 0.0, ""
    same = want == got
    if not (want.is_floating_point() or want.is_complex()):
        differing = int((~same).sum())
        return float(differing > 0), f"differs in {differing} of {same.numel()} elements" if differing else ""
    same |= want.isnan() & got.isnan()
    tolerance = allowed.of(want.dtype)
    magnitude, gap = want.abs(), (want - got).abs()
    largest = float(torch.where(same, 0.0, gap).max())
    over = float(torch.where(same, 0.0, gap - tolerance.relative * magnitude).max())
    scale = float(torch.where(want.isfinite(), magnitude, 0).max())
    # not where a NaN is left
    within = over <= tolerance.absolute + tolerance.scaled * max(scale, tolerance.floor)
    return largest, "" if within else f"differs by {largest:.3g}"


def _kind(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} tensor of shape {tuple(tensor.shape)}"
