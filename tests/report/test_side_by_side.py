"""A report read back from JSON, and two reports on one page."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from fxgrad.cli import main
from fxgrad.records import Decision, Edit, Finding, Fix, ParameterFact, Raised, Site, Step
from fxgrad.records.errors import InputError
from fxgrad.records.ranks import Difference, Ending, Ranks
from fxgrad.report import Report
from fxgrad.report.as_json import to_dict
from fxgrad.report.html import side_by_side
from fxgrad.report.read_back import read

SITE = Site("/code/model.py", 7, 5, 7, 12, "Net.forward")


def report() -> Report:
    """With something in every field."""
    fix = Fix("drop it", "safe", (Edit(SITE, "x.detach()", "x"),))
    cut = Finding(
        "FXG103", "detached-path", "error", "`detach` cuts", SITE, ("a", "b"), (Step("loss"), Step("detach", SITE, True)), fix, (1,)
    )
    return Report(
        verdicts={"a": "none", "b": "blocked", "c": "flows"},
        findings=(cut, Finding("FXG204", "mutated-input", "warning", "changes its input")),
        notes=(Finding("FXG102", "frozen-parameter", "note", "frozen", None, ("c",)),),
        parameters=(ParameterFact("a", ("a", "tied"), (2, 3), True, "", "Linear", True, (), "none"),),
        loss_used="`loss`",
        values="fake",
        assumptions=("guessed",),
        model="Net",
        nodes=7,
        paths=3,
        paths_cut_off=True,
        decisions=(Decision(SITE, "gt", True, False), Decision(None, "le", False, True)),
        error=Raised("backward", "RuntimeError", "no", SITE, (SITE, SITE)),
        deselected=2,
        suppressed=(cut,),
        ranks=Ranks(
            2,
            {"a": {0: "none", 1: "flows"}},
            (Difference(("a",), (1,), (0,), SITE, "it did not run"),),
            (Ending(0, "raised", "raised KeyError", SITE, True),),
        ),
        versions={"torch": "9.9"},
        command="fxgrad run train.py",
        model_site=SITE,
    )


@pytest.mark.parametrize(
    "made", [report(), Report({}, ()), replace(report(), ranks=None, error=None)], ids=["full", "empty", "one process"]
)
def test_a_report_is_read_back_from_json(made: Report) -> None:
    said = json.loads(made.render("json"))
    assert to_dict(read(said)) == said
    assert replace(read(said), versions={}) == replace(read(to_dict(made)), versions={})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schema_version",), 2),
        (("verdicts", "a"), "<b>"),
        (("values",), "<b>"),
        (("findings", 0, "severity"), "<b>"),
        (("findings", 0, "code"), "FXG1<b>"),
        (("findings", 0, "fix", "safety"), "<b>"),
        (("findings", 0, "site", "line"), "<b>"),
        (("parameters", 0, "shape"), ["<b>"]),
        (("error", "phase"), "<b>"),
        (("findings",), None),
    ],
)
def test_what_is_no_report_is_refused(path: tuple[Any, ...], value: object) -> None:
    said = json.loads(report().render("json"))
    place = said
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(InputError, match="no report of fxgrad's"):
        read(said)


@pytest.mark.parametrize("said", [None, [], "text", 3, {}])
def test_other_json_is_refused(said: object) -> None:
    with pytest.raises(InputError, match="no report of fxgrad's"):
        read(said)


@dataclass
class Changed:
    kind: str
    parameter: str
    before: str
    after: str
    because: str


def pair() -> str:
    new = replace(report(), verdicts={"a": "flows", "b": "none", "<c>": "flows"}, findings=(), error=None)
    changes = [
        Changed("gained", "a", "none", "flows", "FXG103 `detach`"),
        Changed("other cause", "b", "blocked", "none", ""),
        Changed("added", "<c>", "", "flows", ""),
    ]
    return side_by_side(report(), new, changes, ("<old>", "new"))


def test_both_reports_and_their_changes_are_on_the_page() -> None:
    page = pair()
    anchors = re.findall(r' id="?([\w-]+)', page)
    assert len(anchors) == len(set(anchors))
    assert {"old-finding-0", "old-error", "new-finding-0"} <= set(anchors)
    assert "&lt;old&gt; → new" in page
    assert "1 gained, 1 other cause, 1 added" in page
    assert "<old>" not in page.replace("&lt;old&gt;", "")
    assert "<c>" not in page
    links = re.findall(r'href="#([\w-]+)"', page)
    assert set(links) <= set(anchors)


def test_diff_writes_the_page(tmp_path: Path) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text(report().render("json"))
    new.write_text(replace(report(), verdicts={"a": "none", "b": "flows", "c": "none"}).render("json"))
    assert main(["diff", str(old), str(new), "--format", "html", "-o", str(tmp_path / "diff.html")]) == 1
    page = (tmp_path / "diff.html").read_text()
    assert "1 lost, 1 gained" in page
    assert page.count("FXG103") > page.count('"old-finding-0"')
    assert len(re.findall(r'id="(?:old|new)-finding-0"', page)) == 2
