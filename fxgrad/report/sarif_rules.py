"""The tool in a SARIF log: fxgrad, and every rule with its documentation, as code scanning shows it beside an
alert.

Made from `fxgrad.passes.RULES`. `help.markdown`, `helpUri`, `tags` and `precision` are what GitHub reads
(https://docs.github.com/en/code-security/code-scanning/integrating-with-code-scanning/sarif-support-for-code-scanning).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

from fxgrad.passes import RULES
from fxgrad.passes.context import Rule
from fxgrad.records import Finding
from fxgrad.records.documentation import markdown, summary
from fxgrad.records.links import HOME, rule_page
from fxgrad.report.as_json import tool_version

# By the first digit of a code: what its rules are about.
_TAGS = {
    "0": "fxgrad",
    "1": "missing-gradient",
    "2": "in-place",
    "3": "optimizer",
    "4": "zero-gradient",
    "5": "distributed",
}
_PROBLEM = {"error": "error", "warning": "warning", "note": "recommendation"}


def driver(findings: Iterable[Finding]) -> dict[str, Any]:
    """The tool with every registered rule, then the rules of findings that are not registered (made by
    hand)."""
    version = tool_version()
    rules = {rule.CODE: _rule(rule) for rule in RULES}
    for finding in findings:
        rules.setdefault(finding.code, _unregistered(finding))
    return {
        "name": "fxgrad",
        **({"version": version} if version else {}),
        "informationUri": HOME,
        "rules": list(rules.values()),
    }


def _rule(rule: Rule) -> dict[str, object]:
    documentation = inspect.getdoc(rule) or ""
    said = summary(documentation)
    return {
        **_head(rule.CODE, rule.NAME, rule.SEVERITY, said),
        "fullDescription": {"text": said},
        "help": {"text": documentation, "markdown": markdown(documentation)},
        "helpUri": rule_page(rule.CODE, rule.NAME),
        "properties": {
            "tags": ["pytorch", "gradients", _TAGS[rule.CODE[3]]],
            # An error is what autograd itself did in a run; a warning or a note has a judgement in it.
            "precision": "very-high" if rule.SEVERITY == "error" else "high",
            "problem.severity": _PROBLEM[rule.SEVERITY],
        },
    }


def _unregistered(finding: Finding) -> dict[str, object]:
    return _head(finding.code, finding.name, finding.severity, finding.name)


def _head(code: str, name: str, severity: str, said: str) -> dict[str, object]:
    return {
        "id": code,
        "name": "".join(word.capitalize() for word in name.split("-")),
        "shortDescription": {"text": said},
        "defaultConfiguration": {"level": severity},
    }
