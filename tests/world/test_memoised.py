"""What a library memoises is put back, also where its module was imported after an analysis looked for such
functions."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import fxgrad

SAID = "import functools\nimport torch\n"
WAYS = {
    "a global": "@functools.cache\ndef ones(n):\n    return torch.ones(n)\n",
    "a method": """
class Masks:
    @staticmethod
    @functools.lru_cache(8)
    def ones(n):
        return torch.ones(n)
ones = Masks.ones
""",
    "in a closure": """
def once(function):
    kept = functools.cache(function)
    def call(n):
        return kept(n)
    return call

@once
def ones(n):
    return torch.ones(n)
""",
    "in an object": """
class Masks:
    def __init__(self):
        self.made = {"ones": functools.cache(torch.ones)}
masks = Masks()
def ones(n):
    return masks.made["ones"](n)
""",
}


class Masked(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.fc, self.name = nn.Linear(4, 4), name

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x) * sys.modules[self.name].ones(4)


@pytest.mark.parametrize("way", WAYS)
def test_a_module_imported_between_two_analyses(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site-packages"
    package.mkdir()
    name = f"memoising_{list(WAYS).index(way)}"
    (package / f"{name}.py").write_text(SAID + WAYS[way])
    fxgrad.analyze(nn.Linear(4, 4), (torch.ones(1, 4),))
    monkeypatch.syspath_prepend(package)
    module = importlib.import_module(name)
    try:
        options = fxgrad.Options(values="fake")
        report = fxgrad.analyze(Masked(name), (torch.ones(1, 4),), options=options)
        assert set(report.verdicts.values()) == {"flows"}
        assert type(module.ones(4)) is torch.Tensor  # none of the run's
    finally:
        del sys.modules[name]
