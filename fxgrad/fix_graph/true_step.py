"""A regenerated module against true eager steps: the plain program, without a recorder, on private copies.

The recorded run is no measure of what the recorder itself bends (a thread's work, a compiled function, a
patched one). So the module is compared with one plain step on the given inputs, and with one on others: drawn
anew from the values each input has, a row longer where the program takes that; and with the step after an
earlier call, which may have left state behind. These two are one step of two calls as long as nothing
differs. A call that breaks a guard of the module's is no difference: it raises, and says why. Not handled:
programs whose plain step raises; state that shows after many calls only (but see
`fxgrad.fix_graph.kept_state`).
"""

from __future__ import annotations

import contextlib
import functools
import random
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
import torch.fx

from fxgrad.fix_graph.proof import (
    SEED,
    Again,
    Change,
    Step,
    compare,
    eager_step,
    note_inputs,
    steady_kernels,
    step,
    unguarded,
)
from fxgrad.program.loss import loss_of
from fxgrad.program.program import Program
from fxgrad.records.errors import GuardError
from fxgrad.torch_api import registry, tree
from fxgrad.torch_api.generators import seed_generators
from fxgrad.torch_api.saved_hooks import saved_copies
from fxgrad.torch_api.tensors import lay_on
from fxgrad.trace.experiment import reseed
from fxgrad.trace.plain import Left, NotPrivateError, plain_step
from fxgrad.trace.run import Run


def differences(
    module: torch.fx.GraphModule,
    target: Program,
    eager: Run,
    narrow: list[GuardError],
    *,
    gradients: bool,
    keep_saved: bool,
    others: bool,
) -> tuple[dict[str, str], bool]:
    """What the module does otherwise than the plain program, and in which way; and whether it does so only
    after an earlier call.

    `eager` is the recorded run that the module was found equal to: on the given inputs it stands for the
    module. `others`: on other inputs too. `narrow` gets the errors of guards without which the module would
    have given the same on another size. Where the program draws from the generators of Python or NumPy, other
    draws are tried.
    """
    apart = _apart(target, None, lambda: eager_step(eager, target), gradients, keep_saved)
    if apart:
        return apart, False
    if others and not eager.drew and _agree(module, target, narrow, gradients, keep_saved):
        return {}, False
    redrawn: list[Other] = (
        [(functools.partial(_reseeded, seed), None) for seed in seeds()] if eager.drew else []
    )
    sized: list[Other] = [(_longer, None), (_drawn, None)] if others else []
    later: list[Other] = [(None, functools.partial(_second, longer=longer)) for longer in (True, False)]
    for series in (redrawn, sized, later):
        for other in series:
            found = _apart_on(other, module, target, narrow, gradients, keep_saved)
            if found:
                return found, series is later
            if found is not None and series is not redrawn:
                break  # the program takes another size, and values with it
    return {}, False


def _apart_on(
    other: Other,
    module: torch.fx.GraphModule,
    target: Program,
    narrow: list[GuardError],
    gradients: bool,
    keep_saved: bool,
) -> dict[str, str] | None:
    """In which ways the two differ on other inputs, or after an earlier call; None where the program does not
    take that, or a guard of the module's."""
    change, again = other
    made = functools.partial(
        step, module, target, change=change, keep_saved=keep_saved and again is not None, again=again
    )
    try:
        return _apart(target, change, made, gradients, keep_saved, again)
    except GuardError as error:
        with unguarded(module):
            if change is _longer and _apart(target, change, made, gradients, keep_saved) == {}:
                narrow.append(error)
        return None


def _agree(
    module: torch.fx.GraphModule, target: Program, narrow: list[GuardError], gradients: bool, keep_saved: bool
) -> bool:
    """Whether the module does what the program does in two calls, on other inputs and then on others again.
    Where that is not so, or cannot be had (what the second call writes may be what the first one's backward
    needs), one of the calls may still be the same by itself."""
    target = replace(target, loss=functools.partial(_both, target.loss))
    for change in (_longer, _drawn):
        again = functools.partial(_two, longer=change is _longer)
        made = functools.partial(step, module, target, change=change, keep_saved=keep_saved, again=again)
        try:
            found = _apart(target, change, made, gradients, keep_saved, again)
        except GuardError as error:
            with unguarded(module):
                if _apart(target, change, made, gradients, keep_saved, again) != {}:
                    return False
            narrow.append(error)
        else:
            if found is not None:
                return not found
    return False


def _two(
    call: Callable[..., object], args: tuple[object, ...], kwargs: Mapping[str, object], *, longer: bool
) -> tuple[object, object]:
    """A call on these inputs, and one on their rows in another order, without the one that made them
    `longer`."""
    leaves, structure = tree.flatten((args, kwargs))
    rows = Counter(t.shape[0] for t in leaves if t.dim() and t.layout is torch.strided).most_common(1)
    made = {id(t): _other(t, 0) for t in leaves}
    if longer and rows:
        made = {
            key: t[:-1] if t.dim() and t.layout is torch.strided and t.shape[0] == rows[0][0] else t
            for key, t in made.items()
        }
    # before the first call, which may write into containers
    later, named = tree.unflatten(structure, [made[id(t)] for t in leaves])
    return call(*args, **kwargs), call(*later, **named)


def _both(loss: Callable[..., object] | None, outputs: tuple[object, object]) -> object:
    """The loss of two calls."""
    one, other = (loss_of(loss, output) for output in outputs)
    return one + other


Other = tuple[Change | None, Again | None]  # other inputs, an earlier call


