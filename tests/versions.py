"""The whole suite on every torch and every Python that is supported, each in an environment of its own, and the table of what came out.

    python -m tests.versions [--torch 2.15.0 ...] [--python python3.12 ...] [--environments DIR] [--workers N]
    python -m tests.versions --table       # tests/VERSIONS.md from what was measured so far

Without `--torch` and `--python`: every supported torch on the Python that runs this. An environment that is there is used again. The suite
runs in a copy of the checkout, so that what is edited meanwhile does not count. Each run is a line of `tests/versions.jsonl`, and of a cell
the last line counts; a cell that was not run stays empty, and one that did not come to its end is no run. Exit status: 0 if nothing failed.

Another index (one with CPU builds) is asked by pip's own `PIP_EXTRA_INDEX_URL`. Not handled: Pythons that are not installed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "tests" / "versions.jsonl"
TABLE = ROOT / "tests" / "VERSIONS.md"
TORCHES = ("2.11.0", "2.12.1", "2.13.0", "2.14.1", "2.15.0")
EXTRAS = "rich,test"
COMMAND = "python -m pytest -q -p no:cacheprovider"


@dataclass(frozen=True, slots=True)
class Result:
    """One run of the suite. `torch` without the build's suffix, which is in `build`; `seconds` by the clock on the wall."""

    torch: str
    build: str
    python: str
    system: str
    passed: int
    failed: int
    skipped: int
    failures: tuple[str, ...]
    seconds: int
    date: str
    commit: str
    command: str


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _arguments(argv)
    if not arguments.table:
        good = [_cell(torch, python, arguments) for python in arguments.python for torch in arguments.torch]
    TABLE.write_text(table(read(RESULTS)))
    return 0 if arguments.table or all(good) else 1


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The suite on every torch and Python.")
    parser.add_argument("--torch", nargs="+", default=TORCHES, metavar="VERSION", help=f"default: {' '.join(TORCHES)}")
    parser.add_argument("--python", nargs="+", default=[sys.executable], metavar="PYTHON", help="default: the one that runs this")
    parser.add_argument("--environments", type=Path, default=ROOT / ".venv" / "versions", metavar="DIR", help="default: .venv/versions")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes of pytest-xdist (default: none, in one process)")
    parser.add_argument("--table", action="store_true", help="only write the table")
    return parser.parse_args(argv)


# ---------------------------------------------------------------------------------------------------------------- one cell


def _cell(torch: str, python: str, arguments: argparse.Namespace) -> bool:
    """Run the suite there; whether it came to its end and nothing failed."""
    with tempfile.TemporaryDirectory(prefix="fxgrad-versions-") as folder:
        tree = Path(folder) / "tree"
        commit = _commit()  # of the copy: the suite takes long, and the checkout goes on
        _copy(tree)
        try:
            interpreter = _environment(torch, python, arguments, tree)
        except (subprocess.CalledProcessError, OSError) as error:
            print(f"torch {torch}, {python}: no environment: {error}", file=sys.stderr)
            return False
        report = Path(folder) / "junit.xml"
        spread = f" -n {arguments.workers}" if arguments.workers else ""
        command = [str(interpreter), *COMMAND.split()[1:], *spread.split(), f"--junitxml={report}"]
        start = time.monotonic()
        status = subprocess.run(command, cwd=tree, env=_clean(), check=False).returncode
        if status not in (0, 1):  # 0 and 1 are those of a suite that came to its end
            print(f"torch {torch}, {python}: pytest ended with status {status}: not a result", file=sys.stderr)
            return False
        result = Result(
            **_described(interpreter),
            **counted(report.read_text()),
            seconds=round(time.monotonic() - start),
            date=datetime.datetime.now(datetime.UTC).date().isoformat(),
            commit=commit,
            command=COMMAND + spread,
        )
    with RESULTS.open("a") as file:
        file.write(json.dumps(asdict(result)) + "\n")
    TABLE.write_text(table(read(RESULTS)))  # now: the suite of the next cell compares the page with the results
    print(f"torch {result.torch}, Python {result.python}: {result.passed} passed, {result.failed} failed, {result.skipped} skipped")
    return result.failed == 0


