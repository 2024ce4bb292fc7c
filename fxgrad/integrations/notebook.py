"""`%load_ext fxgrad`, and `%%fxgrad` over a cell that trains: the cell runs as it is, watched as
`fxgrad.watch` would, and its output ends in the report.

    %%fxgrad                    all models and optimizers that train, for one step
    %%fxgrad --steps 3          for three
    %%fxgrad model optimizer    these alone

Needs IPython, which is there where this is loaded. A cell with `await` at its top is refused: the kernel's
event loop runs already, and a magic cannot wait for it. `with fxgrad.watch(...)` does it in such a cell.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from types import FrameType
from typing import Any

from fxgrad.records.cells import cell_name
from fxgrad.records.errors import InputError
from fxgrad.report import Report
from fxgrad.watching.script import own_part
from fxgrad.watching.session import Session, flat

_LINE = re.compile(r"(?:--steps[ =](?P<steps>[1-9]\d*))?(?P<names>(?:[ ,]*[^-\s,][^\s,]*)*)\s*")


def load(shell: Any) -> None:
    """Give a running IPython the magic."""

    def fxgrad(line: str, cell: str) -> Report | None:
        __tracebackhide__ = True  # IPython leaves this frame out of a cell's traceback
        report, error = _watched(shell, line, cell)
        if error is None:
            if report is None:
                print("fxgrad: no training step had ended when the cell did: nothing to report")
            return report
        if report is not None:
            shell.displayhook(report)
        raise error.with_traceback(own_part(error.__traceback__))

    fxgrad.__doc__ = __doc__
    shell.register_magic_function(fxgrad, "cell", "fxgrad")


def _watched(shell: Any, line: str, cell: str) -> tuple[Report | None, BaseException | None]:
    """The report on the cell, and what it raised."""
    name, number = _cell()
    given = _LINE.fullmatch(line.strip())
    if given is None:
        raise InputError(
            f"%%fxgrad does not know {line.strip()!r}", hint="%%fxgrad [--steps N] [model optimizer ...]"
        )
    chosen = [eval(name, shell.user_ns) for name in re.split(r"[ ,]+", given["names"]) if name]
    # The line of the magic stays a line: places are those that the user sees.
    text = shell.transform_cell(f"# %%fxgrad\n{cell}")
    file = shell.compile.cache(text, number or shell.execution_count, raw_code=text)
    tree = shell.transform_ast(shell.compile.ast_parse(text, filename=file))
    whole = compile(tree, file, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    if whole.co_flags & inspect.CO_COROUTINE:
        raise InputError(
            "%%fxgrad cannot run a cell with `await` at its top: a magic cannot wait for the event loop",
            hint="without the magic, put `with fxgrad.watch(model, optimizer):` around the steps",
        )
    steps, boundary = int(given["steps"] or 1), _execute.__code__
    title = "" if chosen else name
    session = Session(flat(tuple(chosen)), steps=steps, boundary=boundary, files=(file,), title=title)
    session.names.scan_namespace(_variables(shell), 0)
    session.start()
    error: BaseException | None = None
    try:
        _execute(shell, tree, file)
    except BaseException as raised:
        error = raised
    finally:
        session.stop_looking()
    session.names.scan_namespace(_variables(shell), 0)
    try:
        report = session.finish(error)
    finally:
        session.close()
    return (None if report is None else replace(report, command=f"%%fxgrad {line}".strip())), error


def _cell() -> tuple[str, int]:
    """The name and the number of the cell that is running; IPython counts on before or after, by its
    version."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if name := cell_name(frame.f_code.co_filename):
            return name, int("".join(filter(str.isdigit, name)) or 0)
        frame = frame.f_back
    return "", 0


def _variables(shell: Any) -> Mapping[str, Any]:
    """The user's own: not what IPython keeps (`_`, `Out`)."""
    return {
        name: value
        for name, value in shell.user_ns.items()
        if name not in shell.user_ns_hidden and not name.startswith("_")
    }


def _execute(shell: Any, tree: ast.Module, file: str) -> None:
    """As IPython does: what the last expression gives is shown."""
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(shell.compile(tree, file, "exec"), shell.user_ns)
    if isinstance(last, ast.Expr):
        value = eval(shell.compile(ast.Expression(last.value), file, "eval"), shell.user_ns)
        shell.displayhook(value)
