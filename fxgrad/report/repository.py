"""A file's name as a repository has it: what code scanning and annotations expect, from whatever folder the
command runs in.

The root is the nearest folder, from the current directory up, that holds a `.git` (a folder, or the file of a
worktree or submodule); where there is none, the current directory. Not handled: files of another repository;
they are outside.
"""

from __future__ import annotations

import os
from pathlib import Path


def root() -> str:
    """The repository's root, or the current directory."""
    here = Path.cwd()
    return str(next((folder for folder in (here, *here.parents) if (folder / ".git").exists()), here))


def relative(file: str) -> str | None:
    """The file's name below the root, with slashes; None where it is outside, or no file (`<stdin>`).

    A name that leads there through a link counts; so does the name of a link that stands below the root.
    """
    if file.startswith("<"):
        return None
    top = root().rstrip(os.sep) + os.sep
    for path in (os.path.abspath(file), os.path.realpath(file)):
        if path.startswith(top):
            return path.removeprefix(top).replace(os.sep, "/")
    return None
