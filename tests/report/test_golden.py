"""Every format, whole: `tests/golden/report.*` are what one report looks like in each. SARIF and JSON follow their schemas.

After a change that is meant: `FXGRAD_WRITE_GOLDEN=1 python -m pytest tests/report/test_golden.py`, and read the difference. The SARIF schema
(`tests/sarif-2.1.0.schema.json`) is that of OASIS SARIF 2.1.0 as the npm package @microsoft/sarif-multitool-linux 5.7.0 carries it,
Copyright (c) Microsoft Corporation, under the MIT licence.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from fxgrad.passes import RULES
from fxgrad.records import Decision, Edit, Finding, Fix, ParameterFact, Raised, Site, Step
from fxgrad.report import FORMATS, Report, as_json, repository

FOLDER = Path(__file__).parents[1] / "golden"
SARIF = json.loads((Path(__file__).parents[1] / "sarif-2.1.0.schema.json").read_text())
SUFFIX = {
    "table": "txt",
    "concise": "concise.txt",
    "json": "json",
    "sarif": "sarif",
    "html": "html",
    "markdown": "md",
    "github": "github.txt",
    "gitlab": "gitlab.json",
    "junit": "junit.xml",
    "mermaid": "mmd",
}


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths are shown relative to the current directory, which is taken for a repository's root."""
    monkeypatch.chdir(FOLDER)
    monkeypatch.setattr(repository, "root", lambda: str(FOLDER))


def site(line: int, text: str) -> Site:
    """Where `text` stands on a line of the model."""
    column = (FOLDER / "model.py").read_text().splitlines()[line - 1].index(text) + 1
    return Site(str(FOLDER / "model.py"), line, column, line, column + len(text), "Net.forward")


def report() -> Report:
    cut = site(14, "self.encoder(x).detach()")
    unused = site(10, "self.unused = nn.Linear(4, 2)")
    meant = site(15, "self.teacher(x).detach()")
    names = ("encoder.weight", "encoder.bias", "head.weight", "head.bias", "unused.weight", "unused.bias", "teacher.weight")
    return Report(
        verdicts={**dict.fromkeys(names, "none"), "head.weight": "flows", "head.bias": "flows"},
        findings=(
            Finding(
                "FXG103",
                "detached-path",
                "error",
                "`detach` cuts `encoder` off from the loss: 2 parameters get no gradient",
                cut,
                names[:2],
                (Step("loss"), Step("head"), Step("detach", cut, True), Step("encoder.weight")),
                Fix("drop the `detach`", "unsafe", (Edit(cut, "self.encoder(x).detach()", "self.encoder(x)"),)),
            ),
            Finding(
                "FXG101", "unused-parameter", "error", "`unused` is never called", unused, names[4:6], (), Fix("call it, or remove it")
            ),
            Finding("FXG301", "optimizer-misses-parameter", "warning", 'in no group: "<head> & co", 100%, a,b:c', None, ("head.bias",)),
        ),
        notes=(Finding("FXG102", "frozen-parameter", "note", "`teacher` is frozen", meant, ("teacher.weight",)),),
        parameters=tuple(
            ParameterFact(n, (n,), (4,), n != "teacher.weight", n.partition(".")[0], "Linear", n[0] != "u", (), "none") for n in names
        ),
        loss_used="`loss`",
        assumptions=("inputs: x=2x4",),
        model="Net",
        model_site=site(6, "class Net(nn.Module)"),
        nodes=9,
        paths=2,
        decisions=(Decision(cut, "n3", True, False),),
        versions={"fxgrad": "0", "torch": "2.13.0", "python": "3.11.9"},
        command="fxgrad report model.py",
        suppressed=(
            Finding("FXG103", "detached-path", "error", "`detach` cuts `teacher` off", meant, ("teacher.weight",)),
            Finding("FXG204", "mutated-input", "warning", "forward changes `x`", site(13, "def forward(self, x):")),
        ),
    )


