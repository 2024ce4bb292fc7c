"""Everything that torch says about gradients, explained: one table, needed by reports and by `fxgrad
explain`.

The sentences themselves stand in `fxgrad.torch_api.errors`, and what an entry is in `entry.py`. Of two
entries whose sentences a message has, the earlier one counts. Nothing here imports torch, so that an error's
text is explained in less time than torch takes to load.
"""

from __future__ import annotations

from fxgrad.torch_api.errors import BROADLY, says
from fxgrad.torch_api.explanations.backward import BACKWARD
from fxgrad.torch_api.explanations.entry import Entry
from fxgrad.torch_api.explanations.functions import FUNCTIONS
from fxgrad.torch_api.explanations.leaves import LEAVES, OPTIMIZERS
from fxgrad.torch_api.explanations.transforms import PROCESSES, TRANSFORMS
from fxgrad.torch_api.explanations.warned import WARNED
from fxgrad.torch_api.explanations.writes import WRITES

# Python's own words come last: "'NoneType' object has no attribute 'backward'" is of a loss.
_PYTHON = tuple(entry for entry in LEAVES if entry.python)
EXPLANATIONS: tuple[Entry, ...] = (
    *(BACKWARD + FUNCTIONS + WRITES),
    *(entry for entry in LEAVES if not entry.python),
    *(OPTIMIZERS + PROCESSES + TRANSFORMS + WARNED),
    *reversed(_PYTHON),
)

# What a report is made of, when a program dies of it.
OF_GRADIENTS = (*(entry.kind for entry in EXPLANATIONS if not entry.warning and not entry.python), *BROADLY)


def explanation_of(message: str) -> Entry | None:
    """The entry of the table that a message of torch's is of; None for any other."""
    return next((entry for entry in EXPLANATIONS if says(message, entry.kind)), None)


__all__ = ["EXPLANATIONS", "OF_GRADIENTS", "Entry", "explanation_of"]
