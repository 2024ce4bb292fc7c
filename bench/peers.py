"""Speed beside the peers: what one analysis costs, in real training steps of the same model, every tool
measured in one run.

    python bench/peers.py [--models NAME ...] [--tools NAME ...] [--seconds N] [--json FILE] [--markdown FILE]

A cell is one tool on one model, in a process of its own forked from one where everything is imported and
every model is built and every tool has run once on a toy: imports are nobody's cost. Per cell: the first
call, which warms caches and is told apart, then the median of up to five calls of CPU time
(`time.process_time`) and wall time, and by how much the peak of the resident memory rose above where the
process began. Threads: 1, else CPU time counts threads that wait. Ratios
are to one plain eager step (forward, loss, backward) of the same model in the same run: they compare across
machines, seconds do not. A tool that raises, or runs out of its time, did not capture the model; the cell
says which.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import io
import json
import os
import platform
import re
import select
import signal
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.fx
from torch import nn
from torch.utils import _pytree

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import fxgrad  # noqa: E402  the path above first: the benchmark runs from a checkout
from bench.as_written import as_written  # noqa: E402
from fxgrad.program.loss import loss_of  # noqa: E402
from fxgrad.program.program import program  # noqa: E402
from fxgrad.trace.experiment import Experiment  # noqa: E402
from fxgrad.trace.run import run  # noqa: E402
from tests.zoo.configured import transformers_models  # noqa: E402
from tests.zoo.families import module_db, vit_pytorch, x_transformers  # noqa: E402
from tests.zoo.graphs import geometric  # noqa: E402
from tests.zoo.sweep import given  # noqa: E402

CHOSEN = (
    "LlamaForCausalLM", "GPT2LMHeadModel", "BertForMaskedLM", "MistralForCausalLM", "MixtralForCausalLM",
    "GemmaForCausalLM", "Qwen2ForCausalLM", "OPTForCausalLM", "BloomForCausalLM", "PhiForCausalLM",
    "MambaForCausalLM", "RobertaForMaskedLM", "ElectraForMaskedLM", "DebertaV2ForMaskedLM",
    "AlbertForMaskedLM", "DistilBertForMaskedLM", "ViTForImageClassification", "DeiTForImageClassification",
    "BeitForImageClassification", "T5ForConditionalGeneration", "BartForConditionalGeneration",
    "x_transformers/plain", "x_transformers/rotary_pos_emb", "pyg/GCN", "pyg/GAT", "pyg/GraphSAGE",
    "nn.Transformer/train", "nn.MultiheadAttention/train", "nn.LSTM/train",
    "nn.TransformerEncoderLayer/train", "vit_pytorch/vit.ViT", "vit_pytorch/simple_vit.SimpleViT",
    "vit_pytorch/deepvit.DeepViT", "vit_pytorch/cait.CaiT", "CLIPModel", "as_written/LoRA",
    "as_written/SparseGP",
)  # fmt: skip
REAL_STEP, FAKE_STEP, AUTO, FAKE, EXPORT = (
    "one real step",
    "one fake step",
    "analyze, auto",
    "analyze, fake",
    "torch.export, non-strict",
)
REPEAT = 5
ENOUGH = 1.0  # seconds: no further repetition of a cell that took so long


# -------------------------------------------------------------------------------------------------- the tools


def real_step(model: nn.Module, inputs: Any) -> None:
    args, kwargs = given(inputs)
    loss_of(None, model(*args, **kwargs)).backward()
    model.zero_grad(set_to_none=True)


def fake_step(model: nn.Module, inputs: Any) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        faked = {
            n: mode.from_tensor(t, static_shapes=True)
            for n, t in [*model.named_parameters(), *model.named_buffers()]
        }
        args, kwargs = _pytree.tree_map_only(
            torch.Tensor, lambda t: mode.from_tensor(t, static_shapes=True), given(inputs)
        )
        loss_of(None, torch.func.functional_call(model, faked, args, kwargs)).backward()


class Loss(nn.Module):
    """The model with its loss, over a flat list of tensors: what a joint tracer asks for."""

    def __init__(self, model: nn.Module, inputs: Any) -> None:
        super().__init__()
        self.model = model
        leaves, self.spec = _pytree.tree_flatten(given(inputs))
        self.places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
        self.leaves = leaves
        self.tensors = tuple(leaves[i] for i in self.places)

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor]:
        leaves = list(self.leaves)
        for place, tensor in zip(self.places, tensors, strict=True):
            leaves[place] = tensor
        args, kwargs = _pytree.tree_unflatten(leaves, self.spec)
        return (loss_of(None, self.model(*args, **kwargs)),)


def make_fx_joint(model: nn.Module, inputs: Any) -> Any:
    from torch.fx.experimental.proxy_tensor import make_fx

    whole = Loss(model, inputs)
    names = [n for n, p in whole.named_parameters() if p.requires_grad]
    parameters = [p for p in whole.parameters() if p.requires_grad]

    def joint(values: list[torch.Tensor], *tensors: torch.Tensor) -> Any:
        (loss,) = torch.func.functional_call(whole, dict(zip(names, values, strict=True)), tensors)
        return loss, torch.autograd.grad(loss, values, allow_unused=True)

    return make_fx(joint, tracing_mode="fake", _allow_non_fake_inputs=True)(parameters, *whole.tensors)


def functional(model: nn.Module, inputs: Any) -> Any:
    """torch's own way to a graph without in-place writes, forward alone: what `fxgrad.fix` stands beside."""
    from torch.fx.experimental.proxy_tensor import make_fx

    whole = Loss(model, inputs)
    return make_fx(torch.func.functionalize(whole), tracing_mode="fake", _allow_non_fake_inputs=True)(
        *whole.tensors
    )


