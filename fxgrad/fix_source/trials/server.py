"""Trials of edited files in fresh processes, the user's files untouched: the calling side.

A trial sees the project through a *mirror*: a temporary folder that repeats the absolute paths of the edited
files, holds the edited texts, and links to everything that lies beside them. Nothing is written outside of
it. Not handled: programs that read their own source by an absolute path they have stored elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from fxgrad.fix_source.trials.job import Job, Subject, Trial
from fxgrad.records import Options
from fxgrad.records.errors import FixError

# the folder that holds the package, for a process that may not find it
_ROOT = str(Path(__file__).absolute().parents[3])
_PROJECT = ("pyproject.toml", "setup.py", "setup.cfg", ".git")


class Server:
    """A context manager around the process that runs each trial in a child of its own; may be shared by
    several `Trials`."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is None:
            return
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.kill()
        self._process.wait()
        self._process = None

    def ask(self, name: str, limit: int, *, fork: bool = True) -> str:
        """Have the job in that file done within so many seconds, in a fork of the server or in a new
        interpreter.

        Returns:
            How the child ended: "" if it did by itself, else the name of the signal, or "time" if it ran out
            of that.

        Raises:
            FixError: the process does not start.
        """
        if self._process is None:
            self._process = _started()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(f"{name}\t{limit}\t{'fork' if fork else 'spawn'}\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
            if answer:
                return answer.rstrip("\n").partition("\t")[2]
        raise FixError(
            "the process that tries edits does not start",
            hint=f"run `{sys.executable} -m fxgrad.fix_source.trials.worker` to see why",
        )


def _started() -> subprocess.Popen[str]:
    path = os.pathsep.join(filter(None, [_ROOT, os.environ.get("PYTHONPATH", "")]))
    return subprocess.Popen(
        [sys.executable, "-m", "fxgrad.fix_source.trials.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # One hash seed for all: what the user's program does in the order of a set, it does in every trial
        # alike.
        env={"PYTHONHASHSEED": "0", **os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
    )


class Trials:
    """A context manager that runs trials of one subject. `limit`: seconds a trial may take."""

    def __init__(self, subject: Subject, options: Options, server: Server, *, limit: int = 600) -> None:
        self.subject = subject
        self.options = options
        self.server = server
        self.limit = limit
        self._count = 0

    def __enter__(self) -> Trials:
        # resolved: the folder's name is looked for in paths that Python has resolved
        self._folder = os.path.realpath(tempfile.mkdtemp(prefix="fxgrad-mend-"))
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def run(self, texts: Mapping[str, bytes], *, first: bool = False, prove: bool = True) -> Trial:
        """Analyse the program with these contents in place of those files'. The first trial's numbers are the
        reference of all later."""
        self._count += 1
        root = os.path.join(self._folder, str(self._count))
        copies = mirror(texts, root)
        job = Job(
            subject=self.subject,
            options=self.options,
            texts=tuple(copies.items()),
            root=root,
            path=tuple(os.path.abspath(entry) for entry in sys.path),
            folder=os.getcwd(),
            reference=os.path.join(self._folder, "reference.pt"),
            make_reference=first,
            prove=prove,
        )
        name = root + ".job"
        Path(name).write_bytes(pickle.dumps(job))
        trial = self._outcome(name)
        shutil.rmtree(root, ignore_errors=True)
        return trial

    def _outcome(self, name: str) -> Trial:
        """The outcome of a job. A child that ends without one is no verdict on the edit: a fork can lose a
        lock that a library held, and a machine short of memory kills at random. So it is tried once more, in
        an interpreter that shares nothing with the first."""
        ended = ""
        for fork in (True, False):
            ended = self.server.ask(name, self.limit, fork=fork)
            with contextlib.suppress(FileNotFoundError):
                trial: Trial = pickle.loads(Path(name + ".out").read_bytes())
                return trial
        return Trial(
            error=f"the program took more than {self.limit} s"
            if ended == "time"
            else f"the program crashed ({ended or 'it left'})"
        )


def mirror(texts: Mapping[str, bytes], root: str) -> dict[str, str]:
    """The mirror of these files below `root`; returns each file's copy."""
    os.makedirs(root)
    copies = {file: root + os.path.splitdrive(os.path.abspath(file))[1] for file in texts}
    edited = {os.path.abspath(file) for file in texts}
    folders: set[str] = set()
    for file in edited:
        folder = os.path.dirname(file)
        top = project_of(file)
        folders.add(folder)
        while folder != top:
            folder = os.path.dirname(folder)
            folders.add(folder)
    for folder in sorted(folders):
        _linked(folder, root + os.path.splitdrive(folder)[1], {*folders, *edited})
    for file, content in texts.items():
        Path(copies[file]).write_bytes(content)
    return copies


def _linked(folder: str, copy: str, own: set[str]) -> None:
    """The folder's entries as links, but for those that the mirror has itself. Compiled files are left out:
    they are of other texts."""
    os.makedirs(copy, exist_ok=True)
    for entry in os.scandir(folder):
        if entry.path in own or entry.name == "__pycache__":
            continue
        target = os.path.join(copy, entry.name)
        try:
            os.symlink(entry.path, target)
        except OSError:  # a system without links
            with contextlib.suppress(OSError):
                shutil.copy2(entry.path, target) if entry.is_file() else shutil.copytree(entry.path, target)


def project_of(file: str) -> str:
    """The nearest folder around a file that holds a project's own files; the file's folder, or its package's,
    where there is none."""
    folder = os.path.dirname(os.path.abspath(file))
    for parent in (folder, *map(str, Path(folder).parents)):
        if any(os.path.exists(os.path.join(parent, name)) for name in _PROJECT):
            return parent
    while os.path.exists(os.path.join(folder, "__init__.py")) and os.path.dirname(folder) != folder:
        folder = os.path.dirname(folder)
    return folder
