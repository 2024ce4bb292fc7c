"""The HTML page and the Mermaid chart, and the pytest plugin's snapshots."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import fxgrad
from fxgrad.pytest_plugin import compare

EXAMPLE = Path(__file__).parent / "examples" / "speaker.py"


@pytest.fixture(scope="module")
def report() -> fxgrad.Report:
    spec = importlib.util.spec_from_file_location("formats_speaker", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return fxgrad.analyze(module.model, module.example_inputs, loss=module.loss)


class Balance(HTMLParser):
    """Open elements that must be closed."""

    VOID = ("meta", "input", "br", "link", "img")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_balanced_and_needs_nothing_else(report: fxgrad.Report) -> None:
    page = report.render("html")
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", page)


def test_the_page_holds_every_finding_and_parameter(report: fxgrad.Report) -> None:
    page = report.render("html")
    for finding in report.findings:
        assert finding.code in page
    assert page.count("class=p ") == len(report.verdicts)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no Chromium on this machine")
def test_a_browser_shows_the_page(report: fxgrad.Report, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(report.render("html"), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
    command = ["chromium", *flags, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", f"file://{tmp_path / 'report.html'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    # The script ran: modules with a starved parameter were unfolded by it.
    assert re.search(r'<details class="m none" open', done.stdout)


def test_the_chart_names_each_cut(report: fxgrad.Report) -> None:
    chart = report.render("mermaid")
    assert chart.startswith("flowchart")
    assert all(finding.code in chart for finding in report.findings)


def test_a_snapshot_is_kept_and_compared(tmp_path: Path) -> None:
    path = tmp_path / "__gradients__" / "net.json"
    compare(path, {"a": "flows"}, update=True)
    assert json.loads(path.read_text()) == {"a": "flows"}
    compare(path, {"a": "flows"}, update=False)
    with pytest.raises(pytest.fail.Exception, match="a: was flows, is none"):
        compare(path, {"a": "none"}, update=False)


def test_a_missing_snapshot_fails(tmp_path: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match="--update-gradients"):
        compare(tmp_path / "none.json", {}, update=False)
