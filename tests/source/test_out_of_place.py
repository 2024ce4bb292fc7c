"""In-place statements as assignments: what the advice of FXG201 and FXG203 writes."""

from __future__ import annotations

import pytest

from fxgrad.source.out_of_place import augmented, past_autograd


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("h *= a + b", "h = h * (a + b)"),
        ("self.state += x", "self.state = self.state + x"),
        ("h -= a - b", "h = h - (a - b)"),
        ("h @= w", "h = h @ w"),
        ("h[0] += 1", ""),
        ("h.mul_(2)", ""),
        ("h +=", ""),
    ],
)
def test_an_augmented_assignment(text: str, want: str) -> None:
    assert augmented(text) == want


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("h.data *= a + b", "h = h * (a + b)"),
        ("self.x.detach().sub_(a - b)", "self.x = self.x - (a - b)"),
        ("h.data.add_(f(x, y))", "h = h + f(x, y)"),
        ("h.data.add_(x, alpha=2)", ""),
        ("h.data[0] += 1", ""),
        ("h *= a", ""),  # what h is an alias of is not written here
        ("h.data.mul_(*a)", ""),
    ],
)
def test_a_write_past_autograd(text: str, want: str) -> None:
    assert past_autograd(text) == want
