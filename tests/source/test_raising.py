"""Which truth values end the program with one of their outcomes: read off the code, and held against what runs do."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import fxgrad
from fxgrad.trace import lab
from tests.source.guards import ALTERNATIVES, GUARDS, in_torch, one_of_two, raises


class _Probe(nn.Module):
    """Calls what it is given on its weight, and trains by a second one where that says so."""

    def __init__(self, ask: Callable[[torch.Tensor], bool | None]) -> None:
        super().__init__()
        self.ask = ask
        self.used, self.other = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = (self.used * x).sum()
        return out + self.other.sum() if self.ask(x) else out


def _analysed(ask: Callable[[torch.Tensor], bool | None], monkeypatch: pytest.MonkeyPatch) -> tuple[fxgrad.Report, int]:
    runs = []
    plain = lab.run
    monkeypatch.setattr(lab, "run", lambda *given: (runs.append(given), plain(*given))[1])
    report = fxgrad.analyze(_Probe(ask), (torch.ones(3),), loss=lambda out: out)
    return report, sum(bool(experiment.forced) and experiment.backward for _, experiment in runs)


# `a or b`: that a is true jumps to what b falls into. torch 2.15 takes the truth in a function that returns it.
RUN = {one_of_two: 1, in_torch: 2 if torch.__version__ >= (2, 15) else 0}


@pytest.mark.parametrize("ask", GUARDS, ids=lambda ask: ask.__name__)
def test_an_outcome_that_raises_needs_no_run(ask: Callable[[torch.Tensor], None], monkeypatch: pytest.MonkeyPatch) -> None:
    report, forced = _analysed(ask, monkeypatch)
    assert forced <= RUN.get(ask, 0)
    assert report.paths > 1
    assert report.verdicts["other"] == "none", "what the guard keeps from nothing is used nowhere"


@pytest.mark.parametrize("ask", ALTERNATIVES, ids=lambda ask: ask.__name__)
def test_an_outcome_whose_error_is_caught_is_run(ask: Callable[[torch.Tensor], bool], monkeypatch: pytest.MonkeyPatch) -> None:
    report, forced = _analysed(ask, monkeypatch)
    assert forced
    assert report.verdicts["other"] == "branch"
    assert "FXG115" in {finding.code for finding in report.findings}


def test_a_way_to_a_wide_instruction_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past 256 names an instruction is widened by one before it, and a jump leads to that."""
    names = ", ".join(f"name{number}" for number in range(300))
    text = f"def wide(x):\n    if False:\n        ({names})\n    if x.isnan().any():\n        late()\n"
    wide = f"def wide(x):\n    known = [{names}]\n    if x.isfinite().all():\n        known.sort()\n    else:\n        raise Odd\n    return None\n"
    for source in (text, wide):
        scope: dict[str, object] = {f"name{number}": number for number in range(300)}
        scope.update(Odd=ValueError, late=lambda: None)
        exec(source, scope)
        report, forced = _analysed(scope["wide"], monkeypatch)  # type: ignore[arg-type]
        assert report.error is None
        assert forced == (source is text)


def test_what_nothing_knows_goes_the_way_that_does_not_raise() -> None:
    with torch.device("meta"):
        model, x = _Probe(raises), torch.ones(3)
    report = fxgrad.analyze(model, (x,), loss=lambda out: out)
    assert report.error is None
    assert report.verdicts["used"] == "flows"
