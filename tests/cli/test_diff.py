"""`fxgrad diff`: what counts as lost, gained and changed, where its two sides come from, and that a checkout stays as it is."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fxgrad.cli import main
from fxgrad.cli.diff import Operand, _operand
from fxgrad.cli.revisions import checked_out, in_revision
from fxgrad.records import Finding, ParameterFact, Raised, Site, Step
from fxgrad.records.errors import InputError
from fxgrad.report import Report
from fxgrad.report.comparison import Side, compare, side
from fxgrad.report.comparison_text import as_json, as_markdown, as_table
from fxgrad.report.read_back import read

# ---------------------------------------------------------------------------------------------- what counts


def cut(*names: str, code: str = "FXG103", label: str = "detach", file: str = "/a.py", line: int = 3, severity: Any = "error") -> Finding:
    place = Site(file, line, 5, line, 9, "Net.forward")
    return Finding(code, "bad-pattern", severity, f"line {line}", place, names, (Step("loss"), Step(label, place, True)))


def report(verdicts: dict[str, str], *findings: Finding, frozen: tuple[str, ...] = (), error: Raised | None = None) -> Side:
    facts = tuple(ParameterFact(n, (n,), (2,), n not in frozen, "", "Linear", True, (), "none") for n in verdicts)
    listed = tuple(f for f in findings if f.severity != "note")
    notes = tuple(f for f in findings if f.severity == "note")
    whole = Report(verdicts, listed, notes=notes, parameters=facts, model="Net", error=error)
    return side("it", read(json.loads(json.dumps(whole.to_dict()))))


ERROR = Raised("backward", "RuntimeError", "no", Site("/a.py", 9))
BOTH: dict[str, tuple[Side, Side, list[tuple[str, str]]]] = {
    "nothing": (report({"a": "flows"}), report({"a": "flows"}), []),
    "lost": (report({"a": "flows"}), report({"a": "none"}, cut("a")), [("lost", "a")]),
    "lost to zeros": (report({"a": "branch"}), report({"a": "zero"}), [("lost", "a")]),
    "lost, as all are blocked": (report({"a": "flows"}), report({"a": "blocked"}, error=ERROR), [("lost", "a")]),
    "lost by freezing": (report({"a": "flows"}), report({"a": "none"}, frozen=("a",)), [("lost", "a")]),
    "gained": (report({"a": "none"}, cut("a")), report({"a": "flows"}), [("gained", "a")]),
    "gained on a branch": (report({"a": "none"}, cut("a")), report({"a": "branch"}), [("gained", "a")]),
    "the line moved": (report({"a": "none"}, cut("a")), report({"a": "none"}, cut("a", line=40)), []),
    "the file moved": (report({"a": "none"}, cut("a")), report({"a": "none"}, cut("a", file="/b/c.py")), []),
    "another joins it": (report({"a": "none", "b": "flows"}, cut("a")), report({"a": "none", "b": "none"}, cut("a", "b")), [("lost", "b")]),
    "another rule": (report({"a": "none"}, cut("a")), report({"a": "none"}, cut("a", code="FXG104")), [("other cause", "a")]),
    "another cut": (report({"a": "none"}, cut("a")), report({"a": "none"}, cut("a", label=".data")), [("other cause", "a")]),
    "one cut of two": (
        report({"a": "none"}, cut("a"), cut("a", code="FXG106", label="int")),
        report({"a": "none"}, cut("a")),
        [("other cause", "a")],
    ),
    "another verdict": (report({"a": "none"}, cut("a")), report({"a": "zero"}, cut("a")), [("other cause", "a")]),
    "flows on a branch only": (report({"a": "flows"}), report({"a": "branch"}, cut("a", code="FXG115")), [("other cause", "a")]),
    "frozen instead": (report({"a": "none"}, cut("a")), report({"a": "none"}, frozen=("a",)), [("other cause", "a")]),
    "frozen as before, told or not": (
        report({"a": "none"}, frozen=("a",)),
        report({"a": "none"}, cut("a", code="FXG102", severity="note"), frozen=("a",)),
        [],
    ),
    "an optimizer came": (report({"a": "none"}, cut("a")), report({"a": "none"}, cut("a"), cut("a", code="FXG303")), []),
    "warned of what flows": (report({"a": "flows"}), report({"a": "flows"}, cut("a", code="FXG301")), []),
    "came and went": (report({"a": "flows"}), report({"b": "none"}, cut("b")), [("removed", "a"), ("added", "b")]),
}


@pytest.mark.parametrize(("old", "new", "want"), BOTH.values(), ids=BOTH.keys())
def test_what_counts_as_a_change(old: Side, new: Side, want: list[tuple[str, str]]) -> None:
    found = compare(old, new)
    assert [(change.kind, change.parameter) for change in found.changes] == want
    assert found.ok is all(kind != "lost" for kind, _ in want)


# ---------------------------------------------------------------------------------------------- how it is written

LAYERS = [f"layers.{i}.weight" for i in range(3)]
OLD = report({**dict.fromkeys(LAYERS, "flows"), "head": "none", "gone": "flows"}, cut("head", code="FXG101", label=""))
NEW = report({**dict.fromkeys(LAYERS, "none"), "head": "flows", "new|": "flows"}, cut(*LAYERS))


def test_the_table_names_what_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = as_table(compare(replace(OLD, title="main"), replace(NEW, title="now"))).splitlines()
    assert lines[0] == "Net, main -> now: 3 lost, 1 gained; 1 parameter removed, 1 parameter added"
    assert [line.split() for line in lines[4:]] == [
        ["lost", "layers.*", "3", "flows", "none", "FXG103", "bad-pattern", "/a.py:3:5"],
        ["gained", "head", "1", "none", "flows", "FXG101", "bad-pattern", "/a.py:3:5"],
        ["removed", "gone", "1", "flows"],
        ["added", "new|", "1", "flows"],
    ]
    assert as_table(compare(OLD, OLD)) == "Net, it -> it: no gradient gained or lost"


def test_a_pull_request_sees_what_was_lost_first() -> None:
    text = as_markdown(compare(OLD, NEW))
    assert text.startswith("### Gradients of Net: 3 lost, 1 gained\n\n`it` → `it`\n\n| change | parameter |")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert rows[2].startswith("| **lost** | `layers.*` | 3 | flows | none | FXG103")
    assert "<details><summary>1 parameter removed, 1 parameter added</summary>\n\n| change" in text
    assert "| added | `new\\|` | 1 |" in text
    assert {row.replace("\\|", "").count("|") for row in rows} == {7}
    assert as_markdown(compare(OLD, OLD)) == "### Gradients of Net: no gradient gained or lost\n\n`it` → `it`"


def test_json_lists_every_change() -> None:
    found = json.loads(as_json(compare(OLD, NEW)))
    assert (found["ok"], found["old"]["parameters"], len(found["changes"])) == (False, 5, 6)
    assert found["changes"][0] == {
        "kind": "lost",
        "parameter": "layers.0.weight",
        "before": "flows",
        "after": "none",
        "because": "FXG103 bad-pattern /a.py:3:5",
    }
    assert found["changes"][-1]["before"] is None


# ---------------------------------------------------------------------------------------------- reports as files

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(tmp_path)

    def run_line(*argv: str) -> tuple[int, str, str]:
        status = main(["diff", *argv])
        return (status, *capsys.readouterr())

    return run_line


def test_two_report_files(run: Run) -> None:
    Path("old.json").write_text(Report({"a": "flows"}, (), model="Net").render("json"))
    Path("new.json").write_text(Report({"a": "none"}, (cut("a"),), model="Net").render("json"))
    status, out, err = run("old.json", "new.json")
    assert (status, err) == (1, "")
    assert out.startswith("Net, old.json -> new.json: 1 lost, 0 gained\n")
    assert run("new.json", "old.json")[0] == 0
    assert run("old.json", "new.json", "--exit-zero")[0] == 0
    assert run("old.json", "new.json", "--format", "markdown", "-o", "diff.md")[:2] == (1, "")
    assert Path("diff.md").read_text().startswith("### Gradients of Net: 1 lost, 0 gained")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("old.json", "gone.json"), "the report gone.json cannot be read: No such file"),
        (("old.json", "broken.json"), "broken.json is no JSON (write a report with"),
        (("old.json", "other.json"), "other.json: it is no report of fxgrad's, schema version 1"),
        (("old.json", "later.json"), "later.json: it is no report of fxgrad's, schema version 1"),
        (("old.json",), "there is nothing to compare with (give NEW, or --model MODEL"),
        (("old.json", "--model", "gone.py"), "the working tree cannot be analysed: there is no file gone.py"),
        (("v1", "--model", "model.py"), "there is no git repository around"),
    ],
)
def test_what_cannot_be_compared_is_said_in_a_line(run: Run, argv: tuple[str, ...], said: str) -> None:
    good = Report({}, ()).to_dict()
    Path("old.json").write_text(json.dumps(good))
    Path("broken.json").write_text("{" * 10_000)
    Path("other.json").write_text('{"findings": []}')
    Path("later.json").write_text(json.dumps({**good, "schema_version": 2}))
    status, out, err = run(*argv)
    assert (status, out) == (2, "")
    assert err.splitlines()[-1].startswith(f"fxgrad: error: {said}")


# ---------------------------------------------------------------------------------------------- git revisions

LAYERS_FILE = "from torch import nn\n\n\nclass Encoder(nn.Linear):\n    def forward(self, x):\n        return super().forward(x){}\n"
MODEL_FILE = """\
from torch import nn
from {package}.layers import Encoder


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.head = Encoder(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.encoder(x))
"""


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit, and a package whose layers are changed since."""
    monkeypatch.chdir(tmp_path)
    for name in ("GIT_AUTHOR", "GIT_COMMITTER"):
        monkeypatch.setenv(f"{name}_NAME", "somebody")
        monkeypatch.setenv(f"{name}_EMAIL", "somebody@example.com")
    git("init", "-q")
    package = tmp_path / "networks_of_a_test"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "layers.py").write_text(LAYERS_FILE.format(""))
    (package / "model.py").write_text(MODEL_FILE.format(package=package.name))
    (tmp_path / ".gitattributes").write_text("* export-ignore\n")
    git("add", "-A")
    git("commit", "-qm", "one")
    (package / "layers.py").write_text(LAYERS_FILE.format(".detach()"))
    return package


