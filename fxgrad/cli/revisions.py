"""A git revision of the project as a folder of its own, so that its code runs beside that of the working
tree.

The revision's files are written into a temporary folder through an index of its own: the user's working tree,
index, HEAD and hooks stay as they are. Not handled: submodules, which are empty there, files that git does
not track, and large files that Git LFS has not fetched.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fxgrad.records.errors import InputError


@dataclass(frozen=True, slots=True)
class Tree:
    """A revision in a folder: `root` stands for the repository's own `repository`."""

    root: str
    repository: str

    def of(self, path: str) -> str:
        """Where a path of the repository, absolute, is in this tree; another path as it is."""
        inside = path == self.repository or path.startswith(self.repository + os.sep)
        return self.root + path.removeprefix(self.repository) if inside else path

    def environment(self) -> dict[str, str]:
        """The environment of a process that imports the project's own code from this tree.

        What Python finds by a path into the repository (an editable install, PYTHONPATH) it finds here first.
        """
        here = [self.of(os.getcwd()), self.root, os.path.join(self.root, "src")]
        found = [self.of(entry) for entry in map(os.path.abspath, sys.path)]
        own = [entry for entry in found if entry.startswith(self.root)]
        path = [entry for entry in dict.fromkeys([*here, *own]) if os.path.isdir(entry)]
        return {**os.environ, "PYTHONPATH": os.pathsep.join([*path, os.environ.get("PYTHONPATH", "")])}


def repository() -> str | None:
    """The root of the repository around the current directory; None where there is none, or no git."""
    return _git("rev-parse", "--show-toplevel")


def is_revision(text: str) -> bool:
    """Whether git knows a commit by this name."""
    return _commit(text) is not None


def in_revision(revision: str, path: str) -> str | None:
    """The absolute name in the working tree of a path that a revision has: as git takes it, from the root, or
    from the current directory. None where it has no such path."""
    top = repository()
    if top is None or not is_revision(revision):
        return None
    for start in (top, os.getcwd()):
        name = os.path.relpath(os.path.join(start, path), top).replace(os.sep, "/")
        if not name.startswith("../") and _git("cat-file", "-e", f"{revision}:{name}") is not None:
            return os.path.join(top, *name.split("/"))
    return None


@contextmanager
def checked_out(revision: str) -> Iterator[Tree]:
    """The files of a revision, while the block runs.

    Raises:
        InputError: there is no such revision here, or git cannot write it.
    """
    top, commit = repository(), _commit(revision)
    if top is None:
        raise InputError(
            f"there is no git repository around {os.getcwd()}", hint="compare report files or models"
        )
    if commit is None:
        raise InputError(f"git knows no revision {revision}", hint="`git log --oneline` lists some")
    with tempfile.TemporaryDirectory(prefix="fxgrad-diff-") as folder:
        folder = os.path.realpath(folder)  # Python resolves the names of the files it runs
        root = os.path.join(folder, "tree")
        index = {**os.environ, "GIT_INDEX_FILE": os.path.join(folder, "index")}
        for command in (["read-tree", commit], ["checkout-index", "--all", f"--prefix={root}{os.sep}"]):
            done = subprocess.run(
                ["git", "-C", top, *command], env=index, capture_output=True, text=True, check=False
            )
            if done.returncode:
                said = next(iter(done.stderr.strip().splitlines()), "git fails")
                raise InputError(f"{revision} cannot be written to a folder: {said}")
        tree = Tree(root, top)
        os.makedirs(tree.of(os.getcwd()), exist_ok=True)
        yield tree


def _commit(revision: str) -> str | None:
    if not revision or revision.startswith("-"):
        return None
    return _git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")


def _git(*arguments: str) -> str | None:
    """What git says; None where it fails or is not there."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
