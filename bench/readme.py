"""Keeps the README and the pages of `fxgrad help` true: runs the commands they show and writes their output below
them.

    python bench/readme.py --write     # run every `<!-- run: COMMAND -->` block again
    python bench/readme.py             # exit 1 if one differs from what its command prints now

A block is the comment, then a fenced block. `rules` and `beliefs` are made here from the rules' own
docstrings and the tests' table. Timings and counts that a machine decides do not belong in such a block.
"""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import os
import re
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "fxgrad" / "cli" / "help").glob("*.md")))
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


def rules_table() -> str:
    """One row a rule, from the rules themselves."""
    sys.path.insert(0, str(ROOT))
    from fxgrad.passes import RULES

    rows = ["| code | name | level | what it finds |", "|---|---|---|---|"]
    for rule in RULES:
        summary = " ".join((inspect.getdoc(rule) or "").partition("\n\n")[0].split())
        rows.append(f"| {rule.CODE} | {rule.NAME} | {rule.SEVERITY} | {summary} |")
    return "\n".join(rows) + "\n"


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


TABLES = {"peers": peers_table, "rules": rules_table, "beliefs": beliefs_list, "zoo": zoo_table}


def renewed(text: str) -> str:
    """The document with every block as it should be now."""

    def block(match: re.Match[str]) -> str:
        return f"{match.group(1)}```{match.group('kind')}\n{output(match.group('command'))}```\n"

    def table(match: re.Match[str]) -> str:
        return f"{match.group(1)}{TABLES[match.group('name')]()}{match.group(4)}"

    return TABLE.sub(table, FENCED.sub(block, text))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true")
    parser.add_argument("documents", nargs="*", type=Path, metavar="FILE", help="default: all of them")
    arguments = parser.parse_args()
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
