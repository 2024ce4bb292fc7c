"""`--select` and `--ignore`: prefixes of rule codes, from text."""

from __future__ import annotations

from fxgrad.passes import RULES
from fxgrad.records.errors import InputError


def codes(text: str) -> tuple[str, ...]:
    """The prefixes in a comma-separated list.

    Raises:
        InputError: no rule's code begins so.
    """
    found = tuple(part.strip().upper() for part in text.split(",") if part.strip())
    for code in found:
        if not any(rule.CODE.startswith(code) for rule in RULES):
            raise InputError(f"there is no rule {code}", hint="`fxgrad rules` lists them")
    return found
