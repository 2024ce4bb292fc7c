"""The cells of a notebook, which IPython compiles under file names that nobody has seen
(`/tmp/ipykernel_812/1179028574.py`, `<ipython-input-2-...>`).

Asks the IPython that this process runs in, if any: only that knows its cells. Not handled: a report that was
made in another process.
"""

from __future__ import annotations

import sys


def cell_name(file: str) -> str:
    """`Cell [2]`, the number being that in front of the cell; "" for any other file."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None and hasattr(ipython, "get_ipython") else None
    name_of = getattr(getattr(shell, "compile", None), "format_code_name", None)  # IPython 7.23 and newer
    said = name_of(file) if name_of is not None else None
    return f"{said[0]} {said[1].removeprefix('In')}" if said else ""
