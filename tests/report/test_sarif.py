"""What GitHub's code scanning asks of a SARIF log: places, paths, fingerprints, the rules' pages, and safe fixes."""

from __future__ import annotations

import functools
import inspect
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import fxgrad
from fxgrad.cli import main
from fxgrad.fix_source.loop import MendResult, Repair
from fxgrad.fix_source.patch import Mended
from fxgrad.fix_source.per_finding import with_fixes
from fxgrad.fix_source.sheet import apply, read, sheet
from fxgrad.passes import RULES
from fxgrad.records import Edit, Finding, Site, documentation
from fxgrad.records.links import HOME, rule_page
from fxgrad.report import Report
from fxgrad.report.line_hash import hashes
from fxgrad.source import definition_site

ROOT = Path(__file__).parents[2]


def run_of(report: Report) -> dict[str, Any]:
    run: dict[str, Any] = json.loads(report.render("sarif"))["runs"][0]
    return run


# ---------------------------------------------------------------------------------------------- fingerprints


def plainly(text: str, start: int) -> str:
    """The hash of one line by its definition: `start` is where it begins in a text without blanks."""
    block = [ord(character) for character in text[start:] + "\uffff"][:100]
    return f"{sum(unit * 37 ** (99 - place) for place, unit in enumerate(block)) % 2**64:x}"


def test_a_line_has_the_hash_that_github_gives_it() -> None:
    assert hashes("") == ("c129715d7a2bc9a3:1",)  # what the upload action says of an empty file
    text = "import_torch\nx=torch.ones(3)\n\n" + "y=x.detach()\n" * 12 + "z=1"
    found = hashes(text)
    starts = [0, *(index + 1 for index, character in enumerate(text) if character == "\n")]
    assert [mark.partition(":")[0] for mark in found] == [plainly(text, start) for start in starts]
    assert [mark.partition(":")[2] for mark in found[3:8]] == ["1", "2", "3", "4", "5"]  # their next 100 units are alike
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("same", ["  a = 1\r\n\tb\r c", "a=1\nb\n c ", "a =1\r b\r\nc"])
def test_blanks_and_line_ends_are_no_part_of_it(same: str) -> None:
    assert hashes(same) == hashes("a=1\nb\nc")


def test_a_character_beyond_the_first_plane_is_two_units() -> None:
    assert hashes("\U0001f525") == hashes("\ud83d\udd25") != hashes("\ufffd")


# ---------------------------------------------------------------------------------------------- places


class Net(nn.Module):
    pass


def step(x: Any) -> Any:
    return x


@pytest.mark.parametrize(
    ("items", "line"),
    [((Net(),), "class Net(nn.Module)"), ((step,), "def step(x: Any) -> Any"), ((nn.Sequential(), Net), "class Net(nn.Module)")],
)
def test_a_model_stands_where_the_user_wrote_it(items: tuple[object, ...], line: str) -> None:
    site = definition_site(*items)
    assert site is not None
    text = Path(site.file).read_text().splitlines()[site.line - 1]
    assert text[site.column - 1 : site.end_column - 1] == line


def test_a_model_of_torchs_own_stands_nowhere() -> None:
    assert definition_site(nn.Linear(2, 2)) is None
    assert definition_site(functools.partial(step)) is None


LOST = Finding("FXG103", "detached-path", "error", "cut somewhere", None, ("a.weight",))


def test_a_finding_without_a_line_stands_at_the_models_class() -> None:
    place = Site(str(ROOT / "tests/golden/model.py"), 6, 1, 6, 21, "Net")
    run = run_of(Report({"a.weight": "none"}, (LOST,), model_site=place))
    assert "invocations" not in run
    (location,) = run["results"][0]["locations"]
    assert location["physicalLocation"]["region"]["startLine"] == 6
    assert location["logicalLocations"] == [{"fullyQualifiedName": "a.weight", "kind": "member"}]


def test_where_there_is_no_class_either_it_is_a_notification() -> None:
    run = run_of(Report({"a.weight": "none"}, (LOST,)))
    assert run["results"] == []
    (invocation,) = run["invocations"]
    (said,) = invocation["toolExecutionNotifications"]
    assert invocation["executionSuccessful"]
    assert (said["level"], said["associatedRule"]["id"]) == ("error", "FXG103")
    assert said["message"]["text"].startswith("cut somewhere")


def test_an_analysis_knows_where_its_model_is_written() -> None:
    import torch

    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.a(x)

    report = fxgrad.analyze(Small(), (torch.ones(1, 2),))
    assert report.model_site == definition_site(Small)
    assert report.model_site is not None


# ---------------------------------------------------------------------------------------------- paths


@pytest.mark.parametrize("git", ["folder", "worktree"])
def test_paths_are_those_of_the_repository(git: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "src" / "a b").mkdir(parents=True)
    if git == "folder":
        (tmp_path / ".git").mkdir()
    else:
        (tmp_path / ".git").write_text("gitdir: elsewhere\n")
    file = tmp_path / "src" / "a b" / "model.py"
    file.write_text("x = 1\n")
    monkeypatch.chdir(tmp_path / "src")
    report = Report({}, (Finding("FXG103", "detached-path", "error", "cut", Site(str(file), 1, 1, 1, 6)),))
    run = run_of(report)
    assert run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"] == {
        "uri": "src/a%20b/model.py",
        "uriBaseId": "%SRCROOT%",
    }
    assert run["originalUriBaseIds"] == {"%SRCROOT%": {"uri": tmp_path.as_uri() + "/"}}
    assert "::error file=src/a b/model.py,line=1" in report.render("github")


