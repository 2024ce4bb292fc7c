"""`fxgrad help [TOPIC]`: the pages on what no option's help has room for.

A topic is a Markdown file of `fxgrad/cli/help/`: its name is the topic's, its first line (`# ...`) what the
list says of it. Comments (`<!-- ... -->`) are for what keeps the outputs in a page true
(`python bench/readme.py`), and are not shown. The name of a command gives its `--help`, a rule's code or name
its documentation.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
import textwrap
from importlib.resources import files

from fxgrad.cli.output import say, width_of
from fxgrad.cli.rulebook import entries
from fxgrad.records.errors import InputError

EXAMPLES = """examples:
  fxgrad help                 the topics
  fxgrad help models          what MODEL may be, and how inputs are written
  fxgrad help report          the same as `fxgrad report --help`
"""

_COMMENT = re.compile(r"^<!--.*?-->\n", re.MULTILINE | re.DOTALL)


def add(command: argparse.ArgumentParser) -> None:
    """Which topic."""
    command.add_argument("topic", metavar="TOPIC", nargs="?", help="one of the list; none: the list")


def run(topic: str | None, commands: dict[str, argparse.ArgumentParser]) -> int:
    """Print a page, or the list of them."""
    pages = _pages()
    if topic is None:
        width = max(map(len, pages))
        say("Topics of `fxgrad help TOPIC`:\n")
        for name, text in pages.items():
            title = text.partition("\n")[0].removeprefix("# ")
            say(f"  {name.ljust(width)}  {title}")
        say("\n`fxgrad COMMAND --help` has the options of a command, `fxgrad explain CODE` a rule.")
        return 0
    wanted = topic.lower().removesuffix(".md")
    if wanted in pages:
        say(_folded(pages[wanted], width_of(sys.stdout)), end="")
    elif wanted in commands:
        say(commands[wanted].format_help(), end="")
    else:
        from fxgrad.cli.explain import explain_rule

        known = [*pages, *commands, *(word.lower() for rule in entries() for word in (rule.code, rule.name))]
        if wanted not in known:
            close = difflib.get_close_matches(wanted, known, 1)
            hint = f"did you mean {close[0]}?" if close else "`fxgrad help` lists them"
            raise InputError(f"there is no topic {topic}", hint=hint)
        return explain_rule(wanted)
    return 0


def _folded(text: str, width: int) -> str:
    """The page with its paragraphs and items folded; what is indented, fenced or a table stays as it is."""
    lines: list[str] = []
    paragraph: list[str] = []
    fenced = False
    for line in [*text.splitlines(), ""]:
        stays = fenced or not line or line.startswith(("    ", "|", "#", "```"))
        if paragraph and (stays or line.startswith("- ")):
            indent = "  " if paragraph[0].startswith("- ") else ""
            joined = " ".join(paragraph)
            lines += textwrap.wrap(
                joined, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
            )
            paragraph = []
        if stays:
            lines.append(line)
        else:
            paragraph.append(line.strip())
        fenced ^= line.startswith("```")
    return "\n".join(lines)


def _pages() -> dict[str, str]:
    """Every topic's text, by name, without its comments."""
    folder = files("fxgrad.cli") / "help"
    found = {file.name.removesuffix(".md"): file.read_text("utf-8") for file in folder.iterdir()}
    return {name: _COMMENT.sub("", found[name]) for name in sorted(found)}
