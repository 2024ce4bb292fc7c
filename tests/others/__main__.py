"""Judge files of public repositories as they are.

    python -m tests.others CHECKOUTS [--only TEXT] [--jobs N] [--seconds N]
    python -m tests.others CHECKOUTS --table      # run nothing; write the table of what was judged so far

`models.txt` and `scripts.txt` list the files, `owner/name@commit:path` a line. CHECKOUTS holds the repositories at those commits, each in
`owner+name`; nothing is fetched here and no file of theirs is kept. Each model file is given to `fxgrad report`, where it lists several models the one
that its hint names as well; each script to `fxgrad run`. Every answer is a JSON line in `results.jsonl` (not kept in the repository), the last one of
a file counts. The children are forked from a process that has imported torch once. Exit status 1 where one crashed or did not end.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import re
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from tests import pages

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.jsonl"
PAGE = HERE / "README.md"
_WAITING = 10  # seconds in all for each of CPU, before a file counts as standing still
LISTS = {"report": "models.txt", "run": "scripts.txt"}
_NAMED = re.compile(r"name one, as in \S+:(\w+)\)")
_FINDING = re.compile(r"^(\S+:\d+):\d+: (FXG\d+) \S+ \[(error|warning)\]", re.MULTILINE)
_FOLDERS = re.compile(r"(?<![\w.])(\.\./|/)([\w.+-]+/)*")  # the page names files, not the folders of one machine
_OWN_ERROR = "nothing to report"  # what `fxgrad run` says of a script that ended before a step


@dataclass(frozen=True)
class Answer:
    """What was said of one file: how it `ended`, and a line of why."""

    file: str
    ended: str
    said: str


def listed(command: str) -> list[str]:
    return (HERE / LISTS[command]).read_text().split()


def judged(command: str, line: str, checkouts: Path, seconds: int) -> Answer:
    """The answer to a line of the lists."""
    repository, _, path = line.partition(":")
    folder = checkouts / repository.partition("@")[0].replace("/", "+", 1)
    status, out, err = in_child(command, folder / path, "", seconds)
    several = _NAMED.search(err) if status == 2 else None
    if several is not None:
        status, out, err = in_child(command, folder / path, f":{several[1]}", seconds)
    ended, said = ending(status, out, err)
    return Answer(line, ended, f"`{several[1]}`, as the hint of the list says: {said}" if several is not None else said)


def ending(status: int, out: str, err: str) -> tuple[str, str]:
    """How a command ended, and why in a line."""
    last = [text for text in err.splitlines() if text.startswith("fxgrad: ")]
    if status < 0:
        return "no end", "over the limit of time"
    if status not in (0, 1, 2) or "unforeseen" in err:
        return "crash", (err.strip().splitlines() or [""])[-1]
    if status == 2:
        return "refused", (last or [""])[0].removeprefix("fxgrad: error: ")
    if any(_OWN_ERROR in text for text in last):
        own = [text for text in err.splitlines() if re.match(r"\w[\w.]*(Error|Exception|Interrupt|Exit)\b", text)]
        return "own error", (own or [""])[-1]
    found = [f"{code} at {place}" for place, code, _ in _FINDING.findall(out)]
    return ("findings", ", ".join(found)) if found else ("clean", "no finding at warning or error level")


def in_child(command: str, file: Path, name: str, seconds: int) -> tuple[int, str, str]:
    """The exit status of a command on a file, in a process of its own, and what it wrote; -1 where it did not end."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = os.fork()
        if child == 0:
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
            _be_the_command(command, file, name, out.fileno(), err.fileno())
        end = time.monotonic() + seconds * _WAITING
        done, state = 0, 0
        while not done and time.monotonic() < end:
            done, state = os.waitpid(child, os.WNOHANG)
            time.sleep(0.1)
        if not done:
            os.kill(child, signal.SIGKILL)
            _, state = os.waitpid(child, 0)
        status = os.waitstatus_to_exitcode(state)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(os.read(stream.fileno(), 10_000_000).decode(errors="replace"))
        return (-1 if status in (-signal.SIGXCPU, -signal.SIGKILL) else status % 256), texts[0], texts[1]


def _be_the_command(command: str, file: Path, name: str, out: int, err: int) -> None:
    status = 99
    try:
        from fxgrad.cli import main as fxgrad_main

        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.chdir(file.parent)
        status = fxgrad_main([command, f"{file.name}{name}"])
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def results() -> dict[str, Answer]:
    """By file, its last answer."""
    if not RESULTS.exists():
        return {}
    return {answer.file: answer for answer in (Answer(**json.loads(text)) for text in RESULTS.read_text().splitlines())}


def table() -> Iterator[str]:
    """The figures, and every answer."""
    import torch

    known = results()
    yield f"{datetime.date.today()}, Python {platform.python_version()}, torch {torch.__version__}"
    for command in LISTS:
        answers = [known[line] for line in listed(command) if line in known]
        counts = Counter(answer.ended for answer in answers)
        figures = ", ".join(f"{count} {ended}" for ended, count in counts.most_common())
        yield f"\n`fxgrad {command}`: {len(answers)} of {len(listed(command))} files judged: {figures}.\n"
        yield "| file | ended | why |"
        yield "|---|---|---|"
        for answer in answers:
            repository, _, path = answer.file.partition(":")
            owner, _, commit = repository.partition("@")
            said = _FOLDERS.sub("", answer.said).replace("|", "\\|")
            yield f"| {owner}@{commit[:7]} {path} | {answer.ended} | {said[:200]} |"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.others", description="files of public repositories as they are")
    parser.add_argument("checkouts", type=Path, metavar="CHECKOUTS", help="the folder with the repositories, each in owner+name")
    parser.add_argument("--only", default="", metavar="TEXT", help="files whose line holds this")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes at once")
    parser.add_argument("--seconds", type=int, default=120, metavar="N", help="limit of CPU time for one file (default: 120)")
    parser.add_argument("--table", action="store_true", help="run nothing; write the table of the results")
    arguments = parser.parse_args(argv)
    if not arguments.table:
        run(arguments)
    text = "\n".join(table())
    pages.write(PAGE, "others", text)
    print(text)
    return 1 if any(answer.ended in ("crash", "no end") for answer in results().values()) else 0


def run(arguments: argparse.Namespace) -> None:
    import torch

    import fxgrad.diagnosis
    import fxgrad.program.step
    import fxgrad.watching.script  # noqa: F401  # once, for all children

    torch.set_num_threads(1)
    asked = [(command, line) for command in LISTS for line in listed(command) if arguments.only in line]
    with ThreadPoolExecutor(arguments.jobs) as pool, RESULTS.open("a") as kept:
        for answer in pool.map(lambda one: judged(*one, arguments.checkouts.resolve(), arguments.seconds), asked):
            kept.write(json.dumps(asdict(answer)) + "\n")
            kept.flush()
            print(f"{answer.ended}: {answer.file}: {answer.said[:300]}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
