"""A data set that hands tensors with a history to a worker: the line that computed them is named, and followed the advice trains."""

from __future__ import annotations

from pathlib import Path

import pytest

from fxgrad.report import Report
from fxgrad.watching.script import run_script

SCRIPT = """import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

class Kept(Dataset):
    def __init__(self, items):
        self.items = list(items)
    def __len__(self):
        return len(self.items)
    def __getitem__(self, index):
        return {{"x": self.items[index]}}

def main():
    encoder, raw = nn.Linear(4, 3), torch.randn(8, 4)
    {made}
    head = nn.Linear(3, 1)
    opt = torch.optim.SGD(head.parameters(), 0.1)
    for batch in DataLoader(data, batch_size=4, num_workers=1, multiprocessing_context="fork"):
        opt.zero_grad()
        head(batch["x"] if isinstance(batch, dict) else batch[0]).sum().backward()
        opt.step()

main()
"""
MADE = {
    "a tensor of features": ("features = {}; data = TensorDataset(features)", "encoder(raw)"),
    "rows": ("data = Kept({})", "encoder(raw)"),
    "items of a list": ("data = Kept([{} for row in raw])", "encoder(row).relu()"),
}


def report_on(folder: Path, made: str) -> Report:
    path = folder / "script.py"
    path.write_text(SCRIPT.format(made=made))
    report, _ = run_script(str(path))
    assert report is not None
    return report


@pytest.mark.parametrize("name", MADE)
def test_the_line_that_made_the_history_is_named(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text, expression = MADE[name]
    (finding,) = [f for f in report_on(tmp_path, text.format(expression)).findings if f.severity == "error"]
    assert (finding.code, finding.site and finding.site.line) == ("FXG107", 15)
    assert finding.fix is not None
    assert ".detach()`" in finding.fix.advice
    assert finding.message.startswith("`features` is" if name == "a tensor of features" else "`data.items[")
    capsys.readouterr()
    assert report_on(tmp_path, text.format(expression + ".detach()")).ok


def test_a_history_made_in_the_worker_is_told_to_be_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "script.py"
    text = SCRIPT.format(made="data = Kept(raw[:, :3])").replace("self.items[index]}", "self.items[index] * self.scale}")
    path.write_text(text.replace("self.items = ", "self.scale = nn.Parameter(torch.ones(3)); self.items = "))
    report, _ = run_script(str(path))
    assert report is not None
    (finding,) = [f for f in report.findings if f.severity == "error"]
    assert (finding.code, finding.site and finding.site.line) == ("FXG107", 11)


COLLATED = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Together:
    def __init__(self):
        self.table = nn.Embedding(5, 3)

    def __call__(self, rows):
        ids = torch.stack([ids for ids, in rows])
        return {{"x": {returned}, "ids": ids}}  # HERE


def main():
    head = nn.Linear(3, 1)
    opt = torch.optim.SGD(head.parameters(), 0.1)
    data = TensorDataset(torch.randint(0, 5, (8, 2)))
    for batch in DataLoader(data, batch_size=4, num_workers=1, collate_fn=Together(), multiprocessing_context="{context}", timeout=300):
        opt.zero_grad()
        head(batch["x"]).sum().backward()
        opt.step()


if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_a_worker_that_cannot_send_what_it_collated_ends_the_wait(tmp_path: Path, context: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Plain Python waits for ever."""
    path = tmp_path / "script.py"
    path.write_text(COLLATED.format(returned="self.table(ids)", context=context))
    report, _ = run_script(str(path))
    assert report is not None
    (finding,) = [f for f in report.findings if f.severity == "error"]
    line = next(number for number, text in enumerate(path.read_text().splitlines(), 1) if "# HERE" in text)
    assert (finding.code, finding.site and finding.site.line) == ("FXG107", line)
    path.write_text(COLLATED.format(returned="self.table(ids).detach()", context=context))
    report, _ = run_script(str(path))
    assert report is not None
    assert report.ok
