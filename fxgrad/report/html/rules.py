"""The rules as a static site: one page a rule, made from its docstring, and one that lists them.

Addresses last: `FXG103.html`, its headings by their words (`FXG103.html#why-it-matters`), and the rule in the
list (`index.html#FXG103`). Every page is a file by itself, and codes in the text lead to their rules.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Protocol

from fxgrad.records.documentation import sections, summary
from fxgrad.report.html.markup import prose
from fxgrad.report.html.page import whole
from fxgrad.report.html.source import coloured

_CODE = re.compile(r"\bFXG\d{3}\b")


class Rule(Protocol):
    """What of a rule is shown."""

    @property
    def code(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def severity(self) -> str: ...
    @property
    def documentation(self) -> str: ...


def site(rules: Sequence[Rule]) -> Mapping[str, str]:
    """The text of each file by its name."""
    known = {rule.code for rule in rules}
    files = {"index.html": _index(rules)}
    for number, rule in enumerate(rules):
        near = (rules[number - 1] if number else None, rules[number + 1] if number + 1 < len(rules) else None)
        files[f"{rule.code}.html"] = _page(rule, near, known - {rule.code})
    return files


def _index(rules: Sequence[Rule]) -> str:
    known = {rule.code for rule in rules}
    rows = (
        f"<tr id={rule.code}><td><a href={rule.code}.html>{rule.code}</a></td><td>{escape(rule.name)}</td>"
        f'<td class="{rule.severity}"><span class=sev>{rule.severity}</span></td>'
        f"<td>{_linked(summary(rule.documentation), known - {rule.code})}</td></tr>"
        for rule in rules
    )
    head = "<tr><th>code</th><th>name</th><th>level</th><th>what it finds</th></tr>"
    return whole(
        "fxgrad: the rules",
        [
            "<header><h1>The rules of fxgrad</h1></header><section>",
            "<table>",
            head,
            *rows,
            "</table></section>",
        ],
    )


def _page(rule: Rule, near: tuple[Rule | None, Rule | None], known: set[str]) -> str:
    links = " ".join(
        f'<a rel={relation} href={other.code}.html title="{escape(other.name)}">{other.code}</a>'
        for relation, other in zip(("prev", "next"), near, strict=True)
        if other is not None
    )
    return whole(
        f"{rule.code} {rule.name}",
        [
            f'<header class="{rule.severity}"><p class=muted><a href="index.html#{rule.code}">all rules</a> '
            f"{links}</p>",
            f"<h1>{rule.code} {escape(rule.name)} <span class=sev>{rule.severity}</span></h1>",
            f"<p class=headline>{_linked(summary(rule.documentation), known)}</p></header><section>",
            *_sections(rule, known),
            "</section><footer><p class=muted>the same in a terminal: "
            f"<code>fxgrad explain {rule.code}</code>; "
            f"in a line of source: <code># fxgrad: ignore[{rule.code}]</code></p></footer>",
        ],
        "rules",
    )


def _sections(rule: Rule, known: set[str]) -> Iterator[str]:
    for heading, text in sections(rule.documentation).items():
        anchor = re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")
        yield f'<h2 id={anchor}><a href="#{anchor}">{escape(heading)}</a></h2>'
        yield coloured(text) if heading in ("Example", "Instead") else "\n".join(_blocks(text, known))


def _blocks(text: str, known: set[str]) -> Iterator[str]:
    """Paragraphs, lists (lines that begin with `- `), and what is indented, as it stands."""
    for block in re.split(r"\n\s*\n", text):
        if block.startswith("    "):
            yield f"<pre>{escape(textwrap.dedent(block))}</pre>"
            continue
        before, *items = re.split(r"(?m)^- ", block)
        if before.strip():
            yield f"<p>{_linked(before, known)}</p>"
        if items:
            yield f"<ul>{''.join(f'<li>{_linked(item, known)}</li>' for item in items)}</ul>"


def _linked(text: str, known: set[str]) -> str:
    """A sentence whose codes lead to their rules."""
    said = prose(" ".join(text.split()))
    return _CODE.sub(
        lambda code: f"<a href={code[0]}.html>{code[0]}</a>" if code[0] in known else code[0], said
    )
