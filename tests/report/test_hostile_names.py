"""Names that hold escape sequences, line ends, commands or markup do nothing to whoever reads a report, in any format."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import fxgrad
from fxgrad.records import Finding, Fix, Site, Step
from fxgrad.records.facts import Raised
from fxgrad.records.plain_text import one_line, printable, without_commands
from fxgrad.report import FORMATS, Report

NAMES = (
    "a\x1b]0;title\x07\x1b[2Jb",  # a terminal's title, its screen
    "n\n::error file=a::FORGED",
    "::warning file=a::FORGED",
    "r\r::error::FORGED",
    "##[error]FORGED",
    "c\x9b31mred",  # the same as ESC [ in eight bits
    "back\u202egnp.exe",  # written from right to left
    "lines\u2028and\u2029and\x85",
    "%0A::error::FORGED",
    '</script><script>alert(1)</script>"onload="alert(1)',
    "\"]\n  loss --> x[\"%%{init: {'theme': 'dark'}}%%",
    "null\x00",
)


class Odd(nn.Module):
    """Parameters of any name; their class has one too."""

    def __init__(self) -> None:
        super().__init__()
        for name in NAMES:
            self.register_parameter(name.replace(".", ""), nn.Parameter(torch.ones(4)))
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layer(x)
        return result


def made() -> Report:
    """A real report on such a model, with an error and a finding whose every text is hostile."""
    text = " ".join(NAMES)
    site = Site(f"/nowhere/{NAMES[1]}.py", 1, 1, function=NAMES[0])
    model = type("Odd\x1b[2J\n::error::FORGED", (Odd,), {})()
    report = fxgrad.analyze(model, (torch.ones(2, 4),))
    label = Step(NAMES[1], site, cut=True)
    finding = Finding("FXG103", "detached-path", "error", text, site, NAMES, (label,), Fix(text))
    note = replace(finding, severity="warning", site=None)
    return replace(
        report,
        findings=(*report.findings, finding, note),
        loss_used=text,
        assumptions=(text,),
        error=Raised("forward", "Error\x1b", f"first\n::error::FORGED\n{text}", site),
    )


@pytest.fixture(scope="module")
def report() -> Report:
    return made()


# What a terminal or an editor acts on: control characters, marks of direction, line ends of Unicode.
ACTING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


@pytest.mark.parametrize("format", list(FORMATS))
@pytest.mark.parametrize("verbose", [False, True])
def test_no_format_acts_on_a_terminal(report: Report, format: str, verbose: bool) -> None:
    assert ACTING.findall(report.render(format, verbose=verbose)) == []


@pytest.mark.parametrize("format", [name for name in FORMATS if name != "github"])
@pytest.mark.parametrize("verbose", [False, True])
def test_no_format_gives_commands_to_a_runner(report: Report, format: str, verbose: bool) -> None:
    lines = report.render(format, verbose=verbose).splitlines()
    assert [line for line in lines if line.lstrip().startswith("::") or "##[" in line] == []


def test_github_has_one_command_a_finding(report: Report) -> None:
    lines = report.render("github").splitlines()
    assert len(lines) == len(report.findings)
    assert all(re.match(r"::(error|warning) (file=|title=)", line) for line in lines)
    assert not any("%0A::" in line.partition("::")[2].partition("::")[0] for line in lines)
    assert any("%250A" in line for line in lines)


@pytest.mark.parametrize("format", ["json", "sarif"])
def test_data_keeps_the_names(report: Report, format: str) -> None:
    read = json.loads(report.render(format))
    if format == "json":
        assert set(read["verdicts"]) == set(report.verdicts)
        assert tuple(read["findings"][0]["parameters"]) == NAMES or NAMES in [tuple(f["parameters"]) for f in read["findings"]]
    else:
        assert list(NAMES) in [result["properties"]["parameters"] for result in read["runs"][0]["results"]]


def test_a_diagram_has_the_lines_of_its_findings(report: Report) -> None:
    lines = report.render("mermaid").splitlines()
    known = re.compile(
        r'flowchart RL|  loss\(\[".*"\]\)|  cut\d+\{\{".*"\}\}:::\w+|  loss --x cut\d+|  cut\d+ -\.-> starved\d+\[".*"\]'
        r'|  loss --> healthy\[".*"\]:::fine|  classDef .*'
    )
    assert [line for line in lines if not known.fullmatch(line)] == []
    quoted = [re.findall(r'"([^"]*)"', line) for line in lines if '"' in line]
    assert all(len(found) == 1 for found in quoted)
    assert "%%" not in "".join(lines)


def test_a_page_has_no_markup_of_its_names(report: Report) -> None:
    page = report.render("html")
    assert page.count("<script>") == page.count("</script>") == 1
    assert 'onload="' not in page
    assert "onload=&quot;" in page


def test_the_report_keeps_its_keys(report: Report) -> None:
    assert "n\n::error file=a::FORGED" in report.verdicts
    assert "n\\n::error file=a::FORGED" in str(report)


def test_an_error_shows_what_it_quotes() -> None:
    error = fxgrad.InputError("no input \x1b[2J", site=Site("/a\n::error::b.py", 3), hint="\u202e")
    assert str(error) == "/a\\n::error::b.py:3: no input \\x1b[2J (\\u202e)"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("größer 層 \u0645\u06cc\u200c\u062e 👩\u200d💻", "größer 層 \u0645\u06cc\u200c\u062e 👩\u200d💻"),  # joiners are part of letters
        ("wide\u3000space", "wide\u3000space"),
        ("two\nlines\tand\x7f", "two\nlines\tand\\x7f"),
        ("\udcff", "\\udcff"),
    ],
)
def test_only_what_is_not_seen_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert one_line(text) == shown.replace("\n", "\\n").replace("\t", "\\t")


def test_commands_are_parted() -> None:
    assert without_commands("::a\n \t::b\nx::c ##[d]") == ":\\:a\n \t:\\:b\nx::c #\\#[d]"


def test_the_command_line_says_it_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from fxgrad.cli import main

    file = tmp_path / "a\n::error::b\x1b[2J.py"
    file.write_text("raise ValueError('\\x1b[2J')\n")
    assert main(["report", str(file)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("fxgrad: error: ")
    assert said.count("\n") == 1
    assert not ACTING.search(said)
