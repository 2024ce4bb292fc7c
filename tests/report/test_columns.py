"""Tables that fit a terminal: cells are folded where names and paths have their joints, and nothing is lost."""

from __future__ import annotations

import pytest

from fxgrad.records import Finding, Site
from fxgrad.report import Report
from fxgrad.report.columns import fitting, folded
from fxgrad.source.excerpt import brief_path, place


@pytest.mark.parametrize(
    ("text", "width", "want"),
    [
        ("short", 10, "short"),
        ("encoder.layer.0.weight", 14, "encoder.layer.\n0.weight"),
        ("FXG101 site-packages/torch/nn/linear.py:3:4", 24, "FXG101 site-packages/\ntorch/nn/linear.py:3:4"),
        ("a_very_long_name", 7, "a_very_\nlong_\nname"),
        ("indivisible", 4, "indi\nvisi\nble"),
        ("two words", 5, "two\nwords"),
        ("", 5, ""),
    ],
)
def test_a_cell_is_broken_at_its_joints(text: str, width: int, want: str) -> None:
    assert folded(text, width) == want
    assert max(map(len, want.splitlines()), default=0) <= width


@pytest.mark.parametrize("width", [60, 80, 100])
def test_columns_fit_and_the_narrow_one_stays_whole(width: int) -> None:
    rows = [["head.bias", "1", "none", "FXG103 " + "deep/" * 20 + "model.py:1:2"]]
    ((name, count, verdict, because),) = fitting(rows, ("parameter", "count", "gradient", "because"), width, (0, 3))
    assert (name, count, verdict) == ("head.bias", "1", "none")
    assert "".join(because.split()) == "".join(rows[0][3].split())
    assert 9 + 2 + 5 + 2 + 8 + 2 + max(map(len, because.splitlines())) <= width


def test_a_report_fits_a_terminal() -> None:
    names = [f"encoder.layers.{n}.attention.projection.weight" for n in (1, 20, 300)]
    found = Finding("FXG103", "detached-path", "error", "m", Site("/far/away/" + "folder/" * 9 + "model.py", 12, 13), tuple(names))
    report = Report({name: "none" for name in names}, (found,), model="Net")
    table = report.render(width=70).split("\n\n")[1]
    assert max(map(len, table.splitlines())) <= 70
    assert max(map(len, report.render().split("\n\n")[1].splitlines())) > 70


@pytest.mark.parametrize(
    ("file", "want"),
    [
        ("/opt/env/lib/python3.11/site-packages/torch/nn/linear.py", "site-packages/torch/nn/linear.py"),
        ("/usr/lib/python3/dist-packages/torch/x.py", "dist-packages/torch/x.py"),
        ("/home/me/my-site-packages/x.py", "/home/me/my-site-packages/x.py"),
        ("<stdin>", "<stdin>"),
    ],
)
def test_an_installed_file_is_named_from_site_packages_on(file: str, want: str) -> None:
    assert brief_path(file) == want
    assert place(Site(file, 3, 4)) == f"{want}:3:4"
