"""Regions of a program: those recorded as one node (`opaque`), those entered and left (`inference_mode`,
`autocast`, `dual_level`, `sdpa_kernel`), hooked modules.

A full backward hook on a module marks the module's inputs and outputs so that it sees their gradients: the
marking is two nodes, the hook itself stays the user's. `interceptions` lists what must be patched for that;
`fxgrad.trace.seams` does the patching.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.attention
from torch import nn
from torch.autograd import forward_ad
from torch.fx.node import Argument
from torch.utils.hooks import BackwardHook

from fxgrad.records import NodeKind
from fxgrad.torch_api import allowed_writes
from fxgrad.torch_api.calls import Args, Kwargs
from fxgrad.torch_api.internals import (
    DisableTorchFunction,
    autocast_arguments,
    enter_autocast,
    enter_inference_mode,
    exit_autocast,
    exit_inference_mode,
    transforms_active,
)
from fxgrad.torch_api.module_internals import ATTENTION_KERNELS, has_legacy_hooks, is_scripting
from fxgrad.trace import targets
from fxgrad.trace.arguments import Arguments
from fxgrad.trace.entries import object_node
from fxgrad.trace.observations import Step
from fxgrad.trace.recorder import Recorder
from fxgrad.trace.slots import Slot

Hidden = dict[int, tuple[torch.Tensor, Slot]]


def passes(recorder: Recorder) -> bool:
    """Whether an interception should stay out of the way."""
    return not recorder.active or recorder.quiet > 0 or threading.get_ident() != recorder.thread


def opaque(
    recorder: Recorder,
    kind: NodeKind,
    target: str,
    make_node: Callable[[tuple[Argument, ...], dict[str, Argument]], torch.fx.Node],
    run: Callable[..., object],
    args: Args,
    kwargs: Kwargs,
) -> tuple[object, Step, Hidden]:
    """Run a region as one node: arguments swapped, nothing inside recorded, its hidden reads and writes
    noted."""
    spots = recorder.spots_from(sys._getframe(2))
    with DisableTorchFunction():
        given = Arguments(recorder)
        (sub_args, sub_kwargs), (node_args, node_kwargs) = given.of_call(args, kwargs)
        slots = given.reads
        node = make_node(node_args, node_kwargs)
        step = recorder.add_step(node, kind, target, spots)
        step.reads = [slot.value for slot in slots] + given.numbers
        recorder.current = step
    try:
        with recorder.region() as hidden, recorder.derivatives.of_region() as differentiated:
            out = run(*sub_args, **sub_kwargs)
    except Exception as error:
        recorder.raises(step, error)
        raise
    with DisableTorchFunction():
        known = set(slots)
        found = list(dict.fromkeys(slot for _, slot in hidden.values() if slot not in known))
        step.reads += [slot.value for slot in found]
        recorder.finish(step, [*slots, *found], out, keep=True)
        if differentiated:
            recorder.note_differentiated(step, differentiated)
    recorder.current = None
    return recorder.handed(out), step, hidden


def interceptions(recorder: Recorder) -> Iterator[tuple[object, str, object]]:
    """(class, attribute, replacement) for the regions."""
    for cls, enter, leave in () if recorder.sketches else _REGIONS:
        yield cls, "__enter__", _enter(recorder, cls.__enter__, enter)
        yield cls, "__exit__", _exit(recorder, cls.__exit__, leave)
    if hasattr(*ATTENTION_KERNELS):
        yield *ATTENTION_KERNELS, _attention_kernels(recorder)
    yield (
        BackwardHook,
        "setup_input_hook",
        _hook_setup(recorder, BackwardHook.setup_input_hook, targets.hooked_inputs),
    )
    yield (
        BackwardHook,
        "setup_output_hook",
        _hook_setup(recorder, BackwardHook.setup_output_hook, targets.hooked_outputs),
    )


# ------------------------------------------------------------------------------------------------------ modes


def _enter(
    recorder: Recorder, original: Callable[..., object], node: Callable[[Recorder, object], torch.fx.Node]
) -> object:
    @functools.wraps(original)
    def __enter__(self: object) -> object:
        out = original(self)
        if not passes(recorder) and not is_scripting():
            made = node(recorder, self)
            recorder.entered_regions.setdefault(id(self), []).append(made)
            recorder.add_step(made, "region", type(self).__name__, recorder.spots_from(sys._getframe(1)))
        return out

    return __enter__


def _exit(recorder: Recorder, original: Callable[..., object], leave: Callable[..., object]) -> object:
    @functools.wraps(original)
    def __exit__(self: object, *exc: object) -> object:
        entered = recorder.entered_regions.get(id(self))
        if entered and not passes(recorder):
            recorder.graph.call_function(leave, (entered.pop(),))
        return original(self, *exc)

    return __exit__


def _enter_inference(recorder: Recorder, context: Any) -> torch.fx.Node:
    return recorder.graph.call_function(enter_inference_mode, (context.mode,))


def _enter_autocast(recorder: Recorder, context: Any) -> torch.fx.Node:
    return recorder.graph.call_function(enter_autocast, autocast_arguments(context))


def _enter_dual_level(recorder: Recorder, context: object) -> torch.fx.Node:
    return recorder.graph.call_function(forward_ad.enter_dual_level)


_REGIONS = (
    (torch.inference_mode, _enter_inference, exit_inference_mode),
    (torch.autocast, _enter_autocast, exit_autocast),
    (forward_ad.dual_level, _enter_dual_level, targets.leave_dual_level),
)


def _attention_kernels(recorder: Recorder) -> Callable[..., object]:
    """`sdpa_kernel` switches attention kernels by global flags: both its switches are nodes."""
    original = getattr(*ATTENTION_KERNELS)

    def choose(backends: Any, *rest: object, **named: object) -> None:
        if not passes(recorder):
            _, (held, held_rest, held_named), _, _ = recorder.converted(list(backends), rest, named)
            recorder.graph.call_function(original, (held, *held_rest), held_named)
        original(backends, *rest, **named)

    return choose


# --------------------------------------------------------------------------------------------- backward hooks


def _hook_setup(
    recorder: Recorder, original: Callable[..., object], target: Callable[..., object]
) -> Callable[..., object]:
    def setup(hook: BackwardHook, tensors: object) -> object:
        if passes(recorder) or transforms_active():
            return original(hook, tensors)
        holder = recorder.hook_nodes.get(id(hook))
        if holder is None:
            module = object_node(recorder, hook.module)
            holder = recorder.hook_nodes[id(hook)] = recorder.graph.call_function(
                targets.backward_hook, (module,)
            )
            recorder.keep(hook)

        def node(node_args: tuple[Argument, ...], node_kwargs: object) -> torch.fx.Node:
            return recorder.graph.call_function(target, (holder, *node_args))

        def run(given: object) -> object:
            made = original(hook, given)
            return (
                made
                if recorder.allow is None
                else allowed_writes.own_memory(made, given if isinstance(given, tuple) else (given,))
            )

        return opaque(recorder, "region", "backward hook", node, run, (tensors,), {})[0]

    return setup


def legacy_hooks(recorder: Recorder, module: nn.Module, out: object) -> None:
    """Hooks of the deprecated `register_backward_hook` sit on the result's autograd node: a call that puts
    them there again."""
    if not has_legacy_hooks(module) or passes(recorder):
        return
    with DisableTorchFunction():
        _, (held,), _, _ = recorder.converted(out)
        recorder.graph.call_function(targets.put_legacy_hooks, (object_node(recorder, module), held))
