"""A step as a command line names it: MODEL with `--arg` and `--`, `--input`, `--loss`, `--expect`, and what
of these is guessed.

Where the model's own arguments are guessed, those guesses are kept that inputs can be found for. Not handled:
what analyses the step.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fxgrad.program.infer import given_inputs, inputs_from_specs, larger_inputs, other_dimensions
from fxgrad.program.load import Loaded, loading
from fxgrad.records import Inputs
from fxgrad.records.errors import InputError

_MODELS = 6  # other guesses of a model's arguments that are tried when no inputs fit


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """What the command line asks about. `found`: what was assumed of the inputs, `specs`: those that the user
    wrote."""

    loaded: Loaded
    inputs: Inputs
    loss: Callable[..., object] | None
    expect: tuple[str, ...] | None
    found: tuple[str, ...]
    specs: tuple[str, ...] = ()

    @property
    def model(self) -> Any:
        return self.loaded.model

    @property
    def optimizer(self) -> Any:
        return self.loaded.optimizer

    def others(self, *, inputs_too: bool) -> Iterator[tuple[str, str, str, Step]]:
        """The step with another guess: the option that would decide, what it was guessed as, what it is in
        the other step, and that step."""
        for key, own, other, made in self.loaded.guessed.others() if self.loaded.guessed is not None else ():
            if isinstance(made.value, type(self.model)):
                loaded = replace(self.loaded, model=made.value, guessed=None, others=iter(()), optimizer=None)
                with contextlib.suppress(InputError):
                    loaded, inputs, _ = _with_inputs(loaded, self.specs)
                    yield (
                        "--arg",
                        f"{key}={own}",
                        f"{key}={other}",
                        replace(self, loaded=loaded, inputs=inputs),
                    )
        if inputs_too and self.found:
            with contextlib.suppress(InputError):
                inputs, own, other = other_dimensions(self.model, inputs_from_specs(self.specs))
                yield "--input", own, other, replace(self, inputs=inputs)

    def larger(self) -> Iterator[Step]:
        """The step with longer inputs, where they are guessed."""
        if self.found:
            with contextlib.suppress(InputError):
                for inputs, found in larger_inputs(self.model, inputs_from_specs(self.specs)):
                    yield replace(self, inputs=inputs, found=found)

    @property
    def assumed(self) -> tuple[str, ...]:
        """Everything that nobody wrote, as the report lists it."""
        return (*self.loaded.assumed, *self.found)


@contextlib.contextmanager
def step_of(
    model: str,
    *,
    inputs: Sequence[str] = (),
    loss: str | None = None,
    expect: Sequence[str] | None = None,
    trust_pickle: bool = False,
    arguments: Sequence[str] = (),
    argv: Sequence[str] = (),
) -> Iterator[Step]:
    """The step, with the model's file on `sys.path` while the block runs.

    Raises:
        LoadError: MODEL or the loss cannot be found, read or built.
        InputError: an input cannot be read or guessed.
    """
    with loading(model, trust_pickle=trust_pickle, arguments=arguments, argv=argv) as loaded:
        function = loaded.loss_named(loss) if loss else None
        loaded, found, assumed = _with_inputs(loaded, inputs)
        wanted = tuple(expect) if expect else loaded.expect
        yield Step(loaded, found, function or loaded.loss, wanted, assumed, tuple(inputs))


def _with_inputs(loaded: Loaded, specs: Sequence[str]) -> tuple[Loaded, Inputs, tuple[str, ...]]:
    """The first guess of the model that inputs are found for; the first one's error where there is none."""
    first: InputError | None = None
    for one in itertools.chain([loaded], itertools.islice(loaded.others, _MODELS)):
        try:
            guesses = one.guessed.doubtful if one.guessed is not None else ()
            return one, *given_inputs(one.model, one.inputs, specs, guesses)
        except InputError as error:
            first = first or error
    assert first is not None
    raise first
