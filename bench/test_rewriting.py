"""The models of `models.py` under pytest-benchmark: one group a model, one row a form of it.

    python -m pytest bench/test_rewriting.py -m slow [--benchmark-json FILE]

A row that does not run is skipped with what it raises. No row asserts a time; `python bench/rewriting.py`
says more in less time.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import fxgrad

pytest.importorskip("pytest_benchmark", reason="it comes with the extra `test`")
sys.path.insert(0, str(Path(__file__).resolve().parent))

from models import MODELS

Context = Callable[[], contextlib.AbstractContextManager[Any]]
FORMS: dict[str, tuple[str | None, Context]] = {
    "original": (None, contextlib.nullcontext),
    "needed": ("needed", contextlib.nullcontext),
    "all": ("all", contextlib.nullcontext),
    "allowed": (None, torch.autograd.graph.allow_mutation_on_saved_tensors),
}


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", MODELS)
def test_forward_and_backward(name: str, form: str, benchmark: Any) -> None:
    rewrite, context = FORMS[form]
    model, inputs, loss = MODELS[name](1)
    call = model
    if rewrite is not None:
        call = fxgrad.fix(model, inputs, loss=loss, options=fxgrad.Options(rewrite=rewrite)).module  # type: ignore[arg-type]  # a Literal

    def step() -> None:
        for parameter in model.parameters():
            parameter.grad = None
        with context():
            loss(call(*(t.clone() for t in inputs))).backward()

    try:
        step()
    except RuntimeError as error:
        pytest.skip(str(error).splitlines()[0][:80])
    benchmark.group = name
    benchmark(step)
    assert all(p.grad is not None for p in model.parameters())
