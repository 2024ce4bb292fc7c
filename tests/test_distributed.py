"""FXG501 against real DistributedDataParallel: two processes that torchrun starts, gloo, no network; and what `fix` returns, trained there.

torchrun runs once for all tests; `distributed/worker.py` writes what happened. A program's parameters that DistributedDataParallel complains
of must be exactly those that the analysis of one process named.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed

import fxgrad

FOLDER = Path(__file__).parent / "distributed"

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(), reason="this torch has no gloo"
)


def _programs() -> Any:
    spec = importlib.util.spec_from_file_location("fxgrad_distributed_programs", FOLDER / "programs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


programs = _programs()


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What two processes saw. torchrun picks a free port by itself (`--standalone`)."""
    path = tmp_path_factory.mktemp("distributed") / "result.json"
    root = str(Path(__file__).parent.parent)
    # One thread each, and the loopback by name: a machine without a network has no other interface.
    own = {
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        # A process that aborts says where it was.
        "PYTHONFAULTHANDLER": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
    }
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(FOLDER / "worker.py"), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ, **own})
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def unused(report: fxgrad.Report) -> list[fxgrad.Finding]:
    return [f for f in [*report.findings, *report.notes] if f.code == "FXG501"]


@pytest.mark.parametrize("kind", programs.PROGRAMS, ids=lambda kind: kind.__name__)
def test_exactly_the_named_parameters_make_ddp_raise(kind: Any, real: dict[str, Any]) -> None:
    report = fxgrad.analyze(programs.build(kind), (programs.data(0),), loss=programs.loss_of)
    named = sorted(name for finding in unused(report) for name in finding.parameters)
    assert named == real[kind.__name__]["raised"]


def test_the_outcome_that_leaves_them_out_is_the_one_that_raises(real: dict[str, Any]) -> None:
    report = fxgrad.analyze(programs.build(programs.Branching), (programs.data(0),), loss=programs.loss_of)
    (finding,) = unused(report)
    assert "False leaves out" in finding.message
    assert finding.site is not None
    assert "if x.mean() > 0" in (FOLDER / "programs.py").read_text().splitlines()[finding.site.line - 1]
    assert real["Branching False"]["raised"] == sorted(finding.parameters)
    assert real["Branching True"]["raised"] == []


def test_a_watch_of_the_step_that_raised_names_them_too(real: dict[str, Any]) -> None:
    broken = {name: seen for name, seen in real.items() if "raised" in seen and seen["raised"]}
    assert len(broken) >= 5
    assert {name: seen["watched"] for name, seen in broken.items()} == {name: [["error", seen["raised"]]] for name, seen in broken.items()}


def test_a_watch_of_a_step_that_did_not_raise_names_none(real: dict[str, Any]) -> None:
    healthy = {name: seen["watched"] for name, seen in real.items() if "raised" in seen and not seen["raised"]}
    assert len(healthy) >= 5
    assert [said for said in healthy.values() if said] == []


@pytest.mark.parametrize("wrapper", ["ddp", "fsdp"])
def test_fixed_module_trains_as_in_a_single_process(wrapper: str, real: dict[str, Any]) -> None:
    model = programs.build(programs.Dying)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        programs.loss_of(model(programs.data(0))).backward()
    module = fxgrad.fix(programs.build(programs.Dying), (programs.data(0),), loss=programs.loss_of).module
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    for _ in range(2):
        optimizer.zero_grad()
        programs.loss_of(module(torch.cat([programs.data(0), programs.data(1)]))).backward()
        want = {name: parameter.grad.flatten().clone() for name, parameter in module.named_parameters() if parameter.grad is not None}
        optimizer.step()
    assert set(real[wrapper]) == set(want) == set(model.state_dict())
    for name, grad in want.items():
        torch.testing.assert_close(torch.tensor(real[wrapper][name], dtype=torch.float64), grad)
