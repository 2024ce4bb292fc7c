"""`benchmark`: a model, its rewritten forms and torch's own alternatives side by side: time, peak memory, node count.

The rows run interleaved, so that a machine that slows down slows all of them, on private copies of the model's tensors. Times are
medians with the middle half of the runs as spread, after a warm-up: on a GPU by CUDA events, synchronised; on a CPU with one thread the
processor time of this process, which other processes on the machine do not lengthen; else time on the wall. The original stands in the
table twice: how far the second row is from the first is what a difference between two rows must exceed to be one. Peak memory
is what one forward and backward allocates at most beyond what was there before it: by CUDA's own count on a GPU, by the storages that
operators return on a CPU (a kernel's scratch memory is not seen, compiled code not at all). Kernels are those that CUPTI sees launched in
one forward and backward, on a GPU alone. Exported as `fxgrad.benchmark` and `fxgrad.Benchmark`, on first use: it loads make_fx.
Not handled: several devices in one model; a loss that holds tensors of another device than the one asked for.
"""

from __future__ import annotations

import contextlib
import contextvars
import copy
import platform
import statistics
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.fx
from tabulate import tabulate
from torch import nn
from torch.func import functional_call, functionalize
from torch.fx.experimental.proxy_tensor import make_fx

from fxgrad.fix_graph.fix import fix
from fxgrad.fix_graph.regenerate import regenerate
from fxgrad.program.program import Program, program
from fxgrad.records import Inputs, Options
from fxgrad.records.errors import FxgradError, InputError
from fxgrad.torch_api import tree
from fxgrad.torch_api.errors import ANY_IN_PLACE, OVERWRITTEN, says
from fxgrad.torch_api.internals import TorchDispatchMode, storage_key
from fxgrad.torch_api.tree import tensors_in
from fxgrad.trace.experiment import Experiment
from fxgrad.trace.plain import input_tensors, with_inputs
from fxgrad.trace.progress import tell
from fxgrad.trace.run import Run, _compute_loss, run
from fxgrad.world.private import private_data
from fxgrad.world.reach import preserve
from fxgrad.world.standins import is_fake

WARM_UP = 3
HEADERS = ("form", "forward ms", "forward+backward ms", "ratio", "peak MiB", "ratio", "kernels", "nodes")
ORIGINAL, AGAIN, ALLOWED = "original", "original, again", "allow_mutation_on_saved_tensors"
COMPILED = ", compiled"
Context = Callable[[], contextlib.AbstractContextManager[Any]]


@dataclass(frozen=True, slots=True)
class Row:
    """One form of the model. Times in milliseconds, each with the first and third quartile; memory in bytes; `kernels`: how many one
    forward and backward launches. None: not measured.

    `failure`: why it does not run; "" if it does.
    """

    name: str
    forward: float | None = None
    forward_spread: tuple[float, float] | None = None
    step: float | None = None
    step_spread: tuple[float, float] | None = None
    memory: int | None = None
    nodes: int | None = None
    failure: str = ""
    kernels: int | None = None


