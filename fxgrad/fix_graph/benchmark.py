"""`benchmark`: a model, its rewritten forms and torch's own alternatives side by side: time, peak memory,
node count.

The rows run interleaved, so that a machine that slows down slows all of them, on private copies of the
model's tensors. Times are medians with the middle half of the runs as spread, after a warm-up: on a GPU by
CUDA events, synchronised; on a CPU with one thread the processor time of this process, which other processes
on the machine do not lengthen; else time on the wall. The original stands in the table twice: how far the
second row is from the first is what a difference between two rows must exceed to be one. Peak memory is what
one forward and backward allocates at most beyond what was there before it: by CUDA's own count on a GPU, by
the storages that operators return on a CPU (a kernel's scratch memory is not seen, compiled code not at all).
Kernels are those that CUPTI sees launched in one forward and backward, on a GPU alone. Exported as
`fxgrad.benchmark` and `fxgrad.Benchmark`, on first use: it loads make_fx. Not handled: several devices in one
model; a loss that holds tensors of another device than the one asked for.
"""

from __future__ import annotations

import contextlib
import contextvars
import copy
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.fx
from torch import nn
from torch.func import functional_call, functionalize
from torch.fx.experimental.proxy_tensor import make_fx

from fxgrad.fix_graph.figures import AGAIN, ALLOWED, COMPILED, ORIGINAL, Benchmark, Row
from fxgrad.fix_graph.fix import fix
from fxgrad.fix_graph.regenerate import regenerate
from fxgrad.fix_graph.timing import Clock, Context, Form, StorageCount, measured, time_all, warm_up
from fxgrad.program.program import Program, program
from fxgrad.records import Inputs, Options
from fxgrad.records.errors import FxgradError, InputError
from fxgrad.torch_api import registry, tree
from fxgrad.trace.experiment import Experiment
from fxgrad.trace.plain import input_tensors, with_inputs
from fxgrad.trace.run import run
from fxgrad.world.private import private_data
from fxgrad.world.reach import preserve
from fxgrad.world.standins import is_fake


def benchmark(
    model: object,
    fixed_module: torch.fx.GraphModule | None,
    inputs: object,
    *,
    loss: Callable[..., object] | None = None,
    device: str | torch.device | None = None,
    runs: int = 30,
    seconds: float = 20.0,
    compiled: bool = False,
    ready: Callable[[], None] | None = None,
) -> Benchmark:
    """Time a model against its rewritten forms and what torch offers instead. The model, its gradients and
    the random state stay as they are.

    Args:
        model, inputs, loss: as for `fxgrad.fix`. fixed_module: `fix(...).module` for them; None, or with
        another `device` than the model's: it is made here. device: where to run; None: where the model is.
        Elsewhere a copy of the model is moved there. runs: timed runs per row; fewer, but at least five,
        where they would take longer than `seconds` in all. compiled: each form under `torch.compile` too.
        What torch keeps of a compilation stays in the process. ready: called when every form has run once and
        before any is timed, for who wants to wait for a quiet machine.

    Raises:
        InputError: the inputs do not fit the model or have no data, or there is no such device.
        FixError: there is no `fixed_module`, and none can be made.
    """
    if fixed_module is not None and not callable(fixed_module):
        raise InputError(
            f"the fixed module is a {type(fixed_module).__name__}",
            hint="pass `fixed.module` of what fxgrad.fix returned",
        )
    if runs < 1:
        raise InputError(f"{runs} runs measure nothing", hint="ask for at least one")
    target = program(model, inputs, loss)
    _refuse_without_data(target)
    place = _place(device, _device(target))
    if place.type != _device(target).type:
        target, fixed_module = _moved(target, place), None
    if fixed_module is None:
        fixed_module = fix(target.model, target.inputs, loss=target.loss).module
    with (
        preserve(
            target.model,
            target.root,
            target.loss,
            fixed_module,
            *target.inputs.args,
            dict(target.inputs.kwargs),
        ) as reach,
        reach.ctrl_c.waits(),
        private_data(reach.tensors.values(), None),
        torch.enable_grad(),
        reach.ctrl_c.comes(),
    ):
        rows, done = contextvars.copy_context().run(
            _measured, target, fixed_module, place, _How(runs, seconds, compiled, ready)
        )
    return Benchmark(
        rows,
        place.type,
        _device_name(place),
        *_described(target),
        _versions(place),
        torch.get_num_threads(),
        done,
        Clock(place).name,
    )


@dataclass(frozen=True, slots=True)
class _How:
    """What `benchmark` was asked for: see its arguments."""

    runs: int
    seconds: float
    compiled: bool
    ready: Callable[[], None] | None


def _measured(
    target: Program, fixed: torch.fx.GraphModule, place: torch.device, how: _How
) -> tuple[tuple[Row, ...], int]:
    forms = [Form(name, *made) for name, made in _forms(target, fixed).items()]
    if how.compiled:
        # Not under the mode that allows writes: torch.compile runs code eagerly there, and from then on
        # everywhere.
        forms += [_compiled(form) for form in forms if form.name not in (AGAIN, ALLOWED)]
    warm_up(forms, target, place)
    if how.ready is not None:
        how.ready()
    done = time_all(forms, target, place, how.runs, how.seconds)
    return tuple(measured(form, target, place) for form in forms), done


