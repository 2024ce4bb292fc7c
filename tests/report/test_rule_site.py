"""`fxgrad rules --site DIR`: every rule has its page, every link its target, and addresses are those that are promised."""

from __future__ import annotations

import inspect
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fxgrad.cli import main
from fxgrad.passes import RULES

VOID = ("meta", "input", "br", "link", "img")


class Read(HTMLParser):
    """The anchors and links of a page, its text, and what is still open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.anchors += filter(None, [given.get("id")])
        self.links += filter(None, [given.get("href"), given.get("src")])
        self.open += [tag] if tag not in VOID else []

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Read]:
    folder = tmp_path_factory.mktemp("site") / "docs" / "rules"
    assert main(["rules", "--site", str(folder)]) == 0
    return {file.name: Read(file.read_text(encoding="utf-8")) for file in folder.iterdir()}


def test_every_rule_has_its_page_and_its_row(site: dict[str, Read]) -> None:
    assert set(site) == {"index.html", *(f"{rule.CODE}.html" for rule in RULES)}
    assert site["index.html"].anchors == [rule.CODE for rule in RULES]


def test_every_link_leads_to_a_page_and_an_anchor_of_the_site(site: dict[str, Read]) -> None:
    for name, page in site.items():
        assert page.open == []
        for link in page.links:
            file, _, anchor = link.partition("#")
            target = site[file or name]
            assert anchor in ("", *target.anchors), f"{name}: {link}"


def test_the_headings_are_anchors_by_their_words(site: dict[str, Read]) -> None:
    want = ["what-it-finds", "why-it-matters", "example", "instead", "when-the-fix-is-safe", "not-handled"]
    assert [page.anchors for name, page in site.items() if name != "index.html"] == [want] * len(RULES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.CODE)
def test_a_page_says_all_that_the_docstring_says(rule: object, site: dict[str, Read]) -> None:
    page = site[f"{rule.CODE}.html"]  # type: ignore[attr-defined]
    words = re.findall(r"[A-Za-z_]{3,}", (inspect.getdoc(rule) or "").replace("`", " "))
    said = iter(re.findall(r"[A-Za-z_]{3,}", unescape(page.text)))
    assert [word for word in words if word not in said] == []  # in their order


def test_a_code_in_the_text_leads_to_its_rule(site: dict[str, Read]) -> None:
    for rule in RULES:
        page = site[f"{rule.CODE}.html"]
        prose = re.sub(r"(?s)\nExample\n.*?\nWhen the fix", "", inspect.getdoc(rule) or "")
        for code in set(re.findall(r"\bFXG\d{3}\b", prose)) - {rule.CODE}:
            assert f"{code}.html" in page.links


def test_a_folder_that_cannot_be_written_is_refused_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "taken").write_text("")
    assert main(["rules", "--site", str(tmp_path / "taken")]) == 2
    assert capsys.readouterr().err.startswith(f"fxgrad: error: {tmp_path / 'taken'} cannot be written: ")
