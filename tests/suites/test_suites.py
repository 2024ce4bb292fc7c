"""A bounded sample of torch's own suites; all of them behind `-m slow` and in `python -m tests.suites`."""

from __future__ import annotations

import contextlib
import io
import itertools
from collections.abc import Callable

import pytest
import torch
from torch import nn

from fxgrad import Inputs
from tests.suites.__main__ import spread
from tests.suites.judge import judge
from tests.suites.programs import SUITES, Built
from tests.suites.table import figures

SAMPLE = {"module_db": 6, "op_db": 8, "export_db": 4}


def entries(most: dict[str, int] | None) -> list[object]:
    found = []
    for suite, listed in SUITES.items():
        builds = dict(listed())
        for name in spread(list(builds), most[suite] if most is not None else None):
            found.append(pytest.param(name, builds[name], id=name))
    return found


def bad(name: str, build: Callable[[], Built]) -> dict[str, str]:
    """What is wrong or crashed, by what was asked."""
    with contextlib.redirect_stderr(io.StringIO()):
        judged = judge(name, build)
    return {asked: judged.said[asked] for asked, ended in judged.ended.items() if ended in ("wrong", "crash")}


@pytest.mark.parametrize(("name", "build"), entries(SAMPLE))
def test_sample(name: str, build: Callable[[], Built]) -> None:
    assert bad(name, build) == {}


@pytest.mark.slow
@pytest.mark.parametrize("suite", SUITES)
def test_every_program(suite: str) -> None:
    found = {name: bad(name, build) for name, build in SUITES[suite]()}
    assert {name: said for name, said in found.items() if said} == {}


def test_the_figures_count_every_answer() -> None:
    results = {
        "op_db/add/on/0": {"eager": "runs", "ended": {"verdicts": "right", "needed": "refused"}, "said": {"needed": "`x` of 3"}},
        "op_db/mul/on/0": {"eager": "runs", "ended": {"verdicts": "wrong", "needed": "refused"}, "said": {"needed": "`y` of 4"}},
        "op_db/abs/out/1": {"eager": "no further sample", "ended": {}, "said": {}},
    }
    text, bad = figures(results, {"op_db": 9})
    assert bad == 1
    assert "| op_db, on | 2 | 0 | 1 / 0 / 1 / 0 | 0 / 2 / 0 / 0 | 0 / 0 / 0 / 0 |" in text
    assert "| refused | `fix` | 2 | `...` of N | add/on/0, mul/on/0 |" in text
    assert "Tried: 3 of 9 of op_db; 1 of them are no case" in text


def test_a_wrong_answer_is_seen() -> None:
    """The judge itself: a program whose step in eager differs from what was analysed."""

    class Net(nn.Module):
        """Other code when it is copied, as the judge's reference is."""

        def __init__(self, copied: bool) -> None:
            super().__init__()
            self.a, self.copied = nn.Linear(2, 2), copied

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.a(x)
            return y.detach() + self.a.bias if self.copied else y

        def __deepcopy__(self, memo: object) -> Net:
            made = Net(next(others))
            made.load_state_dict(self.state_dict())
            return made

    others = itertools.chain([False], itertools.repeat(True))
    judged = judge("net", lambda: (Net(True), Inputs((torch.ones(1, 2),))))
    assert judged.ended["verdicts"] == "wrong"
