"""Settings that lie beside a model's file: a JSON file whose keys are what the model reads of its settings.

A file counts where its top level has every attribute that is read; of several the first by name does. Not
handled: YAML, and files elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_LARGE = 1_000_000  # bytes: what is larger is data


class Keys(dict[str, object]):
    """Settings inside of settings, read by key or as an attribute."""

    def __getattr__(self, name: str) -> object:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


@dataclass(frozen=True, slots=True)
class Beside:
    """What a file beside the model's says: by attribute, its value."""

    file: str = ""
    values: Mapping[str, object] = field(default_factory=dict)

    def __contains__(self, name: object) -> bool:
        return name in self.values


def settings_beside(file: str, read: frozenset[str]) -> Beside:
    """The settings among the JSON files in the folder of `file` that have all that is read. One attribute
    alone is no sign."""
    if len(read) < 2:
        return Beside()
    for path in sorted(Path(file).resolve().parent.glob("*.json")):
        values = _read(path)
        if values is not None and read <= values.keys():
            return Beside(path.name, values)
    return Beside()


def _read(path: Path) -> Mapping[str, object] | None:
    try:
        if path.stat().st_size > _LARGE:
            return None
        found = json.loads(path.read_text(encoding="utf-8"), object_hook=Keys)
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, Keys) else None
