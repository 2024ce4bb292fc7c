"""What whoever records may be asked: `GraphDriver` writes a graph on stand-ins, `WatchDriver` looks on at the user's own tensors.

Protocols, so that a read or a backward needs to know of its driver what stands here and no more. `Recorder` is the one, `Observer` the
other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
import torch.fx

from fxgrad.records import Saved
from fxgrad.source.sites import Spot
from fxgrad.torch_api.symbols import Asked, Origin, Owner
from fxgrad.trace.edges import Key
from fxgrad.trace.experiment import Nudge
from fxgrad.trace.ledger import Ledger
from fxgrad.trace.notes import Backward, Note
from fxgrad.trace.observations import Observations, RawDecision, Slot, Step
from fxgrad.trace.slots import Slot as LiveSlot


class GraphDriver(Owner, Protocol):
    """What a read of a property, a size, a truth value or a number asks of the recorder."""

    graph: torch.fx.Graph
    seen: Observations
    nudge: Nudge | None  # what is handed to the program disturbed
    forced: tuple[Any, ...]  # outcomes for the first decisions on data
    decisions: list[RawDecision]
    escapes: list[int]
    symbol_values: dict[int, int]
    origins: list[Origin]
    open_numbers: bool
    unfollowed: bool  # whether it was handed numbers that go by sizes and remember nothing: strides, bytes
    sizes_read: bool  # whether the program was handed sizes
    looks: tuple[Spot, ...]  # where the program looked at autograd's graph

    def spots(self) -> tuple[Spot, ...]: ...

    def slot_of(self, tensor: torch.Tensor) -> Slot: ...

    def swap(self, item: Any) -> Any: ...

    def handed(self, item: Any) -> Any: ...

    def add_step(self, node: torch.fx.Node, kind: str, target: str, spots: tuple[Spot, ...]) -> Step: ...

    def finish(self, step: Step, slots: Sequence[Slot], out: Any, *, keep: bool) -> None: ...

    def note_shared(self, step: Step, tensor: torch.Tensor) -> None: ...

    def assume(self, target: Any, args: tuple[Any, ...], taken: Any, *, weak: bool = False, what: str = "") -> None: ...

    def decided(
        self, outcome: bool | None, node: str, spots: tuple[Spot, ...], read: tuple[int, ...], asked: Asked | None = None
    ) -> bool: ...

    def refuse_valueless(self, error: BaseException, name: str) -> None: ...


class WatchDriver(Protocol):
    """What a backward asks of the observer."""

    ledger: Ledger
    active: bool
    quiet: int  # depth of what is not looked into
    closely: bool  # note what every autograd node is given
    backwards: list[Backward]
    cleared: tuple[Spot, ...]
    delivered: dict[Key, str]
    dropped: set[tuple[int, int]]
    saved: list[Saved]
    nested: list[list[torch.Tensor]]
    on_raise: Callable[[BaseException], None]
    before_backward: Callable[[], None]
    on_backward: Callable[[Backward, list[tuple[torch.Tensor, torch.Tensor | None]]], None]

    def guarded(self) -> AbstractContextManager[None]: ...

    def before(self, *items: Any) -> list[tuple[torch.Tensor, LiveSlot, int]]: ...

    def after(
        self, kind: str, target: str, reads: list[tuple[torch.Tensor, LiveSlot, int]], out: Any, numbers: tuple[int, ...] = ()
    ) -> Note | None: ...