def aot_joint(model: nn.Module, inputs: Any) -> Any:
    from torch._functorch.aot_autograd import aot_export_module

    whole = Loss(model, inputs)
    return aot_export_module(whole, whole.tensors, trace_joint=True, output_loss_index=0)


def tools(model: nn.Module, inputs: Any) -> dict[str, Callable[[], Any]]:
    args, kwargs = given(inputs)

    def analyze(values: Any) -> Callable[[], Any]:
        return lambda: fxgrad.analyze(model, inputs, options=fxgrad.Options(values=values))

    def recorder(values: str) -> Callable[[], Any]:
        return lambda: run(program(model, inputs, None), Experiment(values, backward=False))

    return {
        REAL_STEP: lambda: real_step(model, inputs),
        FAKE_STEP: lambda: fake_step(model, inputs),
        AUTO: analyze("auto"),
        "analyze, real": analyze("real"),
        FAKE: analyze("fake"),
        "fxgrad.fix": lambda: fxgrad.fix(model, inputs),
        "our tracer alone, real": recorder("real"),
        "our tracer alone, fake": recorder("fake"),
        "torch.fx.symbolic_trace": lambda: torch.fx.symbolic_trace(model),
        EXPORT: lambda: torch.export.export(model, args, kwargs, strict=False),
        "torch.export, strict": lambda: torch.export.export(model, args, kwargs, strict=True),
        "make_fx, functionalize": lambda: functional(model, inputs),
        "make_fx, joint": lambda: make_fx_joint(model, inputs),
        "AOTAutograd, joint": lambda: aot_joint(model, inputs),
    }


def models(wanted: tuple[str, ...]) -> list[tuple[str, Callable[[], Any]]]:
    found: dict[str, Callable[[], Any]] = {}
    for family in (transformers_models, x_transformers, vit_pytorch, geometric, module_db, as_written):
        for name, build in family():
            for one in wanted:
                if f"/{name}".endswith(f"/{one}") and one not in found:
                    found[one] = build
    return list(found.items())


# --------------------------------------------------------------------------------------------------- one cell


