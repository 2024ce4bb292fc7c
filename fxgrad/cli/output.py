"""How the command line writes: data to stdout, talk to stderr, colour only on a terminal.

Colour needs the `rich` extra. It is there where `--color` says `always`, never where that says `never`; else
not with `NO_COLOR` in the environment (https://no-color.org), with `FORCE_COLOR` (https://force-color.org),
and on a terminal. On a terminal a rule's code is a link to the file that documents it. A reader that has gone
(`| head`) is no error. Not handled: colour in what a user's own program prints.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Iterator
from typing import Any, Literal

from fxgrad.records.errors import FxgradError, InputError
from fxgrad.records.plain_text import one_line, printable, without_commands

PAGE = 120  # columns where nobody's terminal says how many

# What of a report's text is painted. Later patterns win where they overlap.
STYLES = (
    (r"\A.*", "bold"),
    (r"(?<=\s)(none|blocked)(?=\s{2,}|$)", "red"),
    (r"(?<=\s)(zero|branch)(?=\s{2,}|$)", "yellow"),
    (r"(?<=\s)flows(?=\s|$)", "green"),
    (r"FXG\d{3}[^\[\n]*(?=\[)", "bold"),
    (r"\[error\]", "bold red"),
    (r"\[warning\]", "bold yellow"),
    (r"\[note\]", "bold blue"),
    (r"(?<=\| )\s*\^+", "red"),
    (r"^ *(path|starves|parameters|help|fix \(\w+\)):?", "dim"),
    (r"^-(?!--).*$", "red"),
    (r"^\+(?!\+\+).*$", "green"),
    (r"^@@.*$", "cyan"),
)


_CODE = re.compile(r"\bFXG\d{3}\b")


class _Manner:
    """What the command line says of the way it is to write."""

    colour: Literal["auto", "always", "never"] = "auto"
    quiet = False


@contextlib.contextmanager
def manner(colour: Literal["auto", "always", "never"], *, quiet: bool) -> Iterator[None]:
    """Write so inside the block."""
    before = _Manner.colour, _Manner.quiet
    _Manner.colour, _Manner.quiet = colour, quiet
    if colour == "always" and not importlib.util.find_spec("rich"):
        tell("fxgrad: colour needs rich: pip install rich")
    try:
        yield
    finally:
        _Manner.colour, _Manner.quiet = before


def say(text: str, *, coloured: bool = False, end: str = "\n") -> None:
    """Write data to stdout, painted where `coloured` and the reader is a terminal."""
    try:
        if is_terminal(sys.stdout) or coloured and wants_colour(sys.stdout):
            text = printable(text)
        if coloured and wants_colour(sys.stdout):
            _paint(text, end)
        else:
            print(text, end=end, flush=True)
    except BrokenPipeError:
        # else the interpreter flushes it again at exit, and complains
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def tell(line: str, *, error: bool = False) -> None:
    """Talk: one line on stderr, whatever names are in it; only errors where the user wants it quiet."""
    if error or not _Manner.quiet:
        print(without_commands(one_line(line)), file=sys.stderr)


def in_one_line(error: FxgradError) -> str:
    """Place, reason and hint."""
    where = ""
    if error.site:
        from fxgrad.source.excerpt import place

        where = f"{place(error.site)}: "
    hint = f" ({error.hint})" if error.hint else ""
    return " ".join(f"{where}{error.reason}{hint}".split())


def write(text: str, output: str | None, *, coloured: bool = False) -> None:
    """Write data to the file `output`, to stdout if there is none.

    Raises:
        InputError: the file cannot be written.
    """
    if output is None:
        say(text, coloured=coloured)
        return
    from fxgrad.source.files import replace_file

    try:
        replace_file(output, f"{text}\n".encode())
    except OSError as error:
        hint = (
            "give -o a path in a folder that exists"
            if isinstance(error, FileNotFoundError)
            else "give -o another file"
        )
        raise InputError(f"{output} cannot be written: {error.strerror}", hint=hint) from error
    tell(f"fxgrad: {output} written")


def wants_colour(stream: object) -> bool:
    """Whether text on this stream is painted."""
    if _Manner.colour == "auto":
        if os.environ.get("NO_COLOR"):
            return False
        wanted = bool(os.environ.get("FORCE_COLOR")) or (
            is_terminal(stream) and os.environ.get("TERM") != "dumb"
        )
    else:
        wanted = _Manner.colour == "always"
    return wanted and importlib.util.find_spec("rich") is not None


def is_terminal(stream: Any) -> bool:
    """Whether somebody may be looking."""
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):  # no stream at all, or a closed one
        return False


def width_of(stream: object) -> int:
    """How many columns a line may have: those of the terminal, or a page's where there is none."""
    return shutil.get_terminal_size().columns if is_terminal(stream) else PAGE


def _paint(text: str, end: str) -> None:
    from rich.console import Console
    from rich.text import Text

    painted = Text(text, end=end)
    for pattern, style in STYLES:
        painted.highlight_regex(rf"(?m){pattern}", style)
    if is_terminal(sys.stdout):
        from fxgrad.cli.rulebook import entries

        files = {rule.code: rule.file.resolve().as_uri() for rule in entries()}
        for found in _CODE.finditer(text):
            if found.group() in files:
                painted.stylize(f"link {files[found.group()]}", *found.span())
    # Wrapping is the terminal's: a copied line is the line that was written.
    Console(file=sys.stdout, force_terminal=True, highlight=False).print(painted, soft_wrap=True)
