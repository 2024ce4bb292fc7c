"""Mended files on their way to disk: the diff that `git apply` takes, and a write that is all or nothing."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from fxgrad.fix_source import patch
from fxgrad.fix_source.patch import Mended
from fxgrad.fix_source.sheet import apply, read, sheet
from fxgrad.records import Edit, Site
from fxgrad.records.errors import FixError


def mended(file: Path, *pairs: tuple[str, str], code: str = "FXG201") -> Mended:
    """The file with each first text replaced by the second."""
    made = Mended.unchanged(read(str(file)))
    for old, new in pairs:
        assert old in made.text
        made = made.changed(made.text.replace(old, new, 1), code, "safe")
    return made


def written(file: Path, content: str | bytes) -> Path:
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


TEXT = "def f(y):\n    a = 1\n    b = 2\n    y += 1\n    c = 3\n    d = 4\n    e = 5\n    g = 6\n    h = 7\n    i = 8\n    j = 9\n    y[0] = 0\n    return y\n"


def test_each_hunk_is_labelled_with_its_codes_and_their_safety(tmp_path: Path) -> None:
    made = mended(written(tmp_path / "net.py", TEXT), ("y += 1", "y = y + 1"))
    made = made.changed(made.text.replace("    y[0]", "    y = y.clone()\n    y[0]"), "FXG202", "unsafe")
    assert made.diff(str(tmp_path)) == (
        "--- a/net.py\n"
        "+++ b/net.py\n"
        "@@ -1,7 +1,7 @@ FXG201 safe\n"
        " def f(y):\n     a = 1\n     b = 2\n-    y += 1\n+    y = y + 1\n     c = 3\n     d = 4\n     e = 5\n"
        "@@ -9,5 +9,6 @@ FXG202 unsafe\n"
        "     h = 7\n     i = 8\n     j = 9\n+    y = y.clone()\n     y[0] = 0\n     return y\n"
    )


def test_a_deleted_line_keeps_its_label(tmp_path: Path) -> None:
    made = mended(written(tmp_path / "net.py", TEXT), ("    c = 3\n", ""), code="FXG104")
    assert "@@ FXG104 safe\n" in made.diff(str(tmp_path))


def test_labels_follow_their_lines_through_later_edits(tmp_path: Path) -> None:
    made = mended(written(tmp_path / "net.py", TEXT), ("y += 1", "y = y + 1"))
    made = made.changed("# new\n" * 9 + made.text, "FXG104", "unsafe")
    headers = [line.partition("@@ ")[2].partition("@@ ")[2] for line in made.diff(str(tmp_path)).splitlines() if line.startswith("@@")]
    assert headers == ["FXG104 unsafe, FXG201 safe"]


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("net.py", TEXT.encode()),
        ("a folder/my net.py", TEXT.encode()),
        ("crlf.py", TEXT.replace("\n", "\r\n").encode()),
        ("no_newline.py", TEXT.removesuffix("\n").encode()),
        ("ünïcode.py", ("# größer\n" + TEXT).encode()),
        ("tabs.py", TEXT.replace("    ", "\t").encode()),
        ("new\n--- a/other.py.py", TEXT.encode()),
        ('said "so" and\\back\t.py', TEXT.encode()),
        ("größe\x1b[2J.py", TEXT.encode()),
    ],
)
def test_git_apply_takes_the_diff(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    file = written(tmp_path / name, content)
    made = mended(file, ("y += 1", "y = y + 1"), ("return y", "return y + 1"))
    diff = made.diff(str(tmp_path))
    subprocess.run(["git", "apply", "--whitespace=nowarn", "-"], cwd=tmp_path, input=diff.encode(), check=True)
    assert file.read_bytes() == content.replace(b"y += 1", b"y = y + 1").replace(b"return y", b"return y + 1")


def test_nothing_changed_is_no_diff(tmp_path: Path) -> None:
    assert mended(written(tmp_path / "net.py", TEXT)).diff(str(tmp_path)) == ""


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(TEXT.replace("\n", "\r\n").encode(), id="crlf"),
        pytest.param(b"# -*- coding: latin-1 -*-\n# gr\xf6\xdfer\n" + TEXT.encode(), id="latin-1"),
        pytest.param(b"\xef\xbb\xbf" + TEXT.encode(), id="byte order mark"),
        pytest.param(TEXT.replace("    ", "\t").encode(), id="tabs"),
        pytest.param(TEXT.removesuffix("\n").encode(), id="no newline at the end"),
        pytest.param(("\x0c\n# \u2028 is no line end\n" + TEXT).encode(), id="form feed"),
    ],
)
def test_writing_changes_nothing_but_the_edit(tmp_path: Path, content: bytes) -> None:
    file = written(tmp_path / "net.py", content)
    assert patch.write([mended(file, ("y += 1", "y = y + 1"))]) == (str(file),)
    assert file.read_bytes() == content.replace(b"y += 1", b"y = y + 1")


def test_permissions_stay(tmp_path: Path) -> None:
    file = written(tmp_path / "net.py", TEXT)
    file.chmod(0o751)
    patch.write([mended(file, ("y += 1", "y = y + 1"))])
    assert stat.S_IMODE(file.stat().st_mode) == 0o751


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    target = written(tmp_path / "real.py", TEXT)
    link = tmp_path / "net.py"
    link.symlink_to(target)
    patch.write([mended(link, ("y += 1", "y = y + 1"))])
    assert link.is_symlink()
    assert "y = y + 1" in target.read_text()


def test_a_file_that_changed_meanwhile_is_refused_and_none_is_written(tmp_path: Path) -> None:
    one, two = written(tmp_path / "one.py", TEXT), written(tmp_path / "two.py", TEXT)
    files = [mended(file, ("y += 1", "y = y + 1")) for file in (one, two)]
    two.write_text(TEXT + "# mine\n")
    with pytest.raises(FixError, match="changed while it was being mended"):
        patch.write(files)
    assert (one.read_text(), two.read_text()) == (TEXT, TEXT + "# mine\n")


def test_a_crash_before_the_replacement_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path / "net.py", TEXT)

    def crash(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(FixError, match="No space left"):
        patch.write([mended(file, ("y += 1", "y = y + 1"))])
    assert os.listdir(tmp_path) == ["net.py"]
    assert file.read_text() == TEXT


def test_a_character_that_the_encoding_lacks_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path / "net.py", b"# -*- coding: ascii -*-\n" + TEXT.encode())
    with pytest.raises(FixError, match="stored as ascii"):
        patch.write([mended(file, ("y += 1", "y = y + 1  # größer"))])


def test_edits_describe_the_same_change(tmp_path: Path) -> None:
    file = written(tmp_path / "net.py", TEXT)
    made = mended(file, ("y += 1", "y = y + 1"), ("    y[0]", "    y = y.clone()\n    y[0]"))
    assert apply(TEXT, str(file), made.edits()) == made.text


def test_an_edit_whose_old_text_is_gone_is_refused(tmp_path: Path) -> None:
    edit = Edit(Site("net.py", 4, 5, 4, 11), "y -= 1", "y = y - 1")
    with pytest.raises(FixError, match="not what it was"):
        apply(TEXT, "net.py", (edit,))


def test_overlapping_edits_are_refused() -> None:
    page = sheet("net.py", TEXT)
    start = TEXT.index("y += 1")
    with pytest.raises(FixError, match="overlap"):
        apply(TEXT, "net.py", (page.edit(start, start + 6, "pass"), page.edit(start + 2, start + 6, "-= 1")))


def test_a_read_only_file_is_not_rewritten(tmp_path: Path) -> None:
    file = written(tmp_path / "net.py", TEXT)
    file.chmod(0o444)
    with pytest.raises(FixError, match=r"cannot write .*net\.py: the file is read-only"):
        patch.write([mended(file, ("y += 1", "y = y + 1"))])
    assert file.read_text() == TEXT
    assert os.listdir(tmp_path) == ["net.py"]
