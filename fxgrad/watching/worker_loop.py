"""Workers of a DataLoader that say what they cannot send back.

A tensor with a history cannot leave its process. Where torch's own collating meets one, the worker sends an
error; what a collating function of the user's own returns is refused only in the thread that sends, which
writes a traceback, and the program waits for ever. While it is watched the worker sends that error instead.
"""

from __future__ import annotations

import contextlib
import multiprocessing.queues
from collections.abc import Iterator

from torch.utils.data import get_worker_info

from fxgrad.torch_api.errors import IN_WORKER, SERIALIZED, says
from fxgrad.torch_api.internals import WORKER_LOOP, WorkerError

_HOLDER, _NAME = WORKER_LOOP
_LOOP = getattr(_HOLDER, _NAME)
_ON_ERROR = (
    "_on_queue_feeder_error"  # of Python's queues: the thread that sends calls it with what it could not
)
_PLAIN = getattr(multiprocessing.queues.Queue, _ON_ERROR)


@contextlib.contextmanager
def told() -> Iterator[None]:
    """The workers that are started meanwhile do."""
    setattr(_HOLDER, _NAME, loop)
    try:
        yield
    finally:
        setattr(_HOLDER, _NAME, _LOOP)


def loop(*args: object, **kwargs: object) -> None:
    """The whole of a worker: by its name also where the process does not begin as a copy of this one."""
    setattr(multiprocessing.queues.Queue, _ON_ERROR, _send_instead)
    _LOOP(*args, **kwargs)


def _send_instead(queue: multiprocessing.queues.Queue[object], error: Exception, item: object) -> None:
    """The error in the place of a batch, which stands in a pair with its number."""
    worker = get_worker_info()
    if worker is None or not says(str(error), SERIALIZED) or not (isinstance(item, tuple) and len(item) == 2):
        _PLAIN(error, item)
        return
    queue.put((item[0], WorkerError(where=f"{IN_WORKER.phrases[0]} {worker.id}")))
