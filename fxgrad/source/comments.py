"""Suppression comments: `# fxgrad: ignore[FXG103,FXG105]`, or `# fxgrad: ignore` for every rule.

Made from the tokens of a file, so that the same words inside a string are not a comment. A reason may follow.
Empty or unclosed brackets suppress nothing: a slip must not silence every rule. Of a file that does not
tokenize, what stands before the error counts.
"""

from __future__ import annotations

import re
import tokenize
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from fxgrad.source.parsing import Source, load, tokens

_IGNORE = re.compile(r"#\s*fxgrad:\s*ignore(?:\s*\[([^\]]*)\]|(?![\w-])(?!\s*\[))")


def suppressions(file: str) -> Mapping[int, frozenset[str]]:
    """Per line (from 1) the codes its comment ignores; an empty set ignores all."""
    return _suppressions(load(file))


@lru_cache(maxsize=512)
def _suppressions(source: Source) -> Mapping[int, frozenset[str]]:
    found: dict[int, frozenset[str]] = {}
    # most files have none, and to find the tokens of a big one takes longer than an analysis
    written = any("fxgrad:" in line for line in source.lines)
    for token in tokens(source) if written else ():
        codes = _codes(token.string) if token.type == tokenize.COMMENT else None
        if codes is not None:
            found[token.start[0]] = codes
    return MappingProxyType(found)


def _codes(comment: str) -> frozenset[str] | None:
    """The codes a comment names; empty for all, None if it suppresses nothing."""
    codes: set[str] = set()
    matches = list(_IGNORE.finditer(comment))
    for match in matches:
        if match[1] is None:
            return frozenset()
        codes.update(code.strip().upper() for code in match[1].split(",") if code.strip())
    return frozenset(codes) if codes else None
