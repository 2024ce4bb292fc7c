"""One run of a program under the recorder: forward, loss and backward on stand-ins. From it come the graph
and the facts.

`run` produces a `Run`: the recorder with its raw observations, the loss, the error the program raised, and
the gradients autograd left. What to run is an `Experiment`, the caller's choice; a program that needs a
number fake tensors do not have raises `NeedsValue`.
"""

from __future__ import annotations

import contextlib
import contextvars
import dis
import functools
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from types import CodeType
from typing import Any

import torch
import torch.fx
from torch import nn

from fxgrad.program.inputs import bound_inputs
from fxgrad.program.loss import default_loss, no_tensor
from fxgrad.program.program import Program, placement
from fxgrad.records import Phase, Raised, Site
from fxgrad.records.errors import InputError, TraceError
from fxgrad.records.facts import Delivered
from fxgrad.source import is_made_constant
from fxgrad.source.sites import Spot, is_user_code, site_of, traceback_sites
from fxgrad.torch_api import registry, tree
from fxgrad.torch_api.engine import run_backward
from fxgrad.torch_api.errors import (
    captured_whole,
    is_captured_whole,
    is_kernel_error,
    is_value_error,
    out_of_memory,
)
from fxgrad.torch_api.generators import seed_generators
from fxgrad.torch_api.internals import (
    DisableTorchFunction,
    dynamo_is_loaded,
    steady_cudnn,
    top_saved_tensors_hooks,
)
from fxgrad.torch_api.symbols import SYMBOLS
from fxgrad.trace.asked_types import asked_types
from fxgrad.trace.effort import Effort, TooCostly
from fxgrad.trace.elsewhere import out_of_sight
from fxgrad.trace.entries import own_copy
from fxgrad.trace.experiment import Experiment, drawn_so_far, reseed
from fxgrad.trace.observations import RawSave
from fxgrad.trace.python_state import named_before, note_changes, note_scopes
from fxgrad.trace.recorder import NeedsValue, Recorder
from fxgrad.trace.saves import gradient_of, note_arrived, watching_gradients, watching_saves
from fxgrad.trace.seams import intercepted
from fxgrad.trace.sketch import NotSketched, Sketch
from fxgrad.trace.slots import Slot
from fxgrad.world.private import can_be_lent, foreign_histories, gradients_set_aside, leaves_behind
from fxgrad.world.reach import Reach
from fxgrad.world.standins import FakeMode, StandIns, unlogged
from fxgrad.world.switches import kept_modes

_LOCK = threading.RLock()  # the interceptions patch classes that all threads share


@dataclass(slots=True, eq=False, weakref_slot=True)
class Run:
    """What one run left behind. `gradients`: per parameter name "none", "zero", "some" or "unknown" (backward
    did not run)."""

    recorder: Recorder
    program: Program
    registered: tuple[tuple[str, nn.Parameter], ...] = ()  # the parameters as the run began, by every name
    loss: Slot | None = None
    loss_used: str = ""
    loss_requires_grad: bool = False
    loss_type: str = ""  # of a loss that is no tensor
    error: Raised | None = None
    refusal: InputError | None = None
    raised_in: CodeType | None = None  # whose `raise` or `assert` ended the run, where one did
    gradients: dict[str, str] = field(default_factory=dict)
    returns: dict[str, Site] = field(default_factory=dict)
    output: object = None
    forward_last: torch.fx.Node | None = None
    input_structure: tree.Structure | None = None
    input_order: tuple[int, ...] = ()
    input_repeats: tuple[tuple[int, int], ...] = ()
    output_structure: tree.Structure | None = None
    output_nodes: tuple[Any, ...] = ()
    rebound: dict[str, torch.fx.Node] = field(default_factory=dict)
    saves: list[RawSave] = field(default_factory=list)
    delivered: dict[tuple[int, int], Delivered] = field(default_factory=dict)
    # what the recorder ran into, where the plain program does not: `error` is None then, `gradients` are its
    aside: Raised | None = None
    drew: bool = False  # random numbers of Python's or NumPy's own generators
    experiment: Experiment | None = None  # what it was asked for by


