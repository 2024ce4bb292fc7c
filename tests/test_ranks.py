"""`fxgrad run` under real launchers: torchrun and accelerate start the processes, gloo joins them, rank 0 reports on all.

Each script runs once; `distributed/*.py` mark the line that must be named. Below, without processes: putting shares together, the board.
"""

from __future__ import annotations

import functools
import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
import torch.distributed
from torch import nn

import fxgrad
from fxgrad.records import Finding, ParameterFact, Site
from fxgrad.records.errors import InputError
from fxgrad.records.ranks import Ending, on_ranks
from fxgrad.report import Report, as_json
from fxgrad.watching.ranks.board import Board, launched
from fxgrad.watching.ranks.merge import merged
from fxgrad.watching.ranks.share import Share
from fxgrad.watching.script import run_script

ROOT = Path(__file__).parent.parent
FOLDER = Path(__file__).parent / "distributed"
MARK = re.compile(r"# (FXG\d{3})$")
SCHEMA = json.loads((Path(as_json.__file__).parent / "report.schema.json").read_text())

gloo = pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(), reason="this torch has no gloo"
)
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
ACCELERATE = (
    *("-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"),
    *("--main_process_port", "0", "--num_processes"),
)


@functools.cache
def launch(count: int, script: str, *arguments: str, launcher: tuple[str, ...] = TORCHRUN) -> tuple[dict[str, Any], int, str]:
    """The report as JSON, the launcher's exit status, and what was written to stderr. Whatever else is on stdout is no JSON."""
    own = {
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }
    command = [sys.executable, *launcher, str(count), "-m", "fxgrad", "run", "--format", "json", str(FOLDER / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ, **own})
    assert done.stdout, done.stderr
    return json.loads(done.stdout), done.returncode, done.stderr


def marked(script: str) -> set[tuple[str, int]]:
    lines = (FOLDER / script).read_text().splitlines()
    return {(m[1], number) for number, line in enumerate(lines, 1) if (m := MARK.search(line))}


def line_of(script: str, comment: str) -> int:
    return next(n for n, line in enumerate((FOLDER / script).read_text().splitlines(), 1) if line.endswith(f"# {comment}"))


def errors(report: Mapping[str, Any]) -> set[tuple[str, int]]:
    return {(f["code"], f["site"]["line"]) for f in report["findings"] if f["severity"] == "error"}


@gloo
def test_healthy_replicas_shards_and_splits_are_quiet() -> None:
    report, status, said = launch(2, "together.py")
    assert set(report["verdicts"].values()) == {"flows"}
    assert (report["findings"], report["ranks"]["differing"], report["ranks"]["endings"]) == ([], [], [])
    assert status == 0, said


@gloo
def test_a_shard_of_zeros_flows_with_the_others() -> None:
    ranks = launch(2, "together.py")[0]["ranks"]
    assert ranks["verdicts"]["sharded.table.weight"] == {"0": "flows", "1": "zero"}


@gloo
def test_cuts_have_the_codes_and_lines_of_one_process() -> None:
    report, status, _ = launch(2, "together.py", "--broken")
    assert errors(report) == marked("together.py")
    assert {tuple(f["ranks"]) for f in report["findings"]} == {(0, 1)}
    assert status == 1


@gloo
def test_a_layer_that_one_rank_skips_is_told() -> None:
    report, status, said = launch(2, "parting.py", "layer")
    jsonschema.validate(report, SCHEMA)
    (difference,) = report["ranks"]["differing"]
    assert difference["parameters"] == ["model.extra.weight", "model.extra.bias"]
    assert (difference["on"], difference["without"]) == ([0], [1])
    assert difference["site"]["line"] == line_of("parting.py", "left out by some")
    assert {(f["code"], tuple(f["ranks"])) for f in report["findings"] if f["severity"] == "error"} == {("FXG101", (1,)), ("FXG501", (1,))}
    assert [(e["rank"], e["kind"], e["reported"]) for e in report["ranks"]["endings"]] == [(0, "stood still", True), (1, "raised", True)]
    assert status != 0
    assert "Expected to have finished reduction" in said


@gloo
def test_a_traceback_of_a_rank_is_the_scripts_own() -> None:
    own = [line for line in launch(2, "parting.py", "layer")[2].splitlines() if line.startswith("[rank1]:   File")]
    assert own
    assert not [line for line in own if f"{os.sep}fxgrad{os.sep}watching" in line]


