"""Where ranks leave what they have seen for each other: the store of the launcher's agent, under a prefix of
its own.

Not the user's process group: its collectives wait for every rank, and the ranks that matter most here are
those that died or stand still. The agent of `torchrun` (of `accelerate launch` too, which starts it) serves a
TCPStore that outlives every rank, reaches all machines of a job and is at hand before and after
`init_process_group`; files in a folder would need one that all machines share, and something that tells this
run's from the last one's. Every call here returns at once or after `SECONDS`. Not handled: processes started
by hand or by mpirun, where the store is one of the ranks itself: each reports for itself there.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import threading
import zlib
from collections.abc import Mapping
from typing import Any

import torch.distributed

from fxgrad.torch_api.distributed import agent_store

SECONDS = 10.0  # that one call may take
CHUNK = 1 << 20  # the store takes values of a few megabytes
_MODULES = ("fxgrad.records.", "fxgrad.report.report", "fxgrad.watching.ranks.")


class Board:
    """Notes by name, each written once by one rank. A store that does not answer is a board where nothing is
    written."""

    def __init__(self, store: Any, rank: int, size: int) -> None:
        self.rank = rank
        self.size = size
        self._store = store
        self._lock = threading.Lock()

    def post(self, name: str, item: object) -> None:
        """Write a note: anything made of records and plain values."""
        data = zlib.compress(pickle.dumps(item), 1)
        parts = [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)]
        with self._lock, contextlib.suppress(RuntimeError):
            for index, part in enumerate(parts):
                self._store.set(f"{name}/{index}", part)
            self._store.set(name, str(len(parts)))

    def has(self, name: str) -> bool:
        """Whether the note is there."""
        with self._lock, contextlib.suppress(RuntimeError):
            return bool(self._store.check([name]))
        return False

    def read(self, name: str) -> object:
        """The note; None if it is not there, or cannot be read."""
        if not self.has(name):
            return None
        with (
            self._lock,
            contextlib.suppress(RuntimeError, pickle.UnpicklingError, zlib.error, ValueError, EOFError),
        ):
            count = int(self._store.get(name))
            return _Records(
                io.BytesIO(zlib.decompress(b"".join(self._store.get(f"{name}/{i}") for i in range(count))))
            ).load()
        return None


class _Records(pickle.Unpickler):
    """Reads records of fxgrad and plain values: whoever reaches the store must not be able to have code run
    here."""

    def find_class(self, module: str, name: str) -> object:
        if module.startswith(_MODULES) and "." not in name:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is no record")


def launched(environment: Mapping[str, str] = os.environ) -> Board | None:
    """The board of this process, where a launcher with an agent started it as one of several; None
    elsewhere."""
    if not torch.distributed.is_available() or environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    try:
        rank, size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
        host, port = environment["MASTER_ADDR"], int(environment["MASTER_PORT"])
    except (KeyError, ValueError):
        return None
    if size < 2:
        return None
    run, again = (
        environment.get("TORCHELASTIC_RUN_ID", ""),
        environment.get("TORCHELASTIC_RESTART_COUNT", "0"),
    )
    store = agent_store(host, port, size, f"fxgrad/{run}/{again}", SECONDS)
    return Board(store, rank, size) if store is not None else None
