"""Calls that repeat where nothing is differentiated: a rollout, an evaluation, data being prepared. Only the
first few of a kind are noted; of the others nothing is kept but which noted result each result stands for.

Definitions:
 1. The *origins* of a value are the leaves behind it, and the places where what it is made of stopped being
    differentiated: the bits of one int (`Ledger.origins`).
 2. Two calls are of one *kind* if the same instruction of the user's own file, in the same module and grad
    mode, calls the same function on values of the same origins, between the same two backwards or steps.
 3. After `notes.TIMES` noted calls of a kind a further result stands for the last noted one: made by the same
    line of the same leaves, cut off at the same places. It gets a slot where a call that is noted uses it.
Always noted: what reads a value that is differentiated, what nobody has seen before, a write that brings in
something new, a write into memory that autograd may have saved since.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from types import CodeType, EllipsisType, FrameType, NoneType
from typing import Any

import torch
from torch import nn

from fxgrad.source.sites import ByCode, is_user_code
from fxgrad.torch_api.calls import Args, Kwargs
from fxgrad.torch_api.internals import counter_of, version_of
from fxgrad.torch_api.tree import tensors_in
from fxgrad.trace.ledger import Ledger
from fxgrad.trace.notes import UNKNOWN, Kind, Note
from fxgrad.trace.slots import Read

Given = list[tuple[torch.Tensor, int]]

MOST = 20_000  # kinds at a time
SIBLINGS = 64  # tensors over one memory that a write which is not noted brings up to date

_OWN, _LIBRARY, _TORCH, _NONE = range(4)  # whose code it is; fxgrad's is nobody's
_HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep

PLAIN = frozenset(
    (
        int,
        float,
        bool,
        complex,
        str,
        NoneType,
        EllipsisType,
        torch.dtype,
        torch.device,
        torch.layout,
        torch.memory_format,
        torch.Size,
        torch.Generator,
    )
)


class Repeats:
    """Which kind a call is of. `given`: the tensors that the call which was asked about last is given, with
    their versions, if it need not be noted."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._whose = ByCode()
        self.given: Given = []

    def find(self, func: object, args: Args, kwargs: Kwargs, origins: int) -> Kind | None:
        """The kind of a call that is about to run; None for one that is always noted. `origins`: of what it
        is given besides."""
        ledger = self._ledger
        recording = torch.is_grad_enabled()
        given: Given = []
        origins |= self._origins(args, given, recording)
        if kwargs:
            origins |= UNKNOWN if "out" in kwargs else self._origins(kwargs.values(), given, recording)
        if origins < 0:
            return None
        key = (
            func,
            self.place(sys._getframe(2), ledger.boundary),
            id(ledger.stack[-1]) if ledger.stack else 0,
            recording,
            torch.is_inference_mode_enabled(),
            origins,
        )
        try:
            kind = ledger.kinds.get(key)
        except TypeError:  # an unhashable callable
            return None
        if kind is None:
            if len(ledger.kinds) >= MOST:
                ledger.kinds.clear()
            kind = ledger.kinds[key] = Kind(origins)
        elif kind.left <= 0:
            self.given = given
        return kind

    def _origins(self, items: Iterable[Any], given: Given, recording: bool) -> int:
        found = 0
        for item in items:
            type_ = type(item)
            if type_ is torch.Tensor or type_ is nn.Parameter:
                found |= self._origins_of(item, given, recording)
            elif type_ in PLAIN:
                continue
            elif type_ is tuple or type_ is list:
                found |= self._origins(item, given, recording)
            elif type_ is slice:
                found |= self._origins((item.start, item.stop, item.step), given, recording)
            elif type_.__module__ != "numpy":
                return UNKNOWN
        return found

    def _origins_of(self, tensor: torch.Tensor, given: Given, recording: bool) -> int:
        tensors = self._ledger.tensors
        try:
            version = counter_of(tensor)
        except RuntimeError:
            version = version_of(tensor)
        given.append((tensor, version))
        light = tensors.light.get(id(tensor))
        if light is not None and light[0]() is tensor and light[2] == version:
            return self._ledger.origins[light[1]]
        slot = tensors.get(tensor)
        if slot is None or slot.version != version or tensor.requires_grad is (slot.edge is None):
            return UNKNOWN
        if slot.edge is not None and (recording or slot.edge[0] >= 0):
            return UNKNOWN
        return self._ledger.origins[slot.value]

    def place(
        self, frame: FrameType | None, boundary: CodeType | None, *, within: bool = False
    ) -> tuple[int, ...]:
        """The instruction that calls, and those of user code outwards to the first of the user's own files;
        no further than to the call of the module that runs now, where it is `within` that."""
        found: tuple[int, ...] = ()
        whose = self._whose
        while frame is not None:
            code = frame.f_code
            known = whose.get(id(code))
            kind = self._look(code) if known is None else known[0]
            if kind == _OWN or code is boundary:
                return (*found, id(code), frame.f_lasti)
            if kind == _LIBRARY or (kind == _TORCH and not found):
                found = (*found, id(code), frame.f_lasti)
            elif kind == _NONE and within and found:
                break
            frame = frame.f_back
        return found

    def _look(self, code: CodeType) -> int:
        file = code.co_filename
        if is_user_code(file):
            kind = _LIBRARY if "site-packages" in file else _OWN
        else:
            kind = _NONE if file.startswith(_HERE) else _TORCH
        self._whose.note(code, kind)
        return kind

    def noted(self, kind: Kind, note: Note | None, out: object) -> None:
        """A call of that kind was noted; None: it made and wrote nothing."""
        ledger = self._ledger
        if note is not None and note.kind == "escape":
            values, kind.code = tuple(note.makes), note.spots[0][0] if note.spots else None
        else:
            slots = [ledger.tensors.get(tensor) for tensor in tensors_in(out)]
            values = tuple(slot.value for slot in slots if slot is not None and slot.edge is None)
            if len(values) < len(slots):
                return
        kind.left -= 1
        kind.values, kind.tracked = values, ledger.tracked

    def stand(self, kind: Kind, given: Given, out: object) -> list[Read] | None:
        """Let what a call of that kind made stand for what the last noted one did. Where it must be noted
        after all, what it was given, as it was before."""
        ledger = self._ledger
        if ledger.just_read:
            ledger.just_read = []
        written = [tensor for tensor, version in given if version_of(tensor) != version]
        if written and not all(self._is_nothing_new(kind, tensor) for tensor in written):
            return self._before(given)
        made = (out,) if type(out) is torch.Tensor else tuple(tensors_in(out))
        if len(made) != len(kind.values):
            return self._before(given)
        for tensor, value in zip(made, kind.values, strict=True):
            for one, _ in given:
                if one is tensor:
                    break
            else:
                if tensor.requires_grad or type(tensor) is not torch.Tensor:
                    return self._before(given)
                ledger.tensors.stand(tensor, value)
        return None

    def _is_nothing_new(self, kind: Kind, written: torch.Tensor) -> bool:
        """Whether nobody will ask about a write: nothing new went in, and since the last that was noted
        nothing was differentiated that could have saved what was there."""
        ledger = self._ledger
        slot = ledger.tensors.get(written)
        siblings = ledger.tensors.sharing(written)
        if slot is None or kind.tracked != ledger.tracked or len(siblings) > SIBLINGS:
            return False
        for slot in siblings:
            if slot.edge is not None or kind.origins & ~ledger.origins[slot.value]:
                return False
        for slot in siblings:
            tensor = slot()
            if tensor is not None:
                slot.version = version_of(tensor)
        return True

    def _before(self, given: Given) -> list[Read]:
        found = []
        for tensor, version in given:
            slot = self._ledger.tensors.get(tensor)
            if slot is not None:
                slot.version = version
                found.append((tensor, slot, slot.value))
        return found
