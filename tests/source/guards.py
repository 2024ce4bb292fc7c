"""Guards on data, and what looks like one: an outcome of theirs raises. A module that pytest does not rewrite the asserts of."""

from __future__ import annotations

import contextlib

import torch


class Odd(Exception):
    pass


def raises(x: torch.Tensor) -> None:
    if not x.isfinite().all():
        raise ValueError(f"not finite: {x}")


def asserts(x: torch.Tensor) -> None:
    assert x.isfinite().all(), "not finite"


def asserts_not(x: torch.Tensor) -> None:
    assert not x.isnan().any()


def raises_a_kind_of_its_own(x: torch.Tensor) -> None:
    if x.isnan().any():
        raise Odd


def within_another(x: torch.Tensor) -> None:
    if x.dim() == 1 and x.isnan().any():
        raise ValueError("not a number")


def one_of_two(x: torch.Tensor) -> None:
    if x.isnan().any() or x.isinf().any():
        raise ValueError("not finite")


def in_torch(x: torch.Tensor) -> None:
    torch.distributions.Normal(x, torch.ones(3), validate_args=True)  # torch.compile switches it off for good


GUARDS = (raises, asserts, asserts_not, raises_a_kind_of_its_own, within_another, one_of_two, in_torch)


def caught(x: torch.Tensor) -> bool:
    try:
        raises(x)
    except ValueError:
        return True
    return False


def caught_where_it_is(x: torch.Tensor) -> bool:
    try:
        if x.isnan().any():
            raise ValueError("not a number")
    except ValueError:
        return True
    return False


def suppressed(x: torch.Tensor) -> bool:
    with contextlib.suppress(ValueError):
        raises(x)
        return False
    return True


class _Lazy:
    def __init__(self, x: torch.Tensor) -> None:
        self.x = x

    @property
    def mean(self) -> torch.Tensor:
        if not self.x.isfinite().all():
            raise AttributeError("none")
        return self.x.mean()

    def __getitem__(self, index: int) -> torch.Tensor:
        if index > 0 or not self.x.isfinite().all():
            raise IndexError(index)
        return self.x


def an_attribute_that_is_missing(x: torch.Tensor) -> bool:
    return not hasattr(_Lazy(x), "mean")


def an_end_of_items(x: torch.Tensor) -> bool:
    return not list(_Lazy(x))


def an_alternative(x: torch.Tensor) -> bool:
    return not x.isfinite().all()


def finally_returns(x: torch.Tensor) -> bool:
    found = True
    try:
        raises(x)
        found = False
    finally:
        return found  # noqa: B012  what swallows the error is the point


ALTERNATIVES = (
    caught,
    caught_where_it_is,
    suppressed,
    an_attribute_that_is_missing,
    an_end_of_items,
    an_alternative,
    finally_returns,
)