@gloo
def test_a_branch_on_data_that_parts_four_ranks_is_named() -> None:
    report, status, _ = launch(4, "parting.py", "data")
    (difference,) = report["ranks"]["differing"]
    assert (difference["on"], difference["without"]) == ([0, 2], [1, 3])
    assert difference["site"]["line"] == line_of("parting.py", "parts them")
    (finding,) = [f for f in report["findings"] if f["code"] == "FXG501"]
    assert (finding["severity"], finding["site"]["line"]) == ("error", difference["site"]["line"])
    assert status != 0


@gloo
def test_a_rank_that_dies_is_told_and_the_others_report() -> None:
    report, status, said = launch(2, "parting.py", "dies")
    standing, dead = report["ranks"]["endings"]
    assert (dead["rank"], dead["kind"], dead["site"]["line"], dead["reported"]) == (1, "raised", line_of("parting.py", "dies"), False)
    assert (standing["rank"], standing["kind"], standing["reported"]) == (0, "stood still", True)
    assert set(report["verdicts"].values()) == {"flows"}
    assert "KeyError: 'sample 17'" in said
    assert status != 0


@gloo
def test_accelerate_launches_alike() -> None:
    pytest.importorskip("accelerate")
    report, status, said = launch(2, "together.py", launcher=ACCELERATE)
    assert report["ranks"]["size"] == 2
    assert (report["findings"], status) == ([], 0), said


@gloo
@pytest.mark.slow
@pytest.mark.parametrize(("what", "kind"), [("exits", "exited"), ("killed", "silent")])
def test_a_rank_that_leaves_is_told(what: str, kind: str) -> None:
    report, status, _ = launch(2, "parting.py", what)
    gone = [e for e in report["ranks"]["endings"] if e["rank"] == 1]
    assert [(e["kind"], e["reported"]) for e in gone] == [(kind, False)]
    assert set(report["verdicts"].values()) == {"flows"}
    assert status != 0


@gloo
@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_stages_of_a_pipeline_are_one_model(count: int) -> None:
    healthy, status, _ = launch(count, "stages.py")
    assert len(healthy["verdicts"]) == 4 * count
    assert (set(healthy["verdicts"].values()), healthy["findings"], status) == ({"flows"}, [], 0)
    broken, status, _ = launch(count, "stages.py", "--broken")
    assert errors(broken) == marked("stages.py")
    assert {tuple(f["ranks"]) for f in broken["findings"]} == {(count - 1,)}
    assert (broken["ranks"]["differing"], status != 0) == ([], True)


# ------------------------------------------------------------------------------------------------ shares put together

HERE = Site("train.py", 3, 1, 3, 5)


def fact(name: str, gradient: str, *, sharded: bool = False, expected: bool = True) -> ParameterFact:
    return ParameterFact(name, (name,), (2,), True, "", "Linear", True, (), gradient, sharded, expected)  # type: ignore[arg-type]


def share(rank: int, *facts: ParameterFact, findings: tuple[Finding, ...] = ()) -> Share:
    known = {"some": "flows", "zero": "zero", "none": "none"}
    return Share(rank, Report(verdicts={f.name: known[f.gradient] for f in facts}, findings=findings, parameters=facts))


def starving(code: str, *names: str) -> Finding:
    return Finding(code, "cut", "error", "no way back", HERE, names)


def together(*shares: Share, size: int = 2) -> Report:
    report = merged(shares, size)
    assert report is not None
    return report


@pytest.mark.parametrize(
    ("states", "sharded", "want"),
    [
        (("some", "some"), False, "flows"),
        (("some", "zero"), False, "flows"),
        (("zero", "zero"), False, "zero"),
        (("some", "none"), False, "none"),
        (("none", "none"), False, "none"),
        (("zero", "some"), True, "flows"),
        (("zero", "zero"), True, "zero"),
    ],
)
def test_verdict_over_all_ranks(states: tuple[str, str], sharded: bool, want: str) -> None:
    report = together(*(share(rank, fact("w", state, sharded=sharded)) for rank, state in enumerate(states)))
    assert dict(report.verdicts) == {"w": want}


