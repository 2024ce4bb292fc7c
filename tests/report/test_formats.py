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
import torch

import fxgrad
from fxgrad.cli import main
from fxgrad.pytest_plugin import compare
from fxgrad.records import Edit, Fix, Raised

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
ACTS = """
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
"""


def browse(page: str, folder: Path, *flags: str, filter: str = "", acts: str = ACTS, opened: str = "") -> dict[str, Any]:
    """What a reader of the page sees and can do, in a real browser; `acts` fills `seen`, `opened` ends the address."""
    assert CHROMIUM is not None
    script = f"<script>{acts.replace('FILTER', filter)};document.body.dataset.seen=JSON.stringify(seen)</script></body>"
    (folder / "report.html").write_text(page.replace("</body>", script), encoding="utf-8")
    address = f"file://{folder / 'report.html'}{opened}"
    command = [CHROMIUM, *QUIET, *flags, f"--user-data-dir={folder / 'profile'}", "--dump-dom", address]
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


SITE = fxgrad.Site(str(EXAMPLE), 22, 21, 22, 48, "Speaker.forward")


def eventful() -> fxgrad.Report:
    """All that a report may hold beside findings, in names too long for a narrow window; forty findings before the last."""
    long = "encoder." + "a_very_long_name" * 12
    wordy = tuple(
        fxgrad.Finding("FXG101", "unused-parameter", "error", f"`{long}` is never called", SITE, (f"{long}.{i}",)) for i in range(40)
    )
    return fxgrad.Report(
        verdicts={**{f"{long}.{i}": "none" for i in range(40)}, "head.weight": "blocked", "teacher.weight": "none"},
        findings=wordy,
        notes=(fxgrad.Finding("FXG102", "frozen-parameter", "note", "`teacher` is frozen", SITE, ("teacher.weight",)),),
        assumptions=("inputs: x=2x<40>",),
        error=Raised("forward", "RuntimeError", "mat1 & mat2 do not fit", SITE, (SITE,)),
        versions={"torch": "9.9.9"},
        command="fxgrad report 'a<b>.py'",
        model="Eventful",
    )


def test_the_page_says_how_it_came_about() -> None:
    page = eventful().render("html")
    for said in ("assumed: inputs: x=2x&lt;40&gt;", "torch 9.9.9", "fxgrad report &#x27;a&lt;b&gt;.py&#x27;", "`teacher` is frozen"):
        assert re.sub("`(.*?)`", r"<code>\1</code>", said) in page
    assert re.search(r'id="error".*?RuntimeError in the forward pass.*?mat1 &amp; mat2 do not fit', page, re.DOTALL)
    assert 'what is to blame: <a href="#finding-0">FXG101</a>, ' in page
    assert 'data-v=blocked><span class="v blocked">blocked</span> weight <a class=code href="#error">RuntimeError</a>' in page
    assert 'weight <a class=code href="#finding-40">FXG102</a>' in page  # a note


def test_a_report_knows_its_versions_and_its_command(report: fxgrad.Report, tmp_path: Path) -> None:
    assert report.versions["torch"] == torch.__version__
    assert report.command == ""
    command = ["report", str(EXAMPLE), "--format", "json", "-o", str(tmp_path / "a report.json")]
    assert main(command) == 1
    said = json.loads((tmp_path / "a report.json").read_text())
    assert said["command"] == f"fxgrad {' '.join(command[:-1])} '{command[-1]}'"
    assert said["versions"] == dict(report.versions)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("fragment", ["finding-0", "finding-39", "finding-40", "error"])
def test_a_link_lands_below_what_stays_in_sight(fragment: str, tmp_path: Path) -> None:
    acts = """const target=document.querySelector(location.hash).getBoundingClientRect();
    const seen={top:target.top,bar:bar.getBoundingClientRect().bottom,window:innerHeight,shown:target.height}"""
    seen = browse(eventful().render("html"), tmp_path, "--window-size=900,600", acts=acts, opened=f"#{fragment}")
    assert seen["bar"] <= seen["top"] < seen["window"]
    assert seen["shown"] > 0


