"""Proof that a rewritten module does what the model does: outputs, every gradient, buffers and mutated
inputs, on real tensors.

`verify` compares a module with up to two references, each from the same seed:
 1. the model itself, run eagerly once (a finished `fxgrad.trace.run.Run`); where its backward raised, run
    with a copy of everything saved;
 2. the graph before it was rewritten, in float64 where it runs so, with a copy of everything saved for
    backward: the difference that rounding hides in the first comparison shows here.
The user's tensors, gradients, buffers and random state are as before when it returns. Not handled: models
that run on no real tensors.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.fx
from torch.fx.node import Argument

from fxgrad.fix_graph.convention import CallingCodeGen
from fxgrad.program.loss import loss_of
from fxgrad.program.program import Program
from fxgrad.torch_api import allowed_writes, registry, tree
from fxgrad.torch_api.calls import is_custom_function
from fxgrad.torch_api.comparison import GRAPH, compare_tensors
from fxgrad.torch_api.errors import out_of_memory
from fxgrad.torch_api.generators import seed_generators
from fxgrad.torch_api.internals import steady_cudnn
from fxgrad.torch_api.module_internals import codegen_of
from fxgrad.torch_api.saved_hooks import saved_copies
from fxgrad.trace.plain import input_tensors, with_inputs
from fxgrad.trace.run import Run
from fxgrad.world.private import private_data
from fxgrad.world.reach import preserve
from fxgrad.world.standins import StandIns

SEED = 20240817


@dataclass(frozen=True, slots=True)
class Verification:
    """What was compared. The numbers are largest absolute differences: of the outputs, and by name of
    gradients, of buffers and parameters as the step left them, and of inputs.

    `oracle` says what the module was compared with, `dtype` in which precision the second comparison ran (""
    if it did not). `apart`: by what was out of tolerance, in which way; the module is as good as the model if
    nothing was. A number on which the graph does not agree with itself in the program's own dtype (kernels
    that add up in no fixed order) is judged in float64 alone.
    """

    oracle: str
    dtype: str
    outputs: float
    gradients: Mapping[str, float] = field(default_factory=dict)
    buffers: Mapping[str, float] = field(default_factory=dict)
    inputs: Mapping[str, float] = field(default_factory=dict)
    apart: Mapping[str, str] = field(default_factory=dict)

    @property
    def differences(self) -> tuple[str, ...]:
        """What was out of tolerance, in words."""
        return tuple(f"{what}: {how}" for what, how in self.apart.items())

    @property
    def passed(self) -> bool:
        """Whether everything agreed."""
        return not self.apart


@dataclass(slots=True, eq=False)
class Step:
    """What one step (forward, loss, backward) left: outputs, and by name gradients, buffers and inputs."""

    outputs: list[torch.Tensor] = field(default_factory=list)
    gradients: dict[str, torch.Tensor | None] = field(default_factory=dict)
    buffers: dict[str, torch.Tensor] = field(default_factory=dict)
    inputs: dict[str, torch.Tensor] = field(default_factory=dict)
    requires_grad: tuple[bool, ...] = ()
    type: str = ""


def verify(
    module: torch.fx.GraphModule,
    target: Program,
    eager: Run,
    *,
    reference: torch.fx.GraphModule | None = None,
    oracle: str = "eager",
    gradients: bool = True,
) -> Verification:
    """Compare `module` with the eager run (its gradients too, if `gradients`), and with the graph `reference`
    it was made from.

    `eager` was recorded on real values from `seeded()`. `oracle` is what to call it in the result.
    """
    try:
        got = step(module, target)
    except torch.OutOfMemoryError as error:
        raise out_of_memory(None) from error
    except Exception as error:  # whatever the module raises is the verdict on it
        text = str(error).splitlines()[0] if str(error) else ""
        return Verification(oracle, "", float("inf"), apart={"it raises": f"{type(error).__name__}: {text}"})
    found = compare(eager_step(eager, target), got, gradients=gradients and eager.error is None, exact=True)
    del got  # as large as the model and its gradients
    dtype, deep = _compare_graphs(reference, module, target) if reference is not None else ("", None)
    apart = dict(found.apart)
    if apart and deep is not None and deep.passed and dtype == "float64":
        apart = _steady(apart, reference, target)
    if deep is not None:
        apart.update(deep.apart)
    compared = deep if deep is not None and not gradients else found
    return Verification(oracle, dtype, found.outputs, compared.gradients, found.buffers, found.inputs, apart)


def _steady(
    apart: Mapping[str, str], reference: torch.fx.GraphModule | None, target: Program
) -> dict[str, str]:
    """What is apart, without that in which two runs of the graph before it was rewritten differ at one seed:
    kernels that add up in no fixed order. In the program's own dtype such a number is no measure of another
    graph's; the comparison in float64 is."""
    assert reference is not None, "there is something to compare with in float64"
    one, other = (step(reference, target, keep_saved=True) for _ in range(2))
    unsteady = compare(one, other, gradients=True, exact=True).apart
    return {what: how for what, how in apart.items() if what not in unsteady}


