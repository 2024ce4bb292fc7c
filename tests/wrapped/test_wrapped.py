"""A model inside a wrapper: the same codes at the same lines as without it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch.distributed

from fxgrad.watching.script import run_script
from tests.wrapped.judge import ALL, TRAIN, Program, analyzed, judged, kept, quiet, said_by, watched

pytestmark = [
    pytest.mark.skipif(not torch.distributed.is_available() or not torch.distributed.is_gloo_available(), reason="this torch has no gloo"),
    pytest.mark.filterwarnings("ignore"),
]
EVERY = 100


@pytest.fixture(scope="module", autouse=True)
def _group_of_one() -> Iterator[None]:
    """The process group that the wrappers make is gone after: FXG501 asks whether there is one."""
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def program(code: str, name: str) -> Program:
    return next(p for p in ALL if str(p) == f"{code} {name}")


@pytest.mark.parametrize("chosen", ALL[::EVERY], ids=str)
def test_the_same_as_without_a_wrapper(chosen: Program) -> None:
    """Where torch alone, without a watch, ends the program or leaves its gradients otherwise, the report must say otherwise too: which
    programs these are changes with the sample, and the page counts them."""
    assert [outcome for outcome in judged(chosen) if outcome.how == "other"] == []


@pytest.mark.parametrize(
    ("code", "name", "wrapper"),
    [
        ("fxg101", "guilty_layer_never_called", "AveragedModel"),
        ("fxg101", "guilty_layer_never_called", "DistributedDataParallel"),
        ("fxg102", "guilty_frozen_in_forward_method", "fully_shard"),
        # frozen before the parameters were split
        ("fxg102", "quiet_batch_norm_frozen_while_the_rest_trains", "fully_shard"),
        ("fxg116", "quiet_only_the_input_needs_a_gradient", "fully_shard"),
        # whole parameters are given to `autograd.grad`, and written
        ("fxg103", "quiet_layers_stepped_by_their_own_local_loss", "fully_shard"),
        # called before the split, and ended with whole parameters in the place of their parts
        ("fxg104", "guilty_gradients_off_before_the_run", "fully_shard"),
        # copied from one another before the parameters were split
        ("fxg103", "quiet_average_updated_by_a_free_function", "fully_shard"),
        ("fxg104", "quiet_value_network_synchronised_now_and_then", "fully_shard"),
        ("fxg105", "quiet_targets_of_a_copy_in_numpy", "fully_shard"),
    ],
)
def test_a_script(code: str, name: str, wrapper: str) -> None:
    one = program(code, name)
    assert watched(one, wrapper) == watched(one, "")


@pytest.mark.parametrize(
    ("code", "name", "wrapper"),
    [
        ("fxg101", "guilty_output_the_loss_never_reads", "__getattr__"),
        ("fxg102", "quiet_expect_leaves_the_frozen_out", "DataParallel"),
    ],
)
def test_an_analysis(code: str, name: str, wrapper: str) -> None:
    one = program(code, name)
    assert analyzed(one, wrapper) == analyzed(one, "")


@pytest.mark.parametrize(
    ("code", "name", "want"),
    [
        ("fxg101", "quiet_left_out_of_optimizer_and_loss", ("FXG501", ("model.critic.weight", "model.critic.bias"))),
        ("fxg102", "guilty_frozen_in_forward_method", ("FXG102", ("model.body.weight", "model.body.bias"))),
    ],
)
def test_what_the_wrapper_raises_names_its_parameters(code: str, name: str, want: tuple[str, tuple[str, ...]]) -> None:
    """DistributedDataParallel waits for parameters that a program without it leaves alone on purpose."""
    one = program(code, name)
    with kept(), quiet():
        report, _ = run_script(TRAIN, [one.file, one.name, "DistributedDataParallel"])
    assert report is not None
    assert [(f.code, f.parameters) for f in report.findings if f.severity == "error"] == [want]


SPLIT = """
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

torch.manual_seed(0)
net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
if not dist.is_initialized():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
{split}
{body}
"""
STEPPED_IN_HOOKS = """
def update(p):
    with torch.no_grad():
        p.add_(p.grad, alpha=-0.1)
    p.grad = None

for p in net.parameters():
    p.register_post_accumulate_grad_hook(update)
