"""Edits of texts of every kind: what a tree of `ast` does not hold (brackets, comments, line ends, encodings) stays as it was, byte for byte."""

from __future__ import annotations

import ast
import codecs
import re
import sys
import textwrap
from pathlib import Path

import pytest

from fxgrad.fix_source.sheet import Sheet, apply, read, sheet
from fxgrad.fix_source.trouble import Trouble
from fxgrad.fix_source.ways.changes_of_intent import unsafe_proposals
from fxgrad.fix_source.ways.every_way import proposals
from fxgrad.records import Finding, Site
from fxgrad.records.errors import FixError

FILE = "/somewhere/net.py"


def place_of(page: Sheet, piece: str) -> Site:
    """Where a piece of text first stands, by the characters before it."""
    start = page.text.index(piece)
    return page.edit(start, start + len(piece), "").site


def mended(page: Sheet, piece: str, operation: str = "Tensor.mul_") -> str:
    """The text with the likeliest edit of a write made."""
    site = place_of(page, piece)
    trouble = Trouble(Finding("FXG201", "", "error", "", site), stack=(site,), operation=operation)
    return apply(page.text, page.file, next(iter(proposals(lambda _: page, trouble))).edits)


def changed(page: Sheet, piece: str, code: str) -> str:
    """The text with the likeliest edit that changes intent made."""
    trouble = Trouble(Finding(code, "", "error", "", place_of(page, piece), parameters=("w",)))
    return apply(page.text, page.file, next(iter(unsafe_proposals(lambda _: page, trouble))).edits)


@pytest.mark.parametrize(
    ("text", "piece", "want"),
    [
        ("x = a", "a", "a"),
        ("x = ((a))", "a", "((a))"),
        ("f(a)", "a", "a"),
        ("f((a))", "a", "(a)"),
        ("f((a), b)", "a", "(a)"),
        ("f(k=(a))", "a", "(a)"),
        ("f(*(a))", "a", "(a)"),
        ("(a)(b)", "a", "(a)"),
        ("g(f)((a)\n)", "a", "(a)"),
        ("((a).b)", "a", "(a)"),
        ("x = (a), b", "a", "(a)"),
        ("with (a): pass", "a", "(a)"),
        ("x = (  # one ) and (\n    a  # another (\n)", "a", "(  # one ) and (\n    a  # another (\n)"),
        ("x = ( \\\n a \\\n )", "a", "( \\\n a \\\n )"),
        ("x = '(' + a + ')'", "a", "a"),
        ("x = 'é' + (a)", "a", "(a)"),
        ("x = f'é {( a )} {{(b)}}'", "a", "( a )"),
        ("x = f'''\n({(a)!r:>{(b)}})'''", "b", "(b)"),
        ("x\f=\t(\fa\t)", "a", "(\fa\t)"),
    ],
)
def test_the_parentheses_around_an_expression(text: str, piece: str, want: str) -> None:
    page = sheet(FILE, text)
    node = next(node for node in page.of_kind(ast.Name) if node.id == piece)
    assert page.outer_source(node) == want
    assert page.is_parenthesized(node) == (want != piece)


@pytest.mark.parametrize(("text", "want"), [("(a, b)", True), ("()", True), ("a, b", False), ("(a), b", False), ("((a), b)", True)])
def test_a_tuple_has_parentheses_of_its_own(text: str, want: bool) -> None:
    page = sheet(FILE, text)
    assert page.is_parenthesized(next(page.of_kind(ast.Tuple))) == want


WRITES = [
    ("y.mul_(2)", "y = y.mul(2)"),
    ('"é漢😀"; y.mul_(2); y = y', '"é漢😀"; y = y.mul(2); y = y'),
    ("if c: y.mul_(2)", "if c: y = y.mul(2)"),
    ("(y\n  .mul_(2))  # twice", "y = (y\n  .mul(2))  # twice"),
    ("x = y.mul_(2)", "x = y.mul(2)"),
    ("x = y.mul_(2)\nf(y)", "x = y = y.mul(2)\nf(y)"),
    ("f(y.mul_(2))\ny = 1", "f(y.mul(2))\ny = 1"),
    ("f(y.mul_(2))\ndel y", "f(y.mul(2))\ndel y"),
    ("f(y.mul_(2))\nf(y)", "f((y := y.mul(2)))\nf(y)"),
    ("f((y.mul_(2)))\ny += 1", "f((y := (y.mul(2))))\ny += 1"),
    ("(z := y.mul_(2))\nf(y)", "(z := (y := y.mul(2)))\nf(y)"),
    ("x = f'é {y.mul_(2)!r:>{n}} y'", "x = f'é {y.mul(2)!r:>{n}} y'"),
    ("x = (f'é'\n  f'''\n{ y.mul_(2) } é''')\nf(y)", "x = (f'é'\n  f'''\n{ (y := y.mul(2)) } é''')\nf(y)"),
    ("try:\n  f()\nexcept* E:\n  y.mul_(2)", "try:\n  f()\nexcept* E:\n  y = y.mul(2)"),
    ("x = [y.mul_(2) for y in z]", "x = [y.mul(2) for y in z]"),
    pytest.param(
        "def g[T: (int)](y: T): y.mul_(2)",
        "def g[T: (int)](y: T): y = y.mul(2)",
        marks=pytest.mark.skipif(sys.version_info < (3, 12), reason="type parameters came with Python 3.12"),
    ),
    pytest.param(
        'x = f"{f"{y.mul_(2)}" + "é"}"',
        'x = f"{f"{y.mul(2)}" + "é"}"',
        marks=pytest.mark.skipif(sys.version_info < (3, 12), reason="quotes within quotes came with Python 3.12"),
    ),
    pytest.param(
        "try:\n  f()\nexcept A, B:\n  x = t'{(y.mul_(2))}'",
        "try:\n  f()\nexcept A, B:\n  x = t'{(y.mul(2))}'",
        marks=pytest.mark.skipif(sys.version_info < (3, 14), reason="template strings came with Python 3.14"),
    ),
]


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"], ids=["lf", "crlf", "cr"])
@pytest.mark.parametrize(("body", "want"), WRITES)
def test_a_write_in_a_statement_of_each_kind(body: str, want: str, ending: str) -> None:
    def text(body: str) -> str:
        return ("@dec(\n  1)\nasync def f(self, y=None):\n" + textwrap.indent(body, "\t") + "\n").replace("\n", ending)

    page = sheet(FILE, text(body))
    assert mended(page, re.findall(r"y\s*\.mul_\(2\)", page.text)[0]) == text(want)


