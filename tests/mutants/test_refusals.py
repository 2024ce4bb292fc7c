"""What is never tried: anything as root, and mutants of files that remove files. Nothing is tried here."""

from __future__ import annotations

import os

import pytest

pytest.importorskip("cosmic_ray")
pytest.importorskip("coverage")

from tests.mutants import __main__ as mutants


def test_nothing_is_tried_as_root(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(mutants, "run", lambda arguments: pytest.fail("it was tried"))
    with pytest.raises(SystemExit):
        mutants.main([])
    assert "not as root" in capsys.readouterr().err


@pytest.mark.parametrize(("file", "removes"), [("fxgrad/fix_graph/export/package.py", True), ("passes/rewrites/twins.py", False)])
def test_a_file_that_removes_files_is_known(file: str, removes: bool) -> None:
    assert mutants.removes_files(file) is removes


def test_no_mutant_of_one_is_drawn() -> None:
    assert mutants.drawn(20, 0, "fix_graph/export/package.py") == []
