"""The GitHub action: its steps run here as a runner runs them, with fxgrad as it is installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".github" / "actions" / "fxgrad"
ACTION: dict[str, Any] = yaml.safe_load((FOLDER / "action.yml").read_text())
MODEL = """\
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.b(self.a(x){})
"""

pytestmark = pytest.mark.skipif(shutil.which("bash") is None or shutil.which("git") is None, reason="needs bash and git")


def step(folder: Path, **inputs: str) -> tuple[int, str, str]:
    """The last step with these inputs: its status, what it prints, and the job's summary."""
    last = ACTION["runs"]["steps"][-1]
    values = {name: given.get("default", "") for name, given in ACTION["inputs"].items()} | {
        name.replace("_", "-"): value for name, value in inputs.items()
    }
    written = {name: text.removeprefix("${{ inputs.").removesuffix(" }}") for name, text in last["env"].items()}
    environment = {name: values[key] for name, key in written.items()}
    summary = folder / "summary.md"
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", last["run"]],  # as `shell: bash` is
        cwd=folder,
        env={
            **os.environ,
            **environment,
            "PATH": path,
            "GITHUB_STEP_SUMMARY": str(summary),
            "GITHUB_ACTION_PATH": str(FOLDER),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, summary.read_text() if summary.exists() else ""


def test_annotations_on_the_guilty_lines(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(MODEL.format(".detach()"))
    status, out, summary = step(tmp_path, model="model.py", args="--input 'x=2x4' --expect 'a.*'")
    assert (status, summary) == (1, "")
    assert "::error file=model.py,line=10," in out
    assert step(tmp_path, model="model.py", report_args="--exit-zero")[0] == 0


def test_code_scanning_and_a_comparison_with_the_base(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(MODEL.format(""))
    for command in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=n", "-c", "user.email=e@example.com", "commit", "-qm", "one"],
    ):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    (tmp_path / "model.py").write_text(MODEL.format(".detach()"))
    status, _, summary = step(tmp_path, model="model.py", sarif="out.sarif", base="HEAD")
    assert status == 1
    assert len(json.loads((tmp_path / "out.sarif").read_text())["runs"][0]["results"]) == 1
    assert summary.startswith("### Gradients of Net: 2 lost, 0 gained")


def test_what_it_installs_is_where_it_is_from() -> None:
    install = ACTION["runs"]["steps"][0]
    assert (install["if"], ACTION["inputs"]["install"]["default"]) == ("inputs.install == 'true'", "true")
    assert install["run"] == 'python -m pip install "$GITHUB_ACTION_PATH/../../.."'
    assert (FOLDER / ".." / ".." / "..").resolve() == ROOT
    assert (ROOT / "pyproject.toml").is_file()
