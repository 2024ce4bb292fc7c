"""One report on all processes of a launcher: what each rank saw goes to rank 0, which puts it together and shows it."""

from __future__ import annotations
