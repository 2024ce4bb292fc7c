"""The sweep's results as a table, with what failed grouped by cause: `write` puts it into tests/zoo/README.md."""

from __future__ import annotations

import collections
import datetime
import importlib.metadata
import json
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests import pages

REWRITES = ("needed", "all")


def load(path: Path) -> dict[str, dict[str, Any]]:
    """By name, the last outcome of each model."""
    if not path.exists():
        return {}
    return {record["name"]: record for record in map(json.loads, path.read_text().splitlines())}


def good(outcome: dict[str, Any]) -> bool:
    """Whether eager runs the model and everything that was asked agrees; a rewriting that was refused is an answer."""
    if not outcome.get("eager"):
        return False
    right = all(outcome.get(key) for key in ("analysed", "exact", "regenerated"))
    return right and all(outcome.get(mode, "") in ("", "equal", "refused") for mode in REWRITES)  # "": not asked


def table(outcomes: dict[str, dict[str, Any]], listed: Mapping[str, int]) -> str:
    """`listed`: how many models each family has here; fewer than these may have been run."""
    families: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
    for outcome in outcomes.values():
        families[outcome["name"].split("/")[0]].append(outcome)
    rows = [
        "| family | models tried | run in eager | analysed | refused, with the line | verdicts exact | regenerated bit-equal "
        "| rewritten, needed: equal / refused | rewritten, all: equal / refused |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    rows += [_row(family, families[family], listed.get(family, 0)) for family in sorted(families)]
    rows.append(_row("**all**", list(outcomes.values()), sum(listed.values())))
    return "\n".join(rows)


def _row(family: str, members: list[dict[str, Any]], listed: int) -> str:
    runs = [o for o in members if o.get("eager")]
    done = [o for o in runs if o.get("analysed")]
    named = sum("analyse" in o.get("sites", {}) for o in runs if not o.get("analysed"))
    cells: list[Any] = [
        family,
        f"{len(members)} of {max(listed, len(members))}",
        len(runs),
        len(done),
        named,
        sum(bool(o.get("exact")) for o in done),
    ]
    cells.append(sum(bool(o.get("regenerated")) for o in runs))
    for mode in REWRITES:
        found = collections.Counter(o.get(mode, "") for o in runs)
        cells.append(f"{found['equal']} / {found['refused']}")
    return f"| {' | '.join(map(str, cells))} |"


def causes(outcomes: dict[str, dict[str, Any]]) -> str:
    """What is not as it should be among the models that eager runs, by stage and cause, most frequent first."""
    groups: dict[tuple[str, str], list[str]] = collections.defaultdict(list)
    for outcome in outcomes.values():
        if outcome.get("eager"):
            for stage, reason in outcome.get("reasons", {}).items():
                groups[stage, _cause(reason)].append(outcome["name"])
    lines = ["| stage | cause | models |", "|---|---|---|"]
    for (stage, cause), names in sorted(groups.items(), key=lambda item: (item[0][0], -len(item[1]), item[0][1])):
        shown = ", ".join(n.split("/", 1)[1] for n in names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        lines.append(f"| {stage} | {cause} | {shown} |")
    return "\n".join(lines)


def _cause(reason: str) -> str:
    """A reason without what is the model's own: the place, names, numbers."""
    reason = re.sub(r"^(over \d+ s|the process ended with -?\d+): .*", r"\1", reason)
    text = re.sub(r"\S+\.py:\d+(:\d+)?:?(\d+)?", "", reason.split(" (", 1)[0])
    text = re.sub(r"\d+", "N", re.sub(r"\[\('.*?'\)\]|the gradient of \S+", "...", text))
    return " ".join(text.replace("|", "\\|").split())[:160]


def versions(outcomes: dict[str, dict[str, Any]]) -> str:
    known = {"torch": "torch", "transformers": "transformers", "pyg": "torch-geometric", "diffusers": "diffusers", "monai": "monai",
             "timm": "timm", "torchvision": "torchvision", "vit_pytorch": "vit-pytorch", "x_transformers": "x-transformers",
             "e3nn": "e3nn", "gpytorch": "gpytorch", "neuralop": "neuraloperator", "speechbrain": "speechbrain", "kornia": "kornia",
             "pyro": "pyro-ppl", "stable_baselines3": "stable-baselines3", "vector_quantize": "vector-quantize-pytorch",
             "smp": "segmentation-models-pytorch", "zuko": "zuko", "nflows": "nflows", "normflows": "normflows", "piq": "piq", "lpips": "lpips",
             "metric_learning": "pytorch-metric-learning", "peft": "peft", "linformer": "linformer", "reformer": "reformer-pytorch",
             "mambapy": "mambapy", "xlstm": "xlstm", "titans": "titans-pytorch", "snntorch": "snntorch", "spikingjelly": "spikingjelly",
             "entmax": "entmax", "tabnet": "pytorch-tabnet", "torchrl": "torchrl", "se3_transformer": "se3-transformer-pytorch",
             "torchsde": "torchsde", "torchcde": "torchcde", "torchdyn": "torchdyn", "ultralytics": "ultralytics", "asteroid": "asteroid",
             "demucs": "demucs", "facenet": "facenet-pytorch", "rtdl": "rtdl-revisiting-models", "tabm": "tabm"}  # fmt: skip
    families = {name.split("/")[0] for name in outcomes}
    found = []
    for family, package in known.items():
        if family == "torch" or family in families:
            try:
                found.append(f"{package} {importlib.metadata.version(package)}")
            except importlib.metadata.PackageNotFoundError:
                found.append(package)
    return f"Python {platform.python_version()}, {', '.join(found)}; one core of {platform.machine()}"


def write(outcomes: dict[str, dict[str, Any]], listed: Mapping[str, int], readme: Path) -> None:
    """The table into the file, between its marks."""
    today = datetime.date.today().isoformat()
    body = (
        f"{today}, {versions(outcomes)}\n\n{table(outcomes, listed)}\n\nWhat was not as it should be, or was refused:\n\n{causes(outcomes)}"
    )
    pages.write(readme, "zoo", body)
