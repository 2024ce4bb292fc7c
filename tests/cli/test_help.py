"""The pages of `fxgrad help`: listed, shown without their comments, and true in the options that they name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fxgrad.cli import completion, main
from fxgrad.cli.main import COMMANDS, _parser

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "fxgrad" / "cli" / "help").glob("*.md"))
# Options of other programs, and of the user's own script.
FOREIGN = {"--nproc-per-node", "--update-gradients", "--width", "--lr"}


def said(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(["help", *argv]) == 0
    return capsys.readouterr().out


def test_the_list_has_every_page_with_its_title(capsys: pytest.CaptureFixture[str]) -> None:
    out = said(capsys)
    for page in PAGES:
        title = page.read_text(encoding="utf-8").splitlines()[0]
        assert re.search(rf"^  {page.stem} +{re.escape(title.removeprefix('# '))}$", out, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_is_shown_without_its_comments(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = said(capsys, page.stem)
    assert out.startswith("# ")
    assert "<!--" not in out


def test_paragraphs_are_folded_and_nothing_else(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fxgrad.cli.topics.width_of", lambda stream: 60)
    out = said(capsys, "trainers")
    assert "\n    from fxgrad.integrations.lightning import GradientFlow\n" in out
    wide = [line for line in out.splitlines() if len(line) > 60]
    assert all(line.startswith("    ") for line in wide)
    page = (ROOT / "fxgrad" / "cli" / "help" / "trainers.md").read_text(encoding="utf-8")
    assert out.split() == page.split()


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.stem)
def test_a_page_names_options_that_there_are(page: Path) -> None:
    known = {word for command in completion.commands_of(_parser()).values() for word in command._option_string_actions}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page.read_text(encoding="utf-8")))
    assert named - known - FOREIGN - {"--version"} == set()


def test_a_commands_name_gives_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    main(["report", "--help"])
    want = capsys.readouterr().out
    assert said(capsys, "report") == want


def test_a_rule_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    main(["explain", "FXG103"])
    want = capsys.readouterr().out
    assert said(capsys, "fxg103") == said(capsys, "detached-path") == want


@pytest.mark.parametrize(
    ("topic", "hint"),
    [("modles", "did you mean models?"), ("detatched-path", "did you mean detached-path?"), ("xyzzy", "`fxgrad help` lists them")],
)
def test_a_topic_that_there_is_not(topic: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", topic]) == 2
    assert capsys.readouterr().err == f"fxgrad: error: there is no topic {topic} ({hint})\n"


def test_no_page_hides_a_command() -> None:
    assert not {page.stem for page in PAGES} & {command.name for command in COMMANDS}
