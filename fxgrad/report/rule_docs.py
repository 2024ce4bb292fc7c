"""A rule's documentation in its parts, as JSON types and as Markdown.

Made from the docstring of the rule's module, whose headings are fixed: a line by itself at the margin, with
what it says indented below. What stands under `Example` and `Instead` is code. Not handled: other layouts;
what comes before the first heading is the summary.
"""

from __future__ import annotations

import inspect
import textwrap
from typing import Any

from fxgrad.passes.context import Rule
from fxgrad.records.links import rule_page

CODE_SECTIONS = frozenset({"Example", "Instead"})


def summary(rule: Rule) -> str:
    """The first paragraph, on one line."""
    return " ".join(documentation(rule).partition("\n\n")[0].split())


def documentation(rule: Rule) -> str:
    """The docstring; "" where there is none."""
    return inspect.getdoc(rule) or ""


def sections(rule: Rule) -> dict[str, str]:
    """What stands under each heading, in their order, without the indent."""
    found: dict[str, list[str]] = {}
    heading = ""
    for line in documentation(rule).splitlines():
        if line and not line[0].isspace():
            heading = line
            found[heading] = []
        elif heading:
            found[heading].append(line)
    return {
        heading: text
        for heading, lines in found.items()
        if (text := textwrap.dedent("\n".join(lines)).strip("\n"))
    }


def markdown(rule: Rule) -> str:
    """The whole documentation, the code in fences."""
    parts = [summary(rule)]
    for heading, text in sections(rule).items():
        body = f"```python\n{text}\n```" if heading in CODE_SECTIONS else text
        parts.append(f"### {heading}\n\n{body}")
    return "\n\n".join(parts)


def to_dict(rule: Rule) -> dict[str, Any]:
    """The rule as JSON types: code, name, severity, summary, sections, page."""
    return {
        "code": rule.CODE,
        "name": rule.NAME,
        "severity": rule.SEVERITY,
        "summary": summary(rule),
        "sections": sections(rule),
        "page": rule_page(rule.CODE, rule.NAME),
    }
