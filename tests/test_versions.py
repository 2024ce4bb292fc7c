"""The table of versions says what was run and no more."""

from __future__ import annotations

from dataclasses import replace

from fxgrad.torch_api.versions import NEWEST_TRIED, OLDEST_TRIED
from tests.versions import RESULTS, TABLE, TORCHES, Result, counted, read, table, without_pins

RUN = Result("2.15.0", "2.15.0+cpu", "3.11.7", "Linux", 9, 0, 1, (), 60, "2026-01-02", "abc", "python -m pytest")


def cells(text: str, torch: str) -> list[str]:
    row = next(line for line in text.splitlines() if line.startswith(f"| {torch} |"))
    return [cell.strip() for cell in row.split("|")[2:-1]]


def test_a_cell_that_was_not_run_is_empty() -> None:
    assert cells(table([RUN]), "2.15.0") == ["9 / 0 / 1, 60 s, 2026-01-02", "", "", ""]
    assert cells(table([RUN]), "2.11.0") == ["", "", "", ""]


def test_the_last_run_of_a_cell_counts_for_good_or_bad() -> None:
    worse = replace(RUN, failed=1, failures=("tests.test_x::test_y",), date="2026-01-03", python="3.11.9")
    text = table([RUN, worse])
    assert cells(text, "2.15.0")[0] == "9 / 1 / 1, 60 s, 2026-01-03"
    assert "- torch 2.15.0, Python 3.11.9 fails: `tests.test_x::test_y`" in text
    assert "fails" not in table([worse, RUN])


def test_a_test_that_broke_off_counts_as_failed() -> None:
    junit = """<testsuites><testsuite>
      <testcase classname="a" name="b"/>
      <testcase classname="a" name="c"><failure/></testcase>
      <testcase classname="a" name="d"><error/></testcase>
      <testcase classname="a" name="e"><skipped/></testcase>
    </testsuite></testsuites>"""
    assert counted(junit) == {"passed": 1, "failed": 2, "skipped": 1, "failures": ("a::c", "a::d")}


def test_pins_of_what_is_varied_are_left_out() -> None:
    text = "# torch is pinned\ntorch==2.13.0\ntorchmetrics==1.9.0\ntorch_geometric==2.8.1\nsetuptools==84.2.1\n"
    assert without_pins(text, ("torch", "setuptools")) == "# torch is pinned\ntorchmetrics==1.9.0\ntorch_geometric==2.8.1\n"


def test_the_page_is_made_of_the_results() -> None:
    assert TABLE.read_text() == table(read(RESULTS))


def test_the_tried_range_is_that_of_the_table() -> None:
    minors = [tuple(int(part) for part in version.split(".")[:2]) for version in TORCHES]
    assert (minors[0], minors[-1]) == (OLDEST_TRIED, NEWEST_TRIED)
