"""Keeps the README and the pages of `fxgrad help` true: runs the commands they show and writes their output
below them.

    python bench/readme.py --write     # run every `<!-- run: COMMAND -->` block again
    python bench/readme.py --picture   # draw .github/page.png again: needs chromium
    python bench/readme.py             # exit 1 if one differs from what its command prints now

A block is the comment, then a fenced block; or a `console` block, whose first line shows the command. Tables
are made here, `beliefs` from the tests' own, the others from committed results. Timings and counts that a
machine decides do not belong in a block.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "fxgrad" / "cli" / "help").glob("*.md")))
CONSOLE = re.compile(r"```console\n\$ (?P<command>.+)\n(?P<body>(?:.*\n)*?)```\n")
FENCED = re.compile(r"(<!-- run: (?P<command>.+?) -->\n)```(?P<kind>\w*)\n(?P<body>.*?)```\n", re.DOTALL)
TABLE = re.compile(r"(<!-- table: (?P<name>\w+) -->\n)(?P<body>.*?)(<!-- /table -->)", re.DOTALL)


def output(command: str) -> str:
    """What a command prints, both streams, run in the repository with this interpreter's `fxgrad`; what it
    writes goes to `$DIR`."""
    words = re.sub(r"(^|&& )fxgrad ", rf"\1{sys.executable} -m fxgrad ", command)
    words = words.replace("python ", f"{sys.executable} ", 1) if words.startswith("python ") else words
    with tempfile.TemporaryDirectory() as folder:
        text = _printed(words, folder).replace(f"{folder}/", "")
    text = re.sub(r"[^\s(]*/site-packages/", "site-packages/", text)
    # Where packages lie is this machine's own affair, and so is the width of a column that shows it.
    return re.sub(r"-{20,}", "-" * 20, text).rstrip() + "\n"


def _printed(words: str, folder: str) -> str:
    environment = {
        **os.environ,
        "DIR": folder,
        "COLUMNS": "120",
        "NO_COLOR": "1",
        "PYTHONPATH": str(ROOT),
        "TRANSFORMERS_VERBOSITY": "error",
    }
    done = subprocess.run(
        words, shell=True, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    return done.stdout + done.stderr


def beliefs_list() -> str:
    """One item a belief, from the table whose every row is a test."""
    spec = importlib.util.spec_from_file_location("fxgrad_beliefs", ROOT / "tests" / "test_beliefs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    said = [
        textwrap.fill(f'- "{belief[0]}" {belief[1]}', 118, subsequent_indent="  ")
        for belief in module.BELIEFS
    ]
    return "\n".join(said) + "\n"


def peers_table() -> str:
    """The summary of the committed result of `python bench/peers.py`: timings are a machine's own, so they
    are not taken again here."""
    text = (ROOT / "bench" / "results" / "peers.md").read_text(encoding="utf-8")
    return text.partition("\n\n")[2].partition("\n## ")[0].rstrip() + "\n"


def zoo_table() -> str:
    """The totals of the committed result of `python -m tests.zoo.sweep`: the sweep takes hours."""
    text = (ROOT / "tests" / "zoo" / "README.md").read_text(encoding="utf-8")
    header, total = (
        re.findall(rf"^\| {word} \|.*$", text, re.MULTILINE)[0] for word in ("family", r"\*\*all\*\*")
    )
    cells = [[cell.strip() for cell in row.strip("|").split("|")][1:] for row in (header, total)]
    rows = [
        "| what was asked | models |",
        "|---|---|",
        *(f"| {what} | {count} |" for what, count in zip(*cells, strict=True)),
    ]
    families = len(re.findall(r"^\| \w", text.partition("\nWhat was not")[0], re.MULTILINE)) - 1
    date = re.findall(r"^\d{4}-\d\d-\d\d, .*$", text, re.MULTILINE)[0].partition(",")[0]
    said = (
        f"`python -m tests.zoo.sweep`, {date}: {families} families; a line each, the causes of what was "
        "refused, and the versions are in"
    )
    return "\n".join(rows) + f"\n\n{said} [tests/zoo/README.md](tests/zoo/README.md).\n"


def trust_table() -> str:
    """What was measured, from the committed results, and the command of each."""

    def found(file: str, pattern: str) -> str:
        match = re.search(pattern, (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
        if match is None:
            raise SystemExit(f"{file} has nothing like {pattern}")
        return match.expand(r"\1")

    zoo = zoo_table()
    exact = dict(re.findall(r"^\| ([\w ,-]+?) \| (\d+) \|$", zoo, re.MULTILINE))
    families = re.findall(r"(\d+) families", zoo)[0]
    ours, export = (
        found("bench/results/peers.md", rf"^\| {row} \| [^|]+\| ([\d.]+) ")
        for row in ("analyze, auto", "torch.export, non-strict")
    )
    skip = r"\S+ +"  # a column: parameters, nodes, import, build, analyse, CPU, peak
    seconds, memory = (
        found("bench/results/large_models.md", f"^llama-405b +{skip * before}" + r"(\S+)")
        for before in (4, 6)
    )
    start, torch = (
        found("bench/results/start.md", rf"^\| `{row}` \| ([\d.]+) ")
        for row in ("fxgrad --help", "python -c 'import torch'")
    )
    rows = [
        (
            "verdicts that equal what backward left",
            f"{exact['verdicts exact']} of {exact['run in eager']} models, {families} families",
            "python -m tests.zoo.sweep",
        ),
        (
            "an analysis, in CPU time of real steps",
            f"{ours} (non-strict `torch.export`: {export})",
            "python bench/peers.py",
        ),
        (
            "Llama with 405 billion parameters, without weights",
            f"{seconds} s, {memory} GB",
            "python bench/large_models.py",
        ),
        (
            "`fxgrad --help`, in starts of Python",
            f"{start} (`import torch`: {torch})",
            "python bench/start.py",
        ),
    ]
    return "| what | measured | by |\n|---|---|---|\n" + "".join(
        f"| {what} | {said} | `{by}` |\n" for what, said, by in rows
    )


TABLES = {
    "trust": trust_table,
    "peers": peers_table,
    "beliefs": beliefs_list,
    "zoo": zoo_table,
}


def renewed(text: str) -> str:
    """The document with every block as it should be now."""

    def block(match: re.Match[str]) -> str:
        return f"{match.group(1)}```{match.group('kind')}\n{output(match.group('command'))}```\n"

    def console(match: re.Match[str]) -> str:
        command = match.group("command")
        return f"```console\n$ {command}\n{output(command)}```\n"

    def table(match: re.Match[str]) -> str:
        return f"{match.group(1)}{TABLES[match.group('name')]()}{match.group(4)}"

    return TABLE.sub(table, CONSOLE.sub(console, FENCED.sub(block, text)))


def draw() -> None:
    """The page of the example, as a browser shows it."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "page.html")
        _printed(
            f"{sys.executable} -m fxgrad report tests/examples/speaker.py --format html -o {page}", folder
        )
        subprocess.run(
            ["chromium", "--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=1100,760",
             f"--screenshot={ROOT / '.github' / 'page.png'}", page.as_uri()],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--picture", action="store_true")
    parser.add_argument("documents", nargs="*", type=Path, metavar="FILE", help="default: all of them")
    arguments = parser.parse_args()
    if arguments.picture:
        draw()
        return 0
    differing = 0
    for document in arguments.documents or DOCUMENTS:
        old = document.read_text(encoding="utf-8")
        new = renewed(old)
        differing += old != new
        if arguments.write and old != new:
            document.write_text(new, encoding="utf-8")
    return int(differing > 0 and not arguments.write)


if __name__ == "__main__":
    sys.exit(main())
