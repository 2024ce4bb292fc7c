"""The pytest plugin: a `gradient_flow` fixture, and a snapshot of verdicts that fails when a refactor
silently loses a gradient.

    def test_model(gradient_flow):
        gradient_flow(model, (x,), loss=loss)                    # fails with the report as text
        gradient_flow(model, (x,), loss=loss, snapshot="net")    # ... and if any verdict differs from the one
        kept

Snapshots are JSON files in `__gradients__` beside the test file; `pytest --update-gradients` writes them. A
missing one fails, so that a run in CI cannot pass by writing what it should have compared. Every pytest start
loads this file: torch is loaded where the fixture is used.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fxgrad.records.findings import Options
    from fxgrad.report import Report

FOLDER = "__gradients__"


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--update-gradients`."""
    parser.getgroup("fxgrad").addoption(
        "--update-gradients", action="store_true", help="write the verdict snapshots anew"
    )


@pytest.fixture
def gradient_flow(request: pytest.FixtureRequest) -> Callable[..., Report]:
    """A function like `fxgrad.analyze` that fails the test if the report is not ok, and returns the
    report."""

    def check(
        model: object,
        inputs: object,
        *,
        loss: Callable[..., object] | None = None,
        optimizer: object = None,
        expect: Iterable[str] | None = None,
        options: Options | None = None,
        snapshot: str | None = None,
    ) -> Report:
        import fxgrad

        __tracebackhide__ = True
        report = fxgrad.analyze(model, inputs, loss=loss, optimizer=optimizer, expect=expect, options=options)
        if not report.ok:
            pytest.fail(str(report), pytrace=False)
        if snapshot is not None:
            path = Path(request.path).parent / FOLDER / f"{Path(request.path).stem}.{snapshot}.json"
            compare(path, report.verdicts, update=bool(request.config.getoption("--update-gradients")))
        return report

    return check


def compare(path: Path, verdicts: Mapping[str, str], *, update: bool) -> None:
    """Fail if the verdicts differ from those kept at `path`; write them instead where `update`."""
    from fxgrad.records.plain_text import one_line
    from fxgrad.source.files import replace_file

    __tracebackhide__ = True
    if update:
        path.parent.mkdir(exist_ok=True)
        replace_file(path, f"{json.dumps(dict(verdicts), indent=1)}\n".encode())
        return
    if not path.is_file():
        pytest.fail(
            f"no gradient snapshot at {path}: run pytest --update-gradients once and commit the file",
            pytrace=False,
        )
    kept = _kept(path)
    changed = [
        one_line(f"  {name}: was {kept.get(name, 'absent')}, is {verdicts.get(name, 'absent')}")
        for name in sorted({*kept, *verdicts})
        if kept.get(name) != verdicts.get(name)
    ]
    if changed:
        pytest.fail("\n".join([f"gradients differ from {path.name}:", *changed]), pytrace=False)


def _kept(path: Path) -> dict[str, str]:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # the last: nested by the thousand
        pytest.fail(f"{path} cannot be read as a gradient snapshot: {error}", pytrace=False)
    if not isinstance(kept, dict):
        pytest.fail(f"{path} is no gradient snapshot: run pytest --update-gradients", pytrace=False)
    return kept
