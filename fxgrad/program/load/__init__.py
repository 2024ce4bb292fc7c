"""A model, and what stands beside it, from what a command line names.

MODEL is `path/to/file.py`, `path/to/file.py:name`, `package.module:name`, a `.pt2` file or a folder with a
`config.json`; a pickle only where it is trusted. `name` is a module, a class or a factory; without it the
file's only candidate. What the file defines as `example_inputs`, `loss`, `optimizer` and `expect` comes
along. Loading runs the file's code. Not handled: notebooks, TorchScript, weights without their model, names
on a hub; each is refused in its own words.
"""

from __future__ import annotations

import contextlib
import os
import re
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fxgrad.program.load.archives import load_exported, load_pickle
from fxgrad.program.load.choose import Built, named, only
from fxgrad.program.load.construct import Construction
from fxgrad.program.load.execute import import_module, run_file, script_state
from fxgrad.program.load.extras import extras
from fxgrad.program.load.folders import is_model_folder, load_folder
from fxgrad.program.load.losses import loss_from
from fxgrad.program.load.packages import package_of, roots_of
from fxgrad.records import Inputs
from fxgrad.records.errors import LoadError

__all__ = ["Loaded", "load", "loading"]

_FORMS = (
    "MODEL is path/to/file.py, path/to/file.py:name, package.module:name, a folder with a config.json "
    "or a .pt2 file"
)
_FILE = re.compile(
    (
        r"(?P<path>.+?\.(?P<suffix>py|pt2|pt|pth|pkl|pickle|ckpt|ipynb|safetensors|onnx|ya?ml|json|toml"
        r"|gguf|h5|keras|tflite|bin))(:(?P<name>.*))?"
    ),
    re.DOTALL,
)
_MODULE = re.compile(r"(?P<module>[^\W\d]\w*(\.[^\W\d]\w*)*)(:(?P<name>.*))?")
_HUB = re.compile(r"[\w.-]+/[\w.-]+|[\w.]+(-[\w.]+)+")
_SETTINGS = ("settings, not code", "give the Python file that builds the model from them")
_OTHER_LIBRARY = ("a model of another library", "give the Python file that builds the model in PyTorch")
_REFUSED = {
    **dict.fromkeys(("yaml", "yml", "json", "toml"), _SETTINGS),
    **dict.fromkeys(("gguf", "h5", "keras", "tflite"), _OTHER_LIBRARY),
    "bin": (
        "weights without a model",
        "give the Python file that builds the model, or the folder with its config.json",
    ),
    "ipynb": ("a notebook", "export it to a .py file, or call fxgrad.analyze in it"),
    "safetensors": ("weights without a model", "give the Python file that builds the model"),
    "onnx": ("an ONNX graph, which does not train", "give the Python file that builds the model"),
}


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A model and what was found beside it; None where nothing was.

    `file` is the absolute path it came from (None: a module without a file); `notes` say what was chosen or
    passed over; `guessed` is the call with guessed arguments that made the model, `others` are the same with
    other guesses.
    """

    model: Any
    inputs: Inputs | None = None
    loss: Callable[..., object] | None = None
    optimizer: Any = None
    expect: tuple[str, ...] | None = None
    file: str | None = None
    notes: tuple[str, ...] = ()
    module: types.ModuleType | None = None
    guessed: Construction | None = None
    others: Iterator[Loaded] = iter(())

    @property
    def assumed(self) -> tuple[str, ...]:
        """The notes, and the guesses as they are by now: some are made while the model runs."""
        return (*self.notes, *(self.guessed.assumed if self.guessed is not None else ()))

    def loss_named(self, spec: str) -> Callable[..., object]:
        """The loss that `--loss SPEC` names; a function of the model's own file is taken from the module
        already loaded.

        Raises:
            LoadError: there is no such function, or it needs more than the output.
        """
        return loss_from(spec, {self.file: self.module} if self.file and self.module else {})


def load(
    model: str, *, trust_pickle: bool = False, arguments: Sequence[str] = (), argv: Sequence[str] = ()
) -> Loaded:
    """What MODEL names, built with `arguments` (`name=value`), its file run with `argv`; `sys.path`,
    `sys.argv` and the working directory are as before.

    Raises:
        LoadError: it cannot be found, read, run or built, or is no model.
    """
    with loading(model, trust_pickle=trust_pickle, arguments=arguments, argv=argv) as loaded:
        return loaded


@contextlib.contextmanager
def loading(
    model: str, *, trust_pickle: bool = False, arguments: Sequence[str] = (), argv: Sequence[str] = ()
) -> Iterator[Loaded]:
    """`load`, with the file's own `sys.path` kept while the block runs: a forward may import what lies beside
    it.

    Raises:
        LoadError: as `load`.
    """
    if is_model_folder(model):
        built, said = load_folder(model)
        yield Loaded(built, notes=(said,))
        return
    match = _FILE.fullmatch(model)
    if match is not None:
        path, name = match["path"], match["name"]
        _check_path(path, match["suffix"])
        file = os.path.abspath(path)
        if match["suffix"] != "py":
            yield _from_archive(file, trust_pickle)
            return
        package = package_of(file)
        folder = os.path.dirname(os.path.realpath(file))
        folders = [*(package or ())[:1], folder, *roots_of(file)]
        with script_state(folders, [path, *argv]):
            module = run_file(file) if package is None else import_module(package[1])
            yield _from_python(module, name, path, arguments)
        return
    match = _MODULE.fullmatch(model)
    if match is None or (os.path.isdir(model) and not os.path.exists(os.path.join(model, "__init__.py"))):
        raise _no_model(model)
    with script_state([os.getcwd()], [model, *argv]):
        yield _from_python(import_module(match["module"]), match["name"], match["module"], arguments)


def _no_model(model: str) -> LoadError:
    if os.path.isdir(model):
        return LoadError(f"{model} is a folder without a config.json", hint=_FORMS)
    if _HUB.fullmatch(model):
        hint = (
            "nothing is downloaded: give a folder with its config.json, or a file that builds it from its "
            "configuration"
        )
        return LoadError(f"{model} is no file here, and looks like a name on a hub", hint=hint)
    return LoadError(f"{model!r} names no model", hint=_FORMS)


def _check_path(path: str, suffix: str) -> None:
    if not os.path.exists(path):
        folder = os.path.dirname(path) or "."
        where = "" if os.path.isdir(folder) else f"; there is no folder {folder}"
        raise LoadError(f"there is no file {path}{where}", hint=_FORMS)
    if os.path.isdir(path):
        raise LoadError(f"{path} is a folder", hint=_FORMS)
    if suffix in _REFUSED:
        what, hint = _REFUSED[suffix]
        raise LoadError(f"{path} is {what}", hint=hint)


def _from_python(module: types.ModuleType, name: str | None, title: str, arguments: Sequence[str]) -> Loaded:
    if name == "":
        raise LoadError(f"no name follows the colon of {title}:", hint=_FORMS)
    given = dict(_argument(text, vars(module)) for text in arguments)
    built = named(module, name, title, given) if name else only(module, title, given)
    return _completed(module, built, name, title)


def _completed(module: types.ModuleType, built: Built, name: str | None, title: str) -> Loaded:
    """The model with what stands beside it."""
    fresh = built.fresh and "optimizer" not in built.extras
    found = extras({**_file_extras(module, built), **built.extras}, built.model, fresh=fresh)
    chosen = () if name else (f"no name was given: the model is {built.said} in {title}",)
    return Loaded(
        model=built.model,
        inputs=found.inputs,
        loss=found.loss,
        optimizer=found.optimizer,
        expect=found.expect,
        file=os.path.abspath(module.__file__) if module.__file__ else None,
        notes=(*chosen, *found.notes),
        module=module,
        guessed=built.guessed,
        others=(_completed(module, other, name, title) for other in built.others),
    )


def _argument(text: str, namespace: Mapping[str, object]) -> tuple[str, object]:
    """An `--arg` as a name and a value: Python where it is Python, with the names of the model's file, else
    the text itself.

    Raises:
        LoadError: it has no name.
    """
    name, equals, value = text.partition("=")
    name = name.strip()
    if not equals or not all(part.isidentifier() for part in name.split(".")):
        raise LoadError(
            f"cannot read the argument {text!r}", hint="write it like --arg width=64 or --arg config.layers=2"
        )
    try:
        return name, eval(value, {"torch": torch, "nn": torch.nn, **namespace})
    except Exception:  # a word is what most people write for a text
        return name, value


def _file_extras(module: types.ModuleType, built: Built) -> dict[str, object]:
    """The module's namespace without what the model itself is called, so that a model named `loss` is not its
    own loss."""
    return {key: value for key, value in vars(module).items() if value is not built.model}


def _from_archive(file: str, trust_pickle: bool) -> Loaded:
    if file.endswith(".pt2"):
        model, inputs = load_exported(file, trust_pickle=trust_pickle)
        return Loaded(model, inputs=inputs, file=file)
    return Loaded(load_pickle(file, trust_pickle=trust_pickle), file=file)
