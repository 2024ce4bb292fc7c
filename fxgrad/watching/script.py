"""`fxgrad run SCRIPT`: the user's own training script, unchanged, watched until its first optimizer step has
ended.

The script runs as `python SCRIPT ARGS` or `python -m MODULE ARGS` would run it (`fxgrad.watching.target`).
When it dies, its traceback is written to stderr as Python would write it; of a gradient error the report
explains that very error. Not handled: training in child processes (`torch.multiprocessing.spawn`). Under
`torchrun` it is started in every process, and rank 0 reports on all of them: see `fxgrad.watching.ranks`.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
import types
from collections.abc import Callable, Sequence

from fxgrad.records.plain_text import one_line, without_commands
from fxgrad.report import Report
from fxgrad.report.across_ranks import ended
from fxgrad.source.sites import is_user_code
from fxgrad.watching.ranks.board import Board
from fxgrad.watching.ranks.member import Member, ending
from fxgrad.watching.session import Session
from fxgrad.watching.target import as_main, module, script

_HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_DISPATCH = ("handle_torch_function", "__torch_function__")


class Enough(BaseException):
    """Ends a script whose step has been seen. A BaseException: `except Exception` in a training loop must not
    catch it."""


def run_script(
    path: str,
    argv: Sequence[str] = (),
    *,
    as_module: bool = False,
    steps: int = 1,
    go_on: bool = False,
    show: Callable[[Report], None] = lambda report: None,
    choose: Callable[[Report], Report] = lambda report: report,
    judging: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    board: Board | None = None,
    leave: Callable[[int], None] = lambda status: None,
) -> tuple[Report | None, int]:
    """Run a script and report on its first steps.

    Args:
        path: the script, or a module's name where `as_module`. argv: its arguments, without its name. steps:
        optimizer steps to watch. go_on: let the script run on, unwatched, when they have been seen; else it
        ends there. choose: from the report to the one that is shown and decides the exit code: without what
        is known or not asked for. judging: entered while the report is made, which takes its time after a
        large model's step. show: called with the report as soon as there is one: before the script goes on,
        or after its traceback. board: where this process and the others that a launcher started leave what
        they saw; only rank 0 shows a report, on all of them. leave: called with an exit code in the place of
        one of them that stands still for good.

    Returns:
        The report (None if nothing trained) and an exit code: the script's own where it is not 0, else 1 for
        findings at error level, 2 if no training step was seen, 0. Of several processes rank 0 judges all;
        for the others it is their own report, and 0.

    Raises:
        LoadError: there is no such file or module, or it cannot be read.
    """
    target = module(path) if as_module else script(path)
    shown: list[Report] = []

    def tell(report: Report) -> None:
        shown.append(choose(report))
        show(shown[0])

    def stop() -> None:
        if member is not None:
            _say(member)
        leave(1 if shown and not shown[0].ok else 0)

    member = Member(board, tell, stop, _end, go_on=go_on) if board is not None else None

    def done(report: Report) -> None:
        if member is not None:
            member.deliver(report)
        else:
            tell(report)
        if not go_on:
            session.events.when_over = _end
            raise Enough

    session = Session(
        steps=steps,
        boundary=_execute.__code__,
        files=(target.file,),
        title=target.title,
        done=done,
        judging=judging,
        agree=member.agree if member is not None else bool,
    )
    status = 0
    with (
        as_main(target, argv) as main,
        member.watching(session) if member is not None else contextlib.nullcontext(),
    ):
        error = _watched(target.code, main, session)
        if error is None:
            session.names.scan_namespace(vars(main), 0)
        elif not _is_cut_short(error, member):
            status = _died(error)
        report = _reported(session, error, member)
        session.close()
        if member is not None:
            member.deliver(report, ending(error, member.board.rank, report is not None))
            _say(member)
    if member is not None and member.board.rank:
        return report, status
    if member is None and report is not None and not shown:
        tell(report)
    report = shown[0] if shown else None
    return report, status or _exit_code(report)


def _is_cut_short(error: BaseException, member: Member | None) -> bool:
    """Whether the watch ended the script, here or on another rank."""
    return isinstance(error, Enough) or (member is not None and member.ended)


def _reported(session: Session, error: BaseException | None, member: Member | None) -> Report | None:
    """What was seen up to the end of the script, or up to the error that it ended in."""
    is_wanted = isinstance(error, Enough | SystemExit | KeyboardInterrupt)
    report = session.finish(None if is_wanted else error)
    if report is None and error is not None and member is not None:
        return session.interrupted(None)
    return report


def _exit_code(report: Report | None) -> int:
    if report is None:
        return 2
    return 0 if report.ok else 1


def _say(member: Member) -> None:
    """Why there is no report on any rank."""
    for silent in member.silence:
        sys.stderr.write(without_commands(one_line(f"fxgrad: {ended(silent, member.board.size)}")) + "\n")


def _end() -> None:
    raise Enough


def _watched(
    code: types.CodeType | BaseException, main: types.ModuleType, session: Session
) -> BaseException | None:
    """What the script ended with; None where it ran to its end."""
    if isinstance(code, BaseException):
        return code
    session.start()
    try:
        _execute(code, main)
    except BaseException as error:
        return error
    finally:
        session.stop_looking()
    return None


def _execute(code: types.CodeType, main: types.ModuleType) -> None:
    exec(code, main.__dict__)  # what the command is for: it runs the user's script


def _died(error: BaseException) -> int:
    """The exit code of a script that ended in this exception, whose traceback is written as Python
    writes it."""
    if isinstance(error, SystemExit):
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        sys.stderr.write(f"{error.code}\n")
        return 1
    own = own_part(error.__traceback__)
    if sys.excepthook is sys.__excepthook__:
        sys.stderr.write("".join(traceback.format_exception(type(error), error, own)))
    else:  # the script has set its own, or torch.distributed has
        whole = error.__traceback__
        sys.excepthook(type(error), error.with_traceback(own), own)
        error.__traceback__ = whole
    sys.stderr.flush()
    return 130 if isinstance(error, KeyboardInterrupt) else 1


def own_part(found: types.TracebackType | None) -> types.TracebackType | None:
    """The traceback without the frames that are there only because somebody looked on."""
    entries = []
    while found is not None:
        entries.append(found)
        found = found.tb_next
    kept: list[types.TracebackType] = []
    for entry in entries:
        code = entry.tb_frame.f_code
        if os.path.abspath(code.co_filename).startswith(_HERE) or code.co_name in _DISPATCH:
            continue
        if (
            kept
            and kept[-1].tb_frame.f_code is code
            and not is_user_code(code.co_filename)
            and _redispatched(entries, kept[-1], entry)
        ):
            kept.pop()  # the call that went out to the observer, before the one that did the work
        kept.append(entry)
    chain: types.TracebackType | None = None
    for entry in reversed(kept):
        chain = types.TracebackType(chain, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return chain


def _redispatched(
    entries: list[types.TracebackType], before: types.TracebackType, after: types.TracebackType
) -> bool:
    between = entries[entries.index(before) + 1 : entries.index(after)]
    return any(entry.tb_frame.f_code.co_name in _DISPATCH for entry in between)


__all__ = ["Enough", "run_script"]
