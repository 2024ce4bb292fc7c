"""What a forward reaches by name is as before too: helpers and their globals, other modules' state, memoised results."""

from __future__ import annotations

import functools
import importlib
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import fxgrad
from fxgrad import Options
from fxgrad.world import memoised, scopes

LOG: list[Any] = []
COUNT = 0
NUMBERS = random.Random(1)


class Tracker:
    total = 0

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def add(self, x: torch.Tensor) -> None:
        type(self).total += 1
        self.seen.append(x)


TRACKER = Tracker()


def outer(x: torch.Tensor) -> torch.Tensor:
    LOG.append("outer")
    return inner(x)


def inner(x: torch.Tensor) -> torch.Tensor:
    global COUNT
    COUNT += 1
    inner.calls += 1  # type: ignore[attr-defined]  # a counter on the function itself
    TRACKER.add(x)
    NUMBERS.random()
    return x


inner.calls = 0  # type: ignore[attr-defined]  # see above


def remembered(function: Callable[[int], torch.Tensor]) -> Callable[[int], torch.Tensor]:
    """A decorator of the user's own that memoises."""
    kept: dict[int, torch.Tensor] = {}

    def call(n: int) -> torch.Tensor:
        if n not in kept:
            kept[n] = function(n)
        return kept[n]

    call.kept = kept  # type: ignore[attr-defined]  # for the test
    return call


@remembered
def by_hand(n: int) -> torch.Tensor:
    return torch.ones(n, 1)


@functools.cache
def unbounded(n: int) -> torch.Tensor:
    return torch.ones(n, 1)


@functools.lru_cache(maxsize=2)
def bounded(n: int) -> torch.Tensor:
    return torch.ones(n, 1)


class Reaches(nn.Module):
    """Calls helpers, and memoises in every way."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    @functools.lru_cache  # noqa: B019  what users write
    def method(self, n: int) -> torch.Tensor:
        return torch.ones(n, 1)

    @staticmethod
    @functools.cache
    def static(n: int) -> torch.Tensor:
        return torch.ones(n, 1)

    @functools.cached_property
    def once(self) -> torch.Tensor:
        return torch.ones(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n = x.shape[0]
        masks = by_hand(n) * unbounded(n) * bounded(n) * self.method(n) * self.static(n)
        return self.layer(outer(x)) * masks * self.once


def sizes() -> list[int]:
    kept: dict[int, torch.Tensor] = by_hand.kept  # type: ignore[attr-defined]  # see `remembered`
    memoised = (unbounded, bounded, Reaches.method, Reaches.static)
    return [len(kept), *(function.cache_info().currsize for function in memoised)]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    def clear() -> None:
        by_hand.kept.clear()  # type: ignore[attr-defined]  # see `remembered`
        for function in (unbounded, bounded, Reaches.method, Reaches.static):
            function.cache_clear()

    clear()
    yield
    clear()


@pytest.mark.parametrize("values", ["real", "fake"])
def test_helpers_and_their_globals(values: Any) -> None:
    before = (list(LOG), COUNT, inner.calls, Tracker.total, list(TRACKER.seen), NUMBERS.getstate())  # type: ignore[attr-defined]  # see above
    assert fxgrad.analyze(Reaches(), (torch.randn(3, 4),), options=Options(values=values)).ok
    assert (list(LOG), COUNT, inner.calls, Tracker.total, list(TRACKER.seen), NUMBERS.getstate()) == before  # type: ignore[attr-defined]  # see above


@pytest.mark.parametrize("values", ["real", "fake"])
def test_nothing_is_memoised_for_the_user(values: Any) -> None:
    model = Reaches()
    fxgrad.analyze(model, (torch.randn(3, 4),), options=Options(values=values))
    assert sizes() == [0, 0, 0, 0, 0]
    assert "once" not in vars(model)
    out = model(torch.randn(3, 4))
    assert type(out) is torch.Tensor
    out.sum().backward()
    assert sizes() == [1, 1, 1, 1, 1]


@pytest.mark.parametrize("values", ["real", "fake"])
def test_what_the_user_has_memoised_stays(values: Any) -> None:
    model = Reaches()
    model(torch.randn(3, 4))
    kept = [unbounded(3), bounded(3), model.method(3), Reaches.static(3), by_hand(3)]
    fxgrad.analyze(model, (torch.randn(3, 4),), options=Options(values=values))
    fxgrad.analyze(model, (torch.randn(5, 4),), options=Options(values=values))
    assert all(a is b for a, b in zip(kept, [unbounded(3), bounded(3), model.method(3), Reaches.static(3), by_hand(3)], strict=True))
    assert sizes() == [1, 1, 1, 1, 1]


def test_a_full_cache_goes_on_working() -> None:
    """Of a bounded cache the entries go and not their places in its order: it must come to terms with that."""
    model = Reaches()
    for n in (1, 2):
        bounded(n)
    for n in (3, 4, 5):
        fxgrad.analyze(model, (torch.randn(n, 4),), options=Options(values="fake"))
    for n in (1, 3, 2, 5, 4, 3, 1, 5) * 20:
        assert bounded(n).shape == (n, 1)
        assert type(bounded(n)) is torch.Tensor
        assert bounded.cache_info().currsize <= 2


MODULE = """
import functools
import torch

MASKS = {}
STATE = {"steps": 0}

