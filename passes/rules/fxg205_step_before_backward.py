"""A parameter is written between the forward that used it and the backward that needs its old value.

What it finds
    An optimizer step, a manual update under `no_grad`, a copy into the online network or any other in-place
    write of a trainable parameter after a step saved it for backward and before backward runs through that
    step. In a watched script also a step that torch lets pass: it comes before its backward, with no
    gradients or with those of other weights, or no backward runs at all; and a gradient that is read before
    there is one, or after it was dropped.

Why it matters
    Backward raises "modified by an inplace operation" with a shape that looks like `AsStridedBackward0`, and
    names no line. It is how most GAN and actor-critic loops break that ran before torch 1.5.

Example
    score = self.critic(state)
    critic_loss.backward(retain_graph=True)
    self.critic_optimizer.step()
    (-score.mean()).backward()

Instead
    critic_loss.backward(retain_graph=True)
    self.critic_optimizer.step()
    (-self.critic(state).mean()).backward()

When the fix is safe
    Running forward again after the step changes what the second loss is measured on (the new weights);
    calling every backward before any step does not, but each backward then adds to the gradients of all
    parameters it reaches.

Not handled
    Writes that torch's version counter does not see (`.data`, fused optimizers): those are FXG203.
"""

from __future__ import annotations

from collections.abc import Iterator

from fxgrad.passes.analyses.overwrites import Overwrite, overwrites
from fxgrad.passes.analyses.step_order import Early, lost_by
from fxgrad.passes.context import Context
from fxgrad.passes.findings import expression, line_of, listed
from fxgrad.records import Facts, Finding, Fix, Step
from fxgrad.records.training import Training
from fxgrad.torch_api.errors import OVERWRITTEN, says

CODE = "FXG205"
NAME = "step-before-backward"
SEVERITY = "error"

SHOWN = 4  # saving steps in the path


def check(facts: Facts, context: Context) -> Iterator[Finding]:
    """One finding per line that writes parameters too early."""
    yield from _unnoticed(context)
    error = facts.error
    if error is None or not says(error.message, OVERWRITTEN) or context.hazards is None:
        return
    yield from (_finding(overwrite) for overwrite in overwrites(context.hazards) if overwrite.parameters)


def _unnoticed(context: Context) -> Iterator[Finding]:
    """What came too early and raised nothing, as far as a script was watched."""
    training, seen = context.training, set()
    if training is None:
        return
    for early in context.early:
        if early.change.site not in seen:
            seen.add(early.change.site)
            yield _early(early, training)
    # a script may give the gradients itself: of `torch.func.grad`, of another process
    idle = next((step for step in training.steps if step.states <= {"none"}), None)
    if not training.walks and idle is not None:
        yield Finding(
            CODE,
            NAME,
            "error",
            "the optimizer steps and no backward has run: nothing has a gradient",
            idle.site,
            (),
            (),
            Fix(_missing_call(training)),
        )


def _missing_call(training: Training) -> str:
    """Where the backward belongs that nobody calls: before the step, or into what the step calls."""
    names = sorted(name.rpartition(".")[2] for _, name in training.closures)
    if len(names) != 1 or "<" in names[0]:
        return "call `loss.backward()` before the step"
    return f"call `loss.backward()` in `{names[0]}`, which the step calls, before it returns the loss"


def _early(early: Early, training: Training) -> Finding:
    change, walk, used = early.change, early.walk.site, early.used.site
    site, what = change.site, change.what
    lost = lost_by(training, change.leaves) if change.nothing else ()
    why = "the gradients belong to weights that are no longer there"
    if change.nothing:
        why = "it has no gradients to use" + ("" if lost else " but those of an earlier step")
    return Finding(
        CODE,
        NAME,
        "error" if change.nothing else "warning",
        f"this {what} runs between a forward{line_of(used, site)} and its backward{line_of(walk, site)}: "
        f"{why}",
        site,
        lost,
        (Step("backward", walk), Step(what, site, True), Step("forward", used)),
        Fix(f"call backward first, then {what}"),
    )


def _finding(overwrite: Overwrite) -> Finding:
    writer = overwrite.writer
    users = dict.fromkeys(
        f"`{expression(s.saver)}`{line_of(s.saver.site, writer.site)}" for s in overwrite.saves
    )
    first = next(iter(users)) + (f" and {len(users) - 1} more" if len(users) > 1 else "")
    stations = (Step(expression(s.saver), s.saver.site) for s in overwrite.saves[:SHOWN])
    return Finding(
        CODE,
        NAME,
        "error",
        f"`{expression(writer)}` changes {listed(overwrite.parameters)} after {first} used the old values "
        "and before backward runs through it",
        writer.site,
        overwrite.parameters,
        (Step("loss"), *stations, Step(expression(writer), writer.site, True)),
        Fix(
            f"call every backward that needs the old weights before `{expression(writer)}`, or run forward "
            "again after it"
        ),
        step=writer.name,
    )
