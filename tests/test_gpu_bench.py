"""`bash bench/gpu.sh --device cpu`: every line of what is measured on a GPU runs here, at tiny sizes. No figure of it is looked at."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BASH = shutil.which("bash")
needs_bash = pytest.mark.skipif(BASH is None, reason="there is no bash here")


def dry_run(out: Path, parts: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = [str(BASH), "bench/gpu.sh", "--device", "cpu", "--out", str(out), "--parts", parts]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False)


def page(out: Path, part: str) -> str:
    json.loads((out / f"gpu_{part}.json").read_text())
    return (out / f"gpu_{part}.md").read_text()


@needs_bash
def test_size_and_truth_write_their_pages_and_say_that_a_cpu_is_no_gpu(tmp_path: Path) -> None:
    done = dry_run(tmp_path, "truth size")
    assert done.returncode == 0, done.stdout + done.stderr
    for part in ("truth", "size"):
        assert "no figure of it means anything" in page(tmp_path, part)
    assert "wrong" not in page(tmp_path, "truth").partition("## ")[0].partition("|")[2]


@needs_bash
@pytest.mark.slow
def test_all_parts_run(tmp_path: Path) -> None:
    done = dry_run(tmp_path, "repair truth watching size")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| LSTM tagger " in page(tmp_path, "repair")
    assert "all get a gradient" in page(tmp_path, "watching")


@needs_bash
def test_a_part_that_fails_is_told_by_the_status(tmp_path: Path) -> None:
    done = dry_run(tmp_path, "nothing_of_that_name")
    assert done.returncode != 0
