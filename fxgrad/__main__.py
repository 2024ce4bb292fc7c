"""`python -m fxgrad`: the same as the console script `fxgrad`."""

from __future__ import annotations

from fxgrad.cli import entry

if __name__ == "__main__":
    entry()
