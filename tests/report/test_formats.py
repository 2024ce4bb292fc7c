"""The HTML page and the Mermaid chart, and the pytest plugin's snapshots."""

from __future__ import annotations

import html
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import fxgrad
from fxgrad.pytest_plugin import compare

EXAMPLE = Path(__file__).parents[1] / "examples" / "speaker.py"


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


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync --disable-dev-shm-usage".split()
)

# Presses keys as a reader would, and writes down what is to be seen then.
ACTS = """<script>
const shown=()=>[...document.querySelectorAll('.p')].filter(e=>e.checkVisibility()).length;
const press=key=>document.activeElement.dispatchEvent(new KeyboardEvent('keydown',{key,bubbles:true,cancelable:true}));
const seen={total:document.querySelectorAll('.p').length,lines:[...document.querySelectorAll('#tree summary')].filter(e=>e.checkVisibility()).length,
first:shown(),background:getComputedStyle(document.body).backgroundColor,external:performance.getEntriesByType('resource').length};
press('/');seen.focus=document.activeElement.id;
box.value='FILTER';box.dispatchEvent(new Event('input'));seen.filtered=shown();
seen.articles=[...document.querySelectorAll('article')].filter(e=>e.checkVisibility()).length;
press('Escape');seen.again=shown();seen.empty=box.value;
const folded=[...document.querySelectorAll('#tree summary')].find(e=>e.checkVisibility()&&!e.parentElement.open);
folded.focus();press('ArrowRight');seen.unfolded=folded.parentElement.open;press('ArrowDown');seen.moved=document.activeElement!==folded;
folded.focus();press('ArrowLeft');seen.refolded=!folded.parentElement.open;
document.body.dataset.seen=JSON.stringify(seen);
</script></body>"""


def browse(page: str, folder: Path, *flags: str, filter: str = "") -> dict[str, Any]:
    """What a reader of the page sees and can do, in a real browser."""
    assert CHROMIUM is not None
    (folder / "report.html").write_text(page.replace("</body>", ACTS.replace("FILTER", filter)), encoding="utf-8")
    command = [CHROMIUM, *QUIET, *flags, f"--user-data-dir={folder / 'profile'}", "--dump-dom", f"file://{folder / 'report.html'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    match = re.search(r'data-seen="([^"]*)"', done.stdout)
    assert match is not None, done.stderr
    found: dict[str, Any] = json.loads(html.unescape(match[1]))
    return found


def large() -> fxgrad.Report:
    """500 layers of 10 modules; one cut, one zero."""
    parts = "query key value out norm1 up gate down norm2 rotary".split()
    names = [f"decoder.layers.{i}.{part}.{kind}" for i in range(500) for part in parts for kind in ("weight", "bias")]
    verdicts = {n: "none" if ".7.up" in n else "zero" if ".123.norm2" in n else "flows" for n in names}
    cut = fxgrad.Finding(
        "FXG103", "detached-path", "error", "`detach` cuts", None, ("decoder.layers.7.up.weight", "decoder.layers.7.up.bias")
    )
    return fxgrad.Report(verdicts=verdicts, findings=(cut,), model="Large")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_reader_filters_and_folds_by_keyboard(report: fxgrad.Report, tmp_path: Path) -> None:
    seen = browse(report.render("html"), tmp_path, filter="encoder")
    assert (seen["total"], seen["first"], seen["filtered"], seen["again"]) == (12, 8, 4, 8)
    assert (seen["focus"], seen["empty"], seen["articles"]) == ("filter", "", 1)
    assert seen["unfolded"]
    assert seen["moved"]
    assert seen["refolded"]
    assert seen["external"] == 0


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_ten_thousand_parameters_are_a_page_of_lines(tmp_path: Path) -> None:
    seen = browse(large().render("html"), tmp_path, filter="fxg103")
    assert seen["total"] == 10_000
    assert seen["first"] == seen["again"] == 4  # the starved ones; all others are folded
    assert seen["lines"] < 40
    assert (seen["filtered"], seen["articles"]) == (2, 1)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize(("scheme", "dark"), [("0", True), ("1", False)], ids=["dark", "light"])
def test_the_page_follows_the_readers_colours(scheme: str, dark: bool, report: fxgrad.Report, tmp_path: Path) -> None:
    seen = browse(report.render("html"), tmp_path, f"--blink-settings=preferredColorScheme={scheme}", filter="encoder")
    red, green, blue = (int(part) for part in re.findall(r"\d+", seen["background"])[:3])
    assert (max(red, green, blue) < 60) is dark
    assert (min(red, green, blue) > 200) is not dark


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


@pytest.mark.parametrize("content", ["{", "[" * 100_000, "[]"])
def test_a_snapshot_that_is_none_fails_in_a_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "net.json"
    path.write_text(content)
    with pytest.raises(pytest.fail.Exception, match="snapshot") as failed:
        compare(path, {"a": "flows"}, update=False)
    assert "\n" not in str(failed.value)


def test_modules_in_one_another_by_the_hundred_are_a_page() -> None:
    name = "layer." * 500 + "weight"
    page = fxgrad.Report({name: "none", "head.weight": "flows"}, ()).render("html")
    assert page.count("<details class=") == 101
    assert name in page


def test_a_missing_snapshot_fails(tmp_path: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match="--update-gradients"):
        compare(tmp_path / "none.json", {}, update=False)