def _apart(
    target: Program,
    change: Change | None,
    made: Callable[[], Step],
    gradients: bool,
    keep_saved: bool,
    again: Again | None = None,
) -> dict[str, str] | None:
    """How what was `made` differs from a plain step; None where one of the two raises: that is said loudly,
    by the module itself.

    Raises:
        GuardError: the module raises it, and the plain step does not raise.
    """
    if again is not None:
        target = replace(target, call=functools.partial(_called, again, target.call))
    want = _plain(target, change, keep_saved)
    if want is None:
        return None
    try:
        got = made()
    except GuardError:
        raise
    except Exception:  # whatever the module raises
        return None
    apart = compare(want, got, gradients=gradients, exact=True).apart
    repeated = _plain(target, change, keep_saved) if apart else None
    if repeated is None:
        return dict(apart)
    # kernels that add up in no fixed order
    unsteady = compare(want, repeated, gradients=gradients, exact=True).apart
    return {what: how for what, how in apart.items() if what not in unsteady}


def _called(again: Again, call: Callable[..., object], *args: object, **kwargs: object) -> object:
    return again(call, args, kwargs)


DRAWS = 6  # a layer dropped every other time stays unseen once in 64
SEARCHED = 2000  # seeds, for one that draws small numbers: a layer dropped once in a hundred times


@functools.lru_cache(1)
def seeds() -> tuple[int, ...]:
    """Seeds to draw by: some at random, and those whose first numbers are all small, or large, by Python's
    generator and NumPy's."""
    found = list(range(DRAWS))
    for numbers in filter(None, (_first_of_python, _first_of_numpy if "numpy" in sys.modules else None)):
        drawn = [(seed, numbers(seed)) for seed in range(SEARCHED)]
        for count in (1, 3):
            found.append(min(drawn, key=lambda pair: max(pair[1][:count]))[0])
            found.append(max(drawn, key=lambda pair: min(pair[1][:count]))[0])
    return tuple(dict.fromkeys(found))


def _first_of_python(seed: int) -> list[float]:
    generator = random.Random(seed)
    return [generator.random() for _ in range(3)]


def _first_of_numpy(seed: int) -> list[float]:
    return list(sys.modules["numpy"].random.RandomState(seed).random_sample(3))


def _plain(target: Program, change: Change | None, keep_saved: bool) -> Step | None:
    """What a plain step leaves; None where it raises, or none can be made."""
    made = Step()
    parameters = list(registry.named_parameters(target.root, remove_duplicate=False))

    def prepare(inputs: Sequence[torch.Tensor]) -> None:
        if change is not None:
            change(inputs)
        seed_generators(SEED)
        steady_kernels()

    def note(left: Left) -> None:
        leaves, _ = tree.flatten(left.output)
        made.outputs = [t.detach().clone() for t in leaves]
        made.requires_grad = tuple(t.requires_grad for t in leaves)
        made.type = type(left.output).__name__
        for name, parameter in parameters:
            made.gradients[name] = parameter.grad
            made.buffers[name] = parameter.detach().clone()
        for name, buffer in registry.named_buffers(target.root, remove_duplicate=False):
            made.buffers[name] = buffer.detach().clone()
        note_inputs(made, [t.clone() if not t.is_leaf else t for t in left.inputs])

    around: Callable[[], contextlib.AbstractContextManager[object]] = (
        saved_copies if keep_saved else contextlib.nullcontext
    )
    try:
        return made if plain_step(target, note, prepare=prepare, around=around) is None else None
    except NotPrivateError:
        return None


# ----------------------------------------------------------------------------------------------- other inputs


def _second(
    call: Callable[..., object], args: tuple[object, ...], kwargs: Mapping[str, object], *, longer: bool
) -> object:
    """A call on these inputs, then one on others, which sees what the first has left."""
    leaves, structure = tree.flatten((args, kwargs))
    first = Counter(t.shape[0] for t in leaves if t.dim() and t.layout is torch.strided).most_common(1)
    made = {id(t): _other(t, first[0][0] if first and longer else 0) for t in leaves}
    # before the first call, which may write into containers
    later, named = tree.unflatten(structure, [made[id(t)] for t in leaves])
    call(*args, **kwargs)
    return call(*later, **named)


def _other(tensor: torch.Tensor, first: int) -> torch.Tensor:
    """The rows of a tensor in another order; the first one twice, where it has as many as `first`."""
    if not tensor.dim() or tensor.layout is not torch.strided or not tensor.shape[0] or tensor.is_inference():
        return tensor
    made = tensor.flip(0)
    return torch.cat((made, made[:1])) if tensor.shape[0] == first else made


def _reseeded(seed: int, inputs: Sequence[torch.Tensor]) -> None:
    """The same inputs and other draws of Python and NumPy."""
    reseed(seed)


def _longer(inputs: Sequence[torch.Tensor]) -> None:
    """Every input that has the commonest first size gets one more row, and all are drawn anew."""
    first = Counter(t.shape[0] for t in inputs if t.dim() and t.layout is torch.strided)
    _drawn(inputs)
    for tensor in inputs:
        if tensor.is_inference():
            continue  # given other data, it would be none any more
        if (
            first
            and tensor.dim()
            and tensor.layout is torch.strided
            and tensor.shape[0] == first.most_common(1)[0][0] > 0
        ):
            lay_on(tensor, torch.cat((tensor.data, tensor.data[:1])))


def _drawn(inputs: Sequence[torch.Tensor]) -> None:
    """Floating inputs get values drawn from their own, so that they stay in the range that the program
    expects."""
    generator = torch.Generator().manual_seed(SEED)
    for tensor in inputs:
        if (
            tensor.is_floating_point()
            and tensor.layout is torch.strided
            and tensor.numel()
            and not tensor.is_inference()
        ):
            chosen = torch.randint(tensor.numel(), tensor.shape, generator=generator).to(tensor.device)
            tensor.data = tensor.data.reshape(-1)[chosen]