def test_a_finding_on_both_ranks_is_one() -> None:
    report = together(*(share(rank, fact("w", "none"), findings=(starving("FXG103", "w"),)) for rank in (1, 0)))
    assert [(f.code, f.ranks) for f in report.findings] == [("FXG103", (0, 1))]
    assert "on: rank" not in str(report)


def test_a_finding_on_one_rank_says_so() -> None:
    report = together(share(0, fact("w", "some")), share(1, fact("w", "none"), findings=(starving("FXG103", "w"),)))
    assert [(f.code, f.ranks) for f in report.findings] == [("FXG103", (1,)), ("FXG501", (1,))]
    for name in ("table", "github", "sarif", "html"):
        assert "rank 1 of 2" in report.render(name), name


def test_a_part_of_zeros_is_not_accused() -> None:
    zeros = share(1, fact("w", "zero", sharded=True), findings=(starving("FXG401", "w"),))
    assert together(share(0, fact("w", "some", sharded=True)), zeros).findings == ()


def test_a_rank_that_keeps_nothing_of_a_flat_parameter_has_no_say() -> None:
    nothing = ParameterFact("w", ("w",), (0,), True, "", "Linear", True, (), "none", True)
    report = together(share(0, fact("w", "some", sharded=True)), share(1, nothing, findings=(starving("FXG101", "w"),)))
    assert (dict(report.verdicts), report.findings) == ({"w": "flows"}, ())


def test_zeros_of_one_ranks_data_are_not_accused() -> None:
    zeros = share(1, fact("w", "zero"), fact("v", "none"), findings=(starving("FXG401", "w"), starving("FXG103", "v")))
    report = together(share(0, fact("w", "some"), fact("v", "none"), findings=(starving("FXG103", "v"),)), zeros)
    assert [(f.code, f.parameters) for f in report.findings] == [("FXG103", ("v",))]


def test_a_parameter_of_another_stage_does_not_differ() -> None:
    report = together(
        share(0, fact("a", "some"), fact("b", "none", expected=False)), share(1, fact("a", "none", expected=False), fact("b", "some"))
    )
    assert (dict(report.verdicts), report.findings) == ({"a": "flows", "b": "flows"}, ())


def test_a_rank_that_gave_nothing_is_named() -> None:
    report = together(share(0, fact("w", "some")))
    assert report.ranks is not None
    assert [(e.rank, e.kind) for e in report.ranks.endings] == [(1, "silent")]
    assert "rank 1 of 2 gave nothing in time" in str(report)
    assert "OK" not in str(report)


def test_no_report_where_no_rank_has_one() -> None:
    assert merged([Share(0, None, Ending(0, "raised", "raised KeyError"))], 2) is None


def test_report_of_ranks_keeps_to_the_schema() -> None:
    report = together(share(0, fact("w", "some")), share(2, fact("w", "none"), findings=(starving("FXG103", "w"),)), size=3)
    jsonschema.validate(report.to_dict(), SCHEMA)
    assert report.to_dict()["ranks"]["verdicts"] == {"w": {"0": "flows", "2": "none"}}


def test_report_on_one_process_has_no_ranks() -> None:
    report = Report(verdicts={"w": "none"}, findings=(starving("FXG103", "w"),), parameters=(fact("w", "none"),))
    said = report.to_dict()
    assert "ranks" not in said
    assert "ranks" not in said["findings"][0]


@pytest.mark.parametrize(
    ("ranks", "size", "want"),
    [((1,), 2, "rank 1 of 2"), ((2, 0), 4, "ranks 0, 2 of 4"), ((0, 1), 4, "ranks 0, 1 of 4"), ((0, 1, 2, 5), 8, "ranks 0-2, 5 of 8")],
)
def test_ranks_in_words(ranks: tuple[int, ...], size: int, want: str) -> None:
    assert on_ranks(ranks, size) == want


# ------------------------------------------------------------------------------------------------ the board

