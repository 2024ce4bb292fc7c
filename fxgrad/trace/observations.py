"""Raw observations of one run: which tensor object stands for which node, what each step read, made and
wrote, and autograd's edges.

`Observations` is filled by the recorder while the program runs, cheaply enough to be taken always;
`fxgrad.trace.facts` turns it into records. It keeps no tensor alive but leaves (`fxgrad.trace.slots`), and
of autograd's graph the nodes. Nothing here decides what a call means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.fx

from fxgrad.records import Phase
from fxgrad.source.sites import Spot
from fxgrad.torch_api.autograd_graph import grad_fn_of
from fxgrad.torch_api.internals import FakeTensor, memory_key
from fxgrad.torch_api.tensors import shape_of
from fxgrad.trace.slots import Slot, Tensors


class NeedsValue(BaseException):
    """The program asks for a number that a fake tensor does not have. A BaseException: user code must not
    catch it."""

    def __init__(self, what: str, spots: tuple[Spot, ...]) -> None:
        self.what = what
        self.spots = spots
        super().__init__(what)


@dataclass(slots=True, eq=False)
class RawValue:
    """One tensor at one moment; `fn` and `nr` are its autograd edge, `leaf` the tensor itself where it is a
    leaf that requires grad."""

    id: int
    node: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    device: str
    storage: int
    requires_grad: bool
    is_leaf: bool
    fn: Any
    nr: int
    leaf: torch.Tensor | None


@dataclass(slots=True, eq=False)
class Step:
    """The raw observation of one node."""

    node: torch.fx.Node
    kind: str
    target: str
    spots: tuple[Spot, ...]
    module: str
    phase: Phase
    grad: bool
    inference: bool
    sampled: bool = False
    reads: list[int] = field(default_factory=list)
    makes: list[int] = field(default_factory=list)
    writes: list[int] = field(default_factory=list)
    weak: list[int] = field(default_factory=list)
    differentiated: list[int] = field(default_factory=list)
    constants: tuple[object, ...] = ()
    operands: tuple[tuple[int | str, int], ...] = ()
    settings: tuple[tuple[int | str, Any], ...] = ()


@dataclass(slots=True, eq=False)
class RawDecision:
    """One branch on data."""

    spots: tuple[Spot, ...]
    node: str
    outcome: bool
    known: bool
    reads: tuple[int, ...]
    asked: tuple[object, tuple[object, ...]] | None = None  # the function and arguments whose outcome it is
    raises: bool | None = None  # the outcome with which the program raises, where its code says so


# the target of what is assumed of a tensor made from Python data: that another call makes the same
ENTRY = "entry"


@dataclass(slots=True, eq=False)
class Assumed:
    """What the program was told and no node follows: `target(*args)` gave `taken`. Of the arguments, nodes
    and symbolic numbers are computed anew by another call. `target` None: the one argument itself; "size",
    "ndim", "dtype" and their kind: of a tensor's node.

    `what`: its words, where it has some of its own. `weak`: it matters only where another call is seen to
    differ by it.
    """

    target: Any
    args: tuple[Any, ...]
    taken: object
    spots: tuple[Spot, ...]
    what: str = ""
    weak: bool = False


@dataclass(slots=True, eq=False)
class RawSave:
    """A tensor saved for backward, by the step that ran then and before step `index`. `copy`: its elements
    then, where it has any. `kept`: the attribute of a custom Function's `ctx` that it is, where no version is
    checked."""

    saver: Step | None
    tensor: torch.Tensor
    version: int
    index: int
    copy: torch.Tensor | None
    kept: str = ""

    @property
    def changed(self) -> bool:
        """Whether its elements are others now; True where that cannot be seen."""
        return self.copy is None or not same_elements(self.copy, self.tensor)


@dataclass(slots=True, eq=False)
class Shared:
    """Memory that NumPy was given, or gave, at a step: who writes there, no step sees."""

    step: Step
    tensor: torch.Tensor
    copy: torch.Tensor


class Observations:
    """Values, steps and tensors of one run."""

    def __init__(self) -> None:
        self.values: list[RawValue] = []
        self.steps: list[Step] = []
        self.tensors = Tensors()
        self.storage_number = self.tensors.numbered
        self._devices: dict[torch.device, str] = {}
        # What custom Functions made: the C++ node of one goes with the last tensor that leads to it, although
        # its Python object is held.
        self._of_functions: list[torch.Tensor] = []

    def new_value(self, tensor: torch.Tensor, node: str, storage: int) -> int:
        """Observe a tensor as it is now."""
        requires_grad = tensor.requires_grad
        fn = grad_fn_of(tensor) if requires_grad else None
        nr = tensor.output_nr if fn is not None else 0
        leaf = tensor if requires_grad and fn is None else None
        if isinstance(fn, torch.autograd.function.BackwardCFunction):
            self._of_functions.append(tensor)
        number = len(self.values)
        device = self._device_name(tensor.device)
        shape = shape_of(tensor)
        self.values.append(
            RawValue(
                number, node, shape, tensor.dtype, device, storage, requires_grad, fn is None, fn, nr, leaf
            )
        )
        return number

    def _device_name(self, device: torch.device) -> str:
        name = self._devices.get(device)
        if name is None:
            name = self._devices[device] = str(device)
        return name

    def pseudo_value(self, node: str) -> int:
        """A Value for a Python number read off data, so that provenance can be followed through it."""
        number = len(self.values)
        self.values.append(
            RawValue(number, node, (), torch.float64, "python", -1, False, True, None, 0, None)
        )
        return number

    def bind(self, tensor: torch.Tensor, node: torch.fx.Node, step_name: str) -> Slot:
        """`tensor` is now what `node` computes."""
        slot = self.tensors.get(tensor)
        if slot is None:
            slot = self.tensors.add(tensor)
        else:
            self.tensors.refresh(slot, tensor)
        slot.node = node
        slot.value = self.new_value(tensor, step_name, slot.storage)
        return slot

    def over_the_memory_of(self, tensor: torch.Tensor) -> Slot | None:
        """The latest slot whose memory holds that of a tensor which came in without a torch call: exchanged
        through NumPy or DLPack, it has a storage of its own over the same bytes. None if no step has seen it,
        and for tensors without data."""
        start, end = _bytes_of(tensor)
        for sharing in self.tensors.by_memory() if start < end else ():
            living = [(slot, other) for slot in sharing if (other := slot()) is not None]
            if not living:
                continue
            low, high = _bytes_of(living[-1][1], whole=True)
            if low <= start and end <= high and living[-1][1].dtype == tensor.dtype:
                alike = [slot for slot, other in living if _layout(other) == _layout(tensor)]
                return alike[-1] if alike else living[-1][0]
        return None

    def drop(self, step: Step) -> None:
        """Forget a step that turned out to be only a question."""
        if self.steps[-1] is step:
            self.steps.pop()
        else:
            self.steps.remove(step)

    def note_writes(self, step: Step, written: Sequence[Slot]) -> None:
        """After an in-place write every living tensor of the storage is a new value: the written ones, and
        every view and base of them."""
        seen: set[int] = set()
        for slot in written:
            self.tensors.refresh(slot, slot.tensor)
            step.writes.append(slot.storage)
            for sibling in (slot, *slot.memory.slots):
                tensor = sibling()
                if tensor is not None and id(sibling) not in seen:
                    seen.add(id(sibling))
                    self._rewritten(step, sibling, tensor)

    def _rewritten(self, step: Step, slot: Slot, tensor: torch.Tensor) -> None:
        self.tensors.refresh(slot, tensor)
        if slot.value in step.makes:
            return
        step.reads.append(slot.value)
        slot.value = self.new_value(tensor, step.node.name, slot.storage)
        step.makes.append(slot.value)


def same_elements(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal shape and elements, NaN equal to NaN."""
    with torch.no_grad():
        return one.shape == other.shape and bool(((one == other) | ((one != one) & (other != other))).all())


