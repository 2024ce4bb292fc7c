"""`fxgrad rules` and `fxgrad explain`: a rule in the words of its documentation, an error of torch's in plain
ones.

Neither needs torch, which takes seconds to load: an error's text is looked up in a table, a rule is read from
its file.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
import textwrap
from collections.abc import Iterator

from fxgrad.cli.explain_json import FORMATS, listed, told
from fxgrad.cli.output import is_terminal, say, width_of
from fxgrad.cli.pasted import Said, errors_in
from fxgrad.cli.rulebook import entries
from fxgrad.records.errors import InputError
from fxgrad.torch_api.errors import NO_GRAD_FN
from fxgrad.torch_api.explanations import EXPLANATIONS, Entry

EXAMPLES = f"""examples:
  fxgrad explain FXG103
  fxgrad explain "element 0 of tensors {NO_GRAD_FN.phrases[0]}"
  python train.py 2>&1 | fxgrad explain            a whole log, on stdin
  fxgrad explain error.log                         the same, in a file
  fxgrad explain FXG103 --format json              for an editor

exit status: 0 explained, 2 it is no rule and no error about gradients that is known
"""

_WIDTH = 100
_CODE = re.compile(r"[A-Za-z]{2,5}\d+|[\w]+(-\w+)+|\w+")
_ALIKE = 0.55  # of the words of a known sentence, how many are in the text


def add(command: argparse.ArgumentParser) -> None:
    """A rule, or an error."""
    command.add_argument(
        "text",
        metavar="CODE|TEXT",
        nargs="*",
        help="a rule's code or name, an error's text, a file; none: stdin",
    )
    add_format(command)


def add_format(command: argparse.ArgumentParser) -> None:
    """Text or data."""
    command.add_argument("--format", choices=FORMATS, default="text", help="text or JSON (default: text)")


def list_rules(arguments: argparse.Namespace) -> int:
    """Every rule, what it finds folded to the width of the terminal."""
    if arguments.format == "json":
        say(listed(entries()))
        return 0
    rows = [("code", "name", "level", "finds")]
    rows += [(rule.code, rule.name, rule.severity, rule.summary) for rule in entries()]
    widths = [max(len(row[at]) for row in rows) for at in range(3)]
    heads = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)) for row in rows]
    room = max(width_of(sys.stdout) - len(heads[0]) - 2, 20)
    for head, row in zip(heads, rows, strict=True):
        first, *more = textwrap.wrap(row[3], room)
        say(f"{head}  {first}")
        for line in more:
            say(f"{' ' * len(head)}  {line}")
    return 0


def run(arguments: argparse.Namespace) -> int:
    """Print the documentation of a rule, or what the errors in a text mean."""
    given = " ".join(arguments.text).strip()
    if given in ("", "-"):
        if is_terminal(sys.stdin):
            raise InputError(
                "there is nothing to explain", hint="give a code (FXG103), an error's text, or a log on stdin"
            )
        given = sys.stdin.read()
    elif os.path.isfile(given):
        given = _read(given)
    elif _CODE.fullmatch(given):
        return explain_rule(given, arguments.format)
    say(told(errors=errors_known_in(given)) if arguments.format == "json" else explained(given))
    return 0


def _read(file: str) -> str:
    try:
        with open(file, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError as error:
        raise InputError(
            f"{file} cannot be read: {error.strerror}", hint="give a file that can be read"
        ) from error


def explain_rule(wanted: str, format: str = "text") -> int:
    """Print the documentation of the rule with this code or name, or what an error of this name means."""
    entry = next((entry for entry in EXPLANATIONS if entry.name == wanted.lower()), None)
    if entry is not None:
        say(told(errors=[(None, entry)]) if format == "json" else "\n".join(_paragraphs(entry)))
        return 0
    rules = entries()
    for rule in rules:
        if wanted.lower() in (rule.code.lower(), rule.name):
            text = f"{rule.code} {rule.name} ({rule.severity})\n\n{rule.documentation}"
            say(told(rules=[rule]) if format == "json" else text)
            return 0
    known = {word.lower(): word for rule in rules for word in (rule.code, rule.name)}
    close = [known[word] for word in difflib.get_close_matches(wanted.lower(), known, 1)]
    raise InputError(
        f"there is no rule {wanted}",
        hint=f"did you mean {close[0]}?" if close else "`fxgrad rules` lists them",
    )


def errors_known_in(text: str) -> list[tuple[Said, Entry]]:
    """The errors about gradients in a text, and what is known of each.

    Raises:
        InputError: there is none that is known.
    """
    found = errors_in(text)
    known = [(said, said.entry) for said in found if said.entry is not None]
    # Python's words for None are of gradients only where nothing else is said.
    plain = [pair for pair in known if not pair[1].python] or known
    if not plain:
        raise InputError(_unknown(found, text), hint=_alike(text))
    # What torch only warned of comes after what it died of.
    plain.sort(key=lambda pair: pair[1].warning)
    return plain


def explained(text: str) -> str:
    """What the errors about gradients in a text mean: of each the words, the meaning, the causes, the user's
    own line, what to run next.

    Raises:
        InputError: there is none that is known.
    """
    return "\n\n\n".join("\n".join(_about(said, entry)) for said, entry in errors_known_in(text))


def _unknown(found: tuple[Said, ...], text: str) -> str:
    if not text.strip():
        return "the text is empty"
    last = found[-1] if found else None
    which = (
        f"{last.type}: {last.message}"
        if last is not None
        else next(line.strip() for line in text.splitlines() if line.strip())
    )
    return f"this is none of the errors about gradients that are known: {which[:120]}"


def _alike(text: str) -> str:
    """The known sentences that are nearest to a text, as a hint."""
    words = set(re.findall(r"\w+", text.lower()))
    scored = []
    for entry in EXPLANATIONS:
        for phrase in entry.kind.phrases:
            own = set(re.findall(r"\w+", phrase.lower()))
            share = len(own & words) / len(own)
            if share >= _ALIKE and len(own) > 2:
                scored.append((share, f'"{phrase}"'))
    near = list(dict.fromkeys(phrase for _, phrase in sorted(scored, reverse=True)))[:3]
    return f"near it: {', '.join(near)}" if near else "`fxgrad run SCRIPT` reports on a script's gradients"


def _about(said: Said, entry: Entry) -> Iterator[str]:
    yield f"{said.type}: {said.message}" if said.type else said.message
    own = said.own()
    if own is not None:
        yield ""
        yield "Your line"
        yield f"    {own.file}:{own.line}{f' in {own.function}' if own.function else ''}"
        if own.text:
            yield f"        {own.text}"
        yield "    It is where torch noticed; the cause may be another line."
    yield ""
    yield from _paragraphs(entry, said.script() or "SCRIPT")


def _paragraphs(entry: Entry, script: str = "SCRIPT") -> Iterator[str]:
    yield "What it means"
    yield from _wrapped(_sentence(entry.means))
    yield ""
    yield "What causes it"
    for cause in entry.causes:
        yield from _wrapped(cause, "  - ")
    if entry.beliefs:
        yield ""
        yield "What is often said"
        for belief, truth in entry.beliefs:
            yield from _wrapped(f'"{belief}": {truth}', "  - ")
    yield ""
    yield "What mends it"
    yield from _wrapped(_sentence(entry.remedy))
    yield ""
    yield "What to run next"
    yield f"    fxgrad run {script}    names the line of the cause and what mends it there"
    if entry.code:
        yield f"    fxgrad explain {entry.code}    the rule that is about it"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _wrapped(text: str, first: str = "    ") -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=first,
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
