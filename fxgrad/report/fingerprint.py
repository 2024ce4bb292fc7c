"""A name for a finding that stays the same while the file around it changes: for baselines, and for SARIF
viewers that track results.

Made from the rule's code, the parameters, and the *text* of the source line, not its number. Equal findings
are told apart by counting. Not handled: a renamed parameter, or a guilty line that was itself edited: both
are a new finding.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

from fxgrad.records import Finding
from fxgrad.source import line_text


def fingerprints(findings: Sequence[Finding]) -> tuple[str, ...]:
    """One for each finding, all different, in their order."""
    seen: Counter[str] = Counter()
    marks = []
    for finding in findings:
        mark = _fingerprint(finding)
        seen[mark] += 1
        marks.append(mark if seen[mark] == 1 else f"{mark}-{seen[mark]}")
    return tuple(marks)


def _fingerprint(finding: Finding) -> str:
    line = " ".join(line_text(finding.site.file, finding.site.line).split()) if finding.site else ""
    parts = (finding.code, *sorted(finding.parameters), line)
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]