AGENT = {"TORCHELASTIC_USE_AGENT_STORE": "True", "RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}


@pytest.mark.parametrize("changed", [{}, {"WORLD_SIZE": "1"}, {"TORCHELASTIC_USE_AGENT_STORE": "False"}, {"RANK": ""}])
def test_no_board_without_a_launcher_of_several(changed: dict[str, str]) -> None:
    assert launched({**AGENT, **changed} if changed else {}) is None


def board() -> Board:
    return Board(torch.distributed.HashStore(), 0, 2)


@gloo
def test_board_hands_on_what_was_posted() -> None:
    mine = board()
    given = share(0, *(fact(f"layer.{i}.weight", "some") for i in range(2000)))
    mine.post("share 0", given)
    assert mine.read("share 0") == given
    assert (mine.has("share 1"), mine.read("share 1")) == (False, None)


class Intruder:
    def __reduce__(self) -> tuple[Any, ...]:
        return pickle.loads, (b"I1\n.",)


@gloo
def test_board_runs_no_code() -> None:
    mine = board()
    mine.post("share 1", Intruder())
    assert mine.read("share 1") is None


# ------------------------------------------------------------------------------------------------ a wrapped model


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.extra, self.head = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.body(x).tanh()
        return self.head(h + self.extra(h).detach())


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A process group of one."""
    from torch.distributed.device_mesh import init_device_mesh

    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


X = (torch.ones(3, 4),)


@gloo
def test_the_model_in_ddp_is_analysed_under_its_own_names(group: Any) -> None:
    wrapped = nn.parallel.DistributedDataParallel(Net())
    assert dict(fxgrad.analyze(wrapped, X).verdicts) == dict(fxgrad.analyze(Net(), X).verdicts)
    assert set(fxgrad.fix(wrapped, X).module.state_dict()) == set(Net().state_dict())


@gloo
def test_left_out_parameters_matter_where_processes_run(group: Any) -> None:
    model = Net()
    model.spare = nn.Linear(4, 1)
    assert [f.severity for f in fxgrad.analyze(model, X).findings if f.code == "FXG501"] == ["warning"]


@gloo
def test_a_parameter_used_inside_and_outside_of_what_ddp_wraps(group: Any, tmp_path: Path) -> None:
    text = """
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.scale = nn.Linear(3, 3), nn.Parameter(torch.ones(3))
    def forward(self, x):
        self.shown = x * self.scale
        return self.body(x)

net = DistributedDataParallel(Net(), find_unused_parameters=True)
h = net(torch.randn(2, 3)) * net.module.shown.sum()
loss = (h * net.module.scale).sum()  # here
loss.backward()
"""
    script = tmp_path / "script.py"
    script.write_text(text)
    report, status = run_script(str(script))
    assert report is not None
    (found,) = report.findings
    assert (found.code, found.site and found.site.line, status) == ("FXG002", text[: text.index("# here")].count("\n") + 1, 1)
    assert "`net.scale` is used here" in found.message


def fully_sharded(mesh: Any) -> nn.Module:
    from torch.distributed.fsdp import fully_shard

    model: nn.Module = fully_shard(Net(), mesh=mesh)
    return model


def partly_sharded(mesh: Any) -> nn.Module:
    from torch.distributed.fsdp import fully_shard

    model = Net()
    fully_shard(model.extra, mesh=mesh)
    return model


def flat(mesh: Any) -> nn.Module:
    from torch.distributed.fsdp import FullyShardedDataParallel

    return FullyShardedDataParallel(Net(), device_id=torch.device("cpu"))


def split(mesh: Any) -> nn.Module:
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    model: nn.Module = parallelize_module(Net(), mesh, {"body": ColwiseParallel(), "extra": RowwiseParallel()})
    return model


@gloo
@pytest.mark.parametrize("run", [fxgrad.analyze, fxgrad.fix])
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (fully_sharded, "the model is sharded by fully_shard"),
        (partly_sharded, "`extra` is sharded by fully_shard"),
        (flat, "the model is sharded by FullyShardedDataParallel"),
        (split, "`body.weight` is a DTensor"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.filterwarnings("ignore")
def test_a_part_of_a_model_is_refused(make: Any, said: str, run: Any, group: Any) -> None:
    with pytest.raises(InputError, match=said) as caught:
        run(make(group), X)
    assert "torchrun -m fxgrad run" in caught.value.hint


@gloo
def test_a_closure_over_a_part_is_refused(group: Any) -> None:
    model = fully_sharded(group)
    with pytest.raises(InputError, match="`model` is sharded"):
        fxgrad.analyze(lambda x: model(x), X)
