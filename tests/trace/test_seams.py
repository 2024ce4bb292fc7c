"""What of torch and Python each driver replaces, as the page of the room lists it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import fxgrad
from fxgrad.torch_api import functions
from fxgrad.trace import events, seams, transforms

PAGE = Path(seams.__file__).parent / "README.md"


def listed() -> tuple[set[str], set[str]]:
    """What the table says of a recorded run, and of a watch."""
    table = PAGE.read_text().split("<!-- seams -->")[1].split("<!-- /seams -->")[0]
    recorded: set[str] = set()
    watched: set[str] = set()
    for line in table.strip().splitlines()[2:]:
        names, in_run, in_watch, _ = (cell.strip() for cell in line.strip("|").split("|"))
        for found, said in ((recorded, in_run), (watched, in_watch)):
            if said == "yes":
                found.update(re.findall(r"`([^`]+)`", names))
    return recorded, watched


def name_of(holder: Any, attribute: str) -> str:
    if isinstance(holder, type) and issubclass(holder, nn.Module) and attribute in ("_call_impl", "__getattribute__"):
        return f"Module.{attribute}"  # a recorder replaces it on the classes in use
    own = holder.__qualname__ if isinstance(holder, type) else getattr(holder, "__name__", "")
    return f"{own.rpartition('.')[2]}.{attribute}"


def replaced(monkeypatch: pytest.MonkeyPatch, name: str, modules: tuple[Any, ...], call: Callable[[], object]) -> set[str]:
    """What the call replaces by the function `name` of these modules."""
    found: set[str] = set()
    for module in modules:
        original = getattr(module, name)

        def noted(holder: Any, attribute: str, value: Any, original: Any = original) -> Any:
            found.add(name_of(holder, attribute))
            return original(holder, attribute, value)

        monkeypatch.setattr(module, name, noted)
    call()
    return found


def test_the_table_lists_what_a_recorded_run_replaces(monkeypatch: pytest.MonkeyPatch) -> None:
    def call() -> None:
        fxgrad.fix(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), (torch.randn(1, 2),))

    found = replaced(monkeypatch, "patched", (seams, transforms, functions), call)
    recorded, _ = listed()
    assert found <= recorded
    assert {"Parameter.__new__", "Tensor.set_", "builtins.len", "Module._call_impl"} <= found


def test_the_table_lists_what_a_watch_replaces(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Linear(2, 2)

    def call() -> None:
        with fxgrad.watch(model):
            model(torch.randn(1, 2)).sum().backward()

    found = replaced(monkeypatch, "_patched", (events,), call) | replaced(monkeypatch, "patched", (functions,), call)
    _, watched = listed()
    assert found <= watched
    assert {"Parameter.__new__", "Module.__call__", "Optimizer.__init__"} <= found


def test_what_both_replace_is_listed_once() -> None:
    recorded, watched = listed()
    assert len(recorded & watched) == 20
