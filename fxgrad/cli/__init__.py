"""The command line: `main` runs one, `entry` is the console script; each subcommand with a module of its own
has `add` and `run`."""

from __future__ import annotations

from fxgrad.cli.main import entry, main

__all__ = ["entry", "main"]
