"""A file that gets new content in one step: whatever happens meanwhile (a full disk, Ctrl-C), it has the old
content or the new, whole.

The new content is written beside the file and then takes its name. A link stays a link to the file that is
replaced; permissions and owner stay. What is no file (`/dev/stdout`, a pipe) is written to; so is a file
whose folder allows no other beside it, or that is itself a mount: that is the one way to write it. Not
handled: other hard links, which keep the old content, and access lists.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

# A folder without permission to write, or a file mounted alone into a container.
_IN_PLACE = frozenset({errno.EACCES, errno.EPERM, errno.EBUSY})


def replace_file(path: str | Path, content: bytes) -> None:
    """Give the file this content in one step; it need not exist yet.

    Raises:
        OSError: it is a folder, is read-only, or cannot be written: then it is as before.
    """
    with replacing(path) as stream:
        stream.write(content)


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A stream whose content is the file's when the block ends, and is dropped when it raises.

    Raises:
        OSError: as `replace_file`.
    """
    status = _status(path)
    # The name of a pipe (`/dev/stdout`) leads nowhere when it is resolved.
    is_file = status is None or stat.S_ISREG(status.st_mode)
    target = os.path.realpath(path) if is_file else os.fspath(path)
    if status is not None and not _is_writable(target, status):
        raise PermissionError(errno.EACCES, "the file is read-only", target)
    beside = _beside(target, status)
    if beside is None:
        whole = io.BytesIO()
        yield whole
        _write(target, whole.getvalue())
        return
    stream, name = beside
    try:
        with stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        if status is not None:
            # another owner's file, written by a group member
            with contextlib.suppress(OSError, AttributeError):
                os.chown(name, status.st_uid, status.st_gid)
            os.chmod(name, stat.S_IMODE(status.st_mode))
        _take_name(name, target)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(name)


def _status(target: str | Path) -> os.stat_result | None:
    try:
        return os.stat(target)
    except FileNotFoundError:
        return None


def _is_writable(target: str, status: os.stat_result) -> bool:
    """Whether its mode lets anybody write, and us: an administrator may write everything, and would not mean
    to."""
    return bool(status.st_mode & 0o222) and os.access(target, os.W_OK)


def _beside(target: str, status: os.stat_result | None) -> tuple[BinaryIO, str] | None:
    """A new file in the same folder, with the permissions that a new file has (`tempfile`'s are the owner's
    alone); None where one cannot take the name of what is there.

    Raises:
        OSError: there is nothing there yet, and nothing can be made; or there is a folder.
    """
    if status is not None and stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", target)
    if status is not None and not stat.S_ISREG(status.st_mode):
        return None
    name = os.path.join(os.path.dirname(target), f".fxgrad-{secrets.token_hex(8)}")
    try:
        handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    except OSError as error:
        if status is None or error.errno not in _IN_PLACE:
            raise
        return None
    return os.fdopen(handle, "wb"), name


def _take_name(name: str, target: str) -> None:
    try:
        os.replace(name, target)
    except OSError as error:
        if error.errno not in _IN_PLACE:
            raise
        with open(name, "rb") as made:
            _write(target, made.read())


def _write(target: str, content: bytes) -> None:
    with open(target, "wb") as stream:
        stream.write(content)
