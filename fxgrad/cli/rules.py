"""`fxgrad rules`: the rules as a list, or as a static site in a folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from fxgrad.cli import explain
from fxgrad.cli.output import tell
from fxgrad.cli.rulebook import entries
from fxgrad.records.errors import InputError

EXAMPLES = """examples:
  fxgrad rules
  fxgrad rules --site docs/rules    a page for each rule, and index.html that lists them
"""


def add(command: argparse.ArgumentParser) -> None:
    """How it is written, and where the site goes."""
    explain.add_format(command)
    command.add_argument(
        "--site",
        metavar="DIR",
        help="write the documentation of the rules there, as HTML that needs nothing else",
    )


def run(arguments: argparse.Namespace) -> int:
    """The list on stdout, or the site."""
    if arguments.site is None:
        return explain.list_rules(arguments)
    from fxgrad.report.html.rules import site
    from fxgrad.source.files import replace_file

    folder = Path(arguments.site)
    files = site(entries())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            replace_file(folder / name, text.encode())
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written: {error.strerror}", hint="give a folder that can be written"
        ) from error
    tell(f"fxgrad: {folder / 'index.html'} and {len(files) - 1} pages written")
    return 0
