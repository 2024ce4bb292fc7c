"""The sweep: each model of the zoo traced, regenerated and judged, and every answer compared with eager.

    python -m tests.zoo.sweep [FAMILY ...] [--limit N] [--every K] [--values real|fake|auto] [--markdown FILE]

Per model: does eager itself run (forward, loss, backward); is it analysed; do all verdicts equal eager's; does the regenerated module return
bit-equal outputs and gradients at the same seed. Failures are listed with their reason.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import copy
import io
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import fxgrad
from fxgrad import tree
from fxgrad.regenerate import regenerate
from fxgrad.trace import program, run
from tests.zoo.families import FAMILIES

SECONDS = 60


@dataclass(frozen=True)
class Outcome:
    """One model. `eager` False: it does not run here at all. The rest are True, False, or None where not reached."""

    name: str
    eager: bool
    analysed: bool | None = None
    exact: bool | None = None
    regenerated: bool | None = None
    reason: str = ""
    seconds: float = 0.0


class OutOfTime(Exception):
    """A model took too long."""


@contextlib.contextmanager
def limited(seconds: int) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def given(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(inputs, fxgrad.Inputs):
        return inputs.args, dict(inputs.kwargs)
    return (inputs, {}) if isinstance(inputs, tuple) else ((), dict(inputs))


def loss_of(output: Any) -> torch.Tensor:
    """The loss that fxgrad takes when none is given."""
    for candidate in (getattr(output, "loss", None), output.get("loss") if isinstance(output, dict) else None, output):
        if isinstance(candidate, torch.Tensor) and candidate.numel() == 1:
            return candidate
    floating = [t for t in tree.flatten(output)[0] if t.is_floating_point()]
    total = floating[0].sum()
    for tensor in floating[1:]:
        total = total + tensor.sum()
    return total


def step(call: Any, parameters: dict[str, torch.Tensor], inputs: Any) -> tuple[list[torch.Tensor], dict[str, torch.Tensor | None]]:
    """Outputs and gradients of one step at a fixed seed; gradients are taken off the parameters again."""
    args, kwargs = copy.deepcopy(given(inputs))
    torch.manual_seed(3)
    output = call(*args, **kwargs)
    loss_of(output).backward()
    gradients = {n: p.grad for n, p in parameters.items()}
    for parameter in parameters.values():
        parameter.grad = None
    return [t.detach() for t in tree.flatten(output)[0]], gradients


def judge(name: str, build: Any, values: str) -> Outcome:
    start = time.perf_counter()
    try:
        model, inputs = build()
        reference = copy.deepcopy(model)
        outputs, gradients = step(reference, dict(reference.named_parameters()), inputs)
    except Exception as error:
        return Outcome(name, False, reason=f"{type(error).__name__}: {str(error).splitlines()[0][:120] if str(error) else ''}")
    try:
        torch.manual_seed(3)
        report = fxgrad.analyze(model, inputs, options=fxgrad.Options(values=values))  # type: ignore[arg-type]  # argparse gives a str
    except fxgrad.FxgradError as error:
        return Outcome(name, True, False, reason=f"refused: {error}", seconds=time.perf_counter() - start)
    except Exception as error:
        return Outcome(
            name, True, False, reason=f"analyze: {type(error).__name__}: {str(error)[:160]}", seconds=time.perf_counter() - start
        )
    wrong = [n for n, g in gradients.items() if (report.verdicts[n] == "none") != (g is None) or report.verdicts[n] == "blocked"]
    exact, reason = not wrong, f"verdicts: {[(n, report.verdicts[n]) for n in wrong[:3]]} {report.error or ''}" if wrong else ""
    regenerated, why = same(model, inputs, outputs, gradients)
    return Outcome(name, True, True, exact, regenerated, reason or why, time.perf_counter() - start)


def same(model: Any, inputs: Any, outputs: list[torch.Tensor], gradients: dict[str, torch.Tensor | None]) -> tuple[bool, str]:
    """Whether the regenerated module gives bit-equal outputs and gradients."""
    try:
        torch.manual_seed(3)
        traced = regenerate(run(program(model, inputs, None), values="real"))
        got, found = step(traced, dict(traced.named_parameters()), inputs)
    except Exception as error:
        return False, f"regenerate: {type(error).__name__}: {str(error)[:160]}"
    if len(got) != len(outputs) or not all(equal(a, b) for a, b in zip(got, outputs, strict=True)):
        return False, "regenerate: outputs differ"
    for name, gradient in gradients.items():
        other = found.get(name)
        if (gradient is None) != (other is None) or (gradient is not None and other is not None and not equal(gradient, other)):
            return False, f"regenerate: the gradient of {name} differs"
    return True, ""


def equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.layout is not torch.strided:
        one, other = one.to_dense(), other.to_dense()
    return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one.nan_to_num(), other.nan_to_num())


def table(outcomes: list[Outcome]) -> str:
    families: dict[str, list[Outcome]] = collections.defaultdict(list)
    for outcome in outcomes:
        families[outcome.name.split("/")[0]].append(outcome)
    rows = ["| family | run in eager | analysed | verdicts exact | regenerated bit-equal |", "|---|---|---|---|---|"]
    for family, members in families.items():
        runs = [o for o in members if o.eager]
        done = [o for o in runs if o.analysed]
        rows.append(
            f"| {family} | {len(runs)} of {len(members)} | {len(done)} | {sum(bool(o.exact) for o in done)} | {sum(bool(o.regenerated) for o in done)} |"
        )
    return "\n".join(rows)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("families", nargs="*")
    parser.add_argument("--limit", type=int, default=10**9)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--values", default="auto")
    parser.add_argument("--only", default="")
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    outcomes = []
    for family in FAMILIES:
        if arguments.families and family.__name__ not in arguments.families:
            continue
        entries = [e for e in family() if arguments.only in e[0]][:: arguments.every][: arguments.limit]
        for name, build in entries:
            try:
                with limited(SECONDS), contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
                    outcome = judge(name, build, arguments.values)
            except OutOfTime:
                outcome = Outcome(name, True, False, reason=f"over {SECONDS} s")
            outcomes.append(outcome)
            if outcome.eager and not (outcome.analysed and outcome.exact and outcome.regenerated):
                print(f"{outcome.name}: {outcome.reason}", flush=True)
            elif not outcome.eager:
                print(f"  ({outcome.name} not run: {outcome.reason})", flush=True)
    print(table(outcomes))
    if arguments.markdown:
        arguments.markdown.write_text(table(outcomes) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
