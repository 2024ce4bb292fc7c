"""A regenerated module against true eager steps: the plain program, without a recorder, on private copies.

The recorded run is no measure of what the recorder itself bends (a thread's work, a compiled function, a patched one). So the module is
compared with one plain step on the given inputs, and with one on others: drawn anew from the values each input has, a row longer where
the program takes that.
Not handled: programs whose plain step raises; state that the program keeps for its next call.
"""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.fx

from fxgrad.fix_graph.proof import (
    SEED,
    Change,
    Step,
    _compare,
    _note_inputs,
    _steady_kernels,
    eager_step,
    step,
)
from fxgrad.program.program import Program
from fxgrad.torch_api import tree
from fxgrad.torch_api.saved_hooks import saved_copies
from fxgrad.trace.experiment import reseed
from fxgrad.trace.plain import Left, NotPrivateError, plain_step
from fxgrad.trace.run import Run


def differences(
    module: torch.fx.GraphModule, target: Program, eager: Run, *, gradients: bool, keep_saved: bool, others: bool
) -> dict[str, str]:
    """What the module does otherwise than the plain program, and in which way.

    `eager` is the recorded run that the module was found equal to: on the given inputs it stands for the module. `others`: on other inputs
    too. Where the program draws from the generators of Python or NumPy, other draws are tried.
    """
    apart = _apart(target, None, lambda: eager_step(eager, target), gradients, keep_saved)
    redrawn = [functools.partial(_reseeded, seed) for seed in range(DRAWS)] if eager.drew else []
    for change in (*redrawn, *((_longer, _drawn) if others else ())):
        if apart:
            return apart
        found = _apart(target, change, functools.partial(step, module, target, change=change), gradients, keep_saved)
        apart = found or {}
        if found is not None and change is _longer:
            break  # the program takes another size, and values with it
    return apart or {}


def _apart(target: Program, change: Change | None, made: Callable[[], Step], gradients: bool, keep_saved: bool) -> dict[str, str] | None:
    """How what was `made` differs from a plain step; None where one of the two raises: that is said loudly, by the module itself."""
    want = _plain(target, change, keep_saved)
    if want is None:
        return None
    try:
        got = made()
    except Exception:  # whatever the module raises
        return None
    apart = _compare(want, got, gradients=gradients, exact=True).apart
    again = _plain(target, change, keep_saved) if apart else None
    if again is None:
        return dict(apart)
    unsteady = _compare(want, again, gradients=gradients, exact=True).apart  # kernels that add up in no fixed order
    return {what: how for what, how in apart.items() if what not in unsteady}


DRAWS = 6  # a layer dropped every other time stays unseen once in 64


def _plain(target: Program, change: Change | None, keep_saved: bool) -> Step | None:
    """What a plain step leaves; None where it raises, or none can be made."""
    made = Step()
    parameters = list(target.root.named_parameters(remove_duplicate=False))

    def prepare(inputs: Sequence[torch.Tensor]) -> None:
        if change is not None:
            change(inputs)
        torch.manual_seed(SEED)
        _steady_kernels()

    def note(left: Left) -> None:
        leaves, _ = tree.flatten(left.output)
        made.outputs = [t.detach().clone() for t in leaves]
        made.requires_grad = tuple(t.requires_grad for t in leaves)
        made.type = type(left.output).__name__
        for name, parameter in parameters:
            made.gradients[name] = parameter.grad
            made.buffers[name] = parameter.detach().clone()
        for name, buffer in target.root.named_buffers(remove_duplicate=False):
            made.buffers[name] = buffer.detach().clone()
        _note_inputs(made, [t.clone() if not t.is_leaf else t for t in left.inputs])

    around: Callable[[], Any] = saved_copies if keep_saved else contextlib.nullcontext
    try:
        return made if plain_step(target, note, prepare=prepare, around=around) is None else None
    except NotPrivateError:
        return None


# ---------------------------------------------------------------------------------------------------------------- other inputs


def _reseeded(seed: int, inputs: Sequence[torch.Tensor]) -> None:
    """The same inputs and other draws of Python and NumPy."""
    reseed(seed)


def _longer(inputs: Sequence[torch.Tensor]) -> None:
    """Every input that has the commonest first size gets one more row, and all are drawn anew."""
    first = Counter(t.shape[0] for t in inputs if t.dim() and t.layout is torch.strided)
    _drawn(inputs)
    for tensor in inputs:
        if first and tensor.dim() and tensor.layout is torch.strided and tensor.shape[0] == first.most_common(1)[0][0] > 0:
            tensor.data = torch.cat((tensor.data, tensor.data[:1]))


def _drawn(inputs: Sequence[torch.Tensor]) -> None:
    """Floating inputs get values drawn from their own, so that they stay in the range that the program expects."""
    generator = torch.Generator().manual_seed(SEED)
    for tensor in inputs:
        if tensor.is_floating_point() and tensor.layout is torch.strided and tensor.numel() and not tensor.is_inference():
            chosen = torch.randint(tensor.numel(), tensor.shape, generator=generator).to(tensor.device)
            tensor.data = tensor.data.reshape(-1)[chosen]
