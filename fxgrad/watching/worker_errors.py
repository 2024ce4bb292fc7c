"""Tensors with a history that a data set hands to another process: a worker cannot take them, or cannot send
them back.

Torch says so of a `stack(..., out=...)` in its own collating, or of a refusal to serialize; here the tensor
itself is looked for in the data set, and the line that computed it is named. Not handled: a history made in a
worker, where only the line that reads the loader is known; what a collating function of the user's own
returns, for then the worker's thread dies and the program waits for ever.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from fxgrad.records import Site
from fxgrad.records.errors import InputError
from fxgrad.records.training import SentAway
from fxgrad.source.sites import line_of_error, own_line, sites_of
from fxgrad.torch_api.errors import IN_WORKER, OUT_ARGUMENT, SERIALIZED, says
from fxgrad.trace.ledger import Ledger
from fxgrad.watching.variable_names import Names
from fxgrad.world.reach import Reach


def sent_away(error: BaseException | None, ledger: Ledger, names: Names) -> SentAway | None:
    """What such an error is about; None for any other."""
    if error is None:
        return None
    text = str(error)
    if not says(text, SERIALIZED) and not (says(text, IN_WORKER) and says(text, OUT_ARGUMENT)):
        return None
    datasets = list(_datasets(error.__traceback__))
    if not datasets and not says(text, IN_WORKER):
        return None  # sent by the program itself
    read, tensors = line_of_error(error), _with_history(datasets)
    made = next((tensor for tensor in tensors if not tensor.is_leaf), None)
    if made is not None:
        return SentAway(read, False, names.of_tensor(made), _made(made, ledger))
    leaf = next((name for name in map(names.of_tensor, tensors) if name is not None), None)
    return SentAway(read, True, leaf, None)


def _with_history(datasets: Iterable[Any]) -> list[torch.Tensor]:
    """The tensors within reach of data sets that require grad."""
    reach = Reach()
    for dataset in datasets:
        with contextlib.suppress(InputError):  # too much to walk over: what was met until then is enough
            reach.walk(dataset)
    return [tensor for tensor in reach.tensors.values() if tensor.requires_grad]


def _made(tensor: torch.Tensor, ledger: Ledger) -> Site | None:
    """The line that computed it, or what it is a view of."""
    slot = ledger.tensors.get(tensor)
    if slot is None:
        return None
    makers = {value: note for note in ledger.notes for value in note.makes}
    note = makers.get(slot.value)
    while note is not None:
        known = (v for v in note.reads if v in makers)
        viewed = next((v for v in known if _storage(ledger, v) == slot.storage), None)
        if viewed is None or makers[viewed] is note:
            break
        note = makers[viewed]
    return own_line(sites_of(note.spots)) if note is not None else None


def _storage(ledger: Ledger, value: int) -> int:
    known = ledger.values[value]
    return known.storage if known is not None and known.requires_grad else -1


def _datasets(traceback: TracebackType | None) -> Iterator[Any]:
    """The data sets that the frames of a traceback know, directly or by their loader."""
    while traceback is not None:
        for value in list(traceback.tb_frame.f_locals.values()):
            if isinstance(value, Dataset):
                yield value
            elif isinstance(value, DataLoader):
                yield value.dataset
        traceback = traceback.tb_next
