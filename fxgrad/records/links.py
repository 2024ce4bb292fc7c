"""Where the project lives: the one place in the package that knows its address, the same as `[project.urls]`
in pyproject.toml."""

from __future__ import annotations

HOME = "https://github.com/fxgrad/fxgrad"


def rule_page(code: str, name: str) -> str:
    """The page of a rule: the file whose docstring is its documentation."""
    return f"{HOME}/blob/main/passes/rules/{code.lower()}_{name.replace('-', '_')}.py"
