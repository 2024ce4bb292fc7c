"""`primaryLocationLineHash`: the name that GitHub's code scanning knows a line by, so that an alert stays the
same alert while the file around it moves.

The same numbers that GitHub's own upload computes where a log has none (`hash` in `src/fingerprints.ts` of
https://github.com/github/codeql-action), so that both kinds of upload agree:

1. The text is read as UTF-16 code units. `\\r\\n` and `\\r` count as `\\n`; spaces and tabs are left out; at
   the end stands one unit 65535, then zeros.
2. A line's hash is over the 100 units from its first on, across the lines below: the sum of
   `unit[i] * 37**(99 - i)`, modulo 2**64, in hexadecimal.
3. After a colon, the how-many-th line of the file with that hash it is, from 1.

Not handled: a file that cannot be read has no hashes.
"""

from __future__ import annotations

import array
import re
import sys
from collections import Counter
from itertools import accumulate

_BLOCK = 100
_FACTOR = 37
_SIZE = 1 << 64
_END = "\uffff"


def line_hashes(file: str) -> tuple[str, ...]:
    """The hash of every line of a file, the first line's first; () where it cannot be read."""
    try:
        with open(file, "rb") as stream:
            return hashes(stream.read().decode("utf-8", "replace"))
    except (OSError, ValueError):
        return ()


def hashes(text: str) -> tuple[str, ...]:
    """The hash of every line of a text."""
    kept = re.sub("[ \t]", "", text.replace("\r\n", "\n").replace("\r", "\n")) + _END
    units = array.array("H", kept.encode("utf-16-le", "surrogatepass"))
    if sys.byteorder == "big":
        units.byteswap()
    starts = [0, *(index + 1 for index, unit in enumerate(units[:-1]) if unit == ord("\n"))]
    units.extend([0] * _BLOCK)
    # `before[i]` is the same sum over all units before the i-th: a block is the difference of two.
    before = list(accumulate(units, lambda sum, unit: (sum * _FACTOR + unit) % _SIZE, initial=0))
    scale = pow(_FACTOR, _BLOCK, _SIZE)
    seen: Counter[str] = Counter()
    found = []
    for start in starts:
        value = f"{(before[start + _BLOCK] - before[start] * scale) % _SIZE:x}"
        seen[value] += 1
        found.append(f"{value}:{seen[value]}")
    return tuple(found)
