"""A bounded sample of random whole programs; many by `python -m tests.whole`."""

from __future__ import annotations

import contextlib
import io
import os
import threading
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.whole import judge as judging
from tests.whole.__main__ import figures
from tests.whole.programs import PIECES, kinds_of, whole

SEEDS = range(int(os.environ.get("FXGRAD_SEED", "0")), int(os.environ.get("FXGRAD_SEED", "0")) + 16)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.filterwarnings("ignore")
def test_sample(seed: int) -> None:
    with contextlib.redirect_stderr(io.StringIO()):
        judged = judging.judge(seed)
    assert {asked: judged.said[asked] for asked, ended in judged.ended.items() if ended not in ("right", "guarded", "refused")} == {}


def test_every_kind_of_piece_is_drawn_soon() -> None:
    assert {piece.kind for piece in PIECES} == set().union(*(kinds_of(seed) for seed in range(200)))


def test_most_programs_run_and_hand_on_a_state() -> None:
    ran = 0
    for seed in range(60):
        program = whole(seed)
        with contextlib.suppress(RuntimeError):
            assert program.model()(*program.inputs(1)).shape == (3, 8)
            ran += 1
    assert ran > 50


def test_a_wrong_module_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    class Half(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, h: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.model(h) / 2
            return out

    monkeypatch.setattr(judging.fxgrad, "fix", lambda model, *rest, **named: SimpleNamespace(module=Half(model)))
    assert judging.judge(0).ended["fix, all"] == "wrong"


def test_a_changed_world_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    analyze = judging.fxgrad.analyze

    over = threading.Event()
    left = threading.Thread(target=over.wait, name="left", daemon=True)

    def careless(model: nn.Module, *rest: object, **named: object) -> object:
        if not left.is_alive():
            left.start()
        torch.rand(1)
        first = next(model.parameters())
        first.grad = torch.ones_like(first)
        return analyze(model, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(judging.fxgrad, "analyze", careless)
    judged = judging.judge(0)
    over.set()
    assert "the thread left" in judged.said[f"verdicts, {judging.VALUES[0]}"]
    assert judged.ended["verdicts, real"] == "world changed"
    assert "torch's generator" in judged.said["verdicts, real"]


def test_the_figures_count_every_answer() -> None:
    records: list[dict[str, object]] = [
        {"seed": 1, "eager": "runs", "ended": {"fix, all": "refused", "verdicts, auto": "right"}, "said": {"fix, all": "`x` of 3"}},
        {"seed": 2, "eager": "raises", "ended": {"fix, all": "refused", "verdicts, auto": "wrong"}, "said": {"fix, all": "`y` of 4"}},
    ]
    text = figures(records)
    assert "2 programs; a plain step: runs 1, raises 1" in text
    assert "fix, all: refused 2" in text
    assert "verdicts, auto: right 1, wrong 1" in text
    assert "2 refused: `...` of N" in text