@pytest.mark.parametrize(
    ("body", "want"),
    [
        ("match x:\n    case [y, *_]:\n        y.mul_(2)", "match x:\n    case [y, *_]:\n        y = y.mul(2)"),
        ("match x:\n    case [*y]:\n        y.mul_(2)", "match x:\n    case [*y]:\n        y = y.mul(2)"),
        ("match x:\n    case {**y}:\n        y.mul_(2)", "match x:\n    case {**y}:\n        y = y.mul(2)"),
        ("from m import y\ny.mul_(2)", "from m import y\ny = y.mul(2)"),
        ("with c as y: y.mul_(2)", "with c as y: y = y.mul(2)"),
        ("async for y in x:\n\ty.mul_(2)", "async for y in x:\n\ty = y.mul(2)"),
        ("for [_, *y] in x: y.mul_(2)", "for [_, *y] in x: y = y.mul(2)"),
        ("import y\ny.mul_(2)", "import y\ny = y.mul(2)"),
        ("class y: pass\ny.mul_(2)", "class y: pass\ny = y.mul(2)"),
        ("f(y := x)\ny.mul_(2)", "f(y := x)\ny = y.mul(2)"),
    ],
)
def test_what_binds_a_name_makes_it_the_function_s_own(body: str, want: str) -> None:
    def text(body: str) -> str:
        return "async def f(x):\n" + textwrap.indent(body, "    ")

    assert mended(sheet(FILE, text(body)), "y.mul_(2)") == text(want)


@pytest.mark.parametrize(
    ("body", "want"),
    [
        ("y += x", "y = y + x"),
        ('"é"; y += x', '"é"; y = y + x'),
        ("y  +=  x , 1", "y  = y +  (x , 1)"),
        ("y += (x , 1)", "y = y + (x , 1)"),
        ("y *= x + 1", "y = y * (x + 1)"),
        ("y *= (x  # a ) here\n  + 1)", "y = y * (x  # a ) here\n  + 1)"),
        ("y \\\n  **= \\\n  x", "y \\\n  = y ** \\\n  x"),
        ("y -= not x", "y = y - (not x)"),
        ("y @= x if c else z", "y = y @ (x if c else z)"),
        ("y <<= x | 1", "y = y << (x | 1)"),
        ("y /= (yield x)", "y = y / (yield x)"),
        ("y /= yield x", "y = y / (yield x)"),
    ],
)
def test_an_augmented_assignment(body: str, want: str) -> None:
    text = f"def f(y, x):\n    {body}\n"
    assert mended(sheet(FILE, text), body.removeprefix('"é"; ')) == f"def f(y, x):\n    {want}\n"


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("y = 1\ndef f():\n    y.mul_(2)\n", "y = 1\ndef f():\n    global y\n    y = y.mul(2)\n"),
        (
            "def g(y):\n  def f():\n    '''doc'''\n    y.mul_(2)\n",
            "def g(y):\n  def f():\n    '''doc'''\n    nonlocal y\n    y = y.mul(2)\n",
        ),
        ("y = 1\ndef f(): y.mul_(2)\n", "y = 1\ndef f(): global y; y = y.mul(2)\n"),
        ("def f():\n    global y\n    y.mul_(2)\n", "def f():\n    global y\n    y = y.mul(2)\n"),
        # A class between the functions binds for its own body only.
        (
            "def g(y):\n  class C:\n    y = 1\n    def f(self):\n      y.mul_(2)\n",
            "def g(y):\n  class C:\n    y = 1\n    def f(self):\n      nonlocal y\n      y = y.mul(2)\n",
        ),
        # The word stands before what the function begins with, whatever that is.
        (
            "y = 1\ndef f(x):\n    while x:\n        y.mul_(2)\n",
            "y = 1\ndef f(x):\n    global y\n    while x:\n        y = y.mul(2)\n",
        ),
        (
            "y = 1\ndef f(x):\n    @d\n    def g(): pass\n    y.mul_(2)\n",
            "y = 1\ndef f(x):\n    global y\n    @d\n    def g(): pass\n    y = y.mul(2)\n",
        ),
    ],
)
def test_a_variable_of_another_scope_is_declared(text: str, want: str) -> None:
    assert mended(sheet(FILE, text), "y.mul_(2)") == want


