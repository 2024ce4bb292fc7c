"""Rounds that repeat: what a program does from one backward, or `autograd.grad`, to the end of the next. Only
the first few of a kind are noted; of the others each call is compared with what came there before, and the
first that is another is noted, with all that follows it in its round.

Definitions:
 1. A *round* ends with a backward that has run, or an `autograd.grad` that keeps no graph.
 2. Two calls are *the same* if the same instruction of the user's own file, in the same module and grad
    mode, calls the same function on the same, by the same names: what the same call of this round made; what
    a call from the same place made in the round before; a leaf that is older than that; data, or what came
    from it to Python, of the same origins (`fxgrad.trace.repeats`); the same string or type; a number that is
    zero where the other is.
 3. Their *effects* are the same if as many tensors come of them, each differentiated, and a view, where the
    other's is; of a backward, if its loss is as finite as the other's.
 4. After `ROUNDS` noted rounds that begin with the same calls these are only compared. What one of them makes
    is noted when a call that is noted uses it: as the last noted one was.
Always noted: what is given something that definition 2 does not cover, what sets `.data`, and what happens
before `ROUNDS` rounds have ended since the last optimizer step. A call whose effects turn out to be others is
noted as it has run.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import EllipsisType, FrameType, NoneType
from typing import Any

import torch
from torch import nn

from fxgrad.torch_api.internals import is_view, version_of
from fxgrad.torch_api.tree import tensors_in
from fxgrad.trace.coverage import Coverage
from fxgrad.trace.edges import note_freed, number_of
from fxgrad.trace.ledger import Ledger
from fxgrad.trace.repeats import PLAIN, Repeats
from fxgrad.trace.slots import PURGE, Slot

ROUNDS = 24  # noted rounds of a kind
LONGEST = 5_000  # calls of a round that are followed
MOST = 50_000  # the same of all rounds

_MARK = "fxgrad repeats"
_MADE, _LEAF, _DATA, _NUMBER = range(0, 8, 2)  # where something given to a call is from

# none of these; plain numbers; a sequence, a slice, and where one ends; what is not looked into
_UNLIKE, _SOME, _ZERO, _SEVERAL, _SLICE, _END, _OTHER = range(-1, -8, -1)
_NUMBERS = frozenset((int, float, bool, complex))
# what says what is computed: by its value, like the strings
_TOLD = frozenset((str, NoneType, EllipsisType, torch.dtype, torch.device, torch.layout, torch.memory_format))


Effects = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Noted:
    """A call that was noted: the number of its note, -1 where there is none, and the values of what it
    made."""

    note: int
    values: tuple[int, ...]


@dataclass(slots=True, eq=False)
class Turn:
    """A call, after all those of its round that came before it.

    `count`: how often it was noted; `kind`: a number for its place; `noted`, `earlier`: the last one, and the
    one before that. `slots`, `missing`, `walks`: of a backward, the leaves it reached, the positions at which
    `autograd.grad` gave None, and the notes of the last two, -1 for one that kept the graph. `subject`: the
    module that it calls. `effects`: of each tensor that the last noted one made whether it is differentiated,
    and a view; `writes`: whether it wrote what it was given. `hidden`: the leaves that a region read without
    being given them. `ending`: whether the loss of a backward is NaN or infinite.
    """

    number: int
    kind: int
    after: dict[object, Turn] = field(default_factory=dict)
    count: int = 0
    noted: Noted | None = None
    earlier: Noted | None = None
    effects: Effects = ()
    writes: bool = False
    hidden: frozenset[int] = frozenset()
    ending: str = ""
    slots: tuple[Slot, ...] = ()
    missing: tuple[int, ...] = ()
    walks: tuple[int, ...] = ()
    subject: weakref.ref[nn.Module] | None = None

    def is_of(self, module: nn.Module) -> bool:
        """Whether it is a call of this module: ids come again."""
        return self.subject is not None and self.subject() is module


# a tensor, the round and the call that made it, and the position among what that made
_Made = tuple[weakref.ref[torch.Tensor], int, Turn, int]


class Rounds:
    """Follows a program call by call. `comparing`: the calls of this round are only compared so far.

    `numbers`: those that left torch, by id, with their values; `array`: the value of an array that did, None
    for another.
    """

    def __init__(
        self,
        ledger: Ledger,
        repeats: Repeats,
        coverage: Coverage,
        numbers: Mapping[int, tuple[float, int]],
        array: Callable[[object], int | None],
    ) -> None:
        self.comparing = False
        self._numbers = numbers
        self._array = array
        self._ledger = ledger
        self._repeats = repeats
        self._coverage = coverage
        self._resting = False
        self._made: dict[int, _Made] = {}
        self._given: list[torch.Tensor] = []
        self._versions: list[int] = []
        self._count = 0  # notes before the call
        self._purge_at = PURGE
        ledger.stands_for = self.stands_for
        self.reset()

    def reset(self) -> None:
        """A step has ended: parameters are others."""
        self.wake()
        self._begin = Turn(0, 0)
        self._last: Turn | None = self._begin
        self._round = 0
        self._walks: list[Turn] = []  # those that freed a graph in this round
        self._length = self._turns = 0
        self._kinds: dict[object, int] = {}
        self._made.clear()

    def wake(self) -> None:
        """What follows is noted, to the end of this round."""
        if self.comparing:
            self.comparing = False
            if self._resting:
                self._resting = False
                self._coverage.resume()

    def lose(self) -> None:
        """The same, and this round is no longer compared with others."""
        self.wake()
        self._last = None

    def ended(self, *, may_compare: bool) -> None:
        """A round has ended. `may_compare`: nothing is looked at more closely than calls are."""
        self._given = []
        noted = not self.comparing
        if noted and self._last is not None:
            self._begin.count += 1
        self._last = self._begin
        self._walks = []
        self._round += 1
        self._length = 0
        if noted and may_compare and self._begin.count >= ROUNDS:
            self.comparing = True
            self._resting = self._coverage.rest(leaving_out=True)

    # ------------------------------------------------------------------ calls

    def next(self, func: object, frame: FrameType | None, items: Iterable[object]) -> Turn | None:
        """The turn of a call that is about to run, with all it is given in `items`; None where the round is
        not followed. It need not be noted if `comparing` then."""
        last = self._last
        if last is None:
            return None
        given: list[torch.Tensor] = []
        self._given = given
        tokens: list[object] = []
        if not self._tokens(items, given, tokens):
            self.lose()
            return None
        ledger = self._ledger
        stack = ledger.stack
        place = self._repeats.place(frame, ledger.boundary, within=bool(stack))
        module = id(stack[-1]) if stack else 0
        # A call in inference mode is like no other where gradients are off.
        mode = torch.is_grad_enabled() or torch.is_inference_mode_enabled() - 1
        key = (func, place, module, mode, *tokens)
        try:
            turn = last.after.get(key)
        except TypeError:  # an unhashable callable
            self.lose()
            return None
        if self.comparing:
            if turn is not None and turn.count >= ROUNDS:
                self._last = turn
                return turn
            self.wake()
        if turn is None:
            turn = self._new(last, key, (func, place))
            if turn is None:
                return None
        self._last = turn
        self._notes(turn)
        return turn

    def _notes(self, turn: Turn) -> None:
        """That call is noted."""
        turn.count += 1
        self._length += 1
        self._count = self._ledger.count
        self._versions = [version_of(tensor) for tensor in self._given]

    def note(self, turn: Turn) -> None:
        """What follows that call is noted, and the call itself, which was not to be."""
        self.wake()
        self._notes(turn)

    def given(self) -> list[torch.Tensor]:
        """The tensors that the call which was asked about last is given."""
        return self._given

    def _new(self, last: Turn, key: object, place: object) -> Turn | None:
        if self._length >= LONGEST or self._turns >= MOST:
            self.lose()
            return None
        self._turns += 1
        kind = self._kinds.setdefault(place, len(self._kinds))
        last.after[key] = turn = Turn(self._turns, kind)
        return turn

    def noted(self, turn: Turn, out: object) -> None:
        """That call was noted."""
        ledger = self._ledger
        turn.writes = [version_of(tensor) for tensor in self._given] != self._versions
        values = []
        made = self._keep(turn, out)
        turn.effects = _effects(made)
        for tensor in made:
            slot = ledger.tensors.get(tensor)
            values.append(slot.value if slot is not None else -1)
        self._given = []
        note = ledger.notes[-1] if ledger.notes else None
        if note is None or note.number <= self._count:
            turn.noted, turn.earlier = Noted(-1, tuple(values)), turn.noted
        elif note.kind == "escape":
            turn.noted, turn.earlier = Noted(note.number, tuple(note.makes)), turn.noted
        else:
            number = note.number if set(values) & set(note.makes) else -1
            turn.noted, turn.earlier = Noted(number, tuple(values)), turn.noted

    def flagged(self, turn: Turn, tensor: torch.Tensor) -> None:
        """That call made a leaf of a tensor, or the other way round: data that is made a leaf in each round
        anew is the same."""
        if type(tensor) is torch.Tensor and self._made.get(id(tensor)) is None:
            self._enter(turn, tensor, 0)

    def repeated(self, turn: Turn, out: object, *, others: bool = False) -> bool:
        """That call was only compared; whether its effects are those of the last that was noted, of which
        `others` are not. Where they are not it is still to be noted."""
        made = self._keep(turn, out) if out is not None else []
        others = others or _effects(made) != turn.effects
        if turn.writes and not others:
            self._settle()
        if others:
            self.note(turn)
            return False
        for position, tensor in enumerate(made):
            if tensor.requires_grad and not tensor.is_leaf:
                function: Any = tensor.grad_fn
                function.metadata[_MARK] = turn, position, tensor.output_nr, self._walks
        self._given = []
        return True

    def _settle(self) -> None:
        """What it wrote is what it was, for all that was noted."""
        tensors = self._ledger.tensors
        for tensor in self._given:
            for slot in tensors.sharing(tensor):
                other = slot()
                if other is not None:
                    slot.version = version_of(other)

    def _keep(self, turn: Turn, out: object) -> list[torch.Tensor]:
        given = self._given
        if type(out) is torch.Tensor:
            made = [] if any(one is out for one in given) else [out]
        else:
            made = [tensor for tensor in tensors_in(out) if not any(one is tensor for one in given)]
        for position, tensor in enumerate(made):
            self._enter(turn, tensor, position)
        return made

    def _enter(self, turn: Turn, tensor: torch.Tensor, position: int) -> None:
        self._made[id(tensor)] = weakref.ref(tensor), self._round, turn, position
        if len(self._made) > self._purge_at:
            self._made = {key: made for key, made in self._made.items() if made[0]() is not None}
            self._purge_at = max(PURGE, 2 * len(self._made))

    # ------------------------------------------------------------------ what a call is given

    def _tokens(self, items: Iterable[object], given: list[torch.Tensor], tokens: list[object]) -> bool:
        """A token for each of these; False where one cannot be compared."""
        for item in items:
            type_ = type(item)
            if type_ is torch.Tensor or type_ is nn.Parameter:
                tensor: Any = item
                token = self._token(tensor)
                if token == _UNLIKE:
                    return False
                given.append(tensor)
                tokens.append(token)
            elif type_ in PLAIN:
                plain: Any = item
                if type_ in _NUMBERS:
                    tokens.append(self._number(plain))
                else:
                    tokens.append(plain if type_ in _TOLD else _OTHER)
            elif not self._inner(type_, item, given, tokens):
                return False
        return True

    def _inner(self, type_: type, item: Any, given: list[torch.Tensor], tokens: list[object]) -> bool:
        """The same of what has items in it."""
        if type_ is tuple or type_ is list:
            tokens.append(_SEVERAL)
            known = self._tokens(item, given, tokens)
            tokens.append(_END)
            return known
        if type_ is slice:
            tokens.append(_SLICE)
            return self._tokens((item.start, item.stop, item.step), given, tokens)
        if type_.__module__ != "numpy":
            return False
        value = self._array(item)
        tokens.append(_OTHER if value is None else (self._ledger.origins[value] << 4) + _NUMBER)
        return True

    def _number(self, number: complex) -> int:
        """Of plain numbers only zero makes another gradient where the effects are the same."""
        known = self._numbers.get(id(number)) if self._numbers else None
        if known is not None and known[0] is number:
            return (self._ledger.origins[known[1]] << 4) + _NUMBER
        return _SOME if number else _ZERO

    def _token(self, tensor: torch.Tensor) -> int:
        differentiated = tensor.requires_grad
        made = self._made.get(id(tensor))
        if made is not None:
            reference, number, turn, position = made
            if number >= self._round - 1 and reference() is tensor:
                number = turn.number if number == self._round else -turn.kind - 1
                return (number << 16) + (min(position, 4095) << 4) + _MADE + differentiated
        ledger = self._ledger
        slot = ledger.tensors.by_id.get(id(tensor))
        if differentiated:
            if slot is None or slot.edge is None or slot.edge[0] >= 0:
                return _UNLIKE
            return (slot.leaf << 4) + _LEAF + 1
        if type(tensor) is not torch.Tensor and slot is not None:
            return (slot.leaf << 4) + _LEAF
        origins = self._origins(tensor, slot, made)
        return (origins << 4) + _DATA if origins >= 0 else _UNLIKE

    def _origins(self, tensor: torch.Tensor, slot: Slot | None, made: _Made | None) -> int:
        ledger = self._ledger
        if slot is not None:
            return ledger.origins[slot.value]
        light = ledger.tensors.light.get(id(tensor))
        if light is not None and light[0]() is tensor:
            return ledger.origins[light[1]]
        if made is not None and made[0]() is tensor:
            value, _ = self._value(made[2], made[3], now=False)
            return ledger.origins[value] if value >= 0 else _UNLIKE
        return 0

    # ------------------------------------------------------------------ what was not noted, used all the same

    def stands_for(self, tensor: torch.Tensor) -> int:
        """The value that stands for what a call that was only compared made; -1 for any other tensor."""
        made = self._made.get(id(tensor))
        if made is None or made[0]() is not tensor:
            return -1
        _, number, turn, position = made
        return self._value(turn, position, now=number == self._round)[0]

    def _value(self, turn: Turn, position: int, *, now: bool) -> tuple[int, int]:
        """The value that stands for what a call made, and its note; -1 for none. `now`: it was in this round;
        what is older stands for the one before, so that the two are told apart."""
        noted = turn.noted if now else turn.earlier or turn.noted
        if noted is None or position >= len(noted.values):
            return -1, -1
        value = noted.values[position]
        return (value, noted.note) if value >= 0 and self._ledger.values[value] is not None else (-1, -1)

    def walked(self, turn: Turn, note: int) -> None:
        """A backward was noted; -1: it kept the graph."""
        turn.walks = (*turn.walks[-1:], note)

    def freed(self, turn: Turn) -> None:
        """A backward that was only compared has run."""
        if turn.walks[-1:] != (-1,):
            self._walks.append(turn)

    def enter(self, functions: Iterable[Any]) -> None:
        """These autograd nodes are about to be walked, and that is noted: those that such calls made stand
        for those of noted ones."""
        edges = self._ledger.edges
        for function in functions:
            mark = function.metadata.pop(_MARK, None)
            if mark is None:
                continue
            turn, position, output, walks = mark
            now = walks is self._walks
            for walk in walks:
                note_freed([function], walk.walks[-1 if now else 0])
            value, note = self._value(turn, position, now=now)
            if value >= 0 and note >= 0:
                number = number_of(function)
                edges.makers.setdefault(number, note)
                self._ledger.stand_in(value, (number, output))


def _effects(made: Iterable[torch.Tensor]) -> Effects:
    return tuple([tensor.requires_grad + 2 * is_view(tensor) for tensor in made])