STATE = """const seen={rows:shown(),articles:articles(),words:box.value,search:location.search,
pressed:chips.filter(c=>c.ariaPressed==='true').map(c=>c.dataset.chip)}"""
LOOK = """const visible=kind=>[...document.querySelectorAll(kind)].filter(e=>e.checkVisibility());
const shown=()=>visible('.p').length,articles=()=>visible('article').map(a=>a.id);
const press=key=>document.activeElement.dispatchEvent(new KeyboardEvent('keydown',{key,bubbles:true,cancelable:true}));
"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_filter_takes_words_and_verdicts_and_keeps_them_in_the_address(report: fxgrad.Report, tmp_path: Path) -> None:
    acts = LOOK + "box.value=' Bias  encoder ';apply();document.querySelector('[data-chip=none]').click();" + STATE
    seen = browse(report.render("html"), tmp_path, acts=acts)
    assert seen == {
        "rows": 2,
        "articles": ["finding-1"],
        "words": " Bias  encoder ",
        "search": "?q=bias+encoder&v=none",
        "pressed": ["none"],
    }
    again = browse(report.render("html"), tmp_path, acts=LOOK + STATE, opened=seen["search"])
    assert again == {**seen, "words": "bias encoder"}
    flowing = browse(report.render("html"), tmp_path, acts=LOOK + STATE, opened="?v=flows")
    assert (flowing["rows"], flowing["articles"]) == (4, [])


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_n_and_p_go_through_the_findings(tmp_path: Path) -> None:
    acts = """const seen={at:[]};
    for(const key of ['n','n','n','p']){press(key);const top=document.activeElement.getBoundingClientRect().top;
    seen.at.push([location.hash,top>=bar.getBoundingClientRect().bottom&&top<innerHeight])}"""
    seen = browse(eventful().render("html"), tmp_path, "--window-size=900,600", acts=LOOK + acts)
    assert seen["at"] == [["#error", True], ["#finding-0", True], ["#finding-1", True], ["#finding-0", True]]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_places_open_in_the_editor_that_is_chosen(report: fxgrad.Report, tmp_path: Path) -> None:
    acts = "choice.value='PyCharm';choice.dispatchEvent(new Event('change'));const seen={to:places.map(p=>p.getAttribute('href'))}"
    seen = browse(report.render("html"), tmp_path, acts=acts)
    assert f"pycharm://open?file={EXAMPLE}&line=22&column=21" in seen["to"]
    assert all(to.startswith("pycharm:") for to in seen["to"])


SOURCE = """class Net:
    def forward(self, x):  # <b>&amp;
        text = '</pre>\x1b\u202e' + f"{x}"
\t
        return x.detach() + 12
"""


def page_of(file: Path, fix: Fix | None = None, site: fxgrad.Site | None = None) -> str:
    """With one finding, at the `detach` of SOURCE."""
    site = site or fxgrad.Site(str(file), 5, 16, 5, 26, "Net.forward")
    way = (fxgrad.Step("loss"), fxgrad.Step("<add>", site), fxgrad.Step("detach", site, True), fxgrad.Step("w"))
    finding = fxgrad.Finding("FXG103", "detached-path", "error", "cut", site, ("w", "v"), way, fix)
    return fxgrad.Report({"w": "none", "v": "none"}, (finding,)).render("html")


def test_the_source_is_shown_around_the_cut(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(SOURCE)
    shown = re.search(r"<pre class=source>(.*?)</pre>", page_of(tmp_path / "net.py"), re.DOTALL)
    assert shown is not None
    lines = [html.unescape(re.sub("<[^>]*>", "", line)) for line in shown[1].split("\n")]
    assert lines == [
        "2 def forward(self, x):  # <b>&amp;",
        "3     text = '</pre>\\x1b\\u202e' + f\"{x}\"",
        "4 ",
        "5     return x.detach() + 12",
    ]
    assert "<mark>x.detach()</mark>" in shown[1]
    assert "<span class=n>12</span>" in shown[1]
    assert "<span class=k>return</span>" in shown[1]


@pytest.mark.parametrize("text", ["x = (\n" * 5 + "}", "a" * 5000 + "\n" * 5, "\n" * 9, ""], ids=["no Python", "long", "blank", "none"])
def test_any_text_is_shown_or_left_out(text: str, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(text)
    for line in (1, 5, 99):
        page = page_of(tmp_path / "net.py", site=fxgrad.Site(str(tmp_path / "net.py"), line, 3, line, 9000))
        parser = Balance()
        parser.feed(page)
        assert parser.open == []


def test_the_way_is_drawn_to_the_cut(tmp_path: Path) -> None:
    page = page_of(tmp_path / "net.py")
    drawn = re.search(r"<svg role=img aria-label=\"(.*?)\".*?</svg>", page)
    assert drawn is not None
    assert html.unescape(drawn[1]).startswith("loss <- <add> <- detach (")
    assert re.findall(r'<(?:circle|path) class="(\w+)"', drawn[0]) == ["on", "on", "on", "on", "cut", "off", "off"]
    assert "&lt;add&gt; <a href=" in drawn[0]
    assert "w and 1 more" in drawn[0]


def test_a_fix_is_shown_as_a_change_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(SOURCE)
    site = fxgrad.Site(str(tmp_path / "net.py"), 5, 16, 5, 26)
    for old, want in [
        ("x.detach()", ["-        return x.detach() + 12", "+        return x + 12"]),
        ("y.detach()", ["-y.detach()", "+x"]),  # the file has changed: the edit alone
    ]:
        page = page_of(tmp_path / "net.py", Fix("drop it", "unsafe", (Edit(site, old, "x"),)))
        assert re.findall("<(?:ins|del)>(.*?)</(?:ins|del)>", page) == want
        assert "(unsafe)" in page


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [400, 700, 1280])
def test_no_page_is_wider_than_its_window(width: int, report: fxgrad.Report, tmp_path: Path) -> None:
    for page in (report.render("html"), eventful().render("html", verbose=True)):
        framed = f"<body><iframe style='width:{width}px;height:800px;border:0' srcdoc=\"{html.escape(page)}\"></iframe></body>"
        acts = """const seen={};const look=()=>{const root=document.querySelector('iframe').contentDocument.documentElement;
        seen.window=root.clientWidth;seen.page=root.scrollWidth;document.body.dataset.seen=JSON.stringify(seen)};
        document.querySelector('iframe').addEventListener('load',look)"""
        seen = browse(framed, tmp_path, acts=acts)
        assert width - 20 < seen["window"] <= width
        assert seen["page"] <= seen["window"]


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
