"""Every rule against small programs: guilty ones must be named on the marked line, quiet look-alikes must not be accused.

`tests/cases/fxgNNN_name.py` holds functions `guilty_...()` and `quiet_...()`. Each builds everything it needs inside itself and returns
`dict(model=, inputs=, loss=, optimizer=, expect=)` (the last two optional). A guilty line ends in a comment `# FXG103` (several codes:
`# FXG103 FXG116`); a line that may be blamed as well ends in `# or FXG103`. A quiet program has no marker and gets no error.
Each program's verdicts are compared with what a real backward leaves behind, and what is told of it with `tests/golden/cases.json`. After a
change of words that is meant: `FXGRAD_WRITE_GOLDEN=1 python -m pytest tests/passes/test_cases.py`, and read the difference.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import fxgrad

CASES = Path(__file__).parents[1] / "cases"
GOLDEN = "cases"
MARK = re.compile(r"#\s*(or )?((?:FXG\d{3}\s*)+)$")


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"fxgrad_case_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def programs() -> list[Any]:
    found = []
    for path in sorted(CASES.glob("fxg*.py")):
        tree = ast.parse(path.read_text())
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith(("guilty_", "quiet_")):
                found.append(pytest.param(path, node.name, node.lineno, node.end_lineno, id=f"{path.stem[:6]}-{node.name}"))
    return found


def marks(path: Path, first: int, last: int) -> tuple[dict[int, set[str]], dict[int, set[str]]]:
    """Required and allowed codes by line."""
    required: dict[int, set[str]] = {}
    allowed: dict[int, set[str]] = {}
    for number, text in enumerate(path.read_text().splitlines(), 1):
        match = MARK.search(text)
        if match and first <= number <= last:
            (allowed if match.group(1) else required).setdefault(number, set()).update(match.group(2).split())
    return required, allowed


def truth(build: Callable[[], dict[str, Any]]) -> dict[str, str] | None:
    """What a real step leaves on the Parameters that were registered before it; None where it raises."""
    torch.manual_seed(11)
    case = build()
    model, inputs, loss = case["model"], case["inputs"], case.get("loss") or (lambda out: out)
    named = dict(model.named_parameters(remove_duplicate=False))
    try:
        out = model(*inputs) if isinstance(inputs, tuple) else model(**inputs)
        loss(out).backward()
    except Exception:
        return None
    return {
        n: "none" if p.grad is None else ("zero" if not bool((p.grad.to_dense() if p.grad.is_sparse else p.grad).any()) else "flows")
        for n, p in named.items()
    }


def told(report: fxgrad.Report, path: Path, first: int, last: int) -> list[str]:
    """Every finding and note in full: its words, its remedy and its way, lines counted from that of the program."""

    def here(line: int) -> str:
        return f"+{line - first}" if first <= line <= last else str(line)

    def plain(text: str) -> str:
        text = re.sub(r"\b(lines? |:)(\d+)", lambda match: match[1] + here(int(match[2])), text)
        return re.sub(r"_[0-9a-f]{32}\b", "", text.replace(f"{path.parent}{os.sep}", ""))

    found = []
    for f in (*report.findings, *report.notes):
        if f.code == "FXG501":  # follows from the others
            continue
        place = "" if f.site is None else here(f.site.line) if Path(f.site.file) == path else Path(f.site.file).name
        way = " <- ".join(f"[{step.label}]" if step.cut else step.label for step in f.path)
        remedy = f.fix.advice if f.fix is not None else ""
        found.append(plain(f"{f.code} {f.severity} {place}: {f.message} | {remedy} | {way} | {', '.join(f.parameters)}"))
    return found


@pytest.mark.parametrize(("path", "name", "first", "last"), programs())
def test_case(path: Path, name: str, first: int, last: int, golden: Any) -> None:
    grad, dtype = torch.is_grad_enabled(), torch.get_default_dtype()
    try:
        got = check(path, name, first, last)
    finally:
        torch.set_grad_enabled(grad)
        torch.set_default_dtype(dtype)
    golden.check(f"{path.stem[:6]}-{name}", got)


def check(path: Path, name: str, first: int, last: int) -> list[str]:
    """Judge the program; what is told of it."""
    build = getattr(load(path), name)
    grad = torch.is_grad_enabled()
    want = truth(build)
    torch.set_grad_enabled(grad)  # a program that leaves gradients off does so in the analysed run too, not before it
    torch.manual_seed(11)
    case = build()
    report = fxgrad.analyze(
        case["model"], case["inputs"], loss=case.get("loss"), optimizer=case.get("optimizer"), expect=case.get("expect")
    )
    shown = [(f.code, f.severity, f.site and f.site.line, f.message) for f in (*report.findings, *report.notes)]
    got = dict(report.verdicts)
    if want is None:
        trainable = {n for n, p in case["model"].named_parameters(remove_duplicate=False) if p.requires_grad}
        assert all(got[n] == "blocked" for n in trainable), (got, shown)
    else:
        assert all(got[n] in (v, "branch") for n, v in want.items()), ({n: (got[n], v) for n, v in want.items() if got[n] != v}, shown)
    assert all(f.site or report.model_site for f in report.findings), shown  # code scanning takes none without a place
    required, allowed = marks(path, first, last)
    found = [f for f in report.findings if f.severity in ("error", "warning")]
    if name.startswith("quiet_"):
        assert not required, "a quiet program has no marker"
        assert not [f for f in found if f.severity == "error"], shown
        assert path.stem[:6].upper() not in {f.code for f in found}, shown
        return told(report, path, first, last)
    assert required, "a guilty program has a marker"
    places = {(f.code, f.site.line) for f in (*report.findings, *report.notes) if f.site is not None and Path(f.site.file) == path}
    for line, codes in required.items():
        for code in codes:
            alternatives = {(code, line), *((code, other) for other, also in allowed.items() if code in also)}
            assert places & alternatives, shown
    rule = path.stem[:6].upper()
    lines = {line for line, codes in (*required.items(), *allowed.items()) if rule in codes}
    assert not [f for f in found if f.code == rule and f.site is not None and f.site.line not in lines], shown
    return told(report, path, first, last)


@pytest.mark.parametrize("path", sorted(CASES.glob("fxg*.py")), ids=lambda path: path.stem[:6])
def test_each_rule_has_programs_of_both_kinds(path: Path) -> None:
    """At least three guilty ones of different shape, and more quiet look-alikes than guilty ones, five at least."""
    names = [node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
    assert len(names) == len(set(names)), "a program hides another of its name"
    guilty = sum(name.startswith("guilty_") for name in names)
    quiet = sum(name.startswith("quiet_") for name in names)
    assert guilty >= 3
    assert quiet >= 5
    assert quiet > guilty, "a rule is known by what it leaves alone: write another look-alike"
