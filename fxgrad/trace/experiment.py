"""What a run is asked for by: `Experiment`, and what it may disturb to see what depends on it.

A `Nudge` names one thing that a run reads off data, a number that leaves torch or a selection; the recorder
numbers both kinds as they come up. Disturbances are for runs on real values.
"""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass
from typing import Any, Literal

import torch

from fxgrad.torch_api.calls import Args
from fxgrad.torch_api.generators import seed_generators

_WHOLE = ("__int__", "__index__")
_WHOLE_TENSOR = ("nonzero", "argwhere", "where")
_BY_INDEX = ("__getitem__", "__setitem__", "masked_select")


Values = Literal["fake", "real"]


@dataclass(frozen=True, slots=True)
class Nudge:
    """`number`: which value leaving torch, or which selection (`selection`). `amount` is added to the
    numbers; 0: they change places; None: they stay near.
    """

    number: int
    amount: int | None = None
    selection: bool = False


@dataclass(frozen=True, slots=True)
class Experiment:
    """All that a run of a program depends on beside the program: two runs of equal ones record the same.

    `values`: the kind of its stand-ins. `forced`: outcomes for its first decisions on data. `backward`:
    whether the loss runs backward. `watch_saves` notes what is saved for backward, `watch_gradients` what
    gradient each autograd node was given. `noise` seeds a disturbance of every real stand-in that is not
    constant, a second draw of the numbers; with `unsettle` of constant parameters too ("moved"), or with all
    trained parameters drawn anew ("drawn"): what a gate or a last layer that starts at zero holds back comes
    through, and units that their bias switches off come on. `held`: the ids of tensors that are not
    disturbed. `nudge`: one thing read off data that the program is given disturbed. `seed`: other random
    numbers. `steady`: torch's random numbers from this seed, and kernels that add up in a fixed order, so
    that another run's numbers compare. `allow`: carry out the in-place writes that autograd refuses
    (`fxgrad.torch_api.allowed_writes`); of the leaves it names, inputs and attributes, the program writes
    copies. `assumptions`: note what the program is told and no node follows
    (`fxgrad.trace.observations.Assumed`, `fxgrad.trace.python_state`). `open_numbers`: sizes and numbers that
    C code must ask for their value (`fxgrad.torch_api.symbols.OpenInt`). `sketched`: nothing is written down
    but what the run leaves (`fxgrad.trace.sketch`). `effort`: the multiplications that its forward may cost
    (`fxgrad.trace.effort`); None: all that it takes.
    """

    values: Values
    forced: tuple[bool, ...] = ()
    backward: bool = True
    watch_saves: bool = False
    watch_gradients: bool = False
    noise: int | None = None
    unsettle: Literal["", "moved", "drawn"] = ""
    held: frozenset[int] = frozenset()
    nudge: Nudge | None = None
    seed: int | None = None
    steady: int | None = None
    allow: frozenset[str] | None = None
    assumptions: bool = False
    open_numbers: bool = False
    sketched: bool = False
    effort: float | None = None


def disturbed(tensor: torch.Tensor, name: str, nudge: Nudge) -> torch.Tensor:
    """The tensor with other numbers of the same kind, for an escape called `name`."""
    with torch.no_grad():
        if tensor.dtype is torch.bool:
            made = ~tensor
        elif nudge.amount == 0 and tensor.dim():
            made = tensor.flip(0).clone()
        elif nudge.amount is not None:
            made = tensor + nudge.amount
        elif name in _WHOLE or not (tensor.is_floating_point() or tensor.is_complex()):
            made = tensor + 1
        elif tensor.numel() == 1:
            made = tensor * 1.25 + 0.125
        else:  # no affine change: a normalisation or a nearest neighbour would not notice
            noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
            made = tensor + (noise * (tensor.double().abs().mean() + 0.1)).to(tensor)
    return made.requires_grad_(tensor.requires_grad)


def selects(name: str, args: Args) -> bool:
    """Whether data decides how much the call reads or writes: a mask as an index, `nonzero`."""
    return _mask(name, args) is not None


def selects_nothing(name: str, args: Args) -> bool:
    """Whether it comes out empty."""
    mask = _mask(name, args)
    return mask is not None and not bool((mask != 0).any())


def mask_shape(name: str, args: Args) -> tuple[int, ...]:
    """The shape of what selects."""
    mask = _mask(name, args)
    return tuple(mask.shape) if mask is not None else ()


def selecting_all(name: str, args: tuple[Any, ...]) -> tuple[object, ...]:
    """The same call with a mask that is true everywhere; one that is, all but its last element."""
    if name in _WHOLE_TENSOR:
        return (_other_mask(args[0]), *args[1:])
    return (args[0], _filled(args[1]), *args[2:])


def _mask(name: str, args: tuple[Any, ...]) -> torch.Tensor | None:
    if name in _WHOLE_TENSOR:
        return args[0] if name != "where" or len(args) == 1 else None
    if name not in _BY_INDEX or len(args) < 2:
        return None
    parts = args[1] if isinstance(args[1], tuple) else (args[1],)
    return next((part for part in parts if _is_mask(part)), None)


def _filled(part: Any) -> object:
    if isinstance(part, tuple):
        return tuple(_filled(inner) for inner in part)
    return _other_mask(part) if _is_mask(part) else part


def _other_mask(mask: torch.Tensor) -> torch.Tensor:
    made = torch.ones_like(mask)
    if mask.numel() > 1 and bool((mask != 0).all()):
        made.view(-1)[-1] = 0
    return made


def _is_mask(part: object) -> bool:
    return isinstance(part, torch.Tensor) and part.dtype in (torch.bool, torch.uint8)


def reseed(seed: int) -> None:
    """Other random numbers from Python's, NumPy's and torch's own generators."""
    random.seed(seed)
    seed_generators(seed)
    numpy = sys.modules.get("numpy.random")
    if numpy is not None:
        numpy.seed(seed)


def drawn_so_far() -> tuple[object, ...]:
    """The states of Python's and NumPy's generators: they differ once a number was drawn."""
    numpy = sys.modules.get("numpy.random")
    state = numpy.get_state() if numpy is not None else None
    return random.getstate(), None if state is None else (state[1].tobytes(), *state[2:])