def cell(call: Callable[[], Any]) -> dict[str, Any]:
    """CPU and wall seconds of one call, CPU seconds of the first, and the rise of the peak of resident memory
    in MB; or the error."""
    begin = resident("VmRSS")
    reset_peak()
    cpu, wall = [], []
    started = time.perf_counter()
    try:
        cpu_start = time.process_time()
        call()
        first = time.process_time() - cpu_start
        while len(cpu) < REPEAT and (not cpu or time.perf_counter() - started < ENOUGH):
            cpu_start, wall_start = time.process_time(), time.perf_counter()
            call()
            cpu.append(time.process_time() - cpu_start)
            wall.append(time.perf_counter() - wall_start)
    except Exception as error:
        said = re.sub(
            r"\S*site-packages/", "", (str(error).strip() or "-").splitlines()[0]
        )  # no machine's paths
        return {"error": f"{type(error).__name__}: {said[:160]}"}
    return {
        "cpu": statistics.median(cpu),
        "first": first,
        "wall": statistics.median(wall),
        "peak": max(resident("VmHWM") - begin, 0.0),
    }


def resident(field: str) -> float:
    """MB, from Linux's own accounting; 0 elsewhere."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) / 1024
    return 0.0


def reset_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def forked(call: Callable[[], Any], seconds: float) -> dict[str, Any]:
    """`cell(call)` in a child of this process, no longer than `seconds`."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            try:
                text = json.dumps(cell(call))
            except BaseException as error:
                text = json.dumps({"error": f"{type(error).__name__}: {error}"})
        os.write(writing, text.encode())
        os._exit(0)  # nothing of the parent's is closed or flushed twice
    os.close(writing)
    try:
        ready, _, _ = select.select([reading], [], [], seconds)
        if not ready:
            return {"error": f"over {seconds:.0f} s"}
        text = os.read(reading, 65536)
        return dict(json.loads(text)) if text else {"error": "the process died"}
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)


def built(wanted: tuple[str, ...]) -> Iterator[tuple[str, nn.Module, Any]]:
    for name, build in models(wanted):
        try:
            model, inputs = build()
        except Exception as error:
            print(f"{name}: not built: {type(error).__name__}: {error}", file=sys.stderr)
            continue
        if hasattr(getattr(model, "config", None), "use_cache"):
            # `torch.export` cannot return a cache, and a training step makes none
            model.config.use_cache = False
        yield name, model, inputs


