"""Real models against eager: a fixed sample here, every model of the zoo behind the `slow` marker.

python -m tests.zoo.sweep          # the whole table
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Any

import pytest

from tests.zoo.families import FAMILIES, module_db, x_transformers
from tests.zoo.graphs import geometric
from tests.zoo.judge import judge


def entries(families: Any, every: int) -> list[Any]:
    return [pytest.param(name, build, id=name) for family in families for name, build in [*family()][::every]]


def check(name: str, build: Callable[[], Any]) -> None:
    with contextlib.redirect_stderr(io.StringIO()):
        outcome = judge(name, build, "auto", rewrite=True)
    if not outcome.eager:
        pytest.skip(f"eager itself does not run it: {outcome.reason}")
    for reason in outcome.reasons.values():
        assert reason.startswith("refused: "), outcome.reason
        assert "(" in reason, "a refusal has a hint"
    assert outcome.exact or not outcome.analysed
    assert {outcome.needed, outcome.all} <= {"equal", "refused"}


@pytest.mark.parametrize(("name", "build"), entries((module_db, geometric, x_transformers), 12))
def test_sample(name: str, build: Callable[[], Any]) -> None:
    check(name, build)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "build"), entries(FAMILIES, 1))
def test_every_model(name: str, build: Callable[[], Any]) -> None:
    check(name, build)