def _refuse_without_data(target: Program) -> None:
    given = {f"input {i}": t for i, t in enumerate(input_tensors(target))}
    for name, tensor in (
        *given.items(),
        *registry.named_parameters(target.root),
        *registry.named_buffers(target.root),
    ):
        if tensor.is_meta or is_fake(tensor):
            raise InputError(
                f"`{name}` has no data: what does not compute takes no time",
                hint="pass a model and inputs with data",
            )


def _place(device: str | torch.device | None, own: torch.device) -> torch.device:
    if device is None:
        return own
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"there is no device `{device}`", hint="cpu or cuda") from error
    if place.type == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "no CUDA device is at hand",
            hint="run it on a machine with a GPU and a CUDA build of torch, or on device cpu",
        )
    return place


# -------------------------------------------------------------------------------------------------- the forms

Made = tuple[Callable[..., object] | None, Context, int | None, str]


def _forms(target: Program, fixed: torch.fx.GraphModule) -> dict[str, Made]:
    return {
        ORIGINAL: (target.call, contextlib.nullcontext, _recorded_nodes(target), ""),
        AGAIN: (target.call, contextlib.nullcontext, None, ""),
        "fixed (needed)": (fixed, contextlib.nullcontext, len(fixed.graph.nodes), ""),
        "fixed (all)": _fixed_wholly(target),
        ALLOWED: (target.call, torch.autograd.graph.allow_mutation_on_saved_tensors, None, ""),
        "functionalize (make_fx)": _functionalized(target),
    }


def _fixed_wholly(target: Program) -> Made:
    try:
        module = fix(target.model, target.inputs, loss=target.loss, options=Options(rewrite="all")).module
    except FxgradError as error:
        return None, contextlib.nullcontext, None, error.reason
    return module, contextlib.nullcontext, len(module.graph.nodes), ""


def _recorded_nodes(target: Program) -> int | None:
    try:
        return len(regenerate(run(target, Experiment("real"))).graph.nodes)
    except FxgradError:
        return None


def _functionalized(target: Program) -> Made:
    root = target.root
    if target.model is not root:
        return None, contextlib.nullcontext, None, "not a module"
    tensors = {**dict(registry.named_parameters(root)), **dict(registry.named_buffers(root))}
    example = {n: t.detach().clone().requires_grad_(t.requires_grad) for n, t in tensors.items()}
    copies = [t.detach().clone().requires_grad_(t.requires_grad) for t in input_tensors(target)]
    args, kwargs = with_inputs(target, copies)
    try:
        call = functionalize(lambda t, a, k: functional_call(root, t, a, k))
        graph_module = make_fx(call)(example, args, kwargs)
    except Exception as error:  # whatever it says of this program: that is the row
        return None, contextlib.nullcontext, None, f"does not trace: {type(error).__name__}"
    return (
        (lambda *a, **k: graph_module(tensors, a, k)),
        contextlib.nullcontext,
        len(graph_module.graph.nodes),
        "",
    )


def _compiled(form: Form) -> Form:
    call = torch.compile(form.call) if form.call is not None else None
    return Form(form.name + COMPILED, call, form.context, None, form.failure)


def _moved(target: Program, place: torch.device) -> Program:
    model = copy.deepcopy(target.model).to(place) if isinstance(target.model, nn.Module) else target.model
    leaves, structure = target.flat_inputs()
    args, kwargs = tree.unflatten(
        structure, [t.detach().to(place).requires_grad_(t.requires_grad) for t in leaves]
    )
    return program(model, Inputs(args, kwargs), target.loss)


# ------------------------------------------------------------------------------------------------------ words


def _device(target: Program) -> torch.device:
    for tensor in (*registry.parameters(target.root), *input_tensors(target)):
        return tensor.device
    return torch.device("cpu")


def _device_name(place: torch.device) -> str:
    if place.type == "cuda":
        return str(torch.cuda.get_device_name(place))
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text(errors="replace").splitlines() if cpus.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _versions(place: torch.device) -> str:
    cuda = f", CUDA {torch.version.cuda}" if place.type == "cuda" else ""
    return f"torch {torch.__version__}, Python {platform.python_version()}{cuda}"


def _described(target: Program) -> tuple[str, tuple[str, ...], int]:
    parameters = list(registry.parameters(target.root))
    dtypes = sorted({str(p.dtype).removeprefix("torch.") for p in parameters}) or ["no parameters"]
    sizes = tuple(
        f"{'x'.join(map(str, t.shape)) or 'scalar'}:{str(t.dtype).removeprefix('torch.')}"
        for t in input_tensors(target)
    )
    return "/".join(dtypes), sizes, sum(p.numel() for p in parameters)


__all__ = ["Benchmark", "Row", "StorageCount", "benchmark"]
