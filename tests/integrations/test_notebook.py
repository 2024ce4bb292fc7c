"""Notebooks, in a real kernel: what a cell shows, places in cells, `%%fxgrad`."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

CELLS = {
    "imports": "import torch, fxgrad\nfrom torch import nn",
    "model": """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.b = nn.Linear(4, 4)

    def forward(self, x):
        h = torch.sigmoid(self.a(x).detach())
        return self.b(h).sum()
""".strip(),
    "report": "report = fxgrad.analyze(Net(), (torch.randn(2, 4),))\nreport",
    "text": "print(report)",
    "error": "fxgrad.analyze(Net(), (torch.randn(2, 5),)).error.site",
    "written": """
class Written(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, x):
        h = torch.sigmoid(self.a(x))
        h += 1
        return h.sum()
""".strip(),
    "fix": "fixed = fxgrad.fix(Written(), (torch.randn(2, 4),))\nfixed",
    "diff": "print(fixed.source_diff())",
    "write": "fixed.write_source()",
    "benchmark": "fxgrad.benchmark(Written(), fixed.module, (torch.randn(2, 4),), runs=5)",
    "watch": """
model = Net()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
with fxgrad.watch(model, optimizer) as watched:
    model(torch.randn(2, 4)).backward()
    optimizer.step()
watched
""".strip(),
    "load": "%load_ext fxgrad",
    "trains": """
%%fxgrad
for _ in range(2):
    optimizer.zero_grad()
    loss = model(torch.randn(2, 4))
    loss.backward()
    optimizer.step()
loss.item() > -1e9
""".strip(),
    "dies": """
%%fxgrad --steps 1 model optimizer
loss = model(torch.randn(2, 4))
loss.backward()
loss.backward()
""".strip(),
    "idle": "%%fxgrad\nkept = 1 + 1\nkept",
    "after": "kept, len(model.a.weight._backward_hooks or ()), torch.is_grad_enabled()",
    "mistaken": "%%fxgrad --stairs 3\npass",
    "waits": "%%fxgrad\nimport asyncio\nawait asyncio.sleep(0)",
    "waited": """
import asyncio
with fxgrad.watch(model, optimizer) as watched:
    await asyncio.sleep(0)
    model(torch.randn(2, 4)).backward()
    optimizer.step()
watched
""".strip(),
}
NUMBER = {name: number for number, name in enumerate(CELLS, 1)}


@pytest.fixture(scope="module")
def outputs() -> dict[str, list[Any]]:
    """What each cell showed."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in CELLS.values()])
    NotebookClient(notebook, timeout=300, kernel_name="python3", allow_errors=True).execute()
    return dict(zip(CELLS, (cell.outputs for cell in notebook.cells), strict=True))


def data(outputs: list[Any], kind: str = "text/plain") -> str:
    """Of the last that a cell showed."""
    return str([output for output in outputs if "data" in output][-1]["data"][kind])


def said(outputs: list[Any]) -> str:
    return "".join(output.get("text", "") for output in outputs)


def error(outputs: list[Any]) -> str:
    """The traceback, without colours."""
    (raised,) = [output for output in outputs if output["output_type"] == "error"]
    return re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(raised["traceback"]))


@pytest.mark.parametrize(
    ("cell", "want"),
    [
        ("report", r"Report\(Net: 4 parameters, 2 get no gradient, 1 error\)"),
        ("fix", r"FixResult\(Written: 1 rewritten, .*\)"),
        ("benchmark", r"Benchmark\(cpu: original (does not run|[\d.]+ ms), .*\)"),
        ("watch", r"Watch\(model: 4 parameters, 2 get no gradient, .*\)"),
        ("trains", r"Report\(Cell \[\d+\]: 4 parameters, 2 get no gradient, .*\)"),
    ],
)
def test_it_is_one_line_as_text(outputs: dict[str, list[Any]], cell: str, want: str) -> None:
    assert re.fullmatch(want, data(outputs[cell]))


