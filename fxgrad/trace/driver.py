"""What whoever records may be asked: `GraphDriver` writes a graph on stand-ins, `WatchDriver` looks on at the
user's own tensors.

Protocols, so that a read or a backward needs to know of its driver what stands here and no more. `Recorder`
is the one, `Observer` the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
import torch.fx

from fxgrad.records import Saved
from fxgrad.records.facts import Delivered
from fxgrad.source.sites import Spot
from fxgrad.torch_api.symbols import Asked, Origin, Owner
from fxgrad.trace.edges import Key
from fxgrad.trace.experiment import Nudge
from fxgrad.trace.ledger import Ledger
from fxgrad.trace.notes import Backward, Note, Request
from fxgrad.trace.observations import Observations, RawDecision, Shared, Step
from fxgrad.trace.rounds import Rounds
from fxgrad.trace.slots import Slot
from fxgrad.trace.subclasses import Births
from fxgrad.world.reach import Reach
from fxgrad.world.standins import StandIns


class GraphDriver(Owner, Protocol):
    """What a read of a property, a size, a truth value or a number asks of the recorder."""

    graph: torch.fx.Graph
    seen: Observations
    slots: dict[int, Slot]  # by the id of a tensor object, the user's own or its stand-in
    reach: Reach
    standins: StandIns
    quiet: int  # depth of what is not recorded
    # writes that autograd refuses are carried out; the leaves these name enter as copies
    allow: frozenset[str] | None
    shared: list[Shared] | None  # memory that NumPy and torch share, where it is watched
    names: dict[int, str]  # of registered tensors, by id
    attributes: dict[str, object]  # what the graph refers to
    object_names: dict[int, str]  # of objects among them, by id
    externals: dict[int, tuple[torch.Tensor, int]]
    nudge: Nudge | None  # what is handed to the program disturbed
    forced: tuple[bool | None, ...]  # outcomes for the first decisions on data
    decisions: list[RawDecision]
    escapes: list[int]
    symbol_values: dict[int, int]
    origins: list[Origin]
    open_numbers: bool
    unfollowed: bool  # whether it was handed numbers that go by sizes and remember nothing: strides, bytes
    sizes_read: bool  # whether the program was handed sizes
    looks: tuple[Spot, ...]  # where the program looked at autograd's graph
    births: Births
    missed_gradient: tuple[Spot, ...]  # where it was told that there is no gradient, and there had been one

    def spots(self) -> tuple[Spot, ...]: ...

    def slot_of(self, tensor: torch.Tensor) -> Slot: ...

    def swap(self, item: object) -> Any: ...

    def handed(self, item: object) -> object: ...

    def add_step(self, node: torch.fx.Node, kind: str, target: str, spots: tuple[Spot, ...]) -> Step: ...

    def finish(self, step: Step, slots: Sequence[Slot], out: object, *, keep: bool) -> None: ...

    def standin(self, tensor: torch.Tensor) -> torch.Tensor: ...

    def keep(self, item: object) -> None: ...

    def note_unseen(self, what: str) -> None: ...

    def storage_number(self, tensor: torch.Tensor) -> int: ...

    def symbol_reads(self, origin: Origin) -> Iterator[int]: ...

    def assume(
        self, target: object, args: tuple[object, ...], taken: object, *, weak: bool = False, what: str = ""
    ) -> None: ...

    def decided(
        self,
        outcome: bool | None,
        node: str,
        spots: tuple[Spot, ...],
        read: tuple[int, ...],
        asked: Asked | None = None,
    ) -> bool: ...

    def refuse_valueless(self, error: BaseException, name: str) -> None: ...


class WatchDriver(Protocol):
    """What a backward asks of the observer."""

    ledger: Ledger
    active: bool
    quiet: int  # depth of what is not looked into
    closely: bool  # note what every autograd node is given
    again: bool  # a graph is differentiated besides its backward
    gradients_only: bool  # calls are not noted any more: what backwards leave is
    requests: list[Request]
    backwards: list[Backward]
    cleared: tuple[Spot, ...]
    exchanged: tuple[Spot, ...]
    delivered: dict[Key, Delivered]
    dropped: set[tuple[int, int]]
    saved: list[Saved]
    nested: list[list[torch.Tensor]]
    started: object  # what the outermost of them was called with
    on_raise: Callable[[BaseException], None]
    before_backward: Callable[[], None]
    on_backward: Callable[[Backward, list[tuple[torch.Tensor, torch.Tensor | None]]], None]
    on_repeat: Callable[[list[tuple[torch.Tensor, torch.Tensor | None]]], None]
    rounds: Rounds

    def guarded(self) -> AbstractContextManager[None]: ...

    def before(self, *items: object) -> list[tuple[torch.Tensor, Slot, int]]: ...

    def after(
        self,
        kind: str,
        target: str,
        reads: list[tuple[torch.Tensor, Slot, int]],
        out: object,
        numbers: tuple[int, ...] = (),
    ) -> Note | None: ...
