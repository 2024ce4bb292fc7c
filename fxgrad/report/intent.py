"""What the user has said is meant: `# fxgrad: ignore[FXG103]` comments and `[tool.fxgrad]` in
`pyproject.toml`.

    [tool.fxgrad]
    expect = ["head.*"]                       # these must train (default: all that require grad)
    frozen = ["teacher.*"]                    # these need not: findings do not list them
    ignore = ["FXG204"]                       # codes or their beginnings
    per-file-ignores = { "legacy/*" = ["FXG1"] }

What else is there (`models` and what stands beside it) says what `fxgrad` checks: see `fxgrad.cli.project`.
The file is looked for upwards from the model's own file. A comment that silences nothing is itself reported,
as a note (FXG001). Not handled: configuration in other files.
"""

from __future__ import annotations

import fnmatch
import functools
import os
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fxgrad.passes.rules.fxg001_unused_suppression import unused
from fxgrad.passes.rules.fxg101_unused_parameter import CONSTANT
from fxgrad.passes.rules.fxg105_non_differentiable_op import DRAW
from fxgrad.passes.rules.fxg301_optimizer_misses_parameter import UNMOVED
from fxgrad.passes.rules.fxg401_zero_gradient_op import IDLE
from fxgrad.records import Finding, Site
from fxgrad.records.errors import InputError
from fxgrad.source import suppressions

_KNOWN = frozenset(
    {"expect", "frozen", "ignore", "per-file-ignores"}
    | {"models", "inputs", "loss", "values", "select", "exclude"}
)


@dataclass(frozen=True, slots=True)
class Intent:
    """The `[tool.fxgrad]` table. `root` is the folder that `per_file_ignores` patterns are relative to."""

    expect: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    per_file_ignores: tuple[tuple[str, tuple[str, ...]], ...] = ()
    root: str = ""


LISTED_NOTES = ("FXG001", "FXG102", "FXG303")
_LISTED_KINDS = (CONSTANT, DRAW, IDLE, UNMOVED)


@dataclass(frozen=True, slots=True)
class Heard:
    """Findings left, and those that the user has silenced. `notes`: of what the user did on purpose, or of a
    cut that starves nothing wanted; they are shown only on request."""

    findings: tuple[Finding, ...]
    notes: tuple[Finding, ...]
    suppressed: tuple[Finding, ...]


@functools.lru_cache(maxsize=64)
def _read(path: str, stamp: float) -> Intent:
    table = _table(path)
    unknown = sorted(set(table) - _KNOWN)
    if unknown:
        raise InputError(
            f"[tool.fxgrad] has no setting {unknown[0]!r}",
            site=Site(path, 1),
            hint=f"there are {', '.join(sorted(_KNOWN))}",
        )
    per_file = table.get("per-file-ignores", {})
    if not isinstance(per_file, dict):
        raise InputError("[tool.fxgrad] per-file-ignores must be a table", site=Site(path, 1))
    return Intent(
        _strings(path, table, "expect"),
        _strings(path, table, "frozen"),
        _strings(path, table, "ignore"),
        tuple((pattern, _strings(path, per_file, pattern)) for pattern in per_file),
        os.path.dirname(path),
    )


def _table(path: str) -> dict[str, object]:
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}", site=Site(path, 1)) from None
    except RecursionError:
        raise InputError(f"{path} cannot be read: it is nested too deeply", site=Site(path, 1)) from None
    for key in ("tool", "fxgrad"):
        table = table.get(key, {})
        if not isinstance(table, dict):
            raise InputError(f"{path}: {key} must be a table", site=Site(path, 1))
    return table


def _strings(path: str, table: dict[str, object], key: str) -> tuple[str, ...]:
    value = table.get(key, [])
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InputError(f"[tool.fxgrad] {key} must be a list of strings", site=Site(path, 1))
    return tuple(value)


def intent_for(files: Sequence[str]) -> Intent:
    """The table in the `pyproject.toml` nearest above the first of `files`; an empty one if there is none.

    Raises:
        InputError: the file or a setting cannot be read.
    """
    for file in files[:1]:
        for folder in Path(os.path.abspath(file)).parents:
            candidate = folder / "pyproject.toml"
            if candidate.is_file():
                return _read(str(candidate), candidate.stat().st_mtime)
    return Intent()


def hear(findings: Iterable[Finding], intent: Intent, files: Sequence[str]) -> Heard:
    """Sort out what the user has silenced; unused comments in `files` become notes."""
    kept, silenced = [], []
    used: set[tuple[str, int]] = set()
    for finding in findings:
        rest = _left_of(finding, intent, used)
        if rest is None:
            silenced.append(finding)
        else:
            kept.append(rest)
    kept.extend(_unused(files, used))
    listed = [f for f in kept if _is_listed(f)]
    return Heard(tuple(listed), tuple(f for f in kept if not _is_listed(f)), tuple(silenced))


def _left_of(finding: Finding, intent: Intent, used: set[tuple[str, int]]) -> Finding | None:
    """The finding without the parameters that are frozen on purpose; None where it is silenced."""
    if _matches(finding.code, intent.ignore) or _per_file(finding, intent):
        return None
    if finding.site is not None and _commented(finding, used):
        return None
    frozen = {p for p in finding.parameters if any(fnmatch.fnmatchcase(p, g) for g in intent.frozen)}
    if not frozen:
        return finding
    rest = tuple(p for p in finding.parameters if p not in frozen)
    return replace(finding, parameters=rest) if rest else None


def _is_listed(finding: Finding) -> bool:
    return finding.severity != "note" or finding.code in LISTED_NOTES or finding.kind in _LISTED_KINDS


def _matches(code: str, patterns: Sequence[str]) -> bool:
    return any(code.startswith(pattern) for pattern in patterns)


def _per_file(finding: Finding, intent: Intent) -> bool:
    if finding.site is None:
        return False
    relative = os.path.relpath(finding.site.file, intent.root) if intent.root else finding.site.file
    return any(
        fnmatch.fnmatchcase(relative, pattern) and _matches(finding.code, codes)
        for pattern, codes in intent.per_file_ignores
    )


def _commented(finding: Finding, used: set[tuple[str, int]]) -> bool:
    site = finding.site
    assert site is not None
    comments = suppressions(site.file)
    for line in range(site.line, max(site.end_line, site.line) + 1):
        codes = comments.get(line)
        if codes is not None and (not codes or _matches(finding.code, tuple(codes))):
            used.add((site.file, line))
            return True
    return False


def _unused(files: Sequence[str], used: set[tuple[str, int]]) -> Iterable[Finding]:
    for file in files:
        if "site-packages" in file:
            continue
        for line, codes in suppressions(file).items():
            if (file, line) in used:
                continue
            yield unused(Site(file, line), codes)