def test_a_revision_is_compared_with_the_working_tree(project: Path, run: Run) -> None:
    status, out, _ = run("HEAD", "--model", f"{project.name}/model.py", "--input", "x=2x4")
    assert status == 1
    assert out.splitlines()[0] == "Net, HEAD -> the working tree: 2 lost, 0 gained"
    assert "encoder.*" in out
    assert f"{project.name}/layers.py:6:" in out
    page = run(f"{project.name}/model.py", f"HEAD:{project.name}/model.py", "--format", "html")[1]
    assert "2 gained" in page
    assert "fxgrad-diff-" not in page
    status, out, _ = run(f"HEAD:{project.name}/model.py:Net", f"HEAD:{project.name}/model.py")
    assert (status, out) == (0, f"Net, HEAD:{project.name}/model.py:Net -> HEAD:{project.name}/model.py: no gradient gained or lost\n")


def test_a_checkout_stays_as_it_is(project: Path) -> None:
    hook = Path(".git/hooks/post-checkout")
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\ntouch ran\n")
    hook.chmod(0o755)
    (project / "model.py").write_text("staged = 1\n")
    git("add", "-A")
    (project / "model.py").write_text("not_staged = 1\n")
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    with checked_out("HEAD") as tree:
        copy = Path(tree.of(str(project)))
        assert copy.is_relative_to(tree.root)
        assert (copy / "layers.py").read_text() == LAYERS_FILE.format("")
        assert (copy / "model.py").read_text() == MODEL_FILE.format(package=project.name)
        assert tree.environment()["PYTHONPATH"].split(os.pathsep)[0] == tree.root
    assert not Path(tree.root).exists()
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before
    assert git("worktree", "list").count("\n") == 1