def run(target: Program, experiment: Experiment) -> Run:
    """Run the program once on stand-ins, as the experiment says.

    The user's tensors, objects, random state and torch's global state are as before when it returns or
    raises.

    Raises:
        NeedsValue: on fake values, the program asked for a number.
        TraceError: a tensor has no stand-in.
        NotSketched: of a sketched run, see there.
        TooCostly: it costs more than `experiment.effort`.
    """
    with (
        _LOCK,
        target.preserved() as reach,
        reach.ctrl_c.waits(),
        gradients_set_aside(_reached_by_backward(reach)) as had_gradients,
    ):
        fake = FakeMode() if experiment.values == "fake" else None
        standins = StandIns(fake, experiment.noise, experiment.unsettle, placement(target))
        standins.held = experiment.held
        standins.foreign = foreign_histories(reach.tensors.values())
        standins.had_gradients = had_gradients
        driver = Sketch if experiment.sketched else Recorder
        recorder = driver(target.root, reach, standins, _program_code(), experiment.forced)
        standins.arrives = note_arrived(recorder)
        recorder.nudge = experiment.nudge
        recorder.assumptions = experiment.assumptions
        recorder.open_numbers = experiment.open_numbers
        recorder.scopes = named_before(reach.functions()) if experiment.assumptions else []
        recorder.open_checkpoints = target.open_checkpoints
        recorder.allow = experiment.allow
        recorder.effort = Effort(experiment.effort) if experiment.effort is not None else None
        result = Run(
            recorder,
            target,
            experiment=replace(experiment, effort=None),  # one that ended has cost less
            registered=tuple(registry.named_parameters(target.root, remove_duplicate=False)),
        )
        if experiment.steady is not None:
            seed_generators(experiment.steady)
            steady_cudnn()
        if experiment.seed is not None:
            reseed(experiment.seed)
        drawn = drawn_so_far()
        with (
            fake or contextlib.nullcontext(),
            unlogged(),
            _eager_compile(),
            asked_types(reach.globals()),
            intercepted(recorder),
            recorder,
            kept_modes(),
        ):
            # In a context of its own: what the program sets in context variables goes with it.
            call = functools.partial(_run_program, result, experiment)
            try:
                with reach.ctrl_c.comes():
                    contextvars.copy_context().run(call)
            finally:
                recorder.active = False
                recorder.lent.end()
                # the hooks of stand-ins hold these, where no garbage collector sees it
                standins.arrives = None
                if fake is not None:
                    # tensors know their mode, and autograd's own references to tensors no collector sees
                    fake.listener = None
        result.drew = drawn_so_far() != drawn
        result.error = out_of_sight(recorder) or result.error
        if isinstance(recorder, Sketch) and (recorder.refused or recorder.unseen):
            raise NotSketched
        if recorder.effort is not None and recorder.effort.spent:
            raise TooCostly
        _refuse_caught(result)
        return result


def _refuse_caught(result: Run) -> None:
    """Raise NeedsValue where the program caught an error that a fake tensor raised and went on: with data
    there may be none, and another way. Without data the fake one's errors are all that is known."""
    recorder = result.recorder
    if (
        recorder.standins.fake is None
        or not recorder.standins.all_have_data
        or result.error is not None
        or not recorder.raised
    ):
        return
    step = next((step for step in recorder.steps if step.node in recorder.raised), None)
    what = f"`{step.target}` raises" if step is not None else "an error"
    raise NeedsValue(
        f"{what} on a tensor without data and the program goes on: whether it does so with data, data tells",
        step.spots if step else (),
    )


def _program_code() -> CodeType:
    return _run_program.__code__


@contextlib.contextmanager
def _eager_compile() -> Iterator[None]:
    """`torch.compile`d parts run eagerly: the recorder must see their calls."""

    if not dynamo_is_loaded():
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def _reached_by_backward(reach: Reach) -> list[torch.Tensor]:
    """Originals that get a gradient all the same: where a history began before the run, backward leads into
    them. And those whose gradient is not to be their stand-in's."""
    with DisableTorchFunction():
        leaves = [t for t in reach.tensors.values() if t.is_leaf]
        return list({id(t): t for t in (*leaves, *leaves_behind(reach.tensors.values()))}.values())


