"""`fxgrad.benchmark`: its rows, what it leaves alone, what it refuses. How fast anything is, no test says."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

import fxgrad
from fxgrad.fix_graph.benchmark import StorageCount
from fxgrad.records.errors import FixError, InputError

ROOT = Path(__file__).resolve().parents[2]
FORMS = ("original", "original, again", "fixed (needed)", "fixed (all)", "allow_mutation_on_saved_tensors", "functionalize (make_fx)")


class Net(nn.Module):
    """Runs as it is, or, `breaking`, overwrites what sigmoid saved. Its buffer and its random numbers change on every call."""

    def __init__(self, *, breaking: bool) -> None:
        super().__init__()
        self.lin, self.norm, self.drop, self.breaking = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), breaking

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.drop(self.norm(self.lin(x)))
        h = h.sigmoid() if self.breaking else h * 2
        h += 1
        return h


def test_a_row_for_every_form() -> None:
    model, x = Net(breaking=True), torch.randn(3, 4)
    timing = fxgrad.benchmark(model, fxgrad.fix(model, (x,)).module, (x,), runs=2)
    assert tuple(row.name for row in timing.rows) == FORMS
    assert timing.row("original").failure == "raises: modified by an inplace operation"
    assert timing.base.name == "allow_mutation_on_saved_tensors"
    for name in FORMS[2:5]:
        row = timing.row(name)
        assert (row.failure, row.step is not None, (row.memory or 0) > 0) == ("", True, True)
    assert (timing.device, timing.sizes, timing.parameters, timing.runs) == ("cpu", ("3x4:float32",), 28, 2)


def test_the_original_is_the_base_where_it_runs() -> None:
    timing = fxgrad.benchmark(Net(breaking=False), None, (torch.randn(3, 4),), runs=1)
    assert timing.base.name == "original"


def test_the_text_says_where_it_was_measured() -> None:
    timing = fxgrad.benchmark(Net(breaking=False), None, (torch.randn(3, 4),), runs=1)
    for text in (str(timing), timing.markdown()):
        assert all(name in text for name in FORMS)
        assert f"inputs 3x4:float32, 28 parameters; torch {torch.__version__}" in text
        assert "a CPU run" in text
        assert len(re.findall(r"\d\.\d{3} \(\d+\.\d{3} to \d+\.\d{3}\)", text)) >= len(FORMS)
        assert len(re.findall(r"\s\d+\.\d\d\s", text)) == len(FORMS)  # memory in MiB


def test_to_dict_is_json() -> None:
    timing = fxgrad.benchmark(Net(breaking=False), None, (torch.randn(3, 4),), runs=1)
    assert [row["name"] for row in json.loads(json.dumps(timing.to_dict()))["rows"]] == list(FORMS)


@pytest.mark.parametrize("copy", [False, True])
def test_model_gradients_and_random_state_are_as_before(copy: bool) -> None:
    model, x = Net(breaking=True), torch.randn(3, 4, requires_grad=True)
    model.lin.weight.grad = torch.ones(4, 4)
    fixed = fxgrad.fix(model, (x,), copy=copy).module
    state = {k: v.clone() for k, v in model.state_dict().items()}
    generator = torch.get_rng_state()
    fxgrad.benchmark(model, fixed, (x,), runs=2)
    assert torch.equal(torch.get_rng_state(), generator)
    assert {k: torch.equal(v, state[k]) for k, v in model.state_dict().items()} == dict.fromkeys(state, True)
    assert torch.equal(model.lin.weight.grad, torch.ones(4, 4))
    assert (model.lin.bias.grad, x.grad, model.training) == (None, None, True)
    if copy:
        assert [p.grad is None for n, p in fixed.named_parameters() if n != "lin.weight"] == [True] * 3


def test_a_program_that_fix_refuses_is_an_error() -> None:
    def refused(x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.sum() > 0 else x

    with pytest.raises(FixError, match="branch"):
        fxgrad.benchmark(refused, None, (torch.ones(2, requires_grad=True),))


def test_inputs_without_data_are_an_error() -> None:
    with pytest.raises(InputError, match="`lin.weight` has no data"):
        fxgrad.benchmark(Net(breaking=False).to("meta"), None, (torch.ones(3, 4),))
    with pytest.raises(InputError, match="`input 0` has no data"):
        fxgrad.benchmark(Net(breaking=False), None, (torch.ones(3, 4, device="meta"),))


def test_a_device_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="no CUDA device is at hand"):
        fxgrad.benchmark(Net(breaking=False), None, (torch.ones(3, 4),), device="cuda")
    with pytest.raises(InputError, match="no device `cdua`"):
        fxgrad.benchmark(Net(breaking=False), None, (torch.ones(3, 4),), device="cdua")


def test_the_result_of_fix_in_place_of_its_module_is_an_error() -> None:
    model, x = Net(breaking=False), torch.ones(3, 4)
    with pytest.raises(InputError, match="FixResult"):
        fxgrad.benchmark(model, fxgrad.fix(model, (x,)), (x,))  # type: ignore[arg-type]  # the mistake itself


def test_zero_runs_are_an_error() -> None:
    with pytest.raises(InputError, match="0 runs"):
        fxgrad.benchmark(Net(breaking=False), None, (torch.ones(3, 4),), runs=0)


def _models() -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location("fxgrad_bench_models", ROOT / "bench" / "models.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    models: dict[str, Any] = module.MODELS
    return models


MODELS = _models()


@pytest.mark.parametrize("name", MODELS)
def test_a_repair_where_needed_takes_no_more_memory(name: str) -> None:
    model, inputs, loss = MODELS[name](1)
    fixed = fxgrad.fix(model, inputs, loss=loss).module

    def peak(call: nn.Module, context: Any) -> int:
        model.zero_grad()
        with StorageCount() as count, context:
            loss(call(*inputs)).backward()
        return count.peak

    try:
        base = peak(model, contextlib.nullcontext())
    except RuntimeError:
        base = peak(model, torch.autograd.graph.allow_mutation_on_saved_tensors())
    assert peak(fixed, contextlib.nullcontext()) <= 1.02 * base


def test_storage_count_sees_what_is_alive_at_once() -> None:
    with StorageCount() as count:
        a = torch.zeros(1000)  # 4,000 bytes
        b = a + 1
        del a
        c = b.view(10, 100) * 2
        del b
    assert (count.peak, count.now) == (8000, 4000)
    del c
    assert count.now == 0


def test_benchmark_is_the_function_and_loads_nothing_before_its_use() -> None:
    code = (
        "import sys, fxgrad; assert 'fxgrad.fix_graph.benchmark' not in sys.modules; "
        "import fxgrad.fix_graph.benchmark; from fxgrad import benchmark; "
        "print(callable(fxgrad.benchmark), fxgrad.benchmark is benchmark, fxgrad.Benchmark.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "Benchmark"]
    assert not isinstance(fxgrad.benchmark, ModuleType)
