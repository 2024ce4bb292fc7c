"""Part 2: verdicts and repaired modules against eager autograd on the device itself.

`zoo`: models of the zoo (`tests/zoo`), each moved to the device, in a few processes at once. `programs`: what
only a GPU has, or does otherwise: mixed precision, cuDNN, attention kernels, layouts, CUDA graphs, Triton.
Each is run by eager first; an answer that differs from what eager left is a wrong answer, a refusal is
counted as one, and the generators, the streams and the memory of the card are compared before and after.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import copy
import gc
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

import fxgrad
from bench.gpu.pages import arguments, publish, show
from bench.gpu.programs import PROGRAMS
from fxgrad import FxgradError, Options

ROOT = Path(__file__).resolve().parent.parent.parent
MODELS, WORKERS, SECONDS = 120, 12, 110.0


# ------------------------------------------------------------------------------------------------ one program


def world(device: str) -> tuple[Any, ...]:
    """What an analysis must leave as it was, as far as the device goes: generators, the current stream,
    modes."""
    modes = (
        torch.is_grad_enabled(),
        torch.is_autocast_enabled(device),
        torch.get_default_dtype(),
        torch.is_inference_mode_enabled(),
    )
    if device != "cuda":
        return (torch.get_rng_state().tolist(), *modes)
    flags = (
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
        torch.backends.cuda.matmul.allow_tf32,
    )
    return (
        torch.cuda.get_rng_state().tolist(),
        torch.cuda.current_stream().cuda_stream,
        torch.cuda.current_device(),
        *modes,
        *flags,
    )


Gradients = dict[str, torch.Tensor | None]


def seed() -> None:
    """As the steps of the zoo's judge are seeded."""
    from tests.zoo import judge

    judge.seed()


def eager(model: Any, inputs: tuple[Any, ...], loss: Callable[[Any], Any], context: Any = None) -> Gradients:
    """The gradients that one step leaves; they are taken off again. Names are those under a wrapper of
    `torch.compile`. The model is no copy: CUDA graphs stand for the tensors that they were captured with."""
    torch.manual_seed(3)
    with context or contextlib.nullcontext():
        loss(model(*copy.deepcopy(inputs))).backward()
    left = _gradients(model)
    model.zero_grad(set_to_none=True)
    return left


def _gradients(model: Any) -> Gradients:
    return {
        name.removeprefix("_orig_mod."): p.grad for name, p in model.named_parameters(remove_duplicate=False)
    }


def copies_saved() -> Any:
    """Backward finds what forward saved, whatever was written since: what the repaired module is to give
    where eager raises."""
    return torch.autograd.graph.saved_tensors_hooks(lambda t: t.detach().clone(), lambda t: t)


def raises(model: Any, inputs: tuple[Any, ...], loss: Callable[[Any], Any]) -> bool:
    """Whether backward raises because of a write in place; other errors are raised."""
    try:
        eager(model, inputs, loss)
    except RuntimeError as error:
        if "inplace operation" not in str(error):
            raise
        return True
    return False


def true(verdict: str, gradient: torch.Tensor | None) -> bool:
    """Whether a verdict says what eager left. `flows` may be zero at one draw (a layer dropped at random),
    `branch` is either."""
    if verdict == "branch":
        return True
    if gradient is None:
        return verdict == "none"
    return verdict == "flows" or (verdict == "zero" and not bool((_dense(gradient) != 0).any()))


def _dense(gradient: torch.Tensor) -> torch.Tensor:
    return gradient.to_dense() if gradient.layout is not torch.strided else gradient


def judged(build: Callable[[str], Any], device: str, values: str) -> str:
    """ "exact", "refused: why" or what is wrong."""
    model, inputs, loss = build(device)
    blocked = raises(model, inputs, loss)
    want = eager(build(device)[0], inputs, loss, copies_saved() if blocked else None)
    model = build(device)[0]  # as it is before its first step
    seed()
    before, held = world(device), _allocated(device)
    try:
        report = fxgrad.analyze(model, inputs, loss=loss, options=Options(values=values))  # type: ignore[arg-type]
    except FxgradError as error:
        return f"refused: {error.reason}"
    if world(device) != before:
        return "wrong: the world is not as before"
    if values == "fake" and _allocated(device) > held:
        return f"wrong: {_allocated(device) - held} bytes more on the card than before"
    said = report.verdicts
    wrong = [
        f"{n} is {said[n]}"
        for n, g in want.items()
        if not (said[n] == "blocked" if blocked else true(said[n], g))
    ]
    return f"wrong: {', '.join(wrong[:3])}{_raised(report)}" if wrong else "exact"


def _raised(report: fxgrad.Report) -> str:
    error = report.error
    return "" if error is None else f"; {error.phase} raises {error.type}: {error.message.splitlines()[0]}"


def peak_of_fake(build: Callable[[str], Any], device: str) -> int:
    """The most bytes that an analysis on fake values takes on the card at a time."""
    model, inputs, loss = build(device)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    with contextlib.suppress(FxgradError):
        fxgrad.analyze(model, inputs, loss=loss, options=Options(values="fake"))
    return int(torch.cuda.max_memory_allocated() - before)