def _run_program(result: Run, asked: Experiment) -> None:
    recorder, target = result.recorder, result.program
    hooks = _saved_tensors_hooks()
    try:
        with DisableTorchFunction():
            _bind_parameters(recorder)
            args, kwargs = _bind_inputs(result)
            _bind_others(recorder)
        with watching_saves(result) if asked.watch_saves else contextlib.nullcontext():
            result.output = target.call(*args, **kwargs)
            if not asked.sketched:
                with DisableTorchFunction():
                    _bind_output(result)
            recorder.phase = "loss"
            loss = _compute_loss(result)
        with DisableTorchFunction():
            _finish_loss(result, loss)
        if asked.backward:
            recorder.phase = "backward"
            with (
                watching_gradients(recorder, result.delivered)
                if asked.watch_gradients
                else contextlib.nullcontext()
            ):
                _backward(result, loss)
    except (NeedsValue, NotSketched, TooCostly, KeyboardInterrupt, SystemExit, TraceError) as error:
        _leave_contexts(error, hooks)
        raise
    except torch.OutOfMemoryError as error:
        _leave_contexts(error, hooks)
        raise out_of_memory(_raised(error, recorder).site) from error
    except Exception as error:
        _leave_contexts(error, hooks)
        _refuse_missed_gradient(error, recorder)
        _check_needs_value(error, recorder)
        _refuse_captured_whole(error)
        # others' frames hold the loss, and with it all of the graph
        result.refusal = error if isinstance(error, InputError) else None
        result.error = _raised(error, recorder)
        result.raised_in = _raising_code(error)
    finally:
        result.returns.update(_returns(recorder))
        recorder.frames.clear()


def _saved_tensors_hooks() -> object:
    return top_saved_tensors_hooks()


def _leave_contexts(error: BaseException, hooks: object) -> None:
    """End what the frames of an error still hold open, where that is hooks on saved tensors: a checkpoint of
    torch 2.11 keeps its own in a suspended generator for as long as somebody holds the error, and all that
    autograd saves until then would go through them.
    """
    cause: BaseException | None = error
    while cause is not None and _saved_tensors_hooks() != hooks:
        traceback.clear_frames(cause.__traceback__)
        cause = cause.__cause__ or cause.__context__


def _returns(recorder: Recorder) -> dict[str, Site]:
    """The statement by which each function of the loss was left."""
    return {
        f"{site.file}:{site.function}": site
        for site in (site_of((frame.f_code, frame.f_lasti)) for frame in recorder.frames.values())
    }


def _bind_parameters(recorder: Recorder) -> None:
    """Stand-ins for all registered tensors first: made lazily they could be born inside an inference
    region."""
    for tensor in recorder.reach.tensors.values():
        if id(tensor) in recorder.names:
            recorder.standin(tensor)


def _bind_others(recorder: Recorder) -> None:
    """On real values, stand-ins for what else can be reached, as far as it is few and small: from then on the
    program cannot write it where no mode looks (`fxgrad.world.private.Lent`)."""
    tensors = recorder.reach.tensors.values()
    if recorder.standins.fake is None and len(tensors) <= _MOST_TENSORS:
        for tensor in tensors:
            if recorder.standins.get(tensor) is None and can_be_lent(tensor):
                recorder.standin(tensor)


