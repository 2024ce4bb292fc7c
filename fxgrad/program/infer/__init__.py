"""Example inputs for a model that came without any: guessed from its signature and first layers, checked by a
run on fake tensors.

`infer_inputs` gives real tensors and one sentence for each thing it assumed; `inputs_from_specs` makes the
inputs that a command line writes. The model, its buffers and every random state are untouched. Not handled:
inputs that are no tensors or numbers; those go in the file's `example_inputs`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any

import torch
from torch import nn

from fxgrad.program.infer.candidates import Candidate, Ground, distinct, from_signature
from fxgrad.program.infer.lengths import lengthened
from fxgrad.program.infer.pretrained import configured, input_names, is_pretrained
from fxgrad.program.infer.probe import Arrange, FakeProber, home, real_prober, value_of
from fxgrad.program.infer.search import Found, GaveUp, confirmed, runs, search
from fxgrad.program.infer.spec import SEED, Spec, build, inputs_from_specs, parse, requiring_grad, specs_in
from fxgrad.program.infer.states import states
from fxgrad.program.infer.structures import Structure, grouped, structures
from fxgrad.program.loss import returning
from fxgrad.records import Inputs
from fxgrad.records.errors import InputError
from fxgrad.source.assigned import raises_always
from fxgrad.source.excerpt import place
from fxgrad.source.sites import line_of_error
from fxgrad.torch_api.errors import NOT_DIFFERENTIATED, says, without_derivative

__all__ = [
    "Spec",
    "build",
    "given_inputs",
    "infer_inputs",
    "inputs_from_specs",
    "larger_inputs",
    "missing_inputs",
    "other_dimensions",
    "parse",
]

_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
TRIES = 64  # for each input
_PRETRAINED_TRIES = 16  # for each set of inputs
_SHOWN = 4  # guesses in an error


def given_inputs(
    model: object, own: Inputs | None, specs: Sequence[str], guesses: Sequence[str] = ()
) -> tuple[Inputs, tuple[str, ...]]:
    """The inputs that the command line writes as `specs`, else the file's `own`, else inferred ones; and what
    had to be assumed. `guesses`: of the model's own arguments, as in `width=64`.

    Raises:
        InputError: a spec cannot be read, or an input cannot be guessed.
    """
    if not specs:
        return (own, ()) if own is not None else infer_inputs(model, guesses=guesses)
    written = inputs_from_specs(specs)
    if not missing_inputs(model, written):
        return written, ()
    return infer_inputs(model, written, guesses=guesses)


def infer_inputs(
    model: object, given: Inputs | None = None, *, guesses: Sequence[str] = ()
) -> tuple[Inputs, tuple[str, ...]]:
    """Inputs that the model runs on, with `given` among them, and what was assumed.

    `model` is a module or a callable over tensors; `guesses`: of its own arguments. The tensors are on the
    device and in the precision of the model's first parameter.

    Raises:
        InputError: an input cannot be guessed; it is named, with the `--input` to write. Or it runs on none
        as it should, and those guesses may be to blame.
    """
    inputs, found = _inferred(model, given or Inputs(), {})
    if guesses:
        _doubt(model, found, guesses)
    return inputs, _assumptions(found, _held(model))


def _doubt(model: object, found: Found, guesses: Sequence[str]) -> None:
    """Raise where the model does what it would hardly do if its arguments were meant."""
    if isinstance(found.stopped, ZeroDivisionError | NotImplementedError):
        said = next(iter(str(found.stopped).strip().splitlines()), "")
        what = f"raises {type(found.stopped).__name__}{f': {said}' if said else ''}"
        site = line_of_error(found.stopped)
        if without_derivative(said) is not None or (site is not None and raises_always(site)):
            return  # whatever they are
    elif found.nothing:
        what, site = "returns None", returning(model)
    else:
        return
    keys = " ".join(f"--arg {guess.partition('=')[0]}=..." for guess in guesses[:_SHOWN])
    more = f" and {len(guesses) - _SHOWN} more" if len(guesses) > _SHOWN else ""
    raise InputError(
        f"with {', '.join(guesses[:_SHOWN])}{more} guessed the model {what}",
        site=site,
        hint=f"write what they are, as in {keys}",
    )


def other_dimensions(model: object, given: Inputs) -> tuple[Inputs, str, str]:
    """Other inputs that the model runs on: what was guessed as rows of features is another number of
    dimensions of them; and what the guesses are and were, as `--input` writes them.

    Raises:
        InputError: there are none.
    """
    _, found = _inferred(model, given, {})
    rows = {
        name: len(one.spec.shape)
        for name, one in found.candidates.items()
        if isinstance(one.spec, Spec) and one.ground is Ground.FEATURES and "." not in name
    }
    if not rows:
        raise InputError("no input is rows of features")
    inputs, other = _inferred(model, given, rows)
    texts = [
        " --input ".join(
            str(replace(one.spec, name=name))
            for name, one in each.candidates.items()
            if name in rows and one.spec
        )
        for each in (found, other)
    ]
    return inputs, texts[0], texts[1]


def larger_inputs(model: object, given: Inputs) -> Iterator[tuple[Inputs, tuple[str, ...]]]:
    """Inputs that the model runs on of which what was guessed is longer, and what was assumed.

    Raises:
        InputError: an input cannot be guessed.
    """
    _, found = _inferred(model, given, {})
    model = _unwrapped(model)
    signature, held = _signature(model), _held(model)
    bound, positional = _bound(signature, given), not is_pretrained(model)

    def arrange(named: Mapping[str, object]) -> Inputs:
        return _arranged(signature, _assembled(named, held), positional=positional)

    fake, real = FakeProber(model, arrange), real_prober(model, arrange) if _has_indices(found) else None

    def fits(candidates: Mapping[str, Candidate]) -> bool:
        return runs(fake, candidates, bound) and (real is None or runs(real, candidates, bound))

    for candidates in lengthened(fits, found.candidates):
        inputs = arrange({**bound, **_values(candidates, model)})
        yield inputs, _assumptions(replace(found, candidates=candidates), held)


def _held(model: object) -> dict[str, Structure]:
    return {} if is_pretrained(model) else structures(_unwrapped(model))


def _unwrapped(model: object) -> object:
    while isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        model = model.module
    return model


def _inferred(model: object, given: Inputs, unlike: Mapping[str, int]) -> tuple[Inputs, Found]:
    """The inputs, and what the search found. `unlike`: by input, a number of dimensions that it must not
    have."""
    model = _unwrapped(model)
    signature, held = _signature(model), _held(model)
    bound = _bound(signature, given)
    sets, hints = [_parted(_required(signature, bound), held)], states(model, signature)
    if is_pretrained(model):
        accepted = tuple(name for name in signature.parameters if name not in bound)
        sets, hints = [*input_names(model, accepted), *sets], dict(configured(model))
    positional = not is_pretrained(model)

    def arrange(named: Mapping[str, object]) -> Inputs:
        return _arranged(signature, _assembled(named, held), positional=positional)

    failures = []
    for names in dict.fromkeys(sets):
        queues = {name: _queue(signature, name, hints, held) for name in names}
        outcome = _settled(
            model,
            arrange,
            queues,
            bound,
            tries=len(names) * TRIES if positional else _PRETRAINED_TRIES,
            unlike=unlike,
        )
        if isinstance(outcome, Found):
            outcome = _differentiated(outcome)
            return arrange({**bound, **_values(outcome.candidates, model)}), outcome
        failures.append(outcome)
    raise _failure(model, failures[0])


def _differentiated(found: Found) -> Found:
    """What was found, requiring grad where the program asks for the gradient of an input that does not."""
    if found.stopped is None or not says(str(found.stopped), NOT_DIFFERENTIATED):
        return found
    made: dict[str, Candidate] = {}
    for name, one in found.candidates.items():
        spec = requiring_grad(one.spec) if one.spec is not None else None
        asked = f"{one.why}; requires grad, for the program differentiates by an input"
        made[name] = one if spec == one.spec else replace(one, spec=spec, why=asked)
    return replace(found, candidates=made, stopped=None)


def _settled(
    model: object,
    arrange: Arrange,
    queues: Mapping[str, list[Candidate]],
    bound: Mapping[str, object],
    *,
    tries: int,
    unlike: Mapping[str, int],
) -> Found | GaveUp:
    """What the search on fake tensors finds; where values decide, what a search on real ones confirms or
    finds instead."""
    unknown = next((name for name, queue in queues.items() if not queue), None)
    if unknown is not None:
        return GaveUp(unknown, None, 0)
    found = search(FakeProber(model, arrange), queues, bound, tries=max(tries, 1), unlike=unlike)
    if isinstance(found, GaveUp) or not (found.made_up or found.beyond or _has_indices(found)):
        return found
    real = real_prober(model, arrange)
    if real is None or (not found.beyond and confirmed(real, found, bound)):
        return found
    return search(real, queues, bound, tries=max(tries, 1), unlike=unlike)


def _has_indices(found: Found) -> bool:
    """Whether an input may index something: a fake run does not see an index out of range."""
    specs = [spec for candidate in found.candidates.values() for spec in specs_in(candidate.spec)]
    return any(not spec.dtype.is_floating_point or spec.high is not None for spec in specs)


def missing_inputs(model: object, given: Inputs) -> tuple[str, ...]:
    """The names of inputs that a call needs and that are not given.

    Raises:
        InputError: the model takes no such inputs.
    """
    signature = _signature(model)
    return _required(signature, _bound(signature, given))


def _signature(model: Any) -> inspect.Signature:
    while isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        model = model.module
    try:
        return inspect.signature(model.forward if isinstance(model, nn.Module) else model)
    except (TypeError, ValueError):
        return inspect.Signature([inspect.Parameter("input", inspect.Parameter.POSITIONAL_ONLY)])


def _bound(signature: inspect.Signature, given: Inputs) -> dict[str, object]:
    """The given inputs by name; of `*args` as `args.0`, `args.1`."""
    try:
        arguments = signature.bind_partial(*given.args, **dict(given.kwargs)).arguments
    except TypeError as error:
        takes = ", ".join(signature.parameters) or "nothing"
        raise InputError(f"the inputs do not fit the model: {error}", hint=f"forward takes {takes}") from None
    named: dict[str, object] = {}
    for name, value in arguments.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            named.update({f"{name}.{position}": item for position, item in enumerate(value)})
        elif kind is inspect.Parameter.VAR_KEYWORD:
            named.update(value)
        else:
            named[name] = value
    return named


def _required(signature: inspect.Signature, bound: Mapping[str, object]) -> tuple[str, ...]:
    """Parameters without a default and without a value; one input for a forward that only takes `*args`."""
    parameters = signature.parameters.values()
    names = [
        p.name for p in parameters if p.default is p.empty and p.kind not in _VARIABLE and p.name not in bound
    ]
    variable = next((p.name for p in parameters if p.kind is inspect.Parameter.VAR_POSITIONAL), None)
    if not names and not bound and variable and not any(p.kind not in _VARIABLE for p in parameters):
        return (f"{variable}.0",)
    return tuple(names)


def _parted(names: Sequence[str], held: Mapping[str, Structure]) -> tuple[str, ...]:
    """The inputs to search for: of one that holds tensors, each part."""
    return tuple(part for name in names for part in (held[name].parts(name) if name in held else (name,)))


def _assembled(named: Mapping[str, object], held: Mapping[str, Structure]) -> Mapping[str, object]:
    whole = dict(named)
    for name, structure in held.items():
        parts = structure.parts(name)
        if all(part in whole for part in parts):
            whole[name] = structure.assembled([whole.pop(part) for part in parts])
    return whole


def _queue(
    signature: inspect.Signature,
    name: str,
    hints: Mapping[str, list[Candidate]],
    held: Mapping[str, Structure],
) -> list[Candidate]:
    whole = name.partition(".")[0]
    if whole in held:
        structure = held[whole]
        label = structure.labels[structure.parts(whole).index(name)]
        return distinct(from_signature(inspect.Parameter(label, inspect.Parameter.POSITIONAL_ONLY)))
    parameter = signature.parameters.get(name) or inspect.Parameter(
        name.partition(".")[0], inspect.Parameter.POSITIONAL_ONLY
    )
    return distinct([*hints.get(name, []), *from_signature(parameter)])


def _arranged(signature: inspect.Signature, named: Mapping[str, object], *, positional: bool) -> Inputs:
    """Named values as a call: by position as long as none is left out, then by keyword."""
    args: list[object] = []
    left = dict(named)
    for parameter in signature.parameters.values():
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            args += [left.pop(key) for key in list(left) if key.startswith(f"{parameter.name}.")]
            continue
        by_place = parameter.kind is inspect.Parameter.POSITIONAL_ONLY
        if parameter.name not in left or not (
            by_place or (positional and parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD)
        ):
            break
        args.append(left.pop(parameter.name))
    return Inputs(tuple(args), left)


def _values(candidates: Mapping[str, Candidate], model: object) -> dict[str, object]:
    generator, place = torch.Generator().manual_seed(SEED), home(model)
    return {name: value_of(candidate, generator, place) for name, candidate in candidates.items()}


def _assumptions(found: Found, held: Mapping[str, Structure]) -> tuple[str, ...]:
    lines = [*_guessed(found, held)]
    if found.made_up:
        lines.append(
            "the inputs were checked with made-up values where the program asks for the value of a tensor"
        )
    if found.stopped is not None:
        site = line_of_error(found.stopped)
        where = place(site) if site else "a step"
        why = "needs the data itself" if found.beyond else f"raises {type(found.stopped).__name__}"
        lines.append(f"the inputs were checked as far as {where}, where the program {why}")
    return tuple(lines)


def _guessed(found: Found, held: Mapping[str, Structure]) -> Iterator[str]:
    """One line for each input, as `--input` writes it, with the reason."""
    specs = {name: one.spec for name, one in found.candidates.items() if one.spec is not None}
    whole = grouped(specs, held)
    for name in held.keys() & whole.keys():
        reads = "reads it by key" if held[name].keys else "unpacks it"
        whys = dict.fromkeys(found.candidates[part].reason for part in held[name].parts(name))
        yield f"--input {whole[name]} (forward {reads}; {'; '.join(whys)})"
    for name, candidate in found.candidates.items():
        if name in specs and name not in whole:
            continue
        spec = candidate.spec and replace(candidate.spec, name=None if "." in name else name)
        option = f"--input {spec}" if spec else f"{name}={candidate.value!r}"
        yield f"{option} ({candidate.reason})"


def _reads_several(model: object, error: Exception) -> str | None:
    """The name of `*args` that the program takes more of than there is; None where that is not the error."""
    last: TracebackType | None = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if not isinstance(error, IndexError) or last is None:
        return None
    variable = [p.name for p in _signature(model).parameters.values() if p.kind is p.VAR_POSITIONAL]
    return next((name for name in variable if name in last.tb_frame.f_code.co_varnames), None)


def _failure(model: object, outcome: GaveUp) -> InputError:
    name = (outcome.name or "x").partition(".")[0]
    where = (
        f"{type(model).__name__}.forward"
        if isinstance(model, nn.Module)
        else getattr(model, "__name__", "the model")
    )
    if outcome.error is None:
        hint = "define `example_inputs` in the model's file"
        return InputError(f"the input `{name}` of {where} cannot be guessed: it is no tensor", hint=hint)
    first = next(iter(str(outcome.error).strip().splitlines()), "")
    tried = f"the last of {outcome.tries}{', all that there was time for,' if outcome.out_of_time else ''}"
    reason = (
        f"no guess for the input `{name}` of {where} ran; {tried} raised "
        f"{type(outcome.error).__name__}: {first}"
    )
    spec = outcome.proposal.spec if outcome.proposal is not None else None
    written = replace(spec, name=name) if spec is not None else f"{name}=2x3x224x224:float32"
    furthest = {key: one.spec for key, one in outcome.reached.items() if isinstance(one.spec, Spec)}
    beside = " ".join(
        f"--input {replace(one, name=key)}" for key, one in furthest.items() if key.partition(".")[0] != name
    )
    came = f" beside {beside}, with which it came furthest" if beside else ""
    hint = f"write it, as in --input {written}{came}, or define `example_inputs` in the model's file"
    several = _reads_several(model, outcome.error)
    if several is not None:
        own = replace(furthest[name], name=None) if name in furthest else "2x3x224x224:float32"
        hint = (
            f"forward reads more of `*{several}` than it is given: write every input in its order, as in "
            f"--input {own} --input 2x64:float32, or define `example_inputs` in the model's file"
        )
    if name in _held(model):
        hint = "define `example_inputs` in the model's file: forward takes several tensors in it"
    error = InputError(reason, site=line_of_error(outcome.error), hint=hint)
    error.__cause__ = outcome.error
    return error
