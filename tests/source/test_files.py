"""A file is replaced in one step, and the old one is whole whatever goes wrong."""

from __future__ import annotations

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fxgrad import InputError
from fxgrad.cli.output import write
from fxgrad.pytest_plugin import compare
from fxgrad.report import Report
from fxgrad.report.baseline import write_baseline
from fxgrad.source.files import replace_file, replacing

OLD = "what was there\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "file.txt"
    made.write_text(OLD)
    return made


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file may grow over 4 KiB."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


MANY = {f"layers.{number}.weight": "flows" for number in range(1000)}


def snapshot(path: Path) -> None:
    compare(path, MANY, update=True)


def baseline(path: Path) -> None:
    from fxgrad.records import Finding

    write_baseline(path, Report(MANY, tuple(Finding("FXG101", "unused-parameter", "error", "m", parameters=(name,)) for name in MANY)))


WRITERS: dict[str, Callable[[Path], None]] = {
    "bytes": lambda path: replace_file(path, b"x" * 100_000),
    "report": lambda path: write("x" * 100_000, str(path)),
    "baseline": baseline,
    "snapshot": snapshot,
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_leaves_the_old_file(file: Path, writer: str, full_disk: None) -> None:
    with pytest.raises((OSError, InputError)):
        WRITERS[writer](file)
    assert file.read_text() == OLD
    assert os.listdir(file.parent) == ["file.txt"]


def test_ctrl_c_leaves_the_old_file(file: Path) -> None:
    def stopped() -> None:
        with replacing(file) as stream:
            stream.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert file.read_text() == OLD
    assert os.listdir(file.parent) == ["file.txt"]


@pytest.mark.parametrize("writer", WRITERS)
def test_a_read_only_file_is_not_written(file: Path, writer: str) -> None:
    file.chmod(0o444)
    with pytest.raises((OSError, InputError), match="read-only"):
        WRITERS[writer](file)
    assert file.read_text() == OLD


def test_a_link_stays_one_and_permissions_stay(file: Path) -> None:
    file.chmod(0o640)
    link = file.parent / "link"
    link.symlink_to(file)
    replace_file(link, b"new")
    assert link.is_symlink()
    assert file.read_text() == "new"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_a_link_to_nothing_makes_its_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "later")
    replace_file(tmp_path / "link", b"new")
    assert (tmp_path / "later").read_text() == "new"


def test_a_new_file_has_the_permissions_of_one(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    replace_file(tmp_path / "new", b"new")
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_another_hard_link_keeps_the_old_content(file: Path) -> None:
    other = file.parent / "other"
    os.link(file, other)
    replace_file(file, b"new")
    assert (file.read_text(), other.read_text()) == ("new", OLD)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="it is a folder"):
        write("text", str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_a_pipe_is_written_to() -> None:
    line = [sys.executable, "-c", "from fxgrad.cli.output import write; write('text', '/dev/stdout'); write('text', '/dev/null')"]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert done.stdout == "text\n"
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.parametrize("call", ["open", "replace"])
@pytest.mark.parametrize("code", [errno.EACCES, errno.EBUSY])
def test_a_file_that_allows_no_other_beside_it_is_written_in_place(
    file: Path, call: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*args: object) -> None:
        raise OSError(code, "no")

    identity = file.stat().st_ino
    monkeypatch.setattr(os, call, refused)
    replace_file(file, b"new")
    assert file.read_text() == "new"
    assert file.stat().st_ino == identity
