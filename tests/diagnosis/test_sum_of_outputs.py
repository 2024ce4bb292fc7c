"""Where no loss is given the sum of the outputs stands in for one: what that sum alone makes zero is told as such, and is no fault."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import fxgrad

Ending = Callable[[torch.Tensor], torch.Tensor]


class Net(nn.Module):
    def __init__(self, ending: Ending) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head, self.ending = nn.Linear(4, 4), nn.Linear(4, 2), ending

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.ending(self.head(self.body(x).relu()))


X = torch.randn(1, 4, generator=torch.Generator().manual_seed(0))
ENDINGS: dict[str, Ending] = {
    "softmax": lambda y: y.softmax(-1),
    "centred": lambda y: y - y.mean(-1, keepdim=True),
    "differences": lambda y: torch.stack([y[:, 0] - y[:, 1], y[:, 1] - y[:, 0]]),
}


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
def test_what_the_sum_makes_zero_is_a_note_that_says_so(ending: Ending) -> None:
    report = fxgrad.analyze(Net(ending), (X,))
    assert set(report.verdicts.values()) == {"zero"}  # autograd's answer for that loss
    assert report.ok
    (note,) = report.findings
    assert (note.code, note.severity) == ("FXG401", "note")
    assert "sum of the outputs" in note.message
    assert "nothing trains" not in note.message
    assert note.message in str(report)  # a step without any gradient is not passed over


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
def test_under_a_loss_of_the_users_own_it_trains(ending: Ending) -> None:
    report = fxgrad.analyze(Net(ending), (X,), loss=lambda out: out.pow(2).select(-1, 0).sum())
    assert set(report.verdicts.values()) == {"flows"}


@pytest.mark.parametrize("loss", [None, lambda out: out.sum()], ids=["default", "given"])
def test_what_is_zero_under_any_loss_stays_a_finding(loss: Callable[..., object] | None) -> None:
    report = fxgrad.analyze(Net(lambda y: y * 0), (X,), loss=loss)
    assert [finding.code for finding in report.findings] == ["FXG401"]
    assert not report.ok


def test_the_users_own_sum_is_the_users() -> None:
    report = fxgrad.analyze(Net(ENDINGS["softmax"]), (X,), loss=lambda out: out.sum())
    (finding,) = report.findings
    assert (finding.code, finding.severity) == ("FXG401", "warning")
    assert "constant sum" in finding.message


def test_of_one_line_what_another_loss_would_train_is_told_apart_from_what_none_would() -> None:
    net = Net(ENDINGS["centred"])
    with torch.no_grad():
        net.body.bias.fill_(-100.0)  # its units are off, whatever the loss
    report = fxgrad.analyze(net, (X,))
    told = {name: f for f in (*report.findings, *report.notes) if f.code == "FXG401" for name in f.parameters}
    assert "sum of the outputs" in told["head.bias"].message
    assert "sum of the outputs" not in told["body.weight"].message
    assert told["body.weight"].parameters != told["head.bias"].parameters