def _copy(tree: Path) -> None:
    """What git knows or would add, as it is now."""
    listed = subprocess.run(["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    for name in listed.decode().split("\0"):
        source = ROOT / name
        if name and (source.exists() or source.is_symlink()):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, tree / name, follow_symlinks=False)


def _environment(torch: str, python: str, arguments: argparse.Namespace, tree: Path) -> Path:
    """An interpreter with that torch, the project's extras and the project itself from the copy."""
    said = subprocess.run(
        [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], stdout=subprocess.PIPE, text=True, check=True
    )
    folder: Path = arguments.environments.resolve() / f"torch{torch}-python{said.stdout.strip()}"
    interpreter = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    pip = [str(interpreter), "-m", "pip", "--disable-pip-version-check", "install", "-q"]
    finished = folder / "fxgrad-installed"  # a run that was broken off leaves an interpreter with half of its packages
    if not finished.exists():
        subprocess.run([python, "-m", "venv", "--clear", str(folder)], check=True)
        constraints = tree / "constraints-versions.txt"
        constraints.write_text(without_pins((tree / "constraints.txt").read_text(), ("torch", "setuptools")))
        extra = ["pytest-xdist"] if arguments.workers else []
        wanted = [f"torch=={torch}", *extra, f"{tree}[{EXTRAS}]"]
        subprocess.run([*pip, "-c", str(constraints), *wanted], env=_clean(), check=True)
        finished.touch()
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", "-e", str(tree)], env=_clean(), check=True)
    return interpreter


def without_pins(constraints: str, names: Iterable[str]) -> str:
    """The constraints less those of these packages: torch is what is varied, and each torch asks for a setuptools of its own."""
    pinned = re.compile(rf"\s*(?:{'|'.join(names)})\s*[=<>!~]", re.IGNORECASE)
    return "".join(line for line in constraints.splitlines(keepends=True) if not pinned.match(line))


def _clean() -> dict[str, str]:
    """The surroundings without what would change what is installed or found: a machine's own pip settings may hold torch at a version."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    return {**kept, "PIP_CONFIG_FILE": os.devnull}


_DESCRIBE = "import json, platform, torch; print(json.dumps([torch.__version__, platform.python_version()]))"


def _described(interpreter: Path) -> dict[str, Any]:
    """What really is in the environment, whatever was asked for."""
    said = subprocess.run([str(interpreter), "-c", _DESCRIBE], stdout=subprocess.PIPE, text=True, env=_clean(), check=True).stdout
    build, python = json.loads(said)
    return {"torch": build.partition("+")[0], "build": build, "python": python, "system": platform.system()}


def _commit() -> str:
    """The commit, with a `+` where the checkout has changes that are not in it."""
    head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    changed = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    ours = {"tests/versions.jsonl", "tests/VERSIONS.md"}
    return head + "+" * any(line[3:] not in ours for line in changed.splitlines())


def counted(junit: str) -> dict[str, Any]:
    """Passed, failed (errors too) and skipped tests, and the names of those that failed, from pytest's junit file."""
    passed, failed, skipped = [], [], []
    for case in ElementTree.fromstring(junit).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        if case.find("failure") is not None or case.find("error") is not None:
            failed.append(name)
        elif case.find("skipped") is not None:
            skipped.append(name)
        else:
            passed.append(name)
    return {"passed": len(passed), "failed": len(failed), "skipped": len(skipped), "failures": tuple(failed)}


# ---------------------------------------------------------------------------------------------------------------- the table


def read(results: Path) -> list[Result]:
    """Every run, the oldest first."""
    lines = results.read_text().splitlines() if results.exists() else []
    return [Result(**{**json.loads(line), "failures": tuple(json.loads(line)["failures"])}) for line in lines if line]


def table(results: Iterable[Result]) -> str:
    """The page: per torch and Python (its minor version) the last run."""
    last: dict[tuple[str, str], Result] = {}
    for result in results:
        last[result.torch, _minor(result.python)] = result
    torches = sorted({*TORCHES, *(torch for torch, _ in last)}, key=_number)
    pythons = sorted({python for _, python in last} | {"3.11", "3.12", "3.13", "3.14"}, key=_number)
    rows = [["torch", *(f"Python {python}" for python in pythons)], ["---"] * (len(pythons) + 1)]
    rows += [[torch, *(_shown(last, torch, python) for python in pythons)] for torch in torches]
    lines = [
        "# The suite on every torch and Python",
        "",
        "Made by `python -m tests.versions`; do not edit. Passed / failed / skipped, seconds, date. An empty cell was not run.",
        "",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
    ]
    if last:
        lines += ["| torch | Python | system | commit | command |", "| --- | --- | --- | --- | --- |"]
        ordered = sorted(last.values(), key=lambda r: (_number(r.python), _number(r.torch)))
        lines += [f"| {r.build} | {r.python} | {r.system} | {r.commit} | `{r.command}` |" for r in ordered]
        lines += [""]
        lines += [f"- torch {r.torch}, Python {r.python} fails: `{name}`" for r in ordered for name in r.failures]
    return "\n".join(lines).rstrip("\n") + "\n"


def _shown(last: Mapping[tuple[str, str], Result], torch: str, python: str) -> str:
    result = last.get((torch, python))
    if result is None:
        return ""
    return f"{result.passed} / {result.failed} / {result.skipped}, {result.seconds} s, {result.date}"


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


if __name__ == "__main__":
    sys.exit(main())
