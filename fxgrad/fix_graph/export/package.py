"""`--module DIR`: a regenerated module as a package that imports and runs without fxgrad.

Writes `DIR/__init__.py` (a class with the model's layers and its forward, step by step, the user's line above
each), `DIR/state.pt` (its values) and, where a layer has no constructor call, `DIR/layers.pt` (those layers,
pickled). The state dict has the model's keys. Beside them `DIR/fxgrad.json` says what was written: only files
that are still so are replaced. What is written has run: the draft, beside the folder, is tried first
(`fxgrad.fix_graph.export.trial`), and its files are the ones that DIR gets. Not handled: graphs that hold
Python objects of the program; they are refused with the object's name.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
import torch.fx
from torch import nn

from fxgrad.fix_graph.export.definitions import Definitions, identifier
from fxgrad.fix_graph.export.forward_text import forward_lines
from fxgrad.fix_graph.export.fresh_process import PACKAGE
from fxgrad.fix_graph.export.layers_text import constructor_lines, plain_tensors
from fxgrad.fix_graph.export.trial import refuse_other_than
from fxgrad.records.errors import FixError
from fxgrad.source.files import replacing

_MARK = "fxgrad.json"  # by the name of each file that was written, its digest
_FILES = ("__init__.py", "state.pt", "layers.pt")

_CONTAINER = '''

def container(parts):
    """A module that only holds others, parameters and buffers."""
    module = nn.Module()
    for name, part in parts.items():
        setattr(module, name, part)
    return module'''


_GUARD = '''

class GuardError(ValueError):
    """A call breaks what the graph was made for."""'''


def export_module(module: torch.fx.GraphModule, inputs: object, directory: str | Path) -> tuple[Path, ...]:
    """Write the package and return its files. `inputs`: those that the module was made for, which the package
    is tried on.

    The class is called as the model is; `load()` of the package returns it with the values it had here.

    Raises:
        FixError: something in the graph cannot be written down, the package does not do by itself what the
        module does, or the folder
            holds something else. The folder is then as before.
    """
    folder = Path(directory)
    check_folder(folder)
    text, stored = module_source(module, identifier(type(module).__name__))
    try:
        with tempfile.TemporaryDirectory(prefix=".fxgrad-", dir=_existing(folder)) as place:
            draft = Path(place, PACKAGE)
            files = _written_out(module, text, stored, draft)
            refuse_other_than(module, inputs, Path(place))
            with _made(folder):
                _copy(draft, folder, files)
    except OSError as error:
        raise FixError(f"cannot write {folder}: {error.strerror}") from error
    return tuple(folder / file for file in files)


def _existing(folder: Path) -> Path:
    """The folder, or the innermost one above it that exists: a draft there lies on the disk that it is
    written to."""
    return next(path for path in (folder, *folder.absolute().parents) if path.is_dir())


def _written_out(
    module: torch.fx.GraphModule, text: str, stored: dict[str, nn.Module], draft: Path
) -> tuple[str, ...]:
    """The package in a new folder of its own; the names of its files."""
    draft.mkdir()
    values = {**module.state_dict(), **_unsaved(module)}
    saved: dict[str, object] = {
        "state.pt": {key: value.detach().cpu().clone() for key, value in values.items()}
    }
    if stored:
        saved["layers.pt"] = stored
    for file, value in saved.items():
        torch.save(value, draft / file)
    (draft / "__init__.py").write_bytes(text.encode())
    return ("__init__.py", *saved)


@contextlib.contextmanager
def _made(folder: Path) -> Iterator[None]:
    """The folder and those above it; what was not there before goes where the block raises. Folder by folder,
    and only what holds nothing: a whole tree is never removed here."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            for item in folder.iterdir() if folder in new else ():
                item.unlink()
            for path in new:
                path.rmdir()
        raise


def _copy(draft: Path, folder: Path, files: tuple[str, ...]) -> None:
    """The draft's files into the folder, with a mark of what they are; none of them has its name before all
    are on the disk."""
    digests = {file: _digest(draft / file) for file in files}
    with contextlib.ExitStack() as stack:
        mark = stack.enter_context(replacing(folder / _MARK))  # the last to be left, and so to take its name
        mark.write(f"{json.dumps(digests, indent=1)}\n".encode())
        for file in files:
            stream = stack.enter_context(replacing(folder / file))
            with open(draft / file, "rb") as tried:
                shutil.copyfileobj(tried, stream)
            stream.flush()


