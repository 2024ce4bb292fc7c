"""Calls that construct an optimizer.

Made from parsed files by class name, import aliases resolved. Not handled: classes chosen at run time
(`OPTIMIZERS[name](...)`, `getattr(torch.optim, name)(...)`) and optimizers made by a library.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence

from fxgrad.records import Site
from fxgrad.source.names import last_word
from fxgrad.source.parsing import load, nodes, site_of


def optimizer_sites(files: Sequence[str], optimizer: object) -> tuple[Site, ...]:
    """Every `AdamW(...)` in the files for an `AdamW` (an instance or the class).

    Where none is, every `partial(AdamW, ...)`.
    """
    wanted = (optimizer if isinstance(optimizer, type) else type(optimizer)).__name__
    calls = [(source, call) for source in map(load, dict.fromkeys(files)) for call in nodes(source, ast.Call)]
    direct = [site_of(source, call) for source, call in calls if last_word(source, call.func) == wanted]
    if direct:
        return tuple(direct)
    deferred = [(s, call) for s, call in calls if last_word(s, call.func) == "partial" and call.args]
    return tuple(
        site_of(source, call) for source, call in deferred if last_word(source, call.args[0]) == wanted
    )