@pytest.mark.parametrize(
    ("body", "piece", "code", "want"),
    [
        # Comments with a colon in a header over several lines.
        ("with (\n    no_grad(),  # off: here\n):\n    y = 1\n", "no_grad()", "FXG104", "y = 1\n"),
        ("with no_grad():  # off\n  y = '''\n  a'''\n  # why\n  z = 1\n", "no_grad()", "FXG104", "y = '''\n  a'''\n# why\nz = 1\n"),
        ("with open(x) as f, (no_grad()):\n    y = 1\n", "no_grad()", "FXG104", "with open(x) as f:\n    y = 1\n"),
        ("with no_grad() as g: y = 1\n", "no_grad()", "FXG104", None),
        ("with set_grad_enabled(( False )): y = 1\n", "set_grad_enabled(( False ))", "FXG104", "with set_grad_enabled(( True )): y = 1\n"),
        ("@a\n@no_grad()  # off\n@b\ndef f(): pass\n", "no_grad()", "FXG104", "@a\n@b\ndef f(): pass\n"),
        ("h = ( x ) . detach( )\n", "( x ) . detach( )", "FXG103", "h = ( x )\n"),
        ("'é'; h = detach(  # cut\n  (x))\n", "detach(  # cut\n  (x))", "FXG103", None),
        ("'é'; h = torch.detach(  # cut\n  (x))\n", "torch.detach(  # cut\n  (x))", "FXG103", "'é'; h = (x)\n"),
        ("if c:\n    h.detach_()\n", "h.detach_()", "FXG103", "if c:\n    pass\n"),
        ("if c:\n    f()\n    h.detach_()  # gone\n    g()\n", "h.detach_()", "FXG103", "if c:\n    f()\n    g()\n"),
        ("if c: f(); h.detach_()\n", "h.detach_()", "FXG103", "if c: f(); pass\n"),
        ("checkpoint(f, (x),)\n", "checkpoint(f, (x),)", "FXG114", "checkpoint(f, (x), use_reentrant=False,)\n"),
        (
            "opt = SGD(m)  # all\na = 1; b = 2\nf(opt)\n",
            "f(opt)",
            "FXG301",
            "a = 1; b = 2\nopt = SGD(m)  # all\nf(opt)\n",
        ),
        (
            "import torch\ndef f():\n\tw.zero_()\n",
            "w.zero_()",
            "FXG202",
            "import torch\ndef f():\n\twith torch.no_grad():\n\t\tw.zero_()\n",
        ),
    ],
)
@pytest.mark.parametrize("ending", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_an_edit_that_changes_intent(body: str, piece: str, code: str, want: str | None, ending: str) -> None:
    page = sheet(FILE, body.replace("\n", ending))
    if want is None:
        with pytest.raises(StopIteration):
            changed(page, piece.replace("\n", ending), code)
    else:
        assert changed(page, piece.replace("\n", ending), code) == want.replace("\n", ending)


@pytest.mark.parametrize(
    ("encoding", "mark", "head"),
    [
        ("utf-8", b"", ""),
        ("utf-8", codecs.BOM_UTF8, ""),
        ("latin-1", b"", "# coding: latin-1\n"),
        ("cp1252", b"", "#!/usr/bin/python\n# vim: fileencoding=cp1252\n"),
    ],
    ids=["utf-8", "mark", "latin-1", "cp1252"],
)
@pytest.mark.parametrize("ending", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_a_file_keeps_its_bytes(tmp_path: Path, encoding: str, mark: bytes, head: str, ending: str) -> None:
    text = (head + 'def f(ä):\n\t"""é\f"""\n\f\n\n\tx = "é"; ä.mul_(2)  # é \n\treturn x').replace("\n", ending)
    file = tmp_path / "net.py"
    file.write_bytes(mark + text.encode(encoding))
    stored = read(str(file))
    made = stored.encoded(mended(sheet(str(file), stored.text), "ä.mul_(2)"))
    assert made == mark + text.replace("ä.mul_", "ä = ä.mul").encode(encoding)


def test_what_does_not_parse_says_where() -> None:
    with pytest.raises(FixError, match=r"net.py does not parse: ") as caught:
        sheet(FILE, "x = 1\nx = = 2\n")
    assert caught.value.site is not None
    assert caught.value.site.line == 2


def test_an_invalid_escape_is_no_error_even_where_warnings_are(recwarn: pytest.WarningsRecorder) -> None:
    assert sheet(FILE, "x = '\\d'\n").nodes
    assert list(recwarn) == []