def test_a_file_outside_of_the_repository_has_its_whole_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here" / ".git").mkdir(parents=True)
    file = tmp_path / "here.py"
    monkeypatch.chdir(tmp_path / "here")
    run = run_of(Report({}, (Finding("FXG103", "detached-path", "error", "cut", Site(str(file), 1)),)))
    assert run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"] == {"uri": file.as_uri()}


# ---------------------------------------------------------------------------------------------- rules


def test_every_rule_has_its_page() -> None:
    rules = run_of(Report({}, ()))["tool"]["driver"]["rules"]
    for rule, module in zip(rules, RULES, strict=True):
        assert rule["helpUri"] == rule_page(module.CODE, module.NAME)
        assert (ROOT / rule["helpUri"].removeprefix(f"{HOME}/blob/main/")).is_file()
        assert rule["help"]["markdown"].count("```python\n") == 2
        assert "### What it finds\n\n" in rule["help"]["markdown"]
        assert rule["properties"]["precision"] in ("very-high", "high")
        assert len(rule["properties"]["tags"]) == 3


def test_the_address_is_that_of_the_package() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Homepage"] == HOME


def test_a_documentation_is_parted_at_its_headings() -> None:
    for rule in RULES:
        text = inspect.getdoc(rule) or ""
        found = documentation.sections(text)
        assert list(found) == ["What it finds", "Why it matters", "Example", "Instead", "When the fix is safe", "Not handled"]
        told = "".join(f"{heading}{part}" for heading, part in found.items())
        assert "".join(f"{documentation.summary(text)}{told}".split()) == "".join(text.split())


# ---------------------------------------------------------------------------------------------- safe fixes

WRITES = """\
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        h = torch.sigmoid(self.a(x)); h += x
        g = torch.tanh(self.b(h)); g.mul_(2)
        return g
"""


def test_the_safe_fixes_are_in_the_log_and_can_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.py").write_text(WRITES)
    assert main(["report", "model.py", "--format", "sarif"]) == 1
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert [result["ruleId"] for result in run["results"]] == ["FXG201", "FXG201"]
    changes = [fix["artifactChanges"] for result in run["results"] for fix in result["fixes"]]
    assert [change["artifactLocation"]["uri"] for (change,) in changes] == ["model.py", "model.py"]
    lines = WRITES.splitlines()
    replacements = [item for (change,) in changes for item in change["replacements"]]
    for item in sorted(replacements, key=lambda item: -item["deletedRegion"]["startColumn"]):
        region, new = item["deletedRegion"], item["insertedContent"]["text"]
        assert region["startLine"] == region["endLine"]
        line = lines[region["startLine"] - 1]
        lines[region["startLine"] - 1] = line[: region["startColumn"] - 1] + new + line[region["endColumn"] - 1 :]
    Path("model.py").write_text("\n".join(lines))
    assert main(["report", "model.py", "--format", "sarif"]) == 0


def test_no_fix_is_tried_where_none_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fxgrad.fix_source.mend", None)  # it would raise
    Path("model.py").write_text(WRITES)
    for more in (["--format", "sarif", "--no-fixes"], ["--format", "json"]):
        assert main(["report", "model.py", *more]) == 1
    Path("model.py").write_text(WRITES.replace("h += x", "h = (h + x).detach()").replace("g.mul_(2)", "g = g * 2"))
    assert main(["report", "model.py", "--format", "sarif"]) == 1  # a cut is no write


def repaired(text: str, *changes: tuple[str, str, str]) -> tuple[Report, Report]:
    """A report with a finding at each text, and the same with its repair: the texts at the place, before and after. The next is
    in the text that the one before has left."""
    file = str(Path("model.py").absolute())
    Path(file).write_text(text)
    stored, now, findings, repairs = read(file), text, [], []
    for at, old, new in changes:
        place = sheet(file, text).edit(text.index(at), text.index(at) + len(at), "").site
        moved = sheet(file, now).edit(now.index(at), now.index(at) + len(at), "").site
        edit = sheet(file, now).edit(now.index(old), now.index(old) + len(old), new)
        findings.append(Finding("FXG201", "overwritten-saved-tensor", "error", at, place))
        repairs.append(Repair(Finding("FXG201", "overwritten-saved-tensor", "error", at, moved), "safe", "how", (edit,), ""))
        now = apply(now, file, (edit,))
    mended = Mended.unchanged(stored).changed(now, "FXG201", "safe")
    report = Report({}, tuple(findings))
    return report, with_fixes(report, MendResult((mended,), tuple(repairs), (), (), (), {}, {}))


def edits(finding: Finding) -> tuple[Edit, ...]:
    assert finding.fix is not None
    return finding.fix.edits


@pytest.fixture
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("_in_a_folder")
def test_each_fix_can_be_made_alone_wherever_the_others_stand() -> None:
    text = "a += 1; b += 1\nc += 1\n"
    _, report = repaired(text, ("c += 1", "c += 1", "c = c + 1"), ("a += 1", "a += 1", "a = (\n    a + 1)"), ("b += 1", "+= 1", "= b + 1"))
    alone = [apply(text, str(Path("model.py").absolute()), edits(finding)) for finding in report.findings]
    assert alone == ["a = (\n    a + 1); b += 1\nc += 1\n", "a += 1; b = b + 1\nc += 1\n", "a += 1; b += 1\nc = c + 1\n"]


@pytest.mark.usefixtures("_in_a_folder")
def test_a_fix_of_what_another_has_made_is_the_whole_change() -> None:
    text = "a += 1\nb += 1\n"
    _, report = repaired(text, ("a += 1", "a += 1", "a = a + one()"), ("b += 1", "one()", "two()"))
    first, second = report.findings
    file = str(Path("model.py").absolute())
    assert apply(text, file, edits(first)) == "a = a + one()\nb += 1\n"
    assert apply(text, file, edits(second)) == "a = a + two()\nb += 1\n"