def mask(n):
    STATE["steps"] += 1
    if n not in MASKS:
        MASKS[n] = torch.ones(n, 1)
    return MASKS[n]

@functools.cache
def frequencies(n):
    return torch.ones(n, 1)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    (tmp_path / "helpers_of_the_user.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("helpers_of_the_user")
    del sys.modules["helpers_of_the_user"]


@pytest.mark.parametrize("values", ["real", "fake"])
def test_a_module_named_with_a_dot(module: Any, values: Any) -> None:
    layer = nn.Linear(4, 4)

    def forward(x: torch.Tensor) -> torch.Tensor:
        return layer(x) * module.mask(x.shape[0]) * module.frequencies(x.shape[0])

    assert fxgrad.analyze(forward, (torch.randn(3, 4),), options=Options(values=values)).ok
    assert (module.MASKS, module.STATE) == ({}, {"steps": 0})
    assert module.frequencies.cache_info().currsize == 0


def test_of_a_library_only_what_kept_tensors_is_taken_out() -> None:
    @functools.cache
    def asked(n: int) -> bool:
        return n > 2

    @functools.cache
    def told(n: int) -> None:
        LOG.append(n)

    for function, left in ((asked, 1), (told, 0), (unbounded, 0)):
        act = memoised.undo_memo(function, own=False)
        assert act is not None
        function(3)
        act()
        assert function.cache_info().currsize == left
    LOG.clear()


MANY = 12


def test_modules_that_import_each_other_are_gone_into_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of a dozen has the names of all others: as many ways as orders lead through them."""
    monkeypatch.syspath_prepend(str(tmp_path))
    names = [f"module_of_the_user_{k}" for k in range(MANY)]
    for name in names:
        imports = "".join(f"import {other}\n" for other in names if other != name)
        (tmp_path / f"{name}.py").write_text(f"{imports}STEPS = []\ndef note(x):\n    STEPS.append(1)\n    return x\n")
    called = "".join(f"    x = {name}.note(x)\n" for name in names)
    text = "".join(f"import {name}\n" for name in names) + f"def use(x):\n{called}    return x\n"
    (tmp_path / "user_of_the_modules.py").write_text(text)
    user = importlib.import_module("user_of_the_modules")
    layer = nn.Linear(4, 4)
    try:
        assert fxgrad.analyze(lambda x: user.use(layer(x)), (torch.randn(3, 4),)).ok
        assert [getattr(user, name).STEPS for name in names] == [[]] * MANY
    finally:
        for name in (*names, "user_of_the_modules"):
            del sys.modules[name]


def test_a_memoised_mask_of_a_library_that_no_name_leads_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "library_of_masks.py").write_text("import functools, torch\n@functools.cache\ndef mask(n):\n    return torch.ones(n, 1)\n")
    monkeypatch.syspath_prepend(str(folder))
    library = importlib.import_module("library_of_masks")
    layer, word = nn.Linear(4, 4), "ask"
    try:
        for values in ("real", "fake"):
            options = Options(values=values)  # type: ignore[arg-type]  # one of the two
            assert fxgrad.analyze(lambda x: layer(x) * getattr(library, f"m{word}")(x.shape[0]), (torch.randn(3, 4),), options=options).ok
            assert library.mask.cache_info().currsize == 0
    finally:
        del sys.modules["library_of_masks"]


def test_what_an_installer_put_somewhere_is_not_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`pip install --target folder`: as large as any package, and gone through like one."""
    for folder, own in (("mine", True), ("theirs", False)):
        name = f"code_of_{folder}"
        (tmp_path / folder / name).mkdir(parents=True)
        (tmp_path / folder / name / "__init__.py").write_text("def use(x):\n    return x\n")
        if not own:
            (tmp_path / folder / f"{name}-1.0.dist-info").mkdir()
        monkeypatch.syspath_prepend(str(tmp_path / folder))
        importlib.import_module(name)
        try:
            assert scopes.is_own(name) is own
        finally:
            del sys.modules[name]


class Renamed:
    """As of a class of Cython's, `__module__` is its instances' alone."""

    __module__ = property(lambda self: "elsewhere")  # type: ignore[assignment]
    factor = 2.0


def test_a_class_without_a_module_of_its_own_is_walked_past() -> None:
    layer = torch.nn.Linear(2, 2)
    report = fxgrad.analyze(lambda x: layer(x) * Renamed.factor, (torch.ones(1, 2),))
    assert set(report.verdicts.values()) == {"flows"}


class Placed(type):
    @property
    def __module__(cls) -> int:  # type: ignore[override]
        raise AssertionError("asked of the user's metaclass")


class Elsewhere(nn.Module):
    """Its instances say where they were made; the class does not."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.placed = Placed("Made", (), {"count": 0})()

    @property
    def __module__(self) -> str:  # type: ignore[override]
        raise AssertionError("asked of the user's property")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.placed.count += 1  # type: ignore[attr-defined]
        return self.layer(x).relu_().sum()


def test_classes_that_say_of_their_instances_where_they_were_made() -> None:
    model = Elsewhere()
    assert fxgrad.analyze(model, (torch.randn(2, 3),)).ok
    assert fxgrad.fix(model, (torch.randn(2, 3),)).module is not None
    assert model.placed.count == 0  # type: ignore[attr-defined]
