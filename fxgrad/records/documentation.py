"""A rule's documentation in its parts, as JSON types and as Markdown.

Made from the docstring of the rule's module, whose headings are fixed: a line by itself at the margin, with
what it says indented below. What stands under `Example` and `Instead` is code. Not handled: other layouts;
what comes before the first heading is the summary.
"""

from __future__ import annotations

import textwrap

from fxgrad.records.links import rule_page

_CODE = frozenset({"Example", "Instead"})


def summary(documentation: str) -> str:
    """The first paragraph, on one line."""
    return " ".join(documentation.partition("\n\n")[0].split())


def sections(documentation: str) -> dict[str, str]:
    """What stands under each heading, in their order, without the indent."""
    found: dict[str, list[str]] = {}
    heading = ""
    for line in documentation.partition("\n\n")[2].splitlines():
        if line and not line[0].isspace():
            heading = line
            found[heading] = []
        elif heading:
            found[heading].append(line)
    return {heading: textwrap.dedent("\n".join(lines)).strip("\n") for heading, lines in found.items()}


def markdown(documentation: str) -> str:
    """All of it, the code in fences."""
    parts = [summary(documentation)]
    for heading, text in sections(documentation).items():
        body = f"```python\n{text}\n```" if heading in _CODE else text
        parts.append(f"### {heading}\n\n{body}")
    return "\n\n".join(parts)


def to_dict(code: str, name: str, severity: str, documentation: str) -> dict[str, object]:
    """A rule as JSON types: what `rules --format json` lists."""
    return {
        "code": code,
        "name": name,
        "severity": severity,
        "summary": summary(documentation),
        "sections": sections(documentation),
        "page": rule_page(code, name),
    }
