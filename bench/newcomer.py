"""A newcomer's walk from the README alone, each step timed: clone, install with the first report on a script,
report on a model, fix, and the report of the mended file.

    python bench/newcomer.py                # in a temporary folder that is removed again
    python bench/newcomer.py --json FILE    # also as JSON

The commands are the README's own: the block `install`, and the `fxgrad` commands it shows the output of.
Installing takes as long as the package index does, so the times are this machine's. Needs git, Python 3.11+
and a package index.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def block(name: str) -> str:
    """The commands between `<!-- NAME -->` and `<!-- /NAME -->` in the README."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(rf"<!-- {name} -->\n```\w*\n(.*?)```", text, re.DOTALL)
    if found is None:
        raise SystemExit(f"README.md has no block {name}")
    return found.group(1).strip()


def steps() -> list[tuple[str, str, int]]:
    """What is done, the shell's command, and the exit status that the README promises."""
    active = ". .venv/bin/activate && "
    return [
        ("clone", f"git clone -q {ROOT} fxgrad && cd fxgrad", 0),
        ("install and first report", block("install"), 0),
        ("report on a model", f"{active}fxgrad report tests/examples/speaker.py", 1),
        ("report on the dying model", f"{active}fxgrad report tests/examples/residual.py", 1),
        ("fix, written", f"{active}fxgrad fix tests/examples/residual.py --write", 0),
        ("report on the mended model", f"{active}fxgrad report tests/examples/residual.py", 0),
        ("run a training script again", f"{active}fxgrad run tests/examples/train.py", 1),
    ]


def walk(folder: Path) -> list[tuple[str, float]]:
    """The time of each step, in seconds.

    Raises:
        SystemExit: a step did not end as the README says.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    }
    times = []
    for name, command, want in steps():
        where = folder if name == "clone" else folder / "fxgrad"
        begun = time.perf_counter()
        done = subprocess.run(
            ["bash", "-c", command], cwd=where, env=environment, capture_output=True, text=True, check=False
        )
        times.append((name, time.perf_counter() - begun))
        print(f"{times[-1][1]:8.1f} s  {name}: {command}", flush=True)
        if done.returncode != want:
            raise SystemExit(f"exit status {done.returncode}, not {want}:\n{done.stdout}\n{done.stderr}")
    return times


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", metavar="FILE", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        times = walk(Path(folder))
    print(f"{sum(seconds for _, seconds in times):8.1f} s  in all")
    if arguments.json:
        arguments.json.write_text(json.dumps(dict(times), indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