@dataclass(frozen=True, slots=True)
class Benchmark:
    """All rows, and what they were measured on. `sizes`: shape and dtype of each input. `runs`: timed runs per row. `clock`: what times are of."""

    rows: tuple[Row, ...]
    device: str
    device_name: str
    dtype: str
    sizes: tuple[str, ...]
    parameters: int
    versions: str
    threads: int
    runs: int
    clock: str

    def row(self, name: str) -> Row:
        """The row of that name."""
        return next(r for r in self.rows if r.name == name)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @property
    def base(self) -> Row:
        """What ratios are of: the original, or, where it does not run, the original with its writes allowed; the first row at worst."""
        return next((row for row in self.rows if row.name in (ORIGINAL, ALLOWED) and not row.failure), self.rows[0])

    def base_of(self, row: Row) -> Row:
        """What the ratios of `row` are of: `base`; for a compiled form the compiled original, where that runs."""
        compiled = next((r for r in self.rows if r.name == ORIGINAL + COMPILED and not r.failure), None)
        return compiled if compiled is not None and row.name.endswith(COMPILED) else self.base

    def __str__(self) -> str:
        return self._table("simple")

    def markdown(self) -> str:
        """The same table as markdown."""
        return self._table("github")

    def _table(self, style: str) -> str:
        shown = [i for i, name in enumerate(HEADERS) if name != "kernels" or any(row.kernels is not None for row in self.rows)]
        cells = [[row[i] for i in shown] for row in self._cells()]
        table = tabulate(cells, headers=[HEADERS[i] for i in shown], tablefmt=style, disable_numparse=True)
        return f"{table}\n\n{self.where()}"

    def where(self) -> str:
        """Where it was measured, in a sentence."""
        cpu = f"; a CPU run, {self.threads} threads: not what a GPU shows" if self.device == "cpu" else ""
        inputs = ", ".join(self.sizes) or "none"
        place = f"{self.device} ({self.device_name}), {self.dtype}, inputs {inputs}, {self.parameters:,} parameters"
        compiled = {self.base_of(row).name for row in self.rows} - {self.base.name}
        more = f", those of compiled forms of `{compiled.pop()}`" if compiled else ""
        ratios = f"Medians (middle half); ratios are of `{self.base.name}`{more}."
        return f"{place}; {self.versions}; {self.runs} interleaved runs, {self.clock}{cpu}. {ratios}"

    def _cells(self) -> list[tuple[str, ...]]:
        return [
            (
                row.name,
                _time(row.forward, row.forward_spread),
                row.failure or _time(row.step, row.step_spread),
                _ratio(row.step, self.base_of(row).step),
                "" if row.memory is None else f"{row.memory / 2**20:.2f}",
                _ratio(row.memory, self.base_of(row).memory),
                "" if row.kernels is None else str(row.kernels),
                "" if row.nodes is None else str(row.nodes),
            )
            for row in self.rows
        ]


def benchmark(
    model: Any,
    fixed_module: torch.fx.GraphModule | None,
    inputs: Any,
    *,
    loss: Callable[[Any], Any] | None = None,
    device: str | torch.device | None = None,
    runs: int = 30,
    seconds: float = 20.0,
    compiled: bool = False,
    ready: Callable[[], None] | None = None,
) -> Benchmark:
    """Time a model against its rewritten forms and what torch offers instead. The model, its gradients and the random state stay as they are.

    Args:
        model, inputs, loss: as for `fxgrad.fix`.
        fixed_module: `fix(...).module` for them; None, or with another `device` than the model's: it is made here.
        device: where to run; None: where the model is. Elsewhere a copy of the model is moved there.
        runs: timed runs per row; fewer, but at least five, where they would take longer than `seconds` in all.
        compiled: each form under `torch.compile` too. What torch keeps of a compilation stays in the process.
        ready: called when every form has run once and before any is timed, for who wants to wait for a quiet machine.

    Raises:
        InputError: the inputs do not fit the model or have no data, or there is no such device.
        FixError: there is no `fixed_module`, and none can be made.
    """
    if fixed_module is not None and not callable(fixed_module):
        raise InputError(f"the fixed module is a {type(fixed_module).__name__}", hint="pass `fixed.module` of what fxgrad.fix returned")
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
        preserve(target.model, target.root, target.loss, fixed_module, *target.inputs.args, dict(target.inputs.kwargs)) as reach,
        reach.ctrl_c.waits(),
        private_data(reach.tensors.values(), None),
        torch.enable_grad(),
        reach.ctrl_c.comes(),
    ):
        measured, done = contextvars.copy_context().run(_measured, target, fixed_module, place, _How(runs, seconds, compiled, ready))
    return Benchmark(
        measured, place.type, _device_name(place), *_described(target), _versions(place), torch.get_num_threads(), done, _Clock(place).name
    )


@dataclass(frozen=True, slots=True)
class _How:
    """What `benchmark` was asked for: see its arguments."""

    runs: int
    seconds: float
    compiled: bool
    ready: Callable[[], None] | None


def _measured(target: Program, fixed: torch.fx.GraphModule, place: torch.device, how: _How) -> tuple[tuple[Row, ...], int]:
    forms = [_Form(name, *made) for name, made in _forms(target, fixed).items()]
    if how.compiled:
        # Not under the mode that allows writes: torch.compile runs code eagerly there, and from then on everywhere.
        forms += [_compiled(form) for form in forms if form.name not in (AGAIN, ALLOWED)]
    _warm_up(forms, target, place)
    if how.ready is not None:
        how.ready()
    done = _time_all(forms, target, place, how)
    return tuple(_row(form, target, place) for form in forms), done


