"""One watch from beginning to end: when it starts to look, when it has seen enough, and the report.

It has seen enough when every optimizer that takes part has stepped `steps` times after a backward (of a GAN's
two the second comes later) and another step is about to begin: by then the next forward and backward have
run, and so has what goes wrong only there (a hidden state that was kept, a backward after the step it was
meant for). An optimizer that never steps while another does is waited for `PATIENCE` steps and then left out
of the judgement, which the report says. While something that should train has no gradient, or only zeros,
further steps run (`further`). Compiled code runs eagerly while it is watched; where it is differentiated in a
way that it may refuse, or must be captured whole, a step as the program has it follows the watched ones
(`compiled`).
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from types import CodeType, FrameType, TracebackType

import torch
from torch import nn
from torch.optim import Optimizer

from fxgrad.passes.analyses.optimizers import held_by
from fxgrad.records.errors import InputError
from fxgrad.report import Report
from fxgrad.source.sites import Spot
from fxgrad.torch_api import registry
from fxgrad.torch_api.internals import (
    DisableTorchFunction,
    function_mode_count,
    pop_function_mode,
    push_function_mode,
    version_of,
)
from fxgrad.trace.events import Events
from fxgrad.trace.gradients import better, state_of
from fxgrad.trace.notes import Backward, Taken
from fxgrad.trace.observer import Observer
from fxgrad.trace.self_check import refuse_unknown_torch
from fxgrad.watching import compiled, gradient_errors, worker_loop
from fxgrad.watching.further import Further
from fxgrad.watching.judge import STOPPED, report_on
from fxgrad.watching.meant import meant
from fxgrad.watching.registered import Registered, parts_in_place
from fxgrad.watching.seen import Seen
from fxgrad.watching.steps import note_after, note_begun, wrote_gradients
from fxgrad.watching.variable_names import Names

PATIENCE = 8
EVALUATIONS = 25  # of a closure in one step: the most that LBFGS makes by default
SCANS = 8  # backward calls at which variables are looked at


class Session:
    """A watch. `done` is called with the report, inside the step that ended it; `raising` with an error of a
    model or a backward.

    `agree`: whether a further step is watched, from whether this process wants one: of several that run in
    step, each must end before the same one.
    """

    def __init__(
        self,
        given: Sequence[object] = (),
        *,
        steps: int = 1,
        boundary: CodeType | None = None,
        files: Sequence[str] = (),
        title: str = "",
        done: Callable[[Report], None] = lambda report: None,
        raising: Callable[[BaseException], None] = lambda error: None,
        judging: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
        agree: Callable[[bool], bool] = bool,
    ) -> None:
        self.given = tuple(item for item in given if isinstance(item, nn.Module))
        self.chosen = tuple(item for item in given if isinstance(item, Optimizer))
        self.steps = steps
        self.files = tuple(files)
        self.title = title
        self.report: Report | None = None
        self._done = done
        self._judging = judging
        self._agree = agree
        self._judgement = threading.RLock()  # a thread beside the program judges one that stands still
        self.observer = Observer(boundary, self._before_backward, self._after_backward, self._after_repeat)
        self.observer.on_raise = raising
        self.events = Events(self.observer, self._before_step, self._after_step)
        self.events.on_outermost = self._first_call
        self.events.on_step_within = self._step_within
        self.events.on_first_forward = lambda module: self.registered.compare()
        self.registered = Registered()
        self.names = Names()
        # those that hold something a step could change
        self._fed: weakref.WeakSet[Optimizer] = weakref.WeakSet()
        self._stepped: weakref.WeakKeyDictionary[Optimizer, int] = weakref.WeakKeyDictionary()
        self._open: list[weakref.ref[Optimizer]] = []  # steps that run now: a wrapper's holds another's
        self._inner: list[Optimizer] = []
        self._states: frozenset[str] = frozenset()  # of the gradients as the outermost of them began
        self._further = Further(self.observer.ledger)
        self._said: list[str] = []
        self._beside = False  # a step is to run as it is, compiled
        self._ran = False  # and has
        self._compiled_error: BaseException | None = None
        # a function that trains may have returned before there is a report on it
        self._kept: tuple[Optimizer, ...] = ()
        # leaves of the last backward: version and value then
        self._reached: list[tuple[weakref.ref[torch.Tensor], int, int]] = []
        self._turn = 0  # steps that have begun
        self._turns: dict[int, tuple[int, int]] = {}  # the first and the last at which a leaf was reached
        # the leaves, as they were then: version and value
        self._first: dict[int, tuple[weakref.ref[torch.Tensor], int, int]] = {}
        self._unfinished = False  # interrupted before the first step had ended
        self._within = False  # optimizers step inside a backward
        self._by_hand = 0
        self._evaluated = 0  # how often the step that runs now asked its closure
        self._mark = 0
        self._hooks = contextlib.ExitStack()
        self._patches = contextlib.ExitStack()
        self.events.optimizers.update(self.chosen)

    # ------------------------------------------------------------------ beginning and end

    def start(self) -> None:
        """Look from now on.

        Raises:
            TraceError: this torch is newer than those known, and its seams do not match.
        """
        refuse_unknown_torch()
        _running.add(self)
        self._hooks.enter_context(self.events.steps())
        self._patches.enter_context(self.events.caught())
        self._patches.enter_context(worker_loop.told())
        self.observer.__enter__()  # type: ignore[no-untyped-call]
        self.observer.coverage.start()

    def stop_looking(self) -> None:
        """Leave the program to itself. May be called inside a call that is being watched."""
        self.observer.active = False
        self.observer.coverage.stop()
        _remove(self.observer)
        self._patches.close()

    def close(self) -> None:
        """Take the last hooks off: outside any optimizer step."""
        self.stop_looking()
        self._hooks.close()
        self._kept = ()
        self.registered.clear()
        self.observer.ledger.tensors.clear()

    def finish(self, error: BaseException | None = None) -> Report | None:
        """The report on what was seen so far; None where there is nothing to report: no step, no backward, or
        an error that has nothing to do with gradients before the first step had ended."""
        if self.report is not None:
            return self.report
        if error is not None and self._beside:
            self._compiled_error = error
            error = error if not compiled.is_from_compiling(error) else None
        if error is not None and not self._explains(error):
            if not any(self._stepped.values()):
                # in the middle of a first step nothing can be said of what it would have left without a
                # gradient
                return None
            error = None
        if error is None and not self.observer.backwards and not self.observer.taken:
            if self.observer.trouble is not None:
                warnings.warn(f"{STOPPED}: {self.observer.trouble!r}", RuntimeWarning, stacklevel=2)
            return None
        return self._judged(error)

    def _explains(self, error: BaseException) -> bool:
        """Whether what was seen says what led to the error that ended the program; notes the names of its
        frames."""
        self._scan_traceback(error.__traceback__)
        modules = (*self.given, *(module for _, module in self.names.modules()))
        if not gradient_errors.is_gradient_error(error, self.observer, iter(modules)):
            return False
        if self._further.count:  # too little was noted of this step
            self._said.append(
                "the program then died of a gradient error in a step of which only gradients were "
                f"watched: watch {self.steps} steps"
            )
        return not self._further.count

    def interrupted(self, frame: FrameType | None) -> Report | None:
        """The report on a program that another process keeps from going on; None where nothing can be said
        yet.

        It stands still at `frame`, and this is another thread; or it has failed. What a backward was about to
        reach counts as reached; before the first step has ended what none has reached is unknown: another
        backward may have been to come.
        """
        with self._judgement:
            if self.report is not None:
                return self.report
            if not self.observer.backwards and not any(self._stepped.values()):
                return None
            self._unfinished = not any(self._stepped.values())
            reached = self._cut_short()
            self.names.scan(frame, self.observer.ledger.boundary)
            found = {self.observer.ledger.read(leaf)[1].leaf: leaf for leaf in reached}
            for slot in self.observer.ledger.tensors.living():
                if slot.leaf in found:
                    gradient = found[slot.leaf].grad
                    slot.after = better(slot.after, "some" if gradient is None else state_of(gradient))
            return self._judged(None)

    def _cut_short(self) -> list[torch.Tensor]:
        """The leaves of the backward that runs now, or that was the last and failed."""
        observer = self.observer
        if observer.nested:
            return observer.nested[0]
        if not observer.backwards or not observer.backwards[-1].failed:
            return []
        return [leaf for ref, _, _ in self._reached if (leaf := ref()) is not None]

    def _judged(self, error: BaseException | None) -> Report:
        with self._judgement:
            self.stop_looking()
            if self.report is None:
                held = {id(p) for optimizer in self._optimizers() for p in held_by(optimizer)}
                models = list(self.events.outermost.values())
                parts = parts_in_place(self.observer.ledger, models)
                with (
                    DisableTorchFunction(),
                    self._judging(),
                    self.registered.in_place(held),
                    parts,
                    _uncollected(),
                ):
                    self.report = report_on(self._seen(), error)
            return self.report

    def _seen(self) -> Seen:
        stepped = [o for o in self._optimizers() if self._stepped.get(o, 0)]
        vain = tuple(o for o in stepped if o not in self._fed and list(held_by(o)))
        ordered = sorted(
            (o for o in self._optimizers() if o not in vain), key=lambda o: -self._stepped.get(o, 0)
        )
        said = (*self._said, *self._idle())
        return Seen(
            self.observer,
            self.events,
            self.names,
            self.given,
            tuple((o, self._stepped.get(o, 0) > 0) for o in ordered),
            self.files,
            self.title or self._title(),
            self._mark if self.observer.delivered else 0,
            said,
            self._unfinished,
            self._further.count,
            tuple(self._further.late()),
            vain,
            self._ran,
            self._compiled_error,
            frozenset(leaf for leaf, (first, last) in self._turns.items() if first != last),
            frozenset(leaf for leaf, state in self._first.items() if self._is_as_it_was(state)),
        )

    def _idle(self) -> list[str]:
        """What is said of optimizers that have not stepped while others have."""
        stepped = [o for o in self._optimizers() if self._stepped.get(o, 0)]
        judged = {id(p) for o in stepped for p in held_by(o)}
        idle = (
            [o for o in self._waiting(1) if any(id(p) not in judged for p in held_by(o))] if stepped else []
        )
        kinds = dict.fromkeys(type(o).__name__ for o in idle)
        return [f"{kind} has not stepped yet: what it holds is not judged" for kind in kinds]

    def _title(self) -> str:
        return ", ".join(self.names.of_module(module) for module in self.given) or "program"

    # ------------------------------------------------------------------ what happens meanwhile

    def _before_backward(self) -> None:
        """Updates by hand: with no optimizer a step has ended when the next backward finds what the last one
        reached rewritten.

        Through `.data`, which moves no version counter, too: a noted write makes a leaf another value. In
        further steps nothing is noted, and every backward counts.
        """
        if self._within and not self._waiting(self.steps + 1):
            self._enough()
        if self.events.optimizers:
            return
        written = self.observer.gradients_only or any(
            state[0]() is not None and not self._is_as_it_was(state) for state in self._reached
        )
        if written:
            self._by_hand += 1
            if self._by_hand > self.steps:
                self._enough()

    def _is_as_it_was(self, state: tuple[weakref.ref[torch.Tensor], int, int]) -> bool:
        """Whether nothing has written a leaf since."""
        reference, version, value = state
        leaf = reference()
        return leaf is not None and version_of(leaf) == version and self._value(leaf) == value

    def _value(self, leaf: torch.Tensor) -> int:
        slot = self.observer.ledger.tensors.get(leaf)
        return slot.value if slot is not None else -1

    def _enough(self) -> None:
        observer = self.observer
        closely = not self._mark and self._has_zeros()
        wanted = closely or self._further.wanted(self._trainable())
        if self._agree(wanted):
            self.steps += 1
            self._kept = self._optimizers()
            if closely:  # of zeros a second step tells whether they stay, and where on the way they come from
                self._mark = observer.ledger.count
            else:
                self._further.count += 1
            observer.closely, observer.gradients_only = closely, not closely
            observer.rounds.reset()
            if observer.gradients_only:
                observer.coverage.stop()
        elif self.report is None:
            self._done(self._judged(None))

    def _has_zeros(self) -> bool:
        return any((slot.begun or slot.after) == "zero" for slot in self.observer.ledger.tensors.living())

    def _trainable(self) -> list[torch.Tensor]:
        """What should train: what optimizers that step hold; where there is none, the parameters of what was
        called and trains."""
        stepped = [optimizer for optimizer in self._optimizers() if self._stepped.get(optimizer, 0)]
        if stepped:
            return [parameter for optimizer in stepped for parameter in held_by(optimizer)]
        return [
            parameter
            for module in meant(self.observer, self.events)
            for parameter in registry.parameters(module)
        ]

    def _after_backward(
        self, backward: Backward, reached: list[tuple[torch.Tensor, torch.Tensor | None]]
    ) -> None:
        note_after(self.observer.ledger, reached, returned=backward.partial)
        if backward.partial:
            return
        self._reached = [(weakref.ref(leaf), version_of(leaf), self._value(leaf)) for leaf, _ in reached]
        for state in self._reached:
            leaf = state[0]()
            if leaf is not None:
                edge = -self.observer.ledger.read(leaf)[1].leaf
                self._turns[edge] = self._turns.get(edge, (self._turn,))[0], self._turn
                self._first.setdefault(edge, state)
        if len(self.observer.backwards) <= SCANS:
            self._scan()
        self._evaluate()

    def _after_repeat(self, gradients: list[tuple[torch.Tensor, torch.Tensor | None]]) -> None:
        note_after(self.observer.ledger, gradients, returned=True)
        self._evaluate()

    def _evaluate(self) -> None:
        if self._open:
            self._evaluated += 1
            if self._evaluated > EVALUATIONS:
                self._asked_again()

    def _asked_again(self) -> None:
        """A step that asks its closure again and again (`LBFGS(max_iter=50_000)`) may be the whole training:
        it is not waited for, each further evaluation counts as one."""
        optimizer = self._open[0]()
        if optimizer is None:
            return
        with self.observer.guarded():
            self._states, _, _ = note_begun(self.observer.ledger, optimizer)
            self._note_fed(optimizer)
        self._kept = self._kept or (optimizer,)
        self._stepped[optimizer] = self._stepped.get(optimizer, 0) + 1
        if self._seen_enough():
            self._enough()

    def _before_step(self, optimizer: Optimizer) -> None:
        observer = self.observer
        if not self._open and self._seen_enough() and self._comes_round(optimizer):
            with observer.guarded():
                note_begun(observer.ledger, optimizer)
            self._enough()
            if self.report is not None:
                return
        self._open.append(weakref.ref(optimizer))
        if len(self._open) > 1 and self._open[0]() is not None and observer.stepping:
            self._inner.append(optimizer)
            return
        self._open, self._inner = self._open[-1:], []
        self._evaluated = 0
        self._note_step(optimizer)
        observer.stepping = True

    def _note_step(self, optimizer: Optimizer) -> None:
        observer = self.observer
        self._turn += 1
        with observer.guarded():
            self._states, leaves, had = note_begun(observer.ledger, optimizer)
            self._note_fed(optimizer)
            if observer.gradients_only:
                return
            self._scan()
            spots = observer.ledger.spots()
            written: tuple[Spot, ...] = ()
            if "some" not in self._states and had and not observer.cleared and observer.backwards:
                written = wrote_gradients(observer.ledger, optimizer, observer.backwards[-1].note)
                written = written or observer.exchanged
            observer.taken.append(
                Taken(
                    observer.ledger.count,
                    spots,
                    self._states,
                    leaves,
                    observer.cleared or written,
                    had,
                    bool(written),
                )
            )

    def _step_within(self, optimizer: Optimizer) -> None:
        """A step that a hook on a gradient takes, inside the backward that made it: as that ends the gradient
        may be gone. The watch ends before a later backward."""
        with self.observer.guarded():
            note_begun(self.observer.ledger, optimizer)
            self._note_fed(optimizer)
        self._within = True
        self._stepped[optimizer] = self._stepped.get(optimizer, 0) + 1

    def look(self, optimizer: Optimizer) -> None:
        """Take the gradients as they are now for those of a step: a trainer says that one is about to
        begin."""
        self.events.optimizers.add(optimizer)
        self._note_step(optimizer)
        self._stepped[optimizer] = self._stepped.get(optimizer, 0) + 1

    def _after_step(self, optimizer: Optimizer) -> None:
        observer = self.observer
        self._open.pop()
        if self._open:
            return
        observer.stepping = False
        with observer.guarded():
            if "some" not in self._states:  # a step that is given a closure runs its backwards itself
                note_begun(observer.ledger, optimizer)
                self._note_fed(optimizer)
            if not observer.gradients_only:
                self._note_writes(optimizer)
        observer.forget_numbers()
        if "some" in self._states or any(not backward.partial for backward in observer.backwards):
            self._kept = self._kept or (optimizer,)
            for stepped in dict.fromkeys((optimizer, *self._inner)):
                self._stepped[stepped] = self._stepped.get(stepped, 0) + 1
        self._inner = []
        may_refuse = self.events.compiles and (observer.again or self.events.whole)
        if may_refuse and not self._waiting(self.steps):
            self._run_compiled()

    def _run_compiled(self) -> None:
        """Let the next step run as the program has it: what is compiled may refuse what its Python code
        allowed."""
        self._beside, self._kept = True, self._optimizers()
        self.stop_looking()
        self.events.when_over = self._ran_compiled

    def _ran_compiled(self) -> None:
        self.events.when_over = None
        self._ran = True
        if self.report is None:
            self._done(self._judged(None))

    def _note_fed(self, optimizer: Optimizer) -> None:
        if any(
            p.requires_grad or p.grad is not None or isinstance(p, nn.Parameter) for p in held_by(optimizer)
        ):
            self._fed.add(optimizer)

    def _note_writes(self, optimizer: Optimizer) -> None:
        ledger = self.observer.ledger
        note = ledger.note("op", f"{type(optimizer).__name__}.step")
        for parameter in held_by(optimizer):
            slot = ledger.tensors.get(parameter)
            if slot is not None and version_of(parameter) != slot.version:
                ledger.written(note, parameter, slot)
        if note.makes:
            ledger.connect(note)

    def _seen_enough(self) -> bool:
        most = max((self._stepped.get(o, 0) for o in self._optimizers()), default=0)
        return most >= self.steps + PATIENCE or (most >= self.steps and not self._waiting(self.steps))

    def _comes_round(self, optimizer: Optimizer) -> bool:
        """Whether the others that step are about to, or have, again: of a GAN's two the second backward of
        each is to be seen. One that steps more seldom is not waited for."""
        if self._stepped.get(optimizer, 0) > self.steps:
            return True
        stepped = (self._stepped.get(o, 0) for o in self._optimizers() if o is not optimizer)
        return all(count > self.steps or not count for count in stepped)

    def _optimizers(self) -> tuple[Optimizer, ...]:
        return self.chosen or tuple(
            o for o in self.events.optimizers if _could_train(o) or self._stepped.get(o, 0)
        )

    def _waiting(self, steps: int) -> list[Optimizer]:
        """The optimizers that have not stepped so often and hold what no other that has does, or what the
        others do not train."""
        ready = [o for o in self._optimizers() if self._stepped.get(o, 0) >= steps]
        covered = {
            id(p)
            for o in ready
            for p in held_by(o)
            if (slot := self.observer.ledger.tensors.get(p)) and slot.begun == "some"
        }
        return [
            o
            for o in self._optimizers()
            if o not in ready and any(p.requires_grad and id(p) not in covered for p in held_by(o))
        ]

    # ------------------------------------------------------------------ names

    def _first_call(self, module: nn.Module) -> None:
        self._scan()
        self.registered.note(module)

    def _scan(self) -> None:
        self.names.scan(sys._getframe(1), self.observer.ledger.boundary)

    def _scan_traceback(self, traceback: TracebackType | None) -> None:
        while traceback is not None:
            self.names.scan(traceback.tb_frame, self.observer.ledger.boundary)
            traceback = traceback.tb_next


_running: weakref.WeakSet[Session] = weakref.WeakSet()


def _in_child() -> None:
    """A forked process, such as a worker that loads data, runs unwatched: nobody reads what would be noted
    there."""
    for session in list(_running):
        session.stop_looking()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def flat(given: Sequence[object]) -> tuple[nn.Module | Optimizer, ...]:
    """The models and optimizers in the arguments, out of lists and tuples.

    Raises:
        InputError: one is neither.
    """
    found: list[nn.Module | Optimizer] = []
    for item in given:
        if isinstance(item, nn.Module | Optimizer):
            found.append(item)
        elif isinstance(item, list | tuple):
            found += flat(item)
        else:
            raise InputError(
                f"watch takes modules and optimizers, not {type(item).__name__}",
                hint="`with fxgrad.watch(model, optimizer) as watch: step()`; with no arguments it finds "
                "them by itself",
            )
    return tuple(found)


def _could_train(optimizer: Optimizer) -> bool:
    return any(parameter.requires_grad for parameter in held_by(optimizer))


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """No pass over all objects while many are made and none is dropped."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _remove(observer: Observer) -> None:
    """Take the mode off torch's stack, wherever in it it is: a `with torch.device(...)` may have been entered
    above it."""
    above = []
    for _ in range(function_mode_count()):
        mode = pop_function_mode()
        if mode is observer:
            break
        above.append(mode)
    for mode in reversed(above):
        push_function_mode(mode)
