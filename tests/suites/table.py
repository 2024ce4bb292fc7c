"""The results of `python -m tests.suites` as figures: how each program ended, and every refusal by its reason."""

from __future__ import annotations

import collections
import datetime
import json
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

ASKED = {"verdicts": "verdicts", "needed": "`fix`", "all": "`fix`, all"}
Results = Mapping[str, Mapping[str, Any]]


def load(path: Path) -> dict[str, dict[str, Any]]:
    """By name, the last result of each program."""
    if not path.exists():
        return {}
    return {record["name"]: record for record in map(json.loads, path.read_text().splitlines())}


def figures(results: Results, listed: Mapping[str, int]) -> tuple[str, int]:
    """The text, and how many answers in it are wrong or crashed. `listed`: how many programs each suite has."""
    cases = {name: judged for name, judged in results.items() if judged["ended"]}
    rows: dict[str, list[Mapping[str, Any]]] = collections.defaultdict(list)
    for name, judged in cases.items():
        rows[_row_of(name)].append(judged)
    heads = [f"{asked}: right / refused / wrong / crash" for asked in ASKED.values()]
    lines = [f"{datetime.date.today()}, Python {platform.python_version()}, torch {torch.__version__}", ""]
    lines += [f"| suite | judged | eager raises | {' | '.join(heads)} |", "|---|---|---|---|---|---|"]
    lines += [_line(row, rows[row]) for row in sorted(rows)]
    lines.append(_line("**all**", list(cases.values())))
    tried = ", ".join(f"{sum(name.startswith(f'{suite}/') for name in results)} of {most} of {suite}" for suite, most in listed.items())
    lines += [
        "",
        f"Tried: {tried}; {len(results) - len(cases)} of them are no case: the operator has no further sample, or eager takes none.",
        "",
    ]
    lines += _by_reason(cases)
    bad = sum(ended in ("wrong", "crash") for judged in cases.values() for ended in judged["ended"].values())
    return "\n".join(lines), bad


def _row_of(name: str) -> str:
    """`op_db` in its forms."""
    parts = name.split("/")
    return f"{parts[0]}, {parts[-2]}" if parts[0] == "op_db" else parts[0]


def _line(row: str, judged: list[Mapping[str, Any]]) -> str:
    cells = []
    for asked in ASKED:
        found = collections.Counter(one["ended"].get(asked, "") for one in judged)
        cells.append(" / ".join(str(found[ended]) for ended in ("right", "refused", "wrong", "crash")))
    raises = sum("raises" in one["eager"] for one in judged)
    return f"| {row} | {len(judged)} | {raises} | {' | '.join(cells)} |"


def _by_reason(cases: Results) -> list[str]:
    groups: dict[tuple[str, str, str], list[str]] = collections.defaultdict(list)
    for name, judged in cases.items():
        for asked, ended in judged["ended"].items():
            if ended != "right":
                groups[ended, _reason(judged["said"].get(asked, "")), ASKED[asked]].append(name)
    lines = ["| how it ended | asked | programs | reason | among them |", "|---|---|---|---|---|"]
    for (ended, reason, asked), names in sorted(groups.items(), key=lambda item: (item[0][0], -len(item[1]), item[0][1:])):
        shown = ", ".join(name.partition("/")[2] for name in names[:3])
        lines.append(f"| {ended} | {asked} | {len(names)} | {reason} | {shown} |")
    return lines


def _reason(text: str) -> str:
    """The reason without what is one program's own (numbers, names in quotes), or the machine's (the checkout's folder)."""
    text = text.replace(f"{Path(__file__).parents[2]}/", "")
    text = re.sub(r"`[^`]*`", "`...`", text)
    text = re.sub(r"\d+(\.\d+)?(e[+-]?\d+)?", "N", text)
    return text[:160].replace("|", "\\|")
