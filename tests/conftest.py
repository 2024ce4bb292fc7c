"""What holds for every test: no network, the same random numbers each run, torch's global state left as found. And what is kept of tests that
say much: `golden`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

# Before transformers is imported: a test that would fetch a checkpoint fails at once instead of waiting for a network.
os.environ["HF_HUB_OFFLINE"] = "1"

import hypothesis
import pytest
import torch

# No deadline: the first call of an operator loads code and is slow. Derandomized: a red run can be run again.
hypothesis.settings.register_profile("fxgrad", deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.load_profile("fxgrad")


def _global_state() -> dict[str, object]:
    return {
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "anomaly detection": torch.is_anomaly_enabled(),
        "torch function modes": torch._C._len_torch_function_stack(),
        "dispatch modes": torch._C._len_torch_dispatch_stack(),
    }


def _in_a_group() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


@pytest.fixture(autouse=True)
def _torch_state() -> Iterator[None]:
    """Seed torch, and fail the test that leaves a mode on: analysing a model must not change the caller's torch."""
    torch.manual_seed(0)
    before = _global_state()
    grouped = _in_a_group()
    yield
    if _in_a_group() and not grouped:  # a script started one, as scripts do
        torch.distributed.destroy_process_group()
    assert _global_state() == before


VERSIONS = f"torch {torch.__version__.partition('+')[0]}, Python {sys.version_info.major}.{sys.version_info.minor}"


class Golden:
    """What `tests/golden/NAME.json` has by the names of programs: lines to compare what is said now with. On other versions than it was
    written with it has nothing, and a program that is not in there is not compared."""

    def __init__(self, path: Path) -> None:
        kept = json.loads(path.read_text()) if path.exists() else {"on": ""}
        self.writing = bool(os.environ.get("FXGRAD_WRITE_GOLDEN"))
        self.known: dict[str, list[str]] = kept["told"] if kept["on"] == VERSIONS and not self.writing else {}

    def check(self, name: str, got: list[str]) -> None:
        if self.writing:
            self.known[name] = got
        assert got == self.known.get(name, got)


@pytest.fixture(scope="module")
def golden(request: pytest.FixtureRequest) -> Iterator[Golden]:
    """That of the test file, named by its `GOLDEN`. After a change that is meant run the whole file with FXGRAD_WRITE_GOLDEN=1, and read
    the difference."""
    path = Path(__file__).with_name("golden") / f"{request.module.GOLDEN}.json"
    kept = Golden(path)
    yield kept
    if kept.writing:
        path.write_text(json.dumps({"on": VERSIONS, "told": dict(sorted(kept.known.items()))}, indent=1, ensure_ascii=False) + "\n")