def repaired(build: Callable[[str], Any], device: str, mode: str) -> str:
    """The module that `fix` gives, beside eager: "equal", "refused: why" or what differs."""
    model, inputs, loss = build(device)
    blocked = raises(model, inputs, loss)
    want = eager(build(device)[0], inputs, loss, copies_saved() if blocked else None)
    model = build(device)[0]  # as it is before its first step
    before = world(device)
    try:
        module = fxgrad.fix(model, inputs, loss=loss, options=Options(rewrite=mode)).module  # type: ignore[arg-type]
    except FxgradError as error:
        return f"refused: {error.reason}"
    if world(device) != before:
        return "wrong: the world is not as before"
    torch.manual_seed(3)
    loss(module(*copy.deepcopy(inputs))).backward()
    got = _gradients(module)
    again = eager(build(device)[0], inputs, loss, copies_saved() if blocked else None)
    for name, gradient in want.items():
        if not _close(gradient, got.get(name), again[name]):
            return f"wrong: the gradient of {name} differs"
    return "equal"


def _close(want: torch.Tensor | None, got: torch.Tensor | None, again: torch.Tensor | None) -> bool:
    """Equal as far as eager equals itself (kernels with atomics do not), and within the rounding of the
    dtype."""
    if want is None or got is None:
        return want is None and got is None
    precise = torch.finfo(want.dtype).eps
    want, got, again = (_dense(t).float() if t is not None else None for t in (want, got, again))
    assert want is not None
    assert got is not None
    noise = float((want - again).abs().max()) if again is not None else 0.0
    return float((want - got).abs().max()) <= 4 * noise + float(want.abs().max()) * 64 * precise


def _allocated(device: str) -> int:
    if device != "cuda":
        return 0
    gc.collect()
    torch.cuda.synchronize()
    return torch.cuda.memory_allocated()


def programs(device: str) -> list[dict[str, str]]:
    rows = []
    for name, build in PROGRAMS.items():
        row = {"program": name}
        rows.append(row)
        try:
            model, inputs, loss = build(device)
            raises(model, inputs, loss)
        except Exception as error:  # this card or this build of torch does not have it
            row["auto"] = f"not run by eager: {type(error).__name__}: {str(error).splitlines()[0][:80]}"
            continue
        works: dict[str, Callable[[], str]] = {
            "auto": lambda build=build: judged(build, device, "auto"),
            "fake": lambda build=build: judged(build, device, "fake"),
            "real": lambda build=build: judged(build, device, "real"),
            "fake bytes": lambda build=build: str(peak_of_fake(build, device)) if device == "cuda" else "",
            "needed": lambda build=build: repaired(build, device, "needed"),
            "all": lambda build=build: repaired(build, device, "all"),
        }  # fmt: skip
        for column, work in works.items():
            try:
                row[column] = work()
            except Exception as error:
                traceback.print_exc()
                row[column] = (
                    f"crash: {type(error).__name__}: {str(error).splitlines()[0][:120] if str(error) else ''}"
                )
        show(json.dumps(row))
    return rows


# ---------------------------------------------------------------------------------------------------- the zoo