def _compare_graphs(
    reference: torch.fx.GraphModule, module: torch.fx.GraphModule, target: Program
) -> tuple[str, Verification | None]:
    """The module against the graph before it was rewritten, in float64 if both run so, else in the program's
    own dtypes."""
    for dtype in (torch.float64, None):
        try:
            want = step(reference, target, dtype=dtype, keep_saved=True)
            got = step(module, target, dtype=dtype)
        # float32 written into the program meets float64 tensors; the next dtype is the program's own
        except Exception:
            continue
        return str(dtype or "the program's own").removeprefix("torch."), compare(
            want, got, gradients=True, exact=dtype is None
        )
    return "", None


# ------------------------------------------------------------------------------------------------------ steps


@contextlib.contextmanager
def seeded() -> Iterator[None]:
    """Random numbers from the one seed of a verification; the caller's generators go on as if nothing had
    drawn."""
    with preserve():
        seed_generators(SEED)
        steady_kernels()
        yield


def steady_kernels() -> None:
    """cuDNN takes algorithms that add up in a fixed order: with others a program's step differs from itself
    by more than rounding (a GAN step in TF32 on an H200 by 2e-4). `preserve` puts the user's choice back."""
    steady_cudnn()


def eager_step(run: Run, target: Program) -> Step:
    """What a finished run on real values left."""
    made = Step(type=type(run.output).__name__)
    standins, slots = run.recorder.standins, run.recorder.slots

    def now(tensor: torch.Tensor) -> torch.Tensor:
        slot = slots.get(id(tensor))
        if slot is not None:
            return slot.tensor
        made = standins.get(tensor)
        return made if made is not None else tensor

    leaves, _ = tree.flatten(run.output)
    made.outputs = [now(t).detach() for t in leaves]
    made.requires_grad = tuple(now(t).requires_grad for t in leaves)
    for name, parameter in registry.named_parameters(target.root, remove_duplicate=False):
        stand = standins.get(parameter)
        made.gradients[name] = stand.grad if stand is not None else None
        if stand is not None:
            made.buffers[name] = stand.detach()
    rebound = {
        name: slot.tensor
        for slot in list(slots.values())
        for name, node in run.rebound.items()
        if slot.node is node
    }
    for name, buffer in registry.named_buffers(target.root, remove_duplicate=False):
        made.buffers[name] = rebound.get(name, now(buffer)).detach()
    for number, tensor in enumerate(input_tensors(target)):
        stand = standins.get(tensor)
        if stand is not None:
            made.inputs[f"input {number}"] = stand.detach()
            made.gradients[f"input {number}"] = stand.grad if stand.is_leaf and stand.requires_grad else None
    return made


# calls a model on arguments, more than once, and gives the last output
Again = Callable[[Callable[..., object], object, object], object]
# gives the input tensors, which hold private copies, other data
Change = Callable[[Sequence[torch.Tensor]], None]


def step(
    module: torch.fx.GraphModule,
    target: Program,
    *,
    dtype: torch.dtype | None = None,
    keep_saved: bool = False,
    change: Change | None = None,
    again: Again | None = None,
) -> Step:
    """One step of a regenerated module on copies of the user's tensors. `keep_saved`: with a copy of
    everything saved for backward, and with the writes that autograd refuses. `change`: on other inputs.
    `again`: after other calls."""
    made = Step()
    originals = input_tensors(target)
    # In another dtype the numbers that a graph was made for are others.
    with (
        unguarded(module) if dtype is not None else contextlib.nullcontext(),
        target.preserved(module) as reach,
        reach.ctrl_c.waits(),
        private_data(reach.tensors.values(), dtype) as made_for,
        _default_dtype(dtype),
        torch.enable_grad(),
    ):
        given = [made_for.get(id(t), t) for t in originals]
        if change is not None:
            change(given)
        standins = StandIns(None)
        copies = [
            standins.make(t) if t is original else t for t, original in zip(given, originals, strict=True)
        ]
        seed_generators(SEED)
        steady_kernels()
        with reach.ctrl_c.comes():
            contextvars.copy_context().run(_carry_out, made, module, target, copies, keep_saved, again)
        _note_state(made, module, copies)
    return made


@contextlib.contextmanager
def unguarded(module: torch.fx.GraphModule) -> Iterator[None]:
    """The module's guards do not check."""
    guards = getattr(module, "guards", None)
    if guards is None:
        yield
        return
    before, guards.enabled = guards.enabled, False
    try:
        yield
    finally:
        guards.enabled = before


