"""The first step's verdicts where a training is logged: TensorBoard and Weights & Biases.

`to_tensorboard(report, writer)` takes a `SummaryWriter` or anything with its `add_scalar` and `add_text`;
`to_wandb(report, run)` what `wandb.init` gives, or anything with its `log` and `summary`. Neither library is
imported. Both get how many parameters have which verdict, and the report as text.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from fxgrad.report import Report

VERDICTS = ("flows", "zero", "none", "branch", "blocked")


def counts(report: Report) -> dict[str, int]:
    """How many parameters have each verdict, and how many findings are errors."""
    found = Counter(report.verdicts.values())
    errors = sum(finding.severity == "error" for finding in report.findings)
    return {**{f"fxgrad/{verdict}": found[verdict] for verdict in VERDICTS}, "fxgrad/errors": errors}


def to_tensorboard(report: Report, writer: Any, step: int = 0) -> None:
    """Scalars `fxgrad/flows` and so on, and the report under the text `fxgrad/report`."""
    for name, number in counts(report).items():
        writer.add_scalar(name, number, step)
    # indented by four: Markdown's code block, which TensorBoard renders
    lines = str(report).splitlines()
    writer.add_text("fxgrad/report", "\n".join(f"    {line}" for line in lines), step)


def to_wandb(report: Report, run: Any) -> None:
    """The same numbers as a row of the run's history, and the report in its summary."""
    run.log(counts(report))
    run.summary["fxgrad/report"] = str(report)