def blocked() -> Report:
    where = site(16, "self.head(h + with_teacher)")
    error = Raised("forward", "RuntimeError", "mat1 and mat2 shapes cannot be multiplied", where, (where,))
    return Report(verdicts={"head.weight": "blocked"}, findings=(), model="Net", error=error)


def written(format: str, verbose: bool) -> str:
    """The report without what depends on the machine, the version and the rules' documentation."""
    text = report().render(format, verbose=verbose).replace(FOLDER.as_uri(), "file:///here").replace(str(FOLDER), "/here")
    text = re.sub(r"(?s)(<(style|script)>).*?(</\2>)", r"\1\3", text)  # a page's own files
    if format in ("json", "sarif"):
        data: dict[str, Any] = json.loads(text)
        driver = data["runs"][0]["tool"]["driver"] if format == "sarif" else data["tool"]
        driver["version"] = "0"
        if format == "sarif":
            driver["rules"] = [rule["id"] for rule in driver["rules"][:3]]
        text = json.dumps(data, indent=1, ensure_ascii=False)
    return re.sub(r'timestamp="[^"]*"', 'timestamp="now"', text) + "\n"


@pytest.mark.parametrize("verbose", [False, True], ids=["short", "verbose"])
@pytest.mark.parametrize("format", list(SUFFIX))
def test_format(format: str, verbose: bool) -> None:
    path = FOLDER / f"report{'-verbose' if verbose else ''}.{SUFFIX[format]}"
    got = written(format, verbose)
    if os.environ.get("FXGRAD_WRITE_GOLDEN"):
        path.write_text(got, encoding="utf-8")
    assert got == path.read_text(encoding="utf-8")


def test_every_format_is_here() -> None:
    assert set(SUFFIX) == set(FORMATS)


@pytest.mark.parametrize("make", [report, blocked, lambda: Report(verdicts={}, findings=())], ids=["report", "blocked", "empty"])
def test_sarif_follows_its_schema(make: Any) -> None:
    for verbose in (False, True):
        log = json.loads(make().render("sarif", verbose=verbose))
        jsonschema.validate(log, SARIF, jsonschema.Draft202012Validator, format_checker=jsonschema.FormatChecker())


def test_sarif_has_all_that_viewers_ask_for() -> None:
    run = json.loads(report().render("sarif"))["runs"][0]
    driver, results = run["tool"]["driver"], run["results"]
    assert {rule["id"] for rule in driver["rules"]} == {rule.CODE for rule in RULES}
    assert all(
        rule["help"]["text"] and rule["fullDescription"]["text"] and rule["defaultConfiguration"]["level"] for rule in driver["rules"]
    )
    assert [driver["rules"][result["ruleIndex"]]["id"] for result in results] == [result["ruleId"] for result in results]
    assert [[s["kind"] for s in result.get("suppressions", ())] for result in results] == [[], [], [], ["inSource"], ["external"]]
    assert sum("fixes" in result for result in results) == 1
    marks = [result["partialFingerprints"]["fxgrad/v1"] for result in results]
    assert len(set(marks)) == len(marks) == 5


@pytest.mark.parametrize(
    ("path", "value"),
    [(("results", 0, "level"), "fatal"), (("results", 0, "locations", 0, "physicalLocation", "region", "startLine"), 0), (("tool",), {})],
)
def test_sarif_schema_refuses(path: tuple[Any, ...], value: object) -> None:
    log = json.loads(report().render("sarif"))
    place = log["runs"][0]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(log, SARIF, jsonschema.Draft202012Validator)


@pytest.mark.parametrize("make", [report, blocked], ids=["report", "blocked"])
def test_json_follows_its_schema(make: Any) -> None:
    schema = json.loads((Path(as_json.__file__).parent / "report.schema.json").read_text())
    jsonschema.validate(make().to_dict(), schema, jsonschema.Draft202012Validator)