def measure(
    wanted: tuple[str, ...], chosen: list[str] | None, seconds: float, save: Callable[[dict[str, Any]], None]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Per model and tool a cell, saved after each model. A model that eager cannot run is left out."""
    ready = list(built(wanted))
    toy = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    for tool, call in tools(toy, (torch.randn(2, 4),)).items():
        if chosen is None or tool in (REAL_STEP, FAKE_STEP) or tool in chosen:
            call()
    results: dict[str, dict[str, dict[str, Any]]] = {}
    for name, model, inputs in ready:
        row = {}
        for tool, call in tools(model, inputs).items():
            if chosen is None or tool in (REAL_STEP, FAKE_STEP) or tool in chosen:
                row[tool] = forked(call, seconds)
            if "error" in row.get(REAL_STEP, {}):
                break
        if "error" not in row[REAL_STEP]:
            results[name] = row
            save(results)
        print(
            name,
            {t: round(c["cpu"], 3) if "cpu" in c else c["error"] for t, c in row.items()},
            file=sys.stderr,
            flush=True,
        )
    return results


# -------------------------------------------------------------------------------------------------- the table


def ratios(
    results: dict[str, dict[str, dict[str, Any]]], tool: str, to: str, what: str = "cpu"
) -> list[float]:
    """One quotient per model that both ran."""
    return [
        row[tool][what] / row[to][what]
        for row in results.values()
        if what in row.get(tool, {}) and what in row.get(to, {})
    ]


def shown(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def summary(found: dict[str, Any]) -> str:
    """The table of tools and the sentences below it."""
    results = found["results"]
    lines = [
        "| tool | ran on | CPU time, in real steps | slowest | first call, in later ones | "
        "wall time, in real "
        "steps | CPU s | peak rise MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for tool in next(iter(results.values())):
        cpu, wall = ratios(results, tool, REAL_STEP), ratios(results, tool, REAL_STEP, "wall")
        good = [row[tool] for row in results.values() if "cpu" in row[tool]]
        if not good:
            lines.append(f"| {tool} | 0 of {len(results)} | - | - | - | - | - | - |")
            continue
        figures = [
            statistics.median(cpu),
            max(cpu),
            statistics.median(g["first"] / g["cpu"] for g in good),
            statistics.median(wall),
            *(statistics.median(g[w] for g in good) for w in ("cpu", "peak")),
        ]
        lines.append(f"| {tool} | {len(good)} of {len(results)} | " + " | ".join(map(shown, figures)) + " |")
    measured = (
        f"{found['command']}, {found['date']}: {found['machine']}; torch {found['torch']}, "
        f"transformers {found['transformers']},"
    )
    measured += f" Python {found['python']}, 1 thread."
    if not all(ratios(results, tool, to) for tool, to in ((AUTO, REAL_STEP), (FAKE, FAKE_STEP))):
        return "\n".join([*lines, "", measured]) + "\n"
    both = [r for r in results.values() if "cpu" in r.get(AUTO, {}) and "cpu" in r.get(EXPORT, {})]
    faster = {
        tool: sum(r[tool]["cpu"] < r[EXPORT]["cpu"] for r in both if "cpu" in r.get(tool, {}))
        for tool in (AUTO, FAKE)
    }
    lines += [
        "",
        f"Medians over {len(results)} models. `analyze` on auto values takes "
        f"{shown(statistics.median(ratios(results, AUTO, REAL_STEP)))} real"
        f" steps; on fake values {shown(statistics.median(ratios(results, FAKE, FAKE_STEP)))} fake steps. It "
        "costs less CPU time than non-strict"
        f" `torch.export` on {faster[AUTO]} of the {len(both)} models that both ran (on fake values: "
        f"{faster[FAKE]}).",
        "",
        measured,
    ]
    return "\n".join(lines) + "\n"


def each(found: dict[str, Any]) -> str:
    """Every model: CPU time in real steps; why a tool did not run."""
    results = found["results"]
    names = list(next(iter(results.values())))
    lines = ["| model | real step, ms | " + " | ".join(names[1:]) + " |", "|---" * (len(names) + 1) + "|"]
    for model, row in results.items():
        real = row[REAL_STEP]["cpu"]
        cells = [
            shown(row[t]["cpu"] / real) if "cpu" in row[t] else row[t]["error"].partition(":")[0]
            for t in names[1:]
        ]
        lines.append(f"| {model} | {1000 * real:.1f} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def version(package: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "-"


def processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()}, {os.cpu_count()} cores"
    return f"{platform.machine()}, {os.cpu_count()} cores"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(CHOSEN))
    parser.add_argument("--tools", nargs="+")
    parser.add_argument("--seconds", type=float, default=120, help="wall-clock limit of one cell")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    found: dict[str, Any] = {
        "command": "`python bench/peers.py`",
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "machine": processor(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "python": platform.python_version(),
    }

    def save(results: dict[str, Any]) -> None:
        if arguments.json:
            arguments.json.write_text(
                json.dumps({**found, "results": results}, indent=1) + "\n", encoding="utf-8"
            )

    found["results"] = measure(tuple(arguments.models), arguments.tools, arguments.seconds, save)
    text = summary(found)
    print(text)
    if arguments.markdown:
        arguments.markdown.write_text(
            f"# Speed beside the peers\n\n{text}\n## Each model\n\nCPU time, in real steps.\n\n{each(found)}",
            encoding="utf-8",
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