def _refuse_without_data(target: Program) -> None:
    given = {f"input {i}": t for i, t in enumerate(input_tensors(target))}
    for name, tensor in (*given.items(), *target.root.named_parameters(), *target.root.named_buffers()):
        if tensor.is_meta or is_fake(tensor):
            raise InputError(f"`{name}` has no data: what does not compute takes no time", hint="pass a model and inputs with data")


def _place(device: str | torch.device | None, own: torch.device) -> torch.device:
    if device is None:
        return own
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"there is no device `{device}`", hint="cpu or cuda") from error
    if place.type == "cuda" and not torch.cuda.is_available():
        raise InputError("no CUDA device is at hand", hint="run it on a machine with a GPU and a CUDA build of torch, or on device cpu")
    return place


@dataclass(slots=True, eq=False)
class _Form:
    name: str
    call: Callable[..., Any] | None
    context: Context
    nodes: int | None
    failure: str = ""
    forward: list[float] | None = None
    step: list[float] | None = None


# ---------------------------------------------------------------------------------------------------------------- the forms

Made = tuple[Callable[..., Any] | None, Context, int | None, str]


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
    tensors = {**dict(root.named_parameters()), **dict(root.named_buffers())}
    example = {n: t.detach().clone().requires_grad_(t.requires_grad) for n, t in tensors.items()}
    copies = [t.detach().clone().requires_grad_(t.requires_grad) for t in input_tensors(target)]
    args, kwargs = with_inputs(target, copies)
    try:
        call = functionalize(lambda t, a, k: functional_call(root, t, a, k))
        graph_module = make_fx(call)(example, args, kwargs)
    except Exception as error:  # whatever it says of this program: that is the row
        return None, contextlib.nullcontext, None, f"does not trace: {type(error).__name__}"
    return (lambda *a, **k: graph_module(tensors, a, k)), contextlib.nullcontext, len(graph_module.graph.nodes), ""


def _compiled(form: _Form) -> _Form:
    call = torch.compile(form.call) if form.call is not None else None
    return _Form(form.name + COMPILED, call, form.context, None, form.failure)


def _moved(target: Program, place: torch.device) -> Program:
    model = copy.deepcopy(target.model).to(place) if isinstance(target.model, nn.Module) else target.model
    leaves, structure = tree.flatten((target.inputs.args, dict(target.inputs.kwargs)))
    args, kwargs = tree.unflatten(structure, [t.detach().to(place).requires_grad_(t.requires_grad) for t in leaves])
    return program(model, Inputs(args, kwargs), target.loss)


# ---------------------------------------------------------------------------------------------------------------- one run


def _step(form: _Form, target: Program, place: torch.device) -> tuple[float, float]:
    """Milliseconds of forward, and of forward, loss and backward."""
    assert form.call is not None
    _forget_gradients(form, target)
    copies = [t.detach().clone().requires_grad_(t.requires_grad) for t in input_tensors(target)]
    args, kwargs = with_inputs(target, copies)
    clock = _Clock(place)
    with form.context():
        start = clock.mark()
        out = form.call(*args, **kwargs)
        middle = clock.mark()
        loss = _compute_loss(Run(None, target, output=out))  # type: ignore[arg-type]
        loss.backward()
        end = clock.mark()
    clock.wait()
    return clock.between(start, middle), clock.between(start, end)


def _forget_gradients(form: _Form, target: Program) -> None:
    for module in (target.root, form.call):
        for parameter in module.parameters() if isinstance(module, nn.Module) else ():
            parameter.grad = None


class _Clock:
    """CUDA events on a GPU; processor time with one thread; else time on the wall."""

    def __init__(self, place: torch.device) -> None:
        self.cuda = place.type == "cuda"
        alone = torch.get_num_threads() == 1
        self.now = time.process_time if alone else time.perf_counter
        self.name = "CUDA events" if self.cuda else "processor time" if alone else "wall time"
        self.wait()

    def wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def mark(self) -> Any:
        if not self.cuda:
            return self.now()
        event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch leaves its constructor unannotated
        event.record()
        return event

    def between(self, start: Any, end: Any) -> float:
        return float(start.elapsed_time(end)) if self.cuda else (end - start) * 1000.0


