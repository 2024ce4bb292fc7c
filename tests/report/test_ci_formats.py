"""The formats that a CI reads: JUnit, GitLab's Code Quality, Markdown for a pull request, one line a finding."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from fxgrad.records import Finding, Fix, ParameterFact, Raised, Site
from fxgrad.report import Report
from fxgrad.report.markdown import code, fenced, prose, table

HERE = Site(str(Path(__file__).absolute()), 3, 1, 3, 10, "Net.forward")


def finding(code: str = "FXG103", severity: str = "error", parameters: tuple[str, ...] = (), site: Site | None = HERE) -> Finding:
    return Finding(code, "bad-pattern", severity, "`x` is cut", site, parameters, fix=Fix("mend it"))  # type: ignore[arg-type]


def fact(name: str, trains: bool) -> ParameterFact:
    return ParameterFact(name, (name,), (2,), trains, "", "Linear", True, (), "none")


# ---------------------------------------------------------------------------------------------- JUnit

CASES: dict[str, tuple[Report, dict[str, str]]] = {
    "all flow": (Report({"a": "flows", "b": "flows"}, ()), {"a": "", "b": ""}),
    "one is starved": (Report({"a": "none", "b": "flows"}, (finding(parameters=("a",)),)), {"a": "failure", "b": ""}),
    "an error about what flows": (Report({"a": "flows"}, (finding("FXG203", parameters=("a",)),)), {"a": "failure"}),
    "frozen, and meant so": (Report({"a": "none", "b": "flows"}, (), parameters=(fact("a", False),)), {"a": "skipped", "b": ""}),
    "warned of": (Report({"a": "none", "b": "flows"}, (finding(severity="warning", parameters=("a",)),)), {"a": "skipped", "b": ""}),
    "a finding that names none": (
        Report({"a": "blocked"}, (finding("FXG201"), finding("FXG201"))),
        {"a": "skipped", "FXG201 bad-pattern in Net.forward": "failure", "FXG201 bad-pattern in Net.forward (2)": "failure"},
    ),
    "an error that nothing explains": (
        Report({"a": "blocked"}, (), error=Raised("forward", "KeyError", "'x'", HERE)),
        {"a": "skipped", "the program runs": "failure"},
    ),
}


@pytest.mark.parametrize(("report", "want"), CASES.values(), ids=CASES.keys())
def test_junit_fails_what_the_report_accuses(report: Report, want: dict[str, str]) -> None:
    suite = ElementTree.fromstring(report.render("junit").encode())[0]
    cases = suite.findall("testcase")
    assert {case.get("name"): next((child.tag for child in case), "") for case in cases} == want
    assert (int(suite.get("tests", "")), int(suite.get("failures", ""))) == (len(want), list(want.values()).count("failure"))
    assert (int(suite.get("skipped", "")) > 0) is ("skipped" in want.values())
    assert (int(suite.get("failures", "")) > 0) is (not report.ok or report.error is not None)


@pytest.mark.parametrize("report", [report for report, _ in CASES.values()], ids=CASES.keys())
def test_junit_is_what_the_schemas_of_ant_and_jenkins_share(report: Report) -> None:
    """Ant's wants each of these attributes and elements in this order, Jenkins' knows no `error` in a test case."""
    root = ElementTree.fromstring(replace(report, model="a \x00\uffff model").render("junit").encode())
    (suite,) = root
    assert (root.tag, root.attrib, suite.tag) == ("testsuites", {}, "testsuite")
    assert list(suite.attrib) == "id package name timestamp hostname tests failures errors skipped time".split()
    tags = [child.tag for child in suite]
    assert tags == ["properties", *["testcase"] * (len(tags) - 3), "system-out", "system-err"]
    assert len(suite.get("timestamp", "")) == len("2026-01-01T00:00:00")
    for case in suite.findall("testcase"):
        assert list(case.attrib) == ["name", "classname", "time"]
        assert [child.tag for child in case] in ([], ["failure"], ["skipped"])
        assert all(set(child.attrib) <= {"message", "type"} and len(child) == 0 for child in case)


def test_junit_says_where_to_look() -> None:
    report = Report({"a": "none", "b": "none"}, (finding(parameters=("a", "b")),))
    failure = ElementTree.fromstring(report.render("junit").encode()).find(".//failure")
    assert failure is not None
    assert (failure.get("message"), failure.get("type")) == ("`x` is cut", "FXG103")
    assert failure.text is not None
    assert "test_ci_formats.py:3:1: FXG103 bad-pattern\n3 | from __future__" in failure.text
    assert failure.text.endswith("parameters: a, b\nhelp: mend it")


# ---------------------------------------------------------------------------------------------- GitLab


def test_gitlab_gets_what_it_asks_of_every_issue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    there = Site(str(tmp_path / "sub" / "net.py"), 7, 1, 9, 2)
    findings = (
        finding(site=there),
        finding(site=there),
        finding("FXG204", "warning", site=None),
        finding("FXG102", "note", site=Site("/elsewhere/x.py", 2)),
    )
    report = Report({}, findings)
    issues = json.loads(report.render("gitlab"))
    assert [issue["severity"] for issue in issues] == ["critical", "critical", "minor", "info"]
    assert issues[0]["location"] == {"path": "sub/net.py", "lines": {"begin": 7, "end": 9}}
    assert issues[2]["location"] == {"path": ".", "lines": {"begin": 1}}
    assert issues[3]["location"]["path"] == "/elsewhere/x.py"
    assert json.loads(replace(report, model_site=there).render("gitlab"))[2]["location"]["path"] == "sub/net.py"
    for issue in issues:
        assert issue["description"].startswith(issue["check_name"][:6])
        assert issue["location"]["lines"]["begin"] >= 1
    assert len({issue["fingerprint"] for issue in issues}) == 4


def test_gitlab_and_concise_tell_an_error_that_nothing_explains() -> None:
    report = Report({"a": "blocked"}, (), error=Raised("forward", "KeyError", "'x'", HERE))
    (issue,) = json.loads(report.render("gitlab"))
    assert issue["description"].startswith("FXG002 the forward pass raises KeyError at ")
    assert "test_ci_formats.py:3:1: KeyError the forward pass raises" in report.render("concise")


# ---------------------------------------------------------------------------------------------- one line a finding


def test_concise_is_one_line_a_finding() -> None:
    report = Report({}, (replace(finding(), message="one\nand two"), finding("FXG301", "warning", site=None)), model="Net")
    assert report.render("concise").splitlines() == [
        f"{report.render('concise').partition(':')[0]}:3:1: FXG103 one and two",
        "Net: FXG301 `x` is cut",
    ]
    assert replace(report, model_site=HERE).render("concise").splitlines()[1].endswith("test_ci_formats.py:3:1: FXG301 `x` is cut")
    assert Report({"a": "flows"}, ()).render("concise") == ""


# ---------------------------------------------------------------------------------------------- Markdown


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("`h += x` overwrites `y`", "`h += x` overwrites `y`"),
        ("a_b * c_d [e](f)", r"a\_b \* c\_d \[e\](f)"),
        ("<img src=x> & @team, see #12", "&lt;img src=x&gt; &amp; @<!-- -->team, see #<!-- -->12"),
        ("`@torch.no_grad()` cuts", "`@torch.no_grad()` cuts"),
        ("a lone ` stays", r"a lone \` stays"),
        ("two\nlines", "two lines"),
        ("either `a|b`", r"either `a\|b`"),
    ],
)
def test_words_stay_words(text: str, want: str) -> None:
    assert prose(text) == want


def test_code_holds_what_it_holds() -> None:
    assert code("a`b") == "`` a`b ``"
    assert fenced("```\nx", "python") == "````python\n```\nx\n````"
    assert table(("a", "b"), [("1", "2")]) == "| a | b |\n|---|---|\n| 1 | 2 |"
    assert table(("a",), []) == ""


def test_a_table_keeps_its_columns_whatever_a_name_holds() -> None:
    report = Report({"a|b": "none", "c\n| d": "flows"}, (finding(parameters=("a|b",)),))
    rows = [line for line in report.render("markdown").splitlines() if line.startswith("|")]
    assert len(rows) == 4
    assert {line.replace("\\|", "").count("|") for line in rows} == {5}
