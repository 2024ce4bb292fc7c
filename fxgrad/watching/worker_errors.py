"""Tensors with a history that a data set hands to another process: a worker cannot take them, or cannot send
them back.

Torch says so of a `stack(..., out=...)` in its own collating, or of a refusal to serialize; here the tensor
itself is looked for in the data set, and the line that computed it is named; else the `return` of the user's
own collating function (`worker_loop` lets such a worker say so) or of the data set's `__getitem__`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from types import TracebackType

import torch
from torch.utils.data import DataLoader, Dataset

from fxgrad.records import Site
from fxgrad.records.errors import InputError
from fxgrad.records.training import SentAway
from fxgrad.source.objects import code_of, origin
from fxgrad.source.sites import line_of_error, own_line, sites_of
from fxgrad.source.statements import return_sites
from fxgrad.torch_api.errors import IN_WORKER, OUT_ARGUMENT, SERIALIZED, says
from fxgrad.torch_api.internals import iterated
from fxgrad.trace.ledger import Ledger
from fxgrad.watching.variable_names import Names
from fxgrad.world.reach import Reach


def sent_away(error: BaseException | None, ledger: Ledger, names: Names) -> SentAway | None:
    """What such an error is about; None for any other."""
    if error is None or not _is_of_sending(str(error)):
        return None
    text = str(error)
    loaders = list(_loaders(error.__traceback__))
    datasets = [dataset for dataset, _ in loaders]
    if not datasets and not says(text, IN_WORKER):
        return None  # sent by the program itself
    read, tensors = line_of_error(error), _with_history(datasets)
    made = next((tensor for tensor in tensors if not tensor.is_leaf), None)
    if made is not None:
        return SentAway(read, False, names.of_tensor(made), _made(made, ledger))
    leaf = next(filter(None, map(names.of_tensor, tensors)), None)
    collating = _returned(function for _, function in loaders) if says(text, SERIALIZED) else None
    if collating is not None:
        return SentAway(read, True, leaf, collating, collated=True)
    item = _returned(getattr(type(dataset), "__getitem__", None) for dataset in datasets)
    return SentAway(read, True, leaf, item)


def _is_of_sending(text: str) -> bool:
    return says(text, SERIALIZED) or (says(text, IN_WORKER) and says(text, OUT_ARGUMENT))


def _with_history(datasets: Iterable[object]) -> list[torch.Tensor]:
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


def _loaders(traceback: TracebackType | None) -> Iterator[tuple[object, object]]:
    """The data sets that the frames of a traceback know, directly or by their loader, each with what collates
    its items."""
    while traceback is not None:
        for value in list(traceback.tb_frame.f_locals.values()):
            if isinstance(value, Dataset):
                yield value, None
            elif isinstance(value, DataLoader):
                yield value.dataset, value.collate_fn
            elif (known := iterated(value)) is not None:
                yield known
        traceback = traceback.tb_next


def _returned(functions: Iterable[object]) -> Site | None:
    """The last `return` of the first that is the user's."""
    for function in functions:
        code = code_of(function) or code_of(vars(type(function)).get("__call__"))
        if code is not None and origin(code.co_filename) == "user":
            returns = return_sites(code.co_filename, code.co_firstlineno)
            return returns[-1] if returns else None
    return None