def module_source(module: torch.fx.GraphModule, name: str) -> tuple[str, dict[str, nn.Module]]:
    """The text of the package, and the layers it loads whole."""
    definitions = Definitions()
    stored: dict[str, nn.Module] = {}
    constructor = constructor_lines(module, stored)
    forward = forward_lines(module, definitions)
    unlisted = tuple(plain_tensors(module))
    imports = {
        "from pathlib import Path": None,
        "import torch": None,
        "from torch import nn": None,
        **definitions.imports,
    }
    copied = bool(definitions.texts)  # whose annotations may name what is not here
    made = [
        f'"""{name} as a graph, written by fxgrad: in-place writes that broke its gradients are out of '
        f'place. Needs {_needs(imports)}."""',
        "",
        *(["from __future__ import annotations", ""] if copied else []),
        *_sorted(imports),
        "",
        "FOLDER = Path(__file__).parent",
        *([_GUARD] if any("raise GuardError(" in line for line in forward) else []),
        *([_CONTAINER] if any("container({" in line for line in constructor) else []),
        *(f"\n\n{text}" for text in definitions.texts.values()),
        f"\n\nclass {name}(nn.Module):",
        "    def __init__(self):",
        "        super().__init__()",
        *(['        stored = torch.load(FOLDER / "layers.pt", weights_only=False)'] if stored else []),
        *(f"        {line}" for line in constructor),
        "",
        *forward,
        "",
        "",
        "def load():",
        f'    """{name} with the values it was exported with."""',
        f"    model = {name}()",
        '    values = torch.load(FOLDER / "state.pt", weights_only=True)',
        "    tensors = {**dict(model.named_parameters(remove_duplicate=False)), "
        "**dict(model.named_buffers(remove_duplicate=False))}",
        *([f"    tensors.update((name, vars(model)[name]) for name in {unlisted})"] if unlisted else []),
        "    with torch.no_grad():",
        "        for name, value in values.items():",
        "            tensors[name].copy_(value)",
        "    return model",
        "",
    ]
    return "\n".join(made), stored


def _needs(imports: Iterable[str]) -> str:
    """`only torch`, `torch and transformers`."""
    roots = {line.split()[1].partition(".")[0] for line in imports} - set(sys.stdlib_module_names) - {"torch"}
    return " and ".join(["torch", *sorted(roots)]) if roots else "only torch"


def _sorted(imports: Iterable[str]) -> list[str]:
    """The standard library's, then the rest."""
    standard = [line for line in imports if line.split()[1].partition(".")[0] in sys.stdlib_module_names]
    others = [line for line in imports if line not in standard]
    return [*sorted(standard), "", *sorted(others, key=lambda line: (line.startswith("from"), line))]


def _unsaved(module: nn.Module) -> dict[str, torch.Tensor]:
    """Buffers that the state dict leaves out, and tensors that are no buffers."""
    saved = module.state_dict()
    buffers = {
        name: buffer for name, buffer in module.named_buffers(remove_duplicate=False) if name not in saved
    }
    return {**buffers, **plain_tensors(module)}


def check_folder(directory: str | Path) -> None:
    """Refuse a folder that holds anything but an earlier export, as it was written.

    Raises:
        FixError: it does.
    """
    folder = Path(directory)
    if folder.exists() and not folder.is_dir():
        raise FixError(f"{folder} is a file", hint="give a folder that does not exist yet")
    if not folder.is_dir() or not any(os.scandir(folder)):
        return
    written = _written(folder)
    if written is None:
        raise FixError(
            f"{folder} holds something else", hint="give a folder that does not exist yet, or is empty"
        )
    for file in _FILES:
        if os.path.lexists(folder / file) and (
            file not in written or _digest(folder / file) != written[file]
        ):
            reason = f"{folder / file} is not as fxgrad wrote it, and would be overwritten"
            raise FixError(reason, hint="give a folder that does not exist yet, or is empty")


def _written(folder: Path) -> dict[str, str] | None:
    """What an earlier export wrote, with its digests; None where there was none."""
    try:
        mark = json.loads((folder / _MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return mark if isinstance(mark, dict) and {"__init__.py", "state.pt"} <= set(mark) else None


def _digest(file: Path) -> str:
    """Of its content; "" of what cannot be read."""
    try:
        with open(file, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return ""
