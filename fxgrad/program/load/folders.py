"""A model of the transformers library from the `config.json` of a folder, without weights: on the meta
device, of any size.

The architecture is the one that the configuration names, else the library's own choice for it. Nothing is
downloaded, and no code of the folder runs. Not handled: folders whose model is code of their own, and other
libraries.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
from typing import Any

import torch
from torch import nn

from fxgrad.program.load.execute import failing_as_load_error
from fxgrad.records.errors import LoadError

CONFIG = "config.json"


def is_model_folder(path: str) -> bool:
    """Whether it is a folder with a configuration in it."""
    return os.path.isfile(os.path.join(path, CONFIG))


def load_folder(folder: str) -> tuple[nn.Module, str]:
    """The model, and what there is to say of it.

    Raises:
        LoadError: transformers is not there, or the configuration is not of a model that it knows.
    """
    name = os.path.join(folder, CONFIG)
    try:
        with open(name, encoding="utf-8") as stream:
            written = json.load(stream)
    except (OSError, ValueError) as error:
        raise LoadError(f"{name} cannot be read: {error}", hint="give a folder of save_pretrained") from error
    if not isinstance(written, dict) or "model_type" not in written:
        raise LoadError(
            f"{name} names no model_type",
            hint="give a folder of save_pretrained, or the Python file that builds the model",
        )
    if importlib.util.find_spec("transformers") is None:
        raise LoadError(
            f"{folder} is a model of the transformers library, which is not installed",
            hint="pip install transformers",
        )
    if "auto_map" in written:
        hint = "write a file that builds it: model = AutoModel.from_config(config, trust_remote_code=True)"
        raise LoadError(f"{name} asks for code of its own, which is not run", hint=hint)
    transformers: Any = importlib.import_module("transformers")
    with failing_as_load_error(f"building the model of {name}"), torch.device("meta"):
        config = transformers.AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        known = [
            one
            for one in written.get("architectures") or ()
            if isinstance(getattr(transformers, str(one), None), type)
        ]
        model = (
            getattr(transformers, known[0])(config) if known else transformers.AutoModel.from_config(config)
        )
    return (
        model.train(),
        f"the model is a {type(model).__name__} built from {name} on the meta device, without weights",
    )
