"""`z.real = t` and `z.imag = t`: assignments of torch's own that no mode is asked about, in C."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import fxgrad


class Spectrum(nn.Module):
    def __init__(self, change: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
        self.register_buffer("kept", torch.zeros(2, 3, dtype=torch.complex64))
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        z = torch.complex(self.a(x), self.b(x))
        return self.change(z, x).abs()


class Buffered(Spectrum):
    def forward(self, x: Tensor) -> Tensor:
        self.kept.imag = self.a(x).detach()
        self.kept.real = 2.0
        return (torch.complex(self.a(x), self.b(x)) * self.kept).abs()


def overwritten(z: Tensor, x: Tensor) -> Tensor:
    w = z * z
    z.imag = z.imag * 2
    return w + z


def replaced(z: Tensor, x: Tensor) -> Tensor:
    z.imag = x
    return z


def added(z: Tensor, x: Tensor) -> Tensor:
    z.imag += 1
    z.real -= x
    return z


def real(z: Tensor, x: Tensor) -> Tensor:
    h = z.real * 2
    h.real = x.sum() + h
    return h + z


VERDICTS = {overwritten: {"blocked"}, replaced: {"flows", "zero"}, added: {"flows"}, real: {"flows"}}


@pytest.mark.parametrize("change", VERDICTS)
def test_an_assigned_part_is_a_write(change: Callable[[Tensor, Tensor], Tensor]) -> None:
    report = fxgrad.analyze(Spectrum(change), (torch.randn(2, 3),))
    assert set(report.verdicts.values()) == VERDICTS[change]
    assert {finding.code for finding in report.findings if finding.severity == "error"} <= {"FXG201", "FXG401"}


@pytest.mark.parametrize("change", VERDICTS)
def test_an_assigned_part_is_rewritten(change: Callable[[Tensor, Tensor], Tensor]) -> None:
    net, x = Spectrum(change), torch.randn(2, 3)
    for rewrite in ("needed", "all"):
        options = fxgrad.Options(rewrite=rewrite)  # type: ignore[arg-type]
        fixed = fxgrad.fix(net, (x,), options=options).module
        assert torch.equal(fixed(x), net(x))
        fixed(x).sum().backward()


@pytest.mark.parametrize("values", ["fake", "real"])
def test_a_part_of_a_buffer_is_left_as_it_was(values: str) -> None:
    net = Buffered(replaced)
    report = fxgrad.analyze(net, (torch.randn(2, 3),), options=fxgrad.Options(values=values))  # type: ignore[arg-type]
    assert set(report.verdicts.values()) == {"flows"}
    assert not net.kept.any()


def test_a_number_that_is_none_raises_as_torch_does() -> None:
    def wrong(z: Tensor, x: Tensor) -> Tensor:
        z.imag = "1"  # type: ignore[assignment]
        return z

    with pytest.raises(TypeError, match="can't assign a str"):
        wrong(torch.ones(2, dtype=torch.complex64), torch.ones(2))
    report = fxgrad.analyze(Spectrum(wrong), (torch.randn(2, 3),))
    assert set(report.verdicts.values()) == {"blocked"}


def test_a_watch_sees_the_assignment_that_overwrites() -> None:
    a, b = nn.Linear(3, 3), nn.Linear(3, 3)
    watch = fxgrad.watch(nn.ModuleList([a, b]))

    def step() -> None:
        with watch:
            x = torch.randn(2, 3)
            z = torch.complex(a(x), b(x))
            w = z * z
            z.imag = z.imag * 2
            w.abs().sum().backward()

    with pytest.raises(RuntimeError, match="modified by an inplace"):
        step()
    (finding,) = [found for found in watch.report.findings if found.code == "FXG201"]
    assert finding.site is not None
    assert "z.imag" in finding.message
    assert "z * z" in finding.message
