"""What a failed backward found overwritten: read off the very graph it failed on, which torch leaves in
place.

A saved tensor that has changed raises when it is unpacked, and its raw form still says which memory it is: so
the saver is the call that made its autograd node, and the overwriter the first later call that wrote that
storage. Nothing has to be watched while the program runs.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence

import torch
from torch.autograd.graph import Node

from fxgrad.records import Saved
from fxgrad.source.statements import read_in_backward
from fxgrad.torch_api.autograd_graph import kept_on, nodes_behind
from fxgrad.torch_api.errors import OVERWRITTEN, expected_version, says
from fxgrad.torch_api.internals import RAW_SAVED, version_of
from fxgrad.torch_api.tensors import shape_of
from fxgrad.trace.ledger import Ledger


def overwritten(ledger: Ledger, started: Sequence[Node]) -> Iterator[Saved]:
    """Every changed saved tensor behind the autograd nodes that a backward started from, with who saved it
    and who wrote it."""
    order = {note.number: index for index, note in enumerate(ledger.notes)}
    writers: dict[int, list[int]] = {}  # by storage, the places of the notes that wrote it
    for index, note in enumerate(ledger.notes):
        for storage in note.writes:
            writers.setdefault(storage, []).append(index)
    for function in nodes_behind(started):
        saver = order.get(ledger.edges.maker(function))
        if saver is None:
            continue
        for raw, expected in _changed(function):
            writing = writers.get(ledger.tensors.number_of(raw) or -1, [])
            # Only later ones: a call that saves what it writes itself (`exp_`) saves the result.
            later = bisect_right(writing, saver)
            if later < len(writing):
                names = f"n{ledger.notes[saver].number}", f"n{ledger.notes[writing[later]].number}"
                yield Saved(*names, shape_of(raw), expected, version_of(raw), True)


def hidden(ledger: Ledger, functions: Sequence[Node]) -> Iterator[Saved]:
    """Saved tensors whose memory was written past their version counter: the backward that is about to run
    will not notice."""
    for function in functions:
        saver = ledger.edges.maker(function)
        for name in dir(function):
            raws = _raw(function, name) if name.startswith(RAW_SAVED) else ()
            for raw in raws if isinstance(raws, tuple | list) else (raws,):
                data = _data(raw)
                if data is None or saver < 0:
                    continue
                later = [
                    number
                    for number in ledger.hidden.get(ledger.tensors.number_of(data) or -1, ())
                    if number > saver
                ]
                if later:
                    yield Saved(
                        f"n{saver}",
                        f"n{later[0]}",
                        shape_of(data),
                        version_of(data),
                        version_of(data),
                        False,
                    )


def kept_and_written(ledger: Ledger, functions: Sequence[Node]) -> Iterator[Saved]:
    """What custom Functions keep on their `ctx` and calls have written since: the backward that is about to
    run reads what is there now."""
    kept: list[tuple[int, str, torch.Tensor]] = []
    for function in functions:
        held, saver = tuple(kept_on(function)), ledger.edges.maker(function)
        if held and saver >= 0:
            read = read_in_backward(type(function))
            kept += ((saver, name, tensor) for name, tensor in held if name in read)
    if not kept:
        return
    writers: dict[int, list[int]] = {}
    for note in ledger.notes:
        for storage in note.writes:
            writers.setdefault(storage, []).append(note.number)
    for saver, name, tensor in kept:
        later = [n for n in writers.get(ledger.tensors.number_of(tensor) or -1, ()) if n > saver]
        if later:
            version = version_of(tensor)
            yield Saved(f"n{saver}", f"n{later[0]}", shape_of(tensor), version, version, False, name)


def _raw(function: object, name: str) -> object:
    """The raw saved tensor, or several; () where they were freed."""
    try:
        return getattr(function, name)
    except RuntimeError:
        return ()


def _data(raw: object) -> torch.Tensor | None:
    """The tensor behind a raw saved one; None where it was freed or is none."""
    try:
        data = getattr(raw, "data", None)
    except RuntimeError:
        return None
    return data if isinstance(data, torch.Tensor) else None


def _changed(function: object) -> Iterator[tuple[torch.Tensor, int]]:
    """The saved tensors of one node that cannot be unpacked any more, raw, and the version each was
    saved at."""
    for name in dir(function):
        if not name.startswith(RAW_SAVED):
            continue
        raw = _raw(function, name)
        message = _refusal(
            function, "saved_tensors" if name == "_raw_saved_tensors" else name.replace("_raw", "", 1)
        )
        if not says(message, OVERWRITTEN):
            continue
        for one in raw if isinstance(raw, tuple | list) else (raw,):
            data = _data(one)
            if data is not None:
                yield data, expected_version(message) or 0


def _refusal(function: object, name: str) -> str:
    try:
        getattr(function, name)
    except RuntimeError as error:
        return str(error)
    return ""
