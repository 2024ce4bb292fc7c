"""`fxgrad --version -v`: the versions that decide what fxgrad sees, and whether what it takes hold of in
torch is as it knows it.

One line per seam of `fxgrad.trace.self_check`, made on this torch whether or not it is one of those tried.
"""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version


def _version(package: str, otherwise: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return otherwise


def short() -> str:
    """The line of `--version`, by what is installed: torch is not imported for it."""
    return f"fxgrad {_own()} (torch {_version('torch', 'is not installed')})"


def _own() -> str:
    return _version("fxgrad", "of a checkout")


def long() -> str:
    """All of it."""
    import torch

    from fxgrad.torch_api.versions import newer_than_tried, tried
    from fxgrad.trace.self_check import seams

    known = f"newer than tried: {tried()}" if newer_than_tried() else f"tried: {tried()}"
    lines = [
        f"fxgrad {_own()}",
        f"torch {torch.__version__} ({known})",
        f"Python {platform.python_version()}",
        platform.platform(),
        *(f"seam: {seam.name}: {seam.wrong or 'as eager'}" for seam in seams()),
    ]
    return "\n".join(lines)