def names(count: int) -> list[tuple[str, str]]:
    """Entries of the zoo, spread over its families, those of whole models first."""
    from tests.zoo.families import FAMILIES

    queues = {}
    for family in FAMILIES:
        with contextlib.suppress(Exception):  # a package that is not here
            queues[family.__name__] = collections.deque(name for name, _ in family())
    wanted = ("torchvision", "timm", "transformers_models", "geometric", "module_db")
    order = [queues.pop(name) for name in wanted if name in queues]
    for queue in order:
        queue.rotate(-len(queue) // 3)
    chosen: list[tuple[str, str]] = []
    family_of = [name for name in wanted]
    while len(chosen) < count and any(order):
        for name, queue in zip(family_of, order, strict=False):
            if queue:
                chosen.append((name, queue.popleft()))
                queue.rotate(-7)
    return chosen[:count]


def judge_zoo(device: str, share: list[tuple[str, str]]) -> None:
    """The other process: a line of JSON for each model of its share."""
    from tests.zoo.families import FAMILIES
    from tests.zoo.judge import given, named, step

    torch.set_num_threads(1)
    families = {family.__name__: family for family in FAMILIES}
    entries: dict[str, dict[str, Callable[[], Any]]] = {}
    for family, name in share:
        row: dict[str, Any] = {"family": family, "name": name}
        try:
            if family not in entries:
                entries[family] = dict(families[family]())
            model, inputs = entries[family][name]()
            model = model.to(device)
            args, kwargs = torch.utils._pytree.tree_map(lambda t: _moved(t, device), given(inputs))
            inputs = fxgrad.Inputs(args, kwargs)
            reference = copy.deepcopy(model)
            _, want = step(reference, named(reference), inputs)
        except Exception as error:
            row["said"] = f"not run by eager: {type(error).__name__}"
            print(json.dumps(row), flush=True)
            continue
        start = time.perf_counter()
        row["said"] = _zoo_verdicts(model, inputs, want, device)
        row["seconds"] = round(time.perf_counter() - start, 2)
        print(json.dumps(row), flush=True)


def _moved(item: Any, device: str) -> Any:
    return (
        item.detach().to(device).requires_grad_(item.requires_grad)
        if isinstance(item, torch.Tensor)
        else item
    )


def _zoo_verdicts(model: Any, inputs: Any, want: dict[str, Any], device: str) -> str:
    seed()  # layers that are dropped at random are dropped as eager's step dropped them
    before = world(device)
    try:
        report = fxgrad.analyze(model, inputs)
    except FxgradError as error:
        return f"refused: {error.reason}"
    except Exception as error:
        return f"crash: {type(error).__name__}: {str(error).splitlines()[0][:120] if str(error) else ''}"
    if world(device) != before:
        return "wrong: the world is not as before"
    wrong = {name: gradient for name, gradient in want.items() if not true(report.verdicts[name], gradient)}
    if not wrong:
        return "exact"
    # A gradient that the structure makes zero (a bias before a softmax) is what rounding leaves of it in a
    # kernel that adds up otherwise.
    largest = max(float(_dense(g).abs().max()) for g in want.values() if g is not None)
    left = max((float(_dense(g).abs().max()) for g in wrong.values() if g is not None), default=0.0)
    if all(report.verdicts[name] == "zero" for name in wrong) and left <= 1e-6 * largest:
        return (
            f"rounding: eager leaves at most {left:.1e} where the structure gives zero, "
            f"{left / largest:.1e} of the largest gradient"
        )
    words = [f"{name} is {report.verdicts[name]}" for name in wrong]
    return f"wrong: {', '.join(words[:3])} (eager: at most {left:.1e} of {largest:.1e}){_raised(report)}"


def zoo(options: argparse.Namespace) -> list[dict[str, Any]]:
    count, workers = (4, 1) if options.tiny else (MODELS, WORKERS)
    chosen = (
        [("module_db", f"module_db/nn.{n}/train") for n in ("Linear", "GRU", "Conv2d", "Hardtanh")]
        if options.tiny
        else names(count)
    )
    commands = []
    for number in range(workers):
        share = json.dumps(chosen[number::workers])
        command = [sys.executable, "-W", "ignore", "-c", _CHILD, options.device, share]
        commands.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT))
    end = time.monotonic() + SECONDS
    rows = []
    for process in commands:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.1, end - time.monotonic()))
        process.kill()
        lines = (process.stdout.read() if process.stdout else "").splitlines()
        rows += [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
    return rows


_CHILD = (
    "import json, sys; from bench.gpu.truth import judge_zoo; judge_zoo(sys.argv[1], json.loads(sys.argv[2]))"
)


# --------------------------------------------------------------------------------------------------- the page


def counted(rows: list[dict[str, Any]]) -> str:
    """How many models of each family were exact, refused, wrong, or not run by eager."""
    kinds = ("exact", "rounding", "refused", "wrong", "crash", "not run by eager")
    table = []
    for family in dict.fromkeys(row["family"] for row in rows):
        said = [row["said"].partition(":")[0] for row in rows if row["family"] == family]
        table.append([family, *(said.count(kind) for kind in kinds)])
    table.append(["all", *(sum(line[i + 1] for line in table) for i in range(len(kinds)))])
    return tabulate(table, headers=["family", *kinds], tablefmt="github")


def write(rows: list[dict[str, str]], models: list[dict[str, Any]], options: argparse.Namespace) -> None:
    columns = ["program", "auto", "fake", "real", "fake bytes", "needed", "all"]
    table = tabulate(
        [[row.get(c, "") for c in columns] for row in rows],
        headers=columns,
        tablefmt="github",
        disable_numparse=True,
    )
    others = [
        f"- {row['name']}: {row['said']}"
        for row in models
        if row["said"] != "exact" and not row["said"].startswith("not run")
    ]
    sections = [
        "`auto`, `fake` and `real`: verdicts on those values, beside what eager's backward left on the "
        "device. `fake bytes`: the most that an "
        "analysis on fake values took of the card. `needed` and `all`: outputs and gradients of the repaired "
        "module, beside eager.",
        table,
        f"## {sum(not r['said'].startswith('not run') for r in models)} models of the zoo\n\n"
        f"{counted(models)}",
    ]
    if others:
        sections.append("\n".join(others))
    publish("truth", "Verdicts on a GPU, beside eager", sections, {"programs": rows, "zoo": models}, options)
    show(table)
    show(counted(models))
    show("\n".join(others))


def main() -> int:
    options = arguments("truth", __doc__)
    models = zoo(options)
    rows = programs(options.device)
    write(rows, models, options)
    said = [text for row in rows for text in row.values()] + [row["said"] for row in models]
    return int(any(text.startswith(("wrong", "crash")) for text in said) or not models)


if __name__ == "__main__":
    sys.exit(main())