@pytest.mark.parametrize("cell", ["report", "fix", "benchmark", "watch", "trains"])
def test_it_is_shown_as_html_and_as_markdown(outputs: dict[str, list[Any]], cell: str) -> None:
    page, text = data(outputs[cell], "text/html"), data(outputs[cell], "text/markdown")
    assert "<script" not in page
    assert "<html" not in page
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", page)
    HTMLParser().feed(page)
    assert "<p>" in page
    assert "\x1b" not in text


def test_a_place_is_that_of_the_cell(outputs: dict[str, list[Any]]) -> None:
    place = f"Cell [{NUMBER['model']}]:8:27"
    assert f"{place}: FXG103 detached-path" in said(outputs["text"])
    assert "torch.sigmoid(self.a(x).detach())" in said(outputs["text"])
    assert f"<span class=at>{place}</span>" in data(outputs["report"], "text/html")
    assert f"`Cell [{NUMBER['model']}]:8:27`" in data(outputs["report"], "text/markdown")
    assert "ipykernel" not in said(outputs["text"]) + data(outputs["report"], "text/html") + data(outputs["trains"], "text/html")


def test_every_style_is_scoped(outputs: dict[str, list[Any]]) -> None:
    (style,) = re.findall(r"<style>(.*?)</style>", data(outputs["report"], "text/html"), re.DOTALL)
    style = re.sub(r"/\*.*?\*/|@container [^{]*\{", "", style, flags=re.DOTALL)
    while re.search(r"\{[^{}]*\}", style):  # what is left stands outside all braces
        style = re.sub(r"\{[^{}]*\}", "\n", style)
    selectors = [line for line in style.splitlines() if line.strip(" }")]
    assert len(selectors) >= 5
    assert [selector for selector in selectors if ".fxgrad" not in selector] == []


def test_the_diff_of_a_cell_is_shown_and_writing_it_says_why_not(outputs: dict[str, list[Any]]) -> None:
    cell = f"Cell [{NUMBER['written']}]"
    assert f"--- a/{cell}" in said(outputs["diff"])
    assert "+        h = h + 1" in said(outputs["diff"])
    for kind in ("text/html", "text/markdown"):
        assert f"The source is in {cell}: there is no file to edit" in data(outputs["fix"], kind)
    assert (
        error(outputs["write"]).splitlines()[-1].startswith(f"FixError: there is no file to edit: the source is in {cell} of the notebook")
    )


def test_a_cell_that_trains_is_reported_on(outputs: dict[str, list[Any]]) -> None:
    page = data(outputs["trains"], "text/html")
    assert "FXG103" in page
    assert f"Cell [{NUMBER['model']}]:8:27" in page
    assert f"backward at Cell [{NUMBER['trains']}]:5" in page  # the line as the user sees it, below that of the magic
    assert "<code>%%fxgrad</code>" in page
    shown = [output["data"]["text/plain"] for output in outputs["trains"] if "data" in output]
    assert shown[0] == "True"  # what the cell's last expression gives


def test_a_cell_that_dies_ends_in_its_report_and_its_own_error(outputs: dict[str, list[Any]]) -> None:
    page, traceback = data(outputs["dies"], "text/html"), error(outputs["dies"])
    assert f"Cell [{NUMBER['dies']}]:4" in page
    assert "second time" in traceback
    assert f"Cell In[{NUMBER['dies']}], line 4" in traceback
    assert "/fxgrad/" not in traceback


def test_a_cell_without_a_step_runs_and_says_so(outputs: dict[str, list[Any]]) -> None:
    assert "nothing to report" in said(outputs["idle"])
    assert data(outputs["idle"]) == "2"
    assert data(outputs["after"]) == "(2, 0, True)"


def test_a_mistaken_line_is_refused(outputs: dict[str, list[Any]]) -> None:
    assert "InputError: %%fxgrad does not know '--stairs 3'" in error(outputs["mistaken"])


def test_a_cell_that_awaits_is_refused_and_the_hint_does_it(outputs: dict[str, list[Any]]) -> None:
    refusal = error(outputs["waits"])
    assert "InputError: %%fxgrad cannot run a cell with `await` at its top" in refusal
    assert "with fxgrad.watch(model, optimizer):" in refusal
    assert re.fullmatch(r"Watch\(model: 4 parameters, 2 get no gradient, .*\)", data(outputs["waited"]))
