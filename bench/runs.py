"""How often a program is run: recorded runs, plain steps, steps of a regenerated module, and walks over the
user's world.

    python -m bench.runs [FILE ...]

Counts calls of functions by their code, over `fxgrad.analyze`, `fxgrad.fix` and `FixResult.source_edits`; a
program that is refused says so. A model file is read as the command line reads it; without one the examples
of the tests, the two programs below and a sparse Gaussian process. Counts say nothing about time and are the
same on every machine.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import torch
from tabulate import tabulate
from torch import nn

import fxgrad
from bench.as_written import sparse_gp
from fxgrad.fix_graph import proof
from fxgrad.program.load import load
from fxgrad.records.errors import FxgradError
from fxgrad.trace import plain, run
from fxgrad.world.reach import Reach

EXAMPLES = Path(__file__).resolve().parent.parent / "tests" / "examples"
COUNTED = {
    "recorded runs": run.run.__code__,
    "plain steps": plain.plain_step.__code__,
    "steps of a module": proof.step.__code__,
    "world walks": Reach.note_memoised.__code__,
}

Subject = tuple[str, Any, Any, Callable[[Any], Any] | None]  # its name, model, inputs and loss


class Experts(nn.Module):
    """An expert chosen by an index that left torch, and a gate that lets one through: both starve parameters
    of others."""

    def __init__(self) -> None:
        super().__init__()
        self.router, self.experts = nn.Linear(4, 3), nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])
        self.extra = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.experts[int(self.router(x).sum(0).argmax())](x)
        if y.mean() > 100:
            y = y + self.extra(y)
        return y.square().mean()


def _built() -> Iterator[Subject]:
    torch.manual_seed(0)
    for name in ("residual.py", "speaker.py"):
        yield _loaded(EXAMPLES / name)
    yield "Experts", Experts(), (torch.randn(3, 4),), None
    yield (
        "an encoder's layer",
        nn.TransformerEncoderLayer(16, 2, 32, batch_first=True),
        (torch.randn(2, 5, 16),),
        None,
    )
    yield "a sparse GP", *sparse_gp(), None


def _loaded(file: Path) -> Subject:
    found = load(str(file))
    return file.name, found.model, found.inputs, found.loss


def counted(call: Callable[[], Any]) -> tuple[Counter[str], Any]:
    """How often each function of `COUNTED` begins while `call` runs, and what it returns, or the error of
    ours that it raises."""
    names: dict[CodeType, str] = {code: name for name, code in COUNTED.items()}
    found: Counter[str] = Counter()

    def profile(frame: FrameType, event: str, arg: Any) -> None:
        if event == "call" and (name := names.get(frame.f_code)) is not None:
            found[name] += 1

    sys.setprofile(profile)
    try:
        returned: Any = call()
    except FxgradError as error:
        returned = error
    finally:
        sys.setprofile(None)
    return found, returned


def rows(subject: Subject) -> list[list[Any]]:
    """One row for each call on a model."""
    name, model, inputs, loss = subject
    made: list[list[Any]] = []

    def row(what: str, call: Callable[[], Any]) -> Any:
        found, returned = counted(call)
        made.append([name, what, *(found[kind] for kind in COUNTED), type(returned).__name__])
        return returned

    row("analyze", lambda: fxgrad.analyze(model, inputs, loss=loss))
    fixed = row("fix", lambda: fxgrad.fix(model, inputs, loss=loss))
    if isinstance(fixed, fxgrad.FixResult):
        row("source_edits", lambda: fixed.source_edits)
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path)
    files = parser.parse_args().files
    warnings.simplefilter("ignore")
    subjects = map(_loaded, files) if files else _built()
    print(
        tabulate(
            [row for subject in subjects for row in rows(subject)],
            ["program", "call", *COUNTED, "gives"],
            tablefmt="github",
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
