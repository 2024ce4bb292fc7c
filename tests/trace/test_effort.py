"""What a step costs, told from shapes, and what an analysis does with a small model whose step costs much."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import fxgrad
from fxgrad.diagnosis import gather
from fxgrad.program.program import program
from fxgrad.trace.effort import TooCostly, multiplications
from fxgrad.trace.experiment import Experiment
from fxgrad.trace.run import run


class Upscaler(nn.Module):
    """Few weights at many places."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side
        self.first = nn.Conv2d(3, 64, 3, padding=1)
        self.second = nn.Conv2d(64, 64, 3, padding=1)
        self.spare = nn.Linear(2, 2)

    def forward(self, x):
        h = F.interpolate(self.first(x), size=(self.side, self.side))
        return self.second(F.relu(h))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(8, 16, 3, padding=1), (2, 8, 32, 32)),
        (nn.Conv2d(8, 16, 3, stride=2, groups=4), (2, 8, 32, 32)),
        (nn.Conv1d(8, 4, 5), (2, 8, 100)),
        (nn.Linear(32, 8), (4, 10, 32)),
    ],
)
def test_a_layer_costs_what_torch_counts(layer, shape):
    x = torch.randn(shape)
    with FlopCounterMode(display=False) as counter:
        made = layer(x)
    got = multiplications("module", "", [x, *layer.parameters()], made)
    assert got == pytest.approx(counter.get_total_flops() / 2)


def test_functions_cost_what_torch_counts():
    x, weight, other = torch.randn(2, 8, 16, 16), torch.randn(4, 8, 3, 3), torch.randn(2, 8, 16, 5)
    with FlopCounterMode(display=False) as counter:
        made = F.conv2d(x, weight)
    assert multiplications("op", "conv2d", [x, weight], made) == counter.get_total_flops() / 2
    with FlopCounterMode(display=False) as counter:
        made = x @ other
    assert multiplications("op", "Tensor.matmul", [x, other], made) == counter.get_total_flops() / 2


def test_a_table_costs_nothing():
    table, ids = nn.Embedding(1000, 64), torch.zeros(2, 16, dtype=torch.int64)
    made = table(ids)
    assert multiplications("module", "table", [ids, table.weight], made) == made.numel()


def test_a_run_ends_where_it_costs_more_than_it_may():
    costly = program(Upscaler(256), (torch.randn(1, 3, 8, 8),), None)
    with pytest.raises(TooCostly):
        run(costly, Experiment("real", effort=1e9))
    ended = run(costly, Experiment("real", effort=1e11))
    assert ended.error is None
    assert ended.experiment == Experiment("real")


def test_a_small_model_whose_step_costs_much_is_analysed_on_fake_values():
    model, x = Upscaler(2000), torch.randn(1, 3, 8, 8)
    report = fxgrad.analyze(model, (x,))
    assert "on fake values" in str(report)
    assert report.verdicts == fxgrad.analyze(Upscaler(16), (x,)).verdicts
    assert report.verdicts["spare.weight"] == "none"


def test_one_whose_step_is_cheap_is_analysed_on_real_values():
    assert "on fake values" not in str(fxgrad.analyze(Upscaler(16), (torch.randn(1, 3, 8, 8),)))


class Catching(nn.Module):
    """Goes another way where its layers raise, whatever they raise."""

    def __init__(self):
        super().__init__()
        self.layer, self.usual, self.otherwise = nn.Conv2d(16, 16, 3, padding=1), nn.Linear(16, 1), nn.Linear(16, 1)

    def forward(self, x):
        well = True
        try:
            x = self.layer(self.layer(x))
        except:  # noqa: E722  as people write it
            well = False
        means = x.mean((2, 3))
        return self.usual(means) if well else self.otherwise(means)


def test_a_program_that_catches_everything_is_not_led_another_way(monkeypatch):
    monkeypatch.setattr(gather, "EFFORT", 1e6)
    report = fxgrad.analyze(Catching(), (torch.randn(1, 16, 100, 100),))
    assert "on fake values" in str(report)
    assert (report.verdicts["usual.weight"], report.verdicts["otherwise.weight"]) == ("flows", "none")


class Reading(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(300, 400)

    def forward(self, x):
        x = self.layer(x)
        return x * x.sum().item()


def test_what_costs_much_and_reads_a_value_is_analysed_on_real_values(monkeypatch):
    monkeypatch.setattr(gather, "EFFORT", 1e6)
    report = fxgrad.analyze(Reading(), (torch.randn(500, 300),))
    assert "on real values" in str(report)
    assert set(report.verdicts.values()) == {"flows"}
