"""Who may make a finding: a rule, in its own file, of its own code; every other file hands findings on as they are.

Read from the source with `ast`. Not seen: a Finding made under another name of the class.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from fxgrad.passes import LOOK_UPS, RULES

ROOT = Path(__file__).resolve().parents[2]
RULE_FILES = sorted((ROOT / "passes" / "rules").glob("fxg*.py"))
OTHERS = [
    file
    for folder in ("fxgrad", "passes")
    for file in sorted((ROOT / folder).rglob("*.py"))
    if file not in RULE_FILES and not file.is_relative_to(ROOT / "fxgrad" / "passes")
]

# file: why a Finding may be made there
EXCEPTIONS = {
    "passes/findings.py": "how a rule speaks: the rule hands in its code",
    "fxgrad/report/read_back.py": "a report that was written is read",
    "fxgrad/fix_source/trouble.py": "a write that breaks nothing and that `--all` rewrites: it has no code",
}
SPEAKERS = {"finding": 2, "of_cause": 0}  # of passes/findings.py, and where each takes the rule


def calls(source: str) -> Iterator[tuple[str, ast.Call]]:
    """Every call, by the last word of what is called."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func).rpartition(".")[2], node


def made(source: str) -> list[int]:
    """Lines that make a finding, or give one another code."""
    found = [node.lineno for name, node in calls(source) if name == "Finding"]
    return found + [node.lineno for name, node in calls(source) if name == "replace" and {"code", "name"} & {k.arg for k in node.keywords}]


def foreign(source: str) -> list[int]:
    """Lines of a rule's file that make a finding of a code that is not written `CODE, NAME`."""
    found = []
    for name, node in calls(source):
        named = {keyword.arg: keyword.value for keyword in node.keywords}
        if name == "Finding":
            rule = [*node.args[:2], *(named[key] for key in ("code", "name") if key in named)]
            said = ", ".join(map(ast.unparse, rule))
        elif name in SPEAKERS:
            said = ast.unparse(node.args[SPEAKERS[name]]).strip("()")
        else:
            continue
        if said != "CODE, NAME":
            found.append(node.lineno)
    return found


def test_only_rules_make_findings() -> None:
    got = {file.relative_to(ROOT).as_posix() for file in OTHERS if made(file.read_text())}
    # a `replace` that sets the name of something else
    assert got - {file.relative_to(ROOT).as_posix() for file in OTHERS if "Finding" not in file.read_text()} == set(EXCEPTIONS)


@pytest.mark.parametrize("file", RULE_FILES, ids=lambda file: file.stem[:6])
def test_a_rule_makes_findings_of_its_own_code(file: Path) -> None:
    assert foreign(file.read_text()) == []


def test_every_rule_file_is_in_the_registry() -> None:
    assert [rule.CODE.lower() for rule in RULES] == [file.stem[:6] for file in RULE_FILES]


def test_a_look_up_belongs_to_one_rule() -> None:
    owners: dict[object, set[str]] = {}
    for rule, _, look_up in LOOK_UPS:
        owners.setdefault(look_up, set()).add(rule.CODE)
        assert rule in RULES
    assert [codes for codes in owners.values() if len(codes) > 1] == []


# The checks themselves: each must see what it is there for, or the tests above could not fail.


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("yield Finding('FXG101', 'unused', 'error', text)", [1]),
        ("records.Finding(*RULE, 'error', text)", [1]),
        ("x = 1\nreplace(found, code='FXG201')", [2]),
        ("replace(found, message=text)", []),
        ("FindingList(1)", []),
    ],
)
def test_made(source: str, lines: list[int]) -> None:
    assert made(source) == lines


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("Finding(CODE, NAME, 'error', text)", []),
        ("Finding(code=CODE, name=NAME, severity='note')", []),
        ("Finding('FXG101', 'unused-parameter', 'error', text)", [1]),
        ("Finding(*RULE, 'error', text)", [1]),
        ("finding(context, facts, (CODE, NAME), group, text, advice)", []),
        ("finding(context, facts, OTHER, group, text, advice)", [1]),
        ("of_cause(('FXG101', NAME), cause)", [1]),
    ],
)
def test_foreign(source: str, lines: list[int]) -> None:
    assert foreign(source) == lines
