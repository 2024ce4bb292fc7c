"""Trials: what a trial is told must depend on the program alone, not on how often a child dies, on hash seeds, or on where the file lies."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fxgrad.fix_source import mend
from fxgrad.fix_source.trials import worker
from fxgrad.fix_source.trials.server import Server
from fxgrad.records.errors import FixError

NET = """\
import torch, torch.nn as nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        y = torch.exp(self.fc(x))
        for name in {"alpha", "beta", "gamma", "delta", "epsilon"}:
            y += len(name) * y.sigmoid()
        return y

def example_inputs():
    torch.manual_seed(1)
    return (torch.randn(4, 4),)
"""

# The child that tries the first edit kills itself, once.
DYING_ONCE = """\
import os, signal
marker = {marker!r}
if "y = y +" in open(__file__).read() and not os.path.exists(marker):
    open(marker, "w").close()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


def test_a_child_that_dies_is_no_verdict_on_the_edit(tmp_path: Path, server: Server) -> None:
    marker = tmp_path / "died"
    file = tmp_path / "net.py"
    file.write_text(DYING_ONCE.format(marker=str(marker)) + NET)
    result = mend(str(file), server=server)
    # The second attempt is in another interpreter: that the numbers are equal there shows that sets have the same order in both.
    assert marker.exists()
    assert [repair.how for repair in result.repairs] == ["`+=` out of place"]
    assert (result.refused, result.remaining) == ((), ())


def test_a_program_that_always_dies_is_named_with_its_signal(tmp_path: Path, server: Server) -> None:
    file = tmp_path / "net.py"
    file.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n" + NET)
    with pytest.raises(FixError, match=r"cannot be analysed: the program crashed \(SIGKILL\)"):
        mend(str(file), server=server)


def test_a_program_that_never_ends_is_told_from_one_that_crashes(tmp_path: Path, server: Server) -> None:
    file = tmp_path / "net.py"
    file.write_text("import time\nwhile True:\n    time.sleep(60)\n" + NET)
    with pytest.raises(FixError, match="the program took more than 1 s"):
        mend(str(file), server=server, limit=1)


def test_a_folder_whose_name_holds_dot_py(tmp_path: Path, server: Server) -> None:
    file = tmp_path / ".pyenv" / "a.py.d" / "net.py"
    file.parent.mkdir(parents=True)
    file.write_text(NET)
    result = mend(f"{file}:Net", server=server)
    assert (len(result.repairs), result.refused) == (1, ())


def test_no_process_forks_on_macos_or_without_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    assert worker.can_fork("linux")
    assert not worker.can_fork("darwin")
    monkeypatch.delattr("os.fork")
    assert not worker.can_fork("win32")


def test_edits_are_tried_alike_where_no_process_forks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "sitecustomize.py").write_text("import os\ndel os.fork\n")
    want = mend(str(tmp_path / "net.py")).diff()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert mend(str(tmp_path / "net.py")).diff() == want != ""


def test_the_process_for_trials_needs_no_numpy() -> None:
    code = "import sys; sys.modules['numpy'] = None; from fxgrad.fix_source.trials.worker import serve; serve()"
    done = subprocess.run([sys.executable, "-c", code], input="", capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