def test_a_path_is_found_from_the_root_and_from_here(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "late.py").touch()
    assert in_revision("HEAD", f"{project.name}/model.py") == str(project / "model.py")
    monkeypatch.chdir(project)
    assert in_revision("HEAD", f"{project.name}/model.py") == in_revision("HEAD", "model.py") == str(project / "model.py")
    assert in_revision("HEAD", "late.py") is None
    assert in_revision("HEAD", "../../elsewhere.py") is None
    assert in_revision("no-such", "model.py") is None


def test_what_a_side_is(project: Path) -> None:
    path = f"{project.name}/model.py"
    file = str(project / "model.py")
    assert _operand("a.json") == Operand("a.json", report="a.json")
    assert _operand(path) == Operand(path, model=path)
    assert _operand(f"{path}:Net") == Operand(f"{path}:Net", model=f"{path}:Net")
    assert _operand("package.models:build") == Operand("package.models:build", model="package.models:build")
    assert _operand(f"HEAD:{path}") == Operand(f"HEAD:{path}", model=file, revision="HEAD")
    assert _operand(f"HEAD:{path}:Net") == Operand(f"HEAD:{path}:Net", model=f"{file}:Net", revision="HEAD")
    with pytest.raises(InputError, match="HEAD is a git revision, and no model"):
        _operand("HEAD")


@pytest.mark.parametrize("revision", ["no-such", "--output=x", ""])
def test_a_revision_that_git_does_not_know(project: Path, revision: str) -> None:
    with pytest.raises(InputError, match="git knows no revision"), checked_out(revision):
        pass
