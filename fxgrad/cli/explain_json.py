"""`rules --format json` and `explain --format json`: what they say, as data, for editors and bots.

    rules    code, name, severity, summary, sections {heading: text}, page (its address)
    errors   name, type and message as they were said ("" and null where an entry was asked for by its name),
             line (file, line, function, text: the user's own innermost, or null), means, causes, beliefs
             (belief, truth), remedy, rule (the code of the rule that is about it, or null), next (the command
             to run)

`rules` has the first key alone, `explain` both, one of them empty. `schema_version` is 1. Like the text it is
made without torch.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable

from fxgrad.cli.pasted import Said
from fxgrad.cli.rulebook import Entry as Rule
from fxgrad.records.documentation import to_dict
from fxgrad.torch_api.explanations import Entry

FORMATS = ("text", "json")


def listed(rules: Iterable[Rule]) -> str:
    """The rules."""
    return _written({"rules": [_rule(rule) for rule in rules]})


def told(*, rules: Iterable[Rule] = (), errors: Iterable[tuple[Said | None, Entry]] = ()) -> str:
    """What was asked for."""
    return _written({"rules": [_rule(r) for r in rules], "errors": [_error(said, e) for said, e in errors]})


def _written(said: dict[str, object]) -> str:
    return json.dumps({"schema_version": 1, **said}, indent=2)


def _rule(rule: Rule) -> dict[str, object]:
    return to_dict(rule.code, rule.name, rule.severity, rule.documentation)


def _error(said: Said | None, entry: Entry) -> dict[str, object]:
    own = said.own() if said is not None else None
    return {
        "name": entry.name,
        "type": said.type if said is not None else "",
        "message": said.message if said is not None else None,
        "line": dataclasses.asdict(own) if own is not None else None,
        "means": entry.means,
        "causes": list(entry.causes),
        "beliefs": [{"belief": belief, "truth": truth} for belief, truth in entry.beliefs],
        "remedy": entry.remedy,
        "rule": entry.code or None,
        "next": f"fxgrad run {(said.script() if said is not None else '') or 'SCRIPT'}",
    }
