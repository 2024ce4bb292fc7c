"""Text of other people's (names, messages, file names) as text that does nothing to a terminal or to a runner
of workflows.

Names may hold anything: escape sequences, line ends, marks that turn the direction of writing. `printable`
and `one_line` write those as Python would in a literal. GitHub's runner takes lines of a log for commands:
`without_commands` parts what begins one. Not handled: letters that look like others.
"""

from __future__ import annotations

import re
import unicodedata

# Cc: control characters; Cf: marks that are not seen, of direction among them; Cs: halves of a character; Zl,
# Zp: line ends of Unicode.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_JOINERS = "\u200c\u200d"  # parts of letters in Persian, Hindi and emoji
# `::error file=a::text` where a line begins, `##[error]text` anywhere in one.
_COMMAND = re.compile(r"^(?P<blank>[^\S\n]*)::|##\[", re.MULTILINE)


def printable(text: str) -> str:
    """The text with its lines and tabs; every other character that is not seen as its escape: `\\x1b`,
    `\\u202e`."""
    return _escaped(text.replace("\r\n", "\n"), "\n\t")


def one_line(text: str) -> str:
    """`printable` for what stands in a line of its own: a name, a label. Line ends are escaped too."""
    return _escaped(text, "")


def without_commands(text: str) -> str:
    """The text with a backslash in what GitHub's runner would take for a command."""
    return _COMMAND.sub(lambda found: "#\\#[" if found["blank"] is None else f"{found['blank']}:\\:", text)


def is_seen(character: str) -> bool:
    """Whether it may stand as it is."""
    return character.isprintable() or unicodedata.category(character) not in _UNSEEN or character in _JOINERS


def _escaped(text: str, kept: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        item if item in kept or is_seen(item) else item.encode("unicode_escape").decode() for item in text
    )
