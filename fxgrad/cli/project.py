"""What `fxgrad` checks where nobody names a MODEL: `models` in `[tool.fxgrad]` of the nearest pyproject.toml.

    [tool.fxgrad]
    models = [
        "src/net.py:Net", "src/heads/*.py",
        { model = "src/lm.py", inputs = ["ids=2x16:int64[0,1000)"] },
    ]
    exclude = ["src/heads/base.py"]

A model is what `fxgrad report` takes, a pattern of files, or a table. `inputs`, `loss`, `values` and `select`
are what the options of these names say: for all models, or in a table for one. Paths and patterns are
relative to the file's folder, `exclude` has patterns of files that are left out. An option on the command
line wins over both.
"""

from __future__ import annotations

import argparse
import fnmatch
import glob
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fxgrad.cli.arguments import VALUES
from fxgrad.records import Site
from fxgrad.records.errors import InputError

_OPTIONS = ("inputs", "loss", "values", "select")


def listed() -> tuple[Path, dict[str, Any]] | None:
    """The nearest pyproject.toml and its `[tool.fxgrad]`, if that has `models`. torch is not imported for
    it."""
    for folder in (Path.cwd(), *Path.cwd().parents):
        file = folder / "pyproject.toml"
        if not file.is_file():
            continue
        try:
            table = tomllib.loads(file.read_text(encoding="utf-8")).get("tool", {}).get("fxgrad", {})
        except (OSError, ValueError, RecursionError, AttributeError):  # who reads all of it says so
            return None
        return (file, table) if isinstance(table, dict) and "models" in table else None
    return None


def models_of(arguments: argparse.Namespace) -> list[argparse.Namespace]:
    """One set of arguments a model: of those that the command line names, with what the project says of them,
    or of all of the project's where it names none.

    Raises:
        InputError: nobody names a model, or a setting is wrong.
    """
    found = listed()
    if found is None and not arguments.model:
        raise InputError("the following arguments are required: MODEL", hint="see `fxgrad report --help`")
    own = list(_models(*found, arguments)) if found is not None else []
    if not arguments.model:
        if not own:
            assert found is not None
            raise InputError("[tool.fxgrad] models and exclude leave no model", site=Site(str(found[0]), 1))
        return own
    said = {_absolute(one.model): one for one in own}
    return [
        argparse.Namespace(**{**vars(said.get(_absolute(model), arguments)), "model": model})
        for model in arguments.model
    ]


def _models(
    file: Path, table: dict[str, object], arguments: argparse.Namespace
) -> Iterator[argparse.Namespace]:
    from fxgrad.report.intent import intent_for

    intent_for([str(file)])  # whether there are settings that nobody knows
    common = {key: table[key] for key in _OPTIONS if key in table}
    exclude = _strings(file, table, "exclude")
    models = table["models"]
    if not isinstance(models, list):
        raise _wrong(file, "models must be a list")
    for entry in models:
        settings = {"model": entry} if isinstance(entry, str) else entry
        if not isinstance(settings, dict) or not isinstance(settings.get("model"), str):
            raise _wrong(file, "models must hold strings, or tables with a `model`")
        unknown = sorted(set(settings) - {"model", *_OPTIONS})
        if unknown:
            hint = f"there are model, {', '.join(_OPTIONS)}"
            raise _wrong(file, f"a table of models has no setting {unknown[0]!r}", hint)
        for model in _named(file, settings["model"]):
            if not any(fnmatch.fnmatchcase(_within(file, model), pattern) for pattern in exclude):
                yield _with(file, arguments, model, {**common, **settings})


def _named(file: Path, model: str) -> list[str]:
    """The MODELs that an entry stands for, seen from the working directory."""
    if glob.has_magic(model):
        files = sorted(glob.glob(str(file.parent / model), recursive=True))
        if not files:
            raise _wrong(file, f"models: no file is like {model!r}")
        return [os.path.relpath(found) for found in files]
    path = _path(model)
    there = file.parent / path
    return [os.path.relpath(there) + model[len(path) :]] if there.exists() else [model]


def _with(
    file: Path, arguments: argparse.Namespace, model: str, settings: dict[str, object]
) -> argparse.Namespace:
    """The arguments, and of the settings what no option says."""
    said = {**vars(arguments), "model": model}
    if not said["input"]:
        said["input"] = list(_strings(file, settings, "inputs"))
    if not said["select"]:
        said["select"] = ",".join(_strings(file, settings, "select"))
    if said["loss"] is None and "loss" in settings:
        (said["loss"],) = _strings(file, settings, "loss", one=True)
    if said["values"] == "auto" and "values" in settings:
        (said["values"],) = _strings(file, settings, "values", one=True)
        if said["values"] not in VALUES:
            raise _wrong(file, f"values must be one of {', '.join(VALUES)}")
    return argparse.Namespace(**said)


def _strings(file: Path, table: dict[str, object], key: str, *, one: bool = False) -> tuple[str, ...]:
    value = table.get(key, [])
    if isinstance(value, str):
        return (value,)
    if one or not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _wrong(file, f"{key} must be {'a string' if one else 'a list of strings'}")
    return tuple(value)


def _path(model: str) -> str:
    """The path in `path.py:name`."""
    head, dot, name = model.rpartition(".py:")
    return f"{head}.py" if dot else model


def _absolute(model: str) -> str:
    path = _path(model)
    return os.path.abspath(path) + model[len(path) :]


def _within(file: Path, model: str) -> str:
    return Path(os.path.relpath(_path(model), file.parent)).as_posix()


def _wrong(file: Path, reason: str, hint: str = "") -> InputError:
    return InputError(f"[tool.fxgrad] {reason}", site=Site(str(file), 1), hint=hint)