def copied(tensor: torch.Tensor, fake: bool) -> torch.Tensor | None:
    """The elements as they are now; None of a fake tensor or one that is not dense."""
    if fake or tensor.layout is not torch.strided or tensor.device.type == "meta" or tensor.is_quantized:
        return None
    return tensor.detach().clone()


def _bytes_of(tensor: torch.Tensor, *, whole: bool = False) -> tuple[int, int]:
    """The addresses of a tensor's first byte and of the one after its last, or of its whole storage's; (0, 0)
    where it has no data."""
    if (
        isinstance(tensor, FakeTensor)
        or tensor.is_meta
        or tensor.is_nested
        or tensor.layout is not torch.strided
    ):
        return 0, 0
    if memory_key(tensor) < 0 or tensor.numel() == 0:
        return 0, 0
    storage = tensor.untyped_storage()
    try:
        start, end = storage.data_ptr(), storage.data_ptr() + storage.nbytes()
    except RuntimeError:  # a subclass around other tensors
        return 0, 0
    if whole:
        return start, end
    reach = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True)) + 1
    return tensor.data_ptr(), tensor.data_ptr() + reach * tensor.element_size()


def _layout(tensor: torch.Tensor) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    return _bytes_of(tensor)[0], tuple(tensor.shape), tuple(tensor.stride())