for step in range(3):
    net(torch.randn(2, 3)).square().mean().backward()
"""
FUSED = """
optimizer = torch.optim.Adam(net.parameters(), fused=True)
for step in range(3):
    optimizer.zero_grad()
    loss = net(torch.randn(2, 3)).square().mean()
    loss.backward(retain_graph=True)
    optimizer.step()
    loss.backward()
"""
DATA_WRITTEN = """
optimizer = torch.optim.SGD(net.parameters(), 0.1)
for step in range(3):
    optimizer.zero_grad()
    loss = net(torch.randn(2, 3)).square().mean()
    net[2].weight.data.mul_(0.5)
    loss.backward()
    optimizer.step()
    for p in net.parameters():
        p.data = p.data.clamp(-1, 1)
"""
DATA_HELD = """
optimizer = torch.optim.SGD([p.data for p in net.parameters()], 0.1)
for step in range(3):
    net(torch.randn(2, 3)).square().mean().backward()
    optimizer.step()
"""


@pytest.mark.parametrize(
    "body", [STEPPED_IN_HOOKS, FUSED, DATA_WRITTEN, DATA_HELD], ids=["stepped in hooks", "fused", "data written", "data held"]
)
def test_a_script_of_its_own(body: str, tmp_path: Path) -> None:
    """The verdicts, and the codes at their lines."""
    said = []
    for split in ("pass", 'fully_shard(net, mesh=init_device_mesh("cpu", (1,)))'):
        (tmp_path / "script.py").write_text(SPLIT.format(split=split, body=body))
        with quiet():
            report, status = run_script(str(tmp_path / "script.py"))
        assert report is not None
        said.append((report.verdicts, said_by(report), status))
    assert said[0] == said[1]


LATE = """
import torch
import torch.distributed as dist
from torch import nn

net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
net[0].requires_grad_(False)  # FROZEN

from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
fully_shard(net, mesh=init_device_mesh("cpu", (1,)))
optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], 0.1)
net(torch.randn(2, 3)).square().mean().backward()
optimizer.step()
"""


def test_split_by_what_was_imported_after_the_model_was_built(tmp_path: Path) -> None:
    """In a process of its own, for here it is imported."""
    (tmp_path / "script.py").write_text(LATE)
    command = [sys.executable, "-m", "fxgrad", "run", "--format", "json", "-v", "script.py"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path, env=environment)
    found = json.loads(done.stdout)["findings"]
    line = next(number for number, text in enumerate(LATE.splitlines(), 1) if "# FROZEN" in text)
    assert [(f["code"], f["site"]["line"], f["parameters"]) for f in found] == [("FXG102", line, ["net.0.weight", "net.0.bias"])]


UNUSED = """
import copy
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.spare = nn.Linear(3, 1), nn.Linear(3, 1)  # HERE

    def forward(self, x):
        return self.body(x)


net = Net()
average = copy.deepcopy(net).requires_grad_(False)
optimizer = torch.optim.SGD(net.parameters(), 0.1)
for step in range(3):
    optimizer.zero_grad()
    net(torch.randn(2, 3)).pow(2).mean().backward()
    optimizer.step()
    {body}
"""


@pytest.mark.parametrize(
    "body",
    [
        "with torch.no_grad():\n        for a, p in zip(average.parameters(), net.parameters()):\n            a.lerp_(p, 0.1)",
        "for a, p in zip(average.parameters(), net.parameters()):\n        a.data.mul_(0.9).add_(p.data, alpha=0.1)",
        "with torch.no_grad():\n        norm = sum(p.norm() for p in net.parameters())",
        "average.load_state_dict({k: 0.9 * v + 0.1 * net.state_dict()[k] for k, v in average.state_dict().items()})",
    ],
)
def test_an_average_beside_the_model_is_no_use_of_its_parameters(body: str, tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_text(UNUSED.format(body=body))
    with quiet():
        report, _ = run_script(str(path))
    assert report is not None
    line = next(number for number, text in enumerate(path.read_text().splitlines(), 1) if "# HERE" in text)
    found = [f for f in report.findings if f.severity == "error"]
    assert [(f.code, f.site and f.site.line) for f in found] == [("FXG101", line)]
    assert found[0].message == "`net.spare` is never called: 2 parameters get no gradient"
