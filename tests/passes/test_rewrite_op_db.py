"""Every in-place operator that torch's own test database knows, over its own sample inputs: rewritten, values and gradients are eager's.

Two programs per sample: `saved` overwrites what a product saved for backward (rewritten where needed), `alone` writes a fresh tensor
(rewritten because all is). `fix` verifies each against eager; here the result is compared once more. A fixed choice of operators runs
always; `FXGRAD_WRITE_RESULTS=1 pytest -m slow` runs all and writes the table of what is refused and why.
"""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing._internal.common_methods_invocations import op_db

import fxgrad
from fxgrad.fix_graph.fix import fix
from fxgrad.records import Inputs, Options
from fxgrad.records.errors import FixError, InputError

RESULTS = Path(__file__).resolve().parents[2] / "bench" / "results" / "op_db.md"
OPS = [op for op in op_db if op.inplace_variant is not None]
ALWAYS = (
    "add mul div pow clamp exp sigmoid masked_fill index_add scatter cumsum copysign nn.functional.relu nn.functional.dropout t squeeze"
).split()
Model = Callable[..., Any]


def saved(inplace: Callable[..., Any]) -> Model:
    def model(x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        y = x * 1
        product = y * y
        y = inplace(y, *args, **kwargs)
        return floating(y), product.sum() if product.is_floating_point() else product.double().sum()

    return model


def alone(inplace: Callable[..., Any]) -> Model:
    def model(x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return floating(inplace(x.clone(), *args, **kwargs))

    return model


def floating(y: torch.Tensor) -> torch.Tensor:
    return y if y.is_floating_point() else y.double()


def dtype_of(op: Any) -> torch.dtype | None:
    for dtype in (torch.float64, torch.float32, torch.int64, torch.bool):
        if dtype in op.dtypes:
            return dtype
    return None


def samples(op: Any, most: int) -> Iterator[Any]:
    dtype = dtype_of(op)
    if dtype is None:
        return
    grad = dtype.is_floating_point and op.supports_autograd
    for number, sample in enumerate(op.sample_inputs("cpu", dtype, requires_grad=grad)):
        if number >= most:
            return
        if isinstance(sample.input, torch.Tensor) and not sample.broadcasts_input:
            yield sample


def eager(model: Model, sample: Any) -> list[torch.Tensor] | None:
    """Outputs, then gradients of the tensors given; None where eager itself raises, with a copy of everything saved."""
    from fxgrad.torch_api.saved_hooks import saved_copies

    torch.manual_seed(1)
    given, arguments, keywords = copied(sample)
    try:
        with saved_copies():
            return stepped(model, given, arguments, keywords)
    except Exception:  # an in-place form that takes not all that the out-of-place form takes
        return None


def copied(sample: Any) -> tuple[list[torch.Tensor], tuple[Any, ...], dict[str, Any]]:
    def copy(item: Any) -> Any:
        if isinstance(item, torch.Tensor):
            given.append(item.detach().clone().requires_grad_(item.requires_grad))
            return given[-1]
        if isinstance(item, list | tuple):
            return type(item)(copy(x) for x in item)
        return item

    given: list[torch.Tensor] = []
    return given, tuple(copy(x) for x in (sample.input, *sample.args)), {k: copy(v) for k, v in sample.kwargs.items()}


def stepped(model: Model, given: list[torch.Tensor], arguments: tuple[Any, ...], keywords: dict[str, Any]) -> list[torch.Tensor]:
    out = model(*arguments, **keywords)
    out = [out] if isinstance(out, torch.Tensor) else list(out)
    total = sum(o.sum() for o in out)
    if total.requires_grad:
        total.backward()
    return [*(o.detach() for o in out), *(t.grad if t.grad is not None else torch.zeros(()) for t in given)]


def outcome(op: Any, sample: Any, make: Callable[[Callable[..., Any]], Model], mode: Any) -> str | None:
    """ "right", "wrong" or the reason of a refusal; None where there is nothing to compare."""
    model = make(op.inplace_variant)
    want = eager(model, sample)
    if want is None:
        return None
    try:
        made = fix(model, Inputs((sample.input, *sample.args), dict(sample.kwargs)), options=Options(rewrite=mode)).module
    except (FixError, InputError) as error:
        return re.sub(r"\d+(\.\d+)?(e[+-]?\d+)?", "N", error.reason)[:110]
    torch.manual_seed(1)
    got = stepped(made, *copied(sample))
    same = all(a.shape == b.shape and torch.allclose(a, b, equal_nan=True) for a, b in zip(want, got, strict=True))
    return "right" if same else "wrong"


def sweep(op: Any, most: int) -> Counter[str]:
    found: Counter[str] = Counter()
    for sample in samples(op, most):
        for make, mode in ((saved, "needed"), (alone, "all")):
            came = outcome(op, sample, make, mode)
            if came is not None:
                found[came] += 1
    return found


@pytest.mark.parametrize("op", [op for op in OPS if op.name in ALWAYS and not op.variant_test_name], ids=lambda op: op.name)
def test_an_inplace_operator_is_rewritten(op: Any) -> None:
    found = sweep(op, 3)
    assert set(found) == {"right"}


@pytest.mark.slow
def test_every_inplace_operator_is_rewritten_or_refused_with_a_reason() -> None:
    warnings.simplefilter("ignore")
    found = {f"{op.name}{'.' + op.variant_test_name if op.variant_test_name else ''}": sweep(op, 40) for op in OPS}
    if os.environ.get("FXGRAD_WRITE_RESULTS"):
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(table(found))
    assert [name for name, counts in found.items() if counts["wrong"]] == []
    assert [name for name, counts in found.items() if not counts["right"] and counts] == []


def table(found: dict[str, Counter[str]]) -> str:
    """The outcomes as markdown."""
    total: Counter[str] = sum(found.values(), Counter())
    compared = [name for name, counts in found.items() if counts]
    whole = [name for name in compared if set(found[name]) == {"right"}]
    refused = [
        f"| {name} | {counts['right']} | {count} | {reason} |"
        for name, counts in sorted(found.items())
        for reason, count in sorted(counts.items())
        if reason not in ("right", "wrong")
    ]
    empty = sorted(set(found) - set(compared))
    return (
        f"# In-place operators of torch's `op_db`\n\ntorch {torch.__version__}, fxgrad {fxgrad.__version__}. Made by "
        "tests/passes/test_rewrite_op_db.py, whose docstring says what was run.\n\n"
        f"{len(found)} operators with an in-place form, {len(compared)} of them with samples that form takes in eager; "
        f"{sum(total.values())} programs: {total['right']} right, {total['wrong']} wrong, "
        f"{sum(total.values()) - total['right'] - total['wrong']} refused. All programs of {len(whole)} operators are right.\n\n"
        "| operator | right | refused | reason |\n|---|---|---|---|\n" + "\n".join(refused) + "\n\n"
        f"Nothing to compare (eager's in-place form takes none of the samples): {', '.join(empty) or 'none'}.\n"
    )