def _bind_inputs(result: Run) -> tuple[tuple[object, ...], dict[str, object]]:
    recorder, target = result.recorder, result.program
    args, kwargs = target.inputs.args, dict(target.inputs.kwargs)
    bound = bound_inputs(target.signature, args, kwargs)
    leaves, result.input_structure = tree.flatten(bound)
    recorder.standins.inputs = frozenset(map(id, leaves))
    if recorder.sketches:
        for tensor in leaves:
            recorder.standin(tensor)
        return args, kwargs
    order, repeats = [], []
    seen: dict[int, int] = {}
    for index, (tensor, name) in enumerate(zip(leaves, _leaf_names(bound), strict=True)):
        first = seen.setdefault(id(tensor), index)
        if first != index:
            repeats.append((first, index))
        if id(tensor) in recorder.slots:
            continue
        order.append(index)
        made = recorder.standin(tensor)
        node = recorder.graph.placeholder(name)
        step = recorder.add_step(node, "input", name, ())
        slot = recorder.bind(made, node, node.name)
        step.makes.append(slot.value)
        recorder.inputs[id(tensor)] = node
        if recorder.allow is not None and name in recorder.allow:
            slot = own_copy(recorder, slot)
        recorder.slots[id(tensor)] = slot
    result.input_order, result.input_repeats = tuple(order), tuple(repeats)
    return args, kwargs


_MOST_TENSORS = 2000  # a data set that is kept in rows has any number


def _leaf_names(bound: tuple[Any, ...]) -> list[str]:
    names = []
    for name, value in bound:
        leaves, _ = tree.flatten(value)
        names += [name if len(leaves) == 1 else f"{name}_{i}" for i in range(len(leaves))]
    return names


def _bind_output(result: Run) -> None:
    recorder = result.recorder
    leaves, structure = tree.flatten(result.output, (torch.Tensor, *SYMBOLS))
    result.output_nodes = recorder.converted(*leaves)[1]
    result.output_structure = structure
    result.rebound = _rebound_buffers(recorder)
    if recorder.scopes:
        ran = [code for step in recorder.steps for code, _ in step.spots]
        ran += [read.spots[0][0] for read in recorder.reads.values() if read.spots]
        note_scopes(recorder, recorder.scopes, ran)
    note_changes(recorder.reads)
    result.forward_last = next(iter(reversed(recorder.graph.nodes)), None)


def _rebound_buffers(recorder: Recorder) -> dict[str, torch.fx.Node]:
    """`self.mean = new` on a buffer is a visible effect of the forward: the new value is one more result of
    the graph."""
    before = {name: key for key, name in recorder.names.items()}
    found = {}
    for name, tensor in registry.named_buffers(recorder.root, remove_duplicate=False):
        original = recorder.standins.original(before[name]) if name in before else None
        slot = recorder.slots.get(id(tensor))  # none: rebound inside a leaf module, which does so again
        if (
            original is None
            or slot is None
            or tensor is original
            or tensor is recorder.standins.get(original)
        ):
            # a buffer the forward creates is created again; one written in place is its stand-in now
            continue
        found[name] = slot.node
        recorder.keep(tensor)
    return found


def _compute_loss(result: Run) -> object:
    target, output = result.program, result.output
    if target.loss is not None:
        result.loss_used = f"`{getattr(target.loss, '__qualname__', type(target.loss).__qualname__)}`"
        return target.loss(output)
    loss, result.loss_used = default_loss(output, target.model)
    return loss


def _finish_loss(result: Run, loss: object) -> None:
    recorder = result.recorder
    if isinstance(loss, torch.Tensor):
        result.loss = recorder.ended_with(loss)
        recorder.keep(result.loss.tensor)
        result.loss_requires_grad = result.loss.tensor.requires_grad
    else:
        result.loss_type = type(loss).__name__


def _backward(result: Run, loss: object) -> None:
    recorder = result.recorder
    if recorder.progress is not None:
        recorder.progress.at("backward", len(recorder.steps))
    if result.loss is None:
        raise no_tensor(loss)
    if _has_nothing_to_train(result):
        return
    _refuse_old_history(recorder)
    with recorder.region():
        run_backward(result.loss.tensor, retain_graph=bool(recorder.standins.historied))
    with DisableTorchFunction():
        # A name stands for the Parameter that was registered under it as the run began, also where the
        # program has put another in its place or taken it away: that is the one that an optimizer holds.
        result.gradients.update(
            (name, gradient_of(recorder, parameter)) for name, parameter in result.registered
        )
        for name, parameter in registry.named_parameters(result.program.root, remove_duplicate=False):
            if name not in result.gradients:
                result.gradients[name] = gradient_of(recorder, parameter)


