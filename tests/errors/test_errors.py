"""Every error of torch's about gradients: torch still says it, the table knows it, a report names the line of its cause."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from pathlib import Path

import pytest
import torch

from fxgrad.cli.pasted import errors_in
from fxgrad.passes import RULES
from fxgrad.torch_api.errors import says
from fxgrad.torch_api.explanations import EXPLANATIONS, OF_GRADIENTS, explanation_of
from tests.errors.programs import ELSEWHERE, OTHERS, PRELUDE, PROGRAMS, WARNINGS
from tests.errors.table import README, entry_of, outcome

ROOT = Path(__file__).resolve().parents[2]
PINNED = re.findall(r"^torch==([\d.]+)", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)


def run_alone(text: str) -> BaseException | None:
    """What a program ends with, run by nobody but Python."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            exec(compile(PRELUDE + text, "program.py", "exec"), {"__name__": "__main__"})
        except Exception as error:
            return error
    return None


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", list(PROGRAMS))
def test_torch_says_it_and_the_report_names_the_line_of_the_cause(name: str, tmp_path: Path) -> None:
    error = run_alone(PROGRAMS[name])
    assert error is not None
    assert explanation_of(" ".join(str(error).split())) is entry_of(name), str(error)
    got = outcome(name, tmp_path)
    assert got.is_right, [(f.code, f.site and f.site.line, f.message) for f in got.findings]
    assert got.finding is not None
    assert got.finding.fix is not None
    # A traceback that is pasted leads to the same entry, and to a line of the program.
    (said,) = errors_in(got.written)[-1:]
    assert said.entry is entry_of(name)
    own = said.own()
    assert own is not None
    assert own.file.startswith(str(tmp_path))


@pytest.mark.parametrize("name", list(WARNINGS))
def test_torch_warns(name: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.set_warn_always(True)
        try:
            run_alone(WARNINGS[name])
        finally:
            torch.set_warn_always(False)
    assert any(says(str(warning.message), entry_of(name).kind) for warning in caught), [str(w.message)[:200] for w in caught]


@pytest.mark.parametrize("name", list(ELSEWHERE))
def test_what_cannot_be_provoked_here_is_known_by_its_words(name: str) -> None:
    assert explanation_of(ELSEWHERE[name]) is entry_of(name)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", list(OTHERS))
def test_an_error_of_another_kind_is_no_gradients(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROGRAMS, name, OTHERS[name])
    got = outcome(name, tmp_path)
    assert got.findings == ()


def test_every_entry_has_its_program() -> None:
    named = {name.partition(" ")[0] for name in (*PROGRAMS, *ELSEWHERE, *WARNINGS)}
    assert named == {entry.name for entry in EXPLANATIONS}


def test_entries_are_told_apart() -> None:
    """An entry is found by its own sentences: none before it in the table has them too."""
    for entry in EXPLANATIONS:
        for phrase in entry.kind.phrases:
            assert explanation_of(phrase.replace(" ... ", " something ")) is entry, phrase


def test_entries_name_rules_there_are_and_deaths_are_reported() -> None:
    codes = {rule.CODE for rule in RULES}
    for entry in EXPLANATIONS:
        assert entry.code in codes | {""}
        assert entry.causes
        assert entry.remedy
        assert (entry.kind in OF_GRADIENTS) == (not entry.warning and not entry.python)


@pytest.mark.skipif(torch.__version__.partition("+")[0] not in PINNED, reason="the table is of the pinned torch")
def test_the_table_in_the_readme_is_what_its_command_writes() -> None:
    from tests.errors.table import renewed

    text = README.read_text(encoding="utf-8")
    assert "<!-- table: errors -->" in text
    assert renewed(text) == text
