"""What it costs to start: imports and commands that need no torch, each beside `python -c pass`; a pytest
start with the plugin beside one without.

    python bench/start.py [--rounds N] [--markdown FILE]

Every round runs all commands once, each in a process of its own; the ratio is that of a command to the base
of the same round, in CPU time of the process (what others do on the machine counts less so). Medians over the
rounds. The environment's own start (`.pth` files, an editable install) is in the base too.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PYTHON = [sys.executable]
PYTEST = [*PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
ERROR = "element 0 of tensors does not require grad and does not have a grad_fn"


class Row(NamedTuple):
    """A command as it is shown, as it is run, and the row it is measured by."""

    shown: str
    argv: list[str]
    base: int


def fxgrad(*words: str) -> list[str]:
    """The console script, without the file that pip makes of it."""
    return [*PYTHON, "-c", "import sys; from fxgrad.cli import entry; entry()", *words]


ROWS = (
    Row("python -c pass", [*PYTHON, "-c", "pass"], 0),
    Row("python -c 'import fxgrad'", [*PYTHON, "-c", "import fxgrad"], 0),
    Row("fxgrad --help", fxgrad("--help"), 0),
    Row("fxgrad --version", fxgrad("--version"), 0),
    Row("fxgrad report --help", fxgrad("report", "--help"), 0),
    Row("fxgrad rules", fxgrad("rules"), 0),
    Row("fxgrad explain FXG103", fxgrad("explain", "FXG103"), 0),
    Row('fxgrad explain "element 0 of tensors ..."', fxgrad("explain", ERROR), 0),
    Row("python -c 'import torch'", [*PYTHON, "-c", "import torch"], 0),
    Row("pytest, one empty test, no plugins", PYTEST, 9),
    Row("the same with fxgrad's plugin", [*PYTEST, "-p", "fxgrad.pytest_plugin"], 9),
)


def measured(argv: list[str], folder: str) -> tuple[float, float]:
    """CPU and wall seconds of one process."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    begun = time.perf_counter()
    process = subprocess.Popen(
        argv, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"exit status {process.returncode}: {argv}")
    return usage.ru_utime + usage.ru_stime, wall


def table(rounds: int) -> str:
    """The rows as a table in Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "test_empty.py").write_text("def test_nothing():\n    pass\n", encoding="utf-8")
        for row in ROWS:
            measured(row.argv, folder)  # once unmeasured: what Python compiles, the disk keeps
        taken = [[measured(row.argv, folder) for row in ROWS] for _ in range(rounds)]
    lines = ["| what is started | CPU, of its base | CPU s | wall s |", "|---|---|---|---|"]
    for at, row in enumerate(ROWS):
        ratio = statistics.median(one[at][0] / one[row.base][0] for one in taken)
        cpu, wall = (statistics.median(one[at][part] for one in taken) for part in (0, 1))
        lines.append(f"| `{row.shown}` | {ratio:.2f} | {cpu:.3f} | {wall:.3f} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--markdown", metavar="FILE", type=Path)
    arguments = parser.parse_args()
    text = table(arguments.rounds)
    print(text, end="")
    if arguments.markdown:
        said = f" --rounds {arguments.rounds}" if arguments.rounds != 15 else ""
        head = (
            f"# Start times\n\n{datetime.date.today()}. Command: `python bench/start.py{said} --markdown "
            "bench/results/start.md`. "
            f"{platform.machine()}, torch {version('torch')}, Python {platform.python_version()}.\n\n"
        )
        tail = (
            "\nThe base of the pytest rows is the start without the plugin; of all others `python -c pass`.\n"
        )
        arguments.markdown.write_text(f"{head}{text}{tail}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