def _has_nothing_to_train(result: Run) -> bool:
    """Whether it is a module without parameters but for constants, of which nobody asked for a loss: a
    backward through the sum of what it returns would be ours alone to raise."""
    target = result.program
    if target.loss is not None or not isinstance(target.model, nn.Module):
        return False
    return not (
        result.loss_requires_grad
        or not all(_is_constant(target.model, name, one) for name, one in result.registered)
        or result.recorder.externals
        or any(tensor.requires_grad for tensor in target.flat_inputs()[0])
    )


def _is_constant(model: nn.Module, name: str, parameter: nn.Parameter) -> bool:
    owner, _, attribute = name.rpartition(".")
    return not parameter.requires_grad and is_made_constant(model.get_submodule(owner), attribute)


def _refuse_missed_gradient(error: BaseException, recorder: Recorder) -> None:
    """A step is recorded as the first one is, without gradients. Where the program raises because it found
    None in place of one that an earlier backward had left, as it is it does not raise."""
    if (
        recorder.missed_gradient
        and isinstance(error, (TypeError, AttributeError))
        and "NoneType" in str(error)
    ):
        raise TraceError(
            "the program reads a gradient that an earlier backward has left, and a step is analysed as the "
            "first one, without any",
            site=site_of(recorder.missed_gradient[0]),
            hint="keep what is read in a tensor of its own: `weight.grad.clone()`, taken before",
        ) from error


def _refuse_captured_whole(error: BaseException) -> None:
    if is_captured_whole(error):
        stack = traceback_sites(error.__traceback__)
        raise captured_whole(stack[0] if stack else None) from error


def _check_needs_value(error: BaseException, recorder: Recorder) -> None:
    """A fake tensor's missing value or faulty kernel, met where the recorder does not look (backward),
    becomes ours, with a line."""
    if recorder.standins.fake is None:
        return
    cause: BaseException | None = error
    while cause is not None:
        if recorder.unseen is not None and is_value_error(cause):
            raise NeedsValue(*recorder.unseen) from error
        if is_value_error(cause) or (recorder.standins.all_have_data and is_kernel_error(cause)):
            said = str(cause).splitlines()[0][:120] if str(cause) else type(cause).__name__
            what = f"this needs data (on tensors that have none torch raises: {said})"
            raise NeedsValue(what, _spots(error)) from error
        cause = cause.__cause__ or cause.__context__


def _refuse_old_history(recorder: Recorder) -> None:
    """Raise NeedsValue where backward would walk into a graph from before the run: a fake tensor has none."""
    old = {
        slot.value
        for slot in (recorder.slots.get(id(t)) for t in recorder.standins.historied)
        if slot is not None
    }
    reading = [step for step in recorder.steps if old.intersection(step.reads)]
    if reading and recorder.standins.fake is not None:
        raise NeedsValue(
            "backward walks into a graph from before the run", next((s.spots for s in reading if s.spots), ())
        )


def _spots(error: BaseException) -> tuple[Spot, ...]:
    spots = []
    entry = error.__traceback__
    while entry is not None:
        if is_user_code(entry.tb_frame.f_code.co_filename):
            spots.append((entry.tb_frame.f_code, entry.tb_lasti))
        entry = entry.tb_next
    return tuple(reversed(spots))


def _raised(error: Exception, recorder: Recorder) -> Raised:
    stack = traceback_sites(error.__traceback__)
    current = recorder.step_raising(error)
    site = stack[0] if stack else None
    if site is None and current is not None and current.spots:
        site = site_of(current.spots[0])
    phase: Phase = recorder.phase
    node = current.node.name if current is not None else None
    return Raised(phase, type(error).__name__, str(error), site, stack, node)


_RAISE = dis.opmap["RAISE_VARARGS"]


def _raising_code(error: BaseException) -> CodeType | None:
    innermost = error.__traceback__
    while innermost is not None and innermost.tb_next is not None:
        innermost = innermost.tb_next
    if innermost is None:
        return None
    code = innermost.tb_frame.f_code
    return code if code.co_code[innermost.tb_lasti] == _RAISE else None
