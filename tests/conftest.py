"""What holds for every test: no network, the same random numbers each run, torch's global state left as found."""

from __future__ import annotations

import os
from collections.abc import Iterator

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


@pytest.fixture(autouse=True)
def _torch_state() -> Iterator[None]:
    """Seed torch, and fail the test that leaves a mode on: analysing a model must not change the caller's torch."""
    torch.manual_seed(0)
    before = _global_state()
    yield
    assert _global_state() == before
