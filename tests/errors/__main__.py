"""`python -m tests.errors`: write the table of errors into `tests/README.md`."""

from __future__ import annotations

from tests.errors.table import main

main()