def _warm_up(rows: Sequence[_Form], target: Program, place: torch.device) -> None:
    for form in rows:
        tell(f"warming up: {form.name}")
        _try(form, lambda form=form: [_step(form, target, place) for _ in range(WARM_UP)])  # type: ignore[misc]
        form.forward, form.step = [], []


def _time_all(rows: Sequence[_Form], target: Program, place: torch.device, how: _How) -> int:
    """Time every row `how.runs` times, in turns; returns how often it was."""
    begin = time.perf_counter()
    for number in range(how.runs):
        if number >= 5 and time.perf_counter() - begin > how.seconds:
            return number
        tell(f"run {number + 1} of {how.runs} of each form")
        for form in rows:
            if form.failure or form.call is None:
                continue
            forward, step = _step(form, target, place)
            form.forward.append(forward)  # type: ignore[union-attr]
            form.step.append(step)  # type: ignore[union-attr]
    return how.runs


def _try(form: _Form, work: Callable[[], Any]) -> None:
    if form.call is None:
        return
    try:
        work()
    except Exception as error:  # a program that does not run is a row that says so
        text = str(error)
        form.failure = f"raises: {OVERWRITTEN.phrases[0]}" if says(text, ANY_IN_PLACE) else f"raises {type(error).__name__}"


def _row(form: _Form, target: Program, place: torch.device) -> Row:
    if form.failure or form.call is None or not form.step or not form.forward:
        return Row(form.name, nodes=form.nodes, failure=form.failure or "not run")
    forward, step = (sorted(times) for times in (form.forward, form.step))
    peak, kernels = _peak(form, target, place), _kernels(form, target, place)
    medians = statistics.median(forward), _quartiles(forward), statistics.median(step), _quartiles(step)
    return Row(form.name, *medians, peak, form.nodes, kernels=kernels)


def _quartiles(times: Sequence[float]) -> tuple[float, float]:
    return times[len(times) // 4], times[(3 * len(times)) // 4]


# ---------------------------------------------------------------------------------------------------------------- memory, kernels


def _kernels(form: _Form, target: Program, place: torch.device) -> int | None:
    if place.type != "cuda":
        return None
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        _step(form, target, place)
    launched = [e.name for e in profile.events() if e.device_type.name == "CUDA"]
    return sum(not name.startswith(("Memcpy", "Memset")) for name in launched)


def _peak(form: _Form, target: Program, place: torch.device) -> int | None:
    if place.type == "cuda":
        _forget_gradients(form, target)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        _step(form, target, place)
        return int(torch.cuda.max_memory_allocated() - before)
    if form.name.endswith(COMPILED):
        return None  # compiled code for a CPU allocates past the dispatcher
    count = StorageCount()
    with count:
        _step(form, target, place)
    return count.peak


class StorageCount(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    """Counts the bytes of the storages that operators return, from when they appear to when they are freed. `peak`: the most at a time."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self.now = 0
        self.peak = 0
        self._alive: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {storage_key(t) for t in tensors_in((args, kwargs or {}))}
        out = func(*args, **(kwargs or {}))
        for tensor in tensors_in(out):
            key = storage_key(tensor)
            if key is not None and key not in given and key not in self._alive:
                self._count(tensor.untyped_storage(), key)
        return out

    def _count(self, storage: torch.UntypedStorage, key: int) -> None:
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)

        def freed(_: Any) -> None:
            self._alive.pop(key, None)
            self.now -= size

        self._alive[key] = weakref.ref(storage, freed)


# ---------------------------------------------------------------------------------------------------------------- words


def _device(target: Program) -> torch.device:
    for tensor in (*target.root.parameters(), *input_tensors(target)):
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
    parameters = list(target.root.parameters())
    dtypes = sorted({str(p.dtype).removeprefix("torch.") for p in parameters}) or ["no parameters"]
    sizes = tuple(f"{'x'.join(map(str, t.shape)) or 'scalar'}:{str(t.dtype).removeprefix('torch.')}" for t in input_tensors(target))
    return "/".join(dtypes), sizes, sum(p.numel() for p in parameters)


def _time(median: float | None, spread: tuple[float, float] | None) -> str:
    return "" if median is None or spread is None else f"{median:.3f} ({spread[0]:.3f} to {spread[1]:.3f})"


def _ratio(value: float | None, base: float | None) -> str:
    return "" if not value or not base else f"{value / base:.3f}"


__all__ = ["Benchmark", "Row", "StorageCount", "benchmark"]