def _carry_out(
    made: Step,
    module: torch.fx.GraphModule,
    target: Program,
    copies: Sequence[torch.Tensor],
    keep_saved: bool,
    again: Again | None,
) -> None:
    args, kwargs = with_inputs(target, copies)
    with saved_copies() if keep_saved else contextlib.nullcontext():
        # `forward`, not a call: when a GraphModule's call raises it prints the generated code
        call = functools.partial(_call_leniently, module) if keep_saved else module.forward
        out = call(*args, **kwargs) if again is None else again(call, args, kwargs)
        leaves, _ = tree.flatten(out)
        made.outputs = [t.detach().clone() for t in leaves]
        made.requires_grad = tuple(t.requires_grad for t in leaves)
        made.type = type(out).__name__
        loss = loss_of(target.loss, out)
        if isinstance(loss, torch.Tensor) and loss.requires_grad:
            # a graph of the user's, who will want it for a backward
            retain = any(t.grad_fn is not None for t in input_tensors(target))
            loss.backward(retain_graph=retain)  # type: ignore[no-untyped-call]


def _note_state(made: Step, module: torch.fx.GraphModule, copies: Sequence[torch.Tensor]) -> None:
    for name, parameter in registry.named_parameters(module, remove_duplicate=False):
        made.gradients[name] = parameter.grad
        made.buffers[name] = parameter.detach().clone()
    for name, buffer in registry.named_buffers(module, remove_duplicate=False):
        made.buffers[name] = buffer.detach().clone()
    note_inputs(made, copies)


def note_inputs(made: Step, copies: Sequence[torch.Tensor]) -> None:
    for number, copy in enumerate(copies):
        made.inputs[f"input {number}"] = copy.detach()
        made.gradients[f"input {number}"] = copy.grad if copy.is_leaf and copy.requires_grad else None


def _call_leniently(module: torch.fx.GraphModule, *args: Any, **kwargs: Any) -> object:
    codegen = codegen_of(module.graph)
    assert isinstance(codegen, CallingCodeGen), "the module was regenerated"
    tensors = codegen.convention.inputs(args, kwargs)
    codegen.convention.guards.check(module, *tensors)
    results = _Lenient(module).run(*tensors, enable_io_processing=False)
    return codegen.convention.output(results, module)


class _Lenient(allowed_writes.Interpreter):
    """Runs a graph with the writes that autograd refuses."""

    def call_function(self, target: Any, args: tuple[Argument, ...], kwargs: dict[str, Any]) -> object:
        out = allowed_writes.call(target, args, kwargs)
        return allowed_writes.own_memory(out, args) if is_custom_function(target) else out

    def call_method(self, target: Any, args: tuple[Argument, ...], kwargs: dict[str, Any]) -> object:
        return allowed_writes.call(lambda *a, **k: getattr(a[0], target)(*a[1:], **k), args, kwargs)


@contextlib.contextmanager
def _default_dtype(dtype: torch.dtype | None) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype or before)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


# ------------------------------------------------------------------------------------------------- comparison


def compare(want: Step, got: Step, *, gradients: bool, exact: bool) -> Verification:
    apart: dict[str, str] = {}
    if exact and want.type != got.type:
        apart["the output"] = f"is a {got.type}, not a {want.type}"
    if len(want.outputs) != len(got.outputs):
        apart["outputs"] = f"{len(got.outputs)} tensors, not {len(want.outputs)}"
    if want.requires_grad != got.requires_grad:
        apart["the outputs that require grad"] = "are others"
    outputs = {f"output {number}": tensor for number, tensor in enumerate(want.outputs)}
    others = {f"output {number}": tensor for number, tensor in enumerate(got.outputs)}
    largest = max(_by_name(outputs, others, "", apart).values(), default=0.0)
    measured = _by_name(want.gradients, got.gradients, "gradient of ", apart) if gradients else {}
    buffers = _by_name(want.buffers, got.buffers, "", apart)
    return Verification(
        "", "", largest, measured, buffers, _by_name(want.inputs, got.inputs, "", apart), apart
    )


Named = Mapping[str, torch.Tensor] | Mapping[str, torch.Tensor | None]


def _by_name(want: Named, got: Named, kind: str, apart: dict[str, str]) -> dict[str, float]:
    """The largest difference of each tensor that both have."""
    pairs = {name: (tensor, got[name]) for name, tensor in want.items() if name in got}
    return {
        name: compare_tensors(f"{kind}{name}", one, other, GRAPH, apart)
        for name, (one, other) in pairs.items()
        if one is not None or other is not None
    }
